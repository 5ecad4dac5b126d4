"""Training of the context model: on single pixels, mostly those whose neighbours say something.

Step ``s`` sees pixels that follow from ``fold_in(key(seed), s)``, so that a state is all that is
needed to resume exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from cvae_jax.errors import DataError, TrainingError
from cvae_jax.modules import Params
from cvae_jax.refinement import neighbours
from cvae_jax.refinement.canvas import near
from cvae_jax.refinement.neighbours import AROUND, CAUSAL, MARGIN
from cvae_jax.refinement.network import ContextNetwork, Contexts, apply, init_params, nats

HIDDEN = (144, 64)
BATCH = 4096  # pixels
LEARNING_RATE = 5e-3
AVERAGE_DECAY = 0.998
WITHOUT_BASE = 0.15  # share of pixels that are learnt without the base, as some images are coded
# Share of a batch that has a neighbour other than 0.  The rest are many and all alike; each pixel
# is weighted by how rarely it is drawn.
TELLING = 0.85
# Of some images, a second time as files with a largest error have them: one in so many for each.
MAX_ERRORS = (1, 2, 4, 8)
IMAGES_PER_ERROR = 6

# Changes when any of these does, so that a training goes on only as it began.
RECIPE = (
    HIDDEN,
    BATCH,
    LEARNING_RATE,
    AVERAGE_DECAY,
    WITHOUT_BASE,
    TELLING,
    MAX_ERRORS,
    IMAGES_PER_ERROR,
)


class State(NamedTuple):
    step: Array  # int32
    params: Params
    average: Params  # running average of params: what is kept
    opt_state: optax.OptState


class Pixels(NamedTuple):
    """Training images and what is known of their pixels, on the device."""

    levels: Array  # uint8 [N, C, H, W]
    max_error: Array  # uint8 [N]
    # uint8 [N, C, H + 2 * MARGIN, W + 2 * MARGIN], as a file with that error has them.
    images: Array
    base: Array  # the same of the base, as coarse as it is seen
    expected: Array  # uint8 [N, C, H, W]
    # int32, numbers of the pixels of [N, C, H, W] that are not 0, or have a neighbour that is not.
    telling: Array
    silent: Array  # of all others


def pixels(images: np.ndarray, base: np.ndarray) -> Pixels:
    """images, base: uint8 ``[N, H, W, C]``; some are learnt a second time, with an error.

    Raises:
      DataError: more pixels than can be numbered, or none.
    """
    again = len(images) * len(MAX_ERRORS) // IMAGES_PER_ERROR
    if not 0 < images[:1].size * (len(images) + again) < 1 << 31:
        raise DataError(f"{len(images)} images to train the context model on; expected some, and "
                        f"less than 2 ** 31 pixels")  # fmt: skip
    some = np.arange(again)
    errors = np.concatenate([np.zeros(len(images), np.uint8), np.resize(MAX_ERRORS, again)])
    base = np.concatenate([base, base[some]])
    levels = np.concatenate([images, images[some]])
    known = [neighbours.padded(x) for x in (levels, neighbours.coarse(base))]
    for error in MAX_ERRORS:
        which = np.flatnonzero(errors == error)
        known[0][..., which] = neighbours.padded(near(levels[which], error))
    expected = _expected(known[0])
    telling = _telling(*known)
    by_image = (x.transpose(3, 0, 1, 2) for x in (*known, expected, telling))
    padded, padded_base, expected, telling = map(np.ascontiguousarray, by_image)
    numbers = (np.flatnonzero(telling).astype(np.int32), np.flatnonzero(~telling).astype(np.int32))
    levels = np.ascontiguousarray(levels.transpose(0, 3, 1, 2))
    return Pixels(*jax.device_put((levels, errors, padded, padded_base, expected, *numbers)))


def _expected(padded: np.ndarray) -> np.ndarray:
    """``neighbours.expected`` of every pixel, uint8 ``[C, H, W, N]``."""
    missed = neighbours.missed(padded)
    inner = slice(MARGIN, -MARGIN)
    alone = padded[:, inner, inner] - missed
    alone[1:] = np.clip(alone[1:] + missed[:-1], 0, 255)
    return alone.astype(np.uint8)


def _telling(padded: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Which pixels of ``[C, H, W, N]`` are not 0, or have a neighbour that is not."""
    channels, height, width = (s - 2 * MARGIN * (k > 0) for k, s in enumerate(padded.shape[:3]))

    def moved(x: np.ndarray, row: int, column: int) -> np.ndarray:
        at = (
            slice(MARGIN + row, MARGIN + row + height),
            slice(MARGIN + column, MARGIN + column + width),
        )
        return x[:, at[0], at[1]] != 0

    found = moved(padded, 0, 0)
    for row, column in CAUSAL:
        found |= moved(padded, row, column)
    for row, column in AROUND:
        found |= moved(base, row, column)
        for channel in range(1, channels):
            found[channel] |= moved(padded[:channel], row, column).any(0)
    return found


