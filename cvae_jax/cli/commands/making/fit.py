"""``cvae fit``: a model of one's own images in a given time, and an archive of them.

A thin front to ``train``, ``calibrate``, ``release`` and ``compress``: it looks at the images,
chooses, and plans.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from cvae_jax import backend, data
from cvae_jax.bitstream.budget import ACTIVATIONS
from cvae_jax.cli.commands.making import choice, comparison
from cvae_jax.cli.commands.making.state import (
    PLANNING,
    RELEASED,
    RELEASING,
    TRAINING,
    Places,
    State,
)
from cvae_jax.cli.reports import Report, counted
from cvae_jax.coding import quantize
from cvae_jax.config import PRESETS, Config, ModelConfig
from cvae_jax.data.holdout import TrainingData
from cvae_jax.data.sources import Source, spread, to_memory
from cvae_jax.data.sources.images import words
from cvae_jax.errors import ConfigError, DataError, explained, needs
from cvae_jax.exact.from_params import architecture_of
from cvae_jax.file_model import check_costs
from cvae_jax.jobs.names import check_unpackable

with needs("train", "cvae fit"):
    from cvae_jax.runs import release, run
    from cvae_jax.runs.run import budget

LOOKED_AT = 1024  # images that the preset is chosen by
SIZES_SHOWN = 5
MOST_MINUTES = 366 * 24 * 60

Say = Callable[[str], None]


def fit(args: Namespace) -> Report:
    started = time.monotonic()

    def say(line: str) -> None:
        print(line, file=sys.stderr if args.json else sys.stdout, flush=True)

    backend.dispatch_inline()
    if args.quality is not None and not args.archive:
        raise ConfigError("--quality is that of the archive; add --archive OUT.cvae")
    if args.minutes > MOST_MINUTES:
        raise ConfigError(f"--minutes {args.minutes:g}: at most {MOST_MINUTES}, a year")
    quality = quantize.DEFAULT_QUALITY if args.quality is None else args.quality
    quantize.step(quality)  # raises ConfigError
    places = Places.of(args)
    state = places.begun(args)
    places.check(args.dataset, state, force=args.force)

    seen = data.survey(args.dataset, args.data_dir)
    shape = one_shape(args.dataset, seen.shapes, args.resize)
    if args.archive and seen.names:
        check_unpackable(seen.names)

    def opened(split: str) -> Source:
        return data.open(
            args.dataset, split, args.data_dir, image_size=shape[:2], channels=shape[2]
        )

    try:
        state = _model(args, places, state, opened, started, say)
    except run.Interrupted as stop:
        print(f"{stop}; the same command goes on from there", file=sys.stderr)
        return Report({}, [], stop.exit_code)
    values: dict[str, Any] = {
        "model": str(places.model),
        "epochs": state.epochs,
        "images_per_epoch": state.images,
    }
    lines = [f"{places.model}: released; its model card is {places.model / 'README.md'}"]
    if places.archive:
        say(f"compressing {args.dataset}, then the same by others")
        images = opened("all")
        comparison.compressed(
            places.model, images, seen.names, places.archive, quality, force=args.force
        )
        compared = comparison.compare(places.archive.path, images)
        values["archive"] = compared.to_dict()
        lines += compared.lines()
    if args.workdir is None:
        with explained(f"remove {places.workdir}"):
            shutil.rmtree(places.workdir)
    return Report(values, lines)


def one_shape(name: str, shapes: Counter[tuple[int, ...]], size: Any) -> tuple[int, int, int]:
    """The shape ``[H, W, C]`` to train on; where some images are coloured, grey ones count as such.

    size: height and width that images are stretched to, or None.

    Raises:
      DataError: the images are of several sizes.
    """
    sizes = Counter[tuple[int, ...]]()
    for shape, count in shapes.items():
        sizes[shape[:2]] += count
    if len(sizes) > 1 and size is None:
        common = sizes.most_common()
        told = ", ".join(f"{count} of {h}x{w}" for (h, w), count in common[:SIZES_SHOWN])
        rest = sum(count for _, count in common[SIZES_SHOWN:])
        more = f", and {rest} more of {len(sizes) - SIZES_SHOWN} others" if rest else ""
        raise DataError(
            f"{name}: images of {len(sizes)} sizes (height x width): {told}{more}; --resize HxW "
            "stretches all to one"
        )
    h, w = size or next(iter(sizes))
    return h, w, max(shape[2] for shape in shapes)


def check_readable(model: ModelConfig) -> None:
    """Raises ConfigError for images of which readers would refuse files."""
    try:
        check_costs(model.image_shape, {ACTIVATIONS: architecture_of(model).memory()})
    except ConfigError as error:
        raise ConfigError(f"{error}, or --resize") from error


def _model(
    args: Namespace,
    places: Places,
    state: State | None,
    opened: Callable[[str], Source],
    started: float,
    say: Say,
) -> State:
    """Trains, calibrates and releases, or goes on with that.

    Raises: as ``run.train`` and ``release``.
    """
    train, test = opened("train"), opened("test")
    config, why = _config(args.preset, train)
    check_readable(config.model)
    images = TrainingData.split(args.dataset, train, test, config.train.validation_fraction)
    del train  # what was in memory has been copied
    batch = budget.batch_size(config.train.batch_size, len(images.train))
    config = config.replace(batch_size=batch)
    parts = ", ".join(f"{count} {part}" for part, count in images.sizes.items())
    say(f"{args.dataset}: {words(config.model.image_shape)}, {parts}; {why}")
    if state is not None and state.fingerprint != images.fingerprint:
        if not args.force:
            raise ConfigError(
                f"{places.workdir} holds a fit of other images than {args.dataset} has now; -f "
                "starts anew, or name another --workdir"
            )
        state = None
    if state is not None and state.stage == RELEASED and places.has_model():
        return state
    if state is None:
        state = places.prepare(args, images.fingerprint)
    if state.stage == PLANNING:
        seconds = args.minutes * 60
        speed = budget.measure(config, images, places.workdir, seconds)
        left = seconds - (time.monotonic() - started)
        made = budget.plan(left, speed, batch, len(images.train))
        state = state._replace(epochs=made.epochs, images=made.images)
        state = state.at(TRAINING, places.workdir)
    else:
        say(f"going on with {places.workdir}")
    say(
        f"{args.minutes:g} minutes: about {counted(state.epochs, 'epoch')} of "
        f"{counted(state.images, 'image')}, then calibration and release; stopped, the same "
        "command goes on"
    )
    some = dataclasses.replace(images, train=_part(images.train, state.images))
    run.train(config.replace(epochs=state.epochs), some, places.workdir, say=say)
    state = state.at(RELEASING, places.workdir)
    places.clear_model()
    release.release(places.workdir, places.model, args.data_dir)
    say(f"trained, calibrated and released in {(time.monotonic() - started) / 60:.1f} minutes")
    return state.at(RELEASED, places.workdir)


def _part(images: Source, count: int) -> Source:
    """So many images, in memory where all are."""
    part = spread(images, count)
    return to_memory(part) if isinstance(images, np.ndarray) else part


def _config(preset: str | None, train: Source) -> tuple[Config, str]:
    """The settings for images like these, and the preset with the reason for it."""
    if preset is None:
        preset, reason = choice.choose(to_memory(spread(train, LOOKED_AT)))
    else:
        reason = "as --preset says"
    shape = dict(zip(("height", "width", "channels"), train.shape[1:], strict=True))
    # Lossless files need a context model, and time for it: cvae calibrate --context-steps.
    return PRESETS[preset].replace(**shape, context_steps=0), f"preset {preset}: {reason}"
