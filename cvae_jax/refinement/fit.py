"""A context model from images and their bases: trained, in integers, and told what is usual."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from cvae_jax.coding.streams import CodingTables
from cvae_jax.errors import ConfigError, explained
from cvae_jax.files import whole
from cvae_jax.modules import Params, named_leaves
from cvae_jax.refinement import encoder, neighbours, training
from cvae_jax.refinement.encoder import Base
from cvae_jax.refinement.from_params import quantize_context
from cvae_jax.refinement.integers import ContextModel
from cvae_jax.refinement.network import ContextNetwork, Contexts

SECONDS_BETWEEN_SAVES = 20
BASE_QUALITIES = (20, 35, 50)  # each of a third of the images
MOST_VALUES = 50_000_000  # of the images that it learns from
FITTED = 8192  # pixels that the integers are fitted to
MEASURED, USUAL = 256, 0.9  # images whose sizes are measured, and the quantile that is usual


def fit(
    images: np.ndarray,
    base_of: Callable[[np.ndarray, float], Base],
    tables: CodingTables,
    steps: int,
    seed: int,
    partial: Path,
) -> ContextModel:
    """The context model of images, uint8 ``[N, H, W, C]``.

    base_of: their base at a quality; tables: that it is coded with; partial: a file for the state
    of the training, where one that was stopped goes on, to end with the same bytes.

    Raises:
      ConfigError: integers cannot compute the model exactly, or images have too many channels.
      DataError: there are no images.
      TrainingError: the loss is not finite.
    """
    if images.shape[3] > neighbours.MAX_CHANNELS:
        raise ConfigError(
            f"context models are of images of {neighbours.MAX_CHANNELS} channels at most, not "
            f"{images.shape[3]}: leave it out with --context-steps 0"
        )
    if len(images):
        images = images[: max(MOST_VALUES // images[0].size, 1)]
    bases = np.empty_like(images)
    for k, quality in enumerate(BASE_QUALITIES):
        some = slice(k, None, len(BASE_QUALITIES))
        bases[some] = base_of(images[some], quality).levels
    known = training.pixels(images, bases)
    image_shape: Any = images.shape[1:]
    network = ContextNetwork(image_shape, training.HIDDEN)
    recipe = hashlib.sha256(f"{training.RECIPE} {steps} {seed} {images.shape}".encode())
    recipe.update(images.tobytes() + bases.tobytes())
    trained = _trained(network, known, steps, seed, partial, recipe.digest())
    made = quantize_context(trained, image_shape, _sample(known, seed))
    made = _measured(made, images[:MEASURED], base_of, tables)
    return ContextModel.from_bytes(made.packed)


def _measured(
    model: ContextModel,
    images: np.ndarray,
    base_of: Callable[[np.ndarray, float], Base],
    tables: CodingTables,
) -> ContextModel:
    """The model with what is for encoders: the best quality of a base, and the usual size."""
    sizes: dict[int | None, np.ndarray] = {
        quality: encoder.bits(images, base_of(images, quality), tables, model, max_error=0)
        for quality in BASE_QUALITIES
    }
    sizes[None] = encoder.bits(images, None, tables, model, max_error=0)
    best = min(sizes, key=lambda quality: sizes[quality].sum())
    usual = min(float(np.quantile(sizes[best], USUAL)) / (8 * images[0].size), 1.0)
    return dataclasses.replace(model, base_quality=best, usual=usual)


def _trained(
    network: ContextNetwork,
    known: training.Pixels,
    steps: int,
    seed: int,
    partial: Path,
    recipe: bytes,
) -> Params:
    """The parameters after the last step, from the state in ``partial`` if it is of this recipe."""
    state = _load(partial, recipe, training.init_state(network, steps, seed))
    saved = time.monotonic()
    with tqdm(
        total=steps,
        initial=int(state.step),
        desc="context model",
        unit="step",
        disable=not sys.stderr.isatty(),
    ) as bar:
        for newest, bits in training.run(network, state, known, steps, seed):
            state = newest
            bar.update()
            bar.set_postfix_str(f"{bits:.3f} bits per pixel", refresh=False)
            if time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
                _save(partial, recipe, state)
                saved = time.monotonic()
    return jax.device_get(state.average)


def _save(partial: Path, recipe: bytes, state: training.State) -> None:
    leaves: dict[str, Any] = {f"state/{k}": np.asarray(v) for k, v in named_leaves(state).items()}
    file = io.BytesIO()
    np.savez(file, recipe=np.frombuffer(recipe, np.uint8), **leaves)
    with explained(f"write {partial}"), whole(partial, force=True) as out:
        out.write(file.getvalue())


def _load(partial: Path, recipe: bytes, fresh: training.State) -> training.State:
    """The saved state; ``fresh`` where there is none, one of another recipe, or a damaged one."""
    try:
        with zipfile.ZipFile(partial), np.load(partial) as stored:
            if stored["recipe"].tobytes() != recipe:
                return fresh
            leaves = [stored[f"state/{name}"] for name in named_leaves(fresh)]
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        return fresh
    expected = [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(fresh)]
    if [(leaf.shape, leaf.dtype) for leaf in leaves] != expected:
        return fresh
    state: Any = jax.tree.unflatten(jax.tree.structure(fresh), leaves)
    return jax.device_put(state)


def _sample(known: training.Pixels, seed: int) -> Contexts:
    """Contexts to fit integers to: of pixels whose neighbours say something, if there are such."""
    rng = np.random.default_rng(seed)
    numbers = np.asarray(known.telling if len(known.telling) else known.silent)
    number = rng.choice(numbers, min(FITTED, len(numbers)), replace=False)
    based = rng.random(len(number)) >= training.WITHOUT_BASE
    return jax.device_get(training.contexts(known, jnp.asarray(number), jnp.asarray(based))[0])