def contexts(known: Pixels, number: Array, based: Array) -> tuple[Contexts, Array]:
    """What pixels depend on, and their levels, uint8 ``[B]``.

    number: int32 ``[B]``, in ``[N, C, H, W]``; based: bool ``[B]``.
    """
    image, channel, row, column = jnp.unravel_index(number, known.expected.shape)

    def around(images: Array, channel: Array, offsets: tuple) -> Array:
        rows, columns = np.array(offsets).T + MARGIN
        at = (row[:, None] + rows, column[:, None] + columns)
        return images[image[:, None], channel[:, None], *at]

    base = jnp.where(based[:, None], around(known.base, channel, AROUND), 0)
    earlier = [
        jnp.where(
            (k < channel)[:, None], around(known.images, jnp.full_like(channel, k), AROUND), 0
        )
        for k in range(known.expected.shape[1] - 1)
    ]
    values = jnp.concatenate([around(known.images, channel, CAUSAL), base, *earlier], axis=1)
    expected = known.expected[image, channel, row, column]
    error = known.max_error[image]
    given = Contexts(values, expected, based, error, row, column, channel)
    return given, known.levels[image, channel, row, column]


def learning_rate(steps: int) -> optax.Schedule:
    return optax.warmup_cosine_decay_schedule(0.0, LEARNING_RATE, min(300, steps // 10), steps)


def init_state(network: ContextNetwork, steps: int, seed: int) -> State:
    params = init_params(network, jax.random.key(seed))
    opt_state = optax.adam(learning_rate(steps)).init(params)
    return State(jnp.zeros((), jnp.int32), params, jax.tree.map(jnp.copy, params), opt_state)


def make_step(network: ContextNetwork, steps: int) -> Callable:
    """``step(state, pixels, key) -> (state, bits per pixel)``, jitted; the old state is donated."""
    optimizer = optax.adam(learning_rate(steps))

    def draw(known: Pixels, key: Array) -> tuple[Array, Array]:
        """Numbers of pixels, and how much each counts."""
        parts, weights, total = [], [], known.expected.size
        shares = (TELLING, 1 - TELLING) if len(known.telling) and len(known.silent) else (1.0, 1.0)
        for numbers, share, part_key in zip(
            (known.telling, known.silent), shares, jax.random.split(key), strict=True
        ):
            if len(numbers):
                count = round(BATCH * share)
                parts.append(numbers[jax.random.randint(part_key, (count,), 0, len(numbers))])
                weights.append(jnp.full(count, len(numbers) / total / count, jnp.float32))
        return jnp.concatenate(parts), jnp.concatenate(weights)

    def step(state: State, known: Pixels, key: Array) -> tuple[State, Array]:
        of_pixels, of_base = jax.random.split(jax.random.fold_in(key, state.step))
        number, weight = draw(known, of_pixels)
        based = jax.random.uniform(of_base, number.shape) >= WITHOUT_BASE
        given, level = contexts(known, number, based)

        def loss(params: Params) -> Array:
            return (weight * nats(apply(network, params, given), level, given)).sum()

        value, gradient = jax.value_and_grad(loss)(state.params)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        decay = jnp.minimum(AVERAGE_DECAY, (1 + state.step) / (10 + state.step))
        average = jax.tree.map(lambda a, p: p + decay * (a - p), state.average, params)
        return State(state.step + 1, params, average, opt_state), value / jnp.log(2)

    return jax.jit(step, donate_argnums=0)


def run(
    network: ContextNetwork, state: State, known: Pixels, steps: int, seed: int
) -> Iterator[tuple[State, float]]:
    """Trains from ``state`` to the last step, yielding each state and its bits per pixel.

    A yielded state is valid until the iterator advances.

    Raises:
      TrainingError: the loss is not finite.
    """
    advance, key = make_step(network, steps), jax.device_put(jax.random.key(seed))
    for step in range(int(state.step), steps):
        state, bits = advance(state, known, key)
        value = float(bits)
        if not np.isfinite(value):
            raise TrainingError(f"the context model's loss became {value} at step {step + 1}")
        yield state, value
