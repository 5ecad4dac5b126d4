"""The training loop: a pure step, explicit randomness, nothing that depends on the clock.

Step ``s`` of a run uses the noise of ``fold_in(key(seed), s)`` and the images that the
shuffled order of epoch ``s // steps_per_epoch`` names, so a state and its step number are all
that is needed to resume exactly.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from cvae_jax import backend
from cvae_jax.config import Config, TrainConfig
from cvae_jax.errors import TrainingError
from cvae_jax.losses import elbo
from cvae_jax.modules import Params, autoencode, init_params
from cvae_jax.pixels import to_unit

Metrics = dict[str, Array]


class TrainState(NamedTuple):
    step: Array  # int32, optimiser steps taken
    params: Params
    average: Params  # running average of params: what is evaluated and kept
    opt_state: optax.OptState
    sums: Metrics  # of each metric over the steps of the current epoch


class Dispatch(NamedTuple):
    """What the loop reports after a step (an epoch, where an epoch is one dispatch)."""

    state: TrainState
    step: int
    metrics: dict[str, float]  # of the newest step whose metrics are ready


def steps_per_epoch(config: TrainConfig, images: int) -> int:
    """Whole batches only; the images left over have their turn in other epochs.

    Raises:
      TrainingError: there are fewer images than one batch.
    """
    if images < config.batch_size:
        raise TrainingError(
            f"{images} training images do not fill one batch of {config.batch_size}: "
            "use a smaller --batch-size"
        )
    return images // config.batch_size


def epoch_order(config: TrainConfig, epoch: int, images: int) -> np.ndarray:
    """Which images each step of an epoch sees: int32 ``[steps, batch]``, from (seed, epoch)."""
    steps = steps_per_epoch(config, images)
    order = np.random.default_rng([config.seed, epoch]).permutation(images)
    return order[: steps * config.batch_size].reshape(steps, -1).astype(np.int32)


def learning_rate(config: TrainConfig, total_steps: int) -> optax.Schedule:
    if config.schedule == "constant":
        return optax.constant_schedule(config.learning_rate)
    return optax.warmup_cosine_decay_schedule(
        0.0,
        config.learning_rate,
        warmup_steps=min(500, total_steps // 10),
        decay_steps=total_steps,
    )


def optimizer(config: TrainConfig, total_steps: int) -> optax.GradientTransformation:
    return optax.adam(learning_rate(config, total_steps))


def init_state(config: Config, total_steps: int) -> TrainState:
    params = init_params(config.model, jax.random.key(config.train.seed))
    names = ("loss", config.train.reconstruction, "kl")
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        average=jax.tree.map(jnp.copy, params),
        opt_state=optimizer(config.train, total_steps).init(params),
        sums={name: jnp.zeros((), jnp.float32) for name in names},
    )


def loss_and_gradient(
    config: Config, params: dict, images: Array, noise: Array, microbatch: int
) -> tuple[Metrics, dict]:
    """Metrics and gradient of the mean loss of a batch, a microbatch at a time.

    images: uint8 ``[B, H, W, C]``; noise: ``[B, D]``.  ``microbatch`` affects the result only by
    rounding.
    """
    recipe = config.train

    def loss(params, images, noise):
        x = to_unit(images)
        output = autoencode(params, x, noise, config.model, jnp.dtype(recipe.compute_dtype))
        return elbo(output, x, recipe.reconstruction, recipe.beta)

    def of_microbatch(images, noise):
        gradient, metrics = jax.grad(loss, has_aux=True)(params, images, noise)
        return metrics, gradient

    batch = len(images)
    whole = batch - batch % microbatch
    if whole == 0 or batch == microbatch:
        return of_microbatch(images, noise)

    def weighted(weight, tree):
        return jax.tree.map(lambda leaf: leaf * (weight / batch), tree)

    def body(total, piece):
        return jax.tree.map(jnp.add, total, weighted(microbatch, of_microbatch(*piece))), None

    pieces = [a[:whole].reshape(-1, microbatch, *a.shape[1:]) for a in (images, noise)]
    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
        jax.eval_shape(of_microbatch, images[:1], noise[:1]),
    )
    total, _ = lax.scan(body, zeros, tuple(pieces))
    if whole < batch:
        rest = weighted(batch - whole, of_microbatch(images[whole:], noise[whole:]))
        total = jax.tree.map(jnp.add, total, rest)
    return total


def train_step(
    config: Config, total_steps: int, state: TrainState, data: Array, order: Array, key: Array
) -> tuple[TrainState, Metrics]:
    """One optimiser step: ``(next state, metrics of the batch)``.

    data: uint8 ``[N, H, W, C]``, all training images; order: ``[steps, B]`` of the
    current epoch; key: the run's base key.
    """
    at = state.step % len(order)
    images = data[order[at]]
    noise = jax.random.normal(
        jax.random.fold_in(key, state.step), (len(images), config.model.latent_dim), jnp.float32
    )
    metrics, gradient = loss_and_gradient(
        config, state.params, images, noise, backend.microbatch_size()
    )
    updates, opt_state = optimizer(config.train, total_steps).update(
        gradient, state.opt_state, state.params
    )
    params = optax.apply_updates(state.params, updates)
    # A young average follows closely, so that it forgets where the run started.
    decay = jnp.minimum(config.train.average_decay, (1 + state.step) / (10 + state.step))
    average = jax.tree.map(lambda a, p: p + decay * (a - p), state.average, params)
    sums = {k: jnp.where(at == 0, 0.0, state.sums[k]) + metrics[k] for k in metrics}
    return TrainState(state.step + 1, params, average, opt_state, sums), metrics


def make_advance(config: Config, total_steps: int) -> Callable:
    """``advance(state, data, order, key) -> (state, metrics)``, jitted; the old state is donated.

    Takes one step, or finishes the epoch if an epoch is one dispatch (``backend``).
    """
    step = functools.partial(train_step, config, total_steps)

    def to_end_of_epoch(state, data, order, key):
        return lax.fori_loop(
            state.step % len(order),
            len(order),
            lambda _, carry: step(carry[0], data, order, key),
            (state, state.sums),
        )

    whole = backend.epoch_is_one_dispatch()
    return jax.jit(to_end_of_epoch if whole else step, donate_argnums=0)


def run(config: Config, state: TrainState, images: np.ndarray) -> Iterator[Dispatch]:
    """Trains from ``state`` to the end of the configured epochs, yielding after every dispatch.

    images: uint8 ``[N, H, W, C]``.  A yielded state is valid until the iterator advances.

    Raises:
      TrainingError: the loss is not finite, or there are fewer images than one batch.
    """
    per_epoch = steps_per_epoch(config.train, len(images))
    total_steps = config.train.epochs * per_epoch
    advance = make_advance(config, total_steps)
    data, key = jax.device_put((images, jax.random.key(config.train.seed)))
    step = int(state.step)
    order = previous = None
    while step < total_steps:
        epoch, at = divmod(step, per_epoch)
        if at == 0 or order is None:
            order = jax.device_put(epoch_order(config.train, epoch, len(images)))
        with jax.transfer_guard("disallow"):
            state, metrics = advance(state, data, order, key)
        step += per_epoch - at if backend.epoch_is_one_dispatch() else 1
        # Reading these metrics would wait for the step; the previous ones are ready.  At the end
        # of an epoch they are read all the same, so that no diverged state is kept.
        ready = metrics if previous is None or step % per_epoch == 0 else previous
        yield Dispatch(state, step, _read(ready, step))
        previous = metrics


def epoch_means(state: TrainState, steps: int) -> dict[str, float]:
    """The mean metrics over the epoch that ``state`` has just finished."""
    return {name: float(total) / steps for name, total in state.sums.items()}


def _read(metrics: Metrics, step: int) -> dict[str, float]:
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    if not np.isfinite(values["loss"]):
        raise TrainingError(
            f"the loss became {values['loss']} at about step {step}; the last checkpoint is kept: "
            "start again with a lower --learning-rate"
        )
    return values
