"""The training loop: a pure step, explicit randomness, nothing that depends on the clock.

Step ``s`` of a run uses the noise of ``fold_in(key(seed), s)`` and the images that the
shuffled order of epoch ``s // steps_per_epoch`` names, so a state and its step number are all
that is needed to resume exactly.

The batch is shared out among all devices, of this process and of others (``backend.mesh``);
parameters are the same on each of them.  Images and noise belong to the step and not to a device,
so the number of devices changes a run only by rounding.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cvae_jax import backend
from cvae_jax.backend import BATCH
from cvae_jax.config import Config, TrainConfig
from cvae_jax.data import feed
from cvae_jax.data.sources import Source
from cvae_jax.errors import ConfigError, TrainingError
from cvae_jax.losses import elbo
from cvae_jax.modules import Params, autoencode, init_params
from cvae_jax.pixels import to_unit

Metrics = dict[str, Array]
Batches = Callable[[Source, Sequence[np.ndarray], int], Iterator[np.ndarray]]  # ``feed.batches``

REPLICATED, SHARED = PartitionSpec(), PartitionSpec(BATCH)  # among the devices


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
    if batch <= microbatch:
        return of_microbatch(images, noise)

    def weighted(images, noise):
        share = len(images) / batch
        return jax.tree.map(lambda leaf: leaf * share, of_microbatch(images, noise))

    whole = batch - batch % microbatch
    pieces = [a[:whole].reshape(-1, microbatch, *a.shape[1:]) for a in (images, noise)]
    total = _sum_in_halves(weighted, *pieces)
    if whole < batch:
        total = jax.tree.map(jnp.add, total, weighted(images[whole:], noise[whole:]))
    return total


def _sum_in_halves(f: Callable, *arrays: Array) -> Any:
    """The sum of ``f`` over the arrays' rows: of one half and then the other, each likewise.

    Devices that share out a batch sum up in the same order (``_sum_of_devices``), so that sums of
    powers of two are the same bits on any number of them.
    """
    rows = len(arrays[0])
    if rows == 1:
        return f(*(a[0] for a in arrays))
    parts, of_part = arrays, f  # one by one, where there are no halves
    if rows % 2 == 0:
        parts = tuple(a.reshape(2, rows // 2, *a.shape[1:]) for a in arrays)
        of_part = functools.partial(_sum_in_halves, f)

    def add(total, part):
        return jax.tree.map(jnp.add, total, of_part(*part)), None

    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
        jax.eval_shape(f, *(jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for a in arrays)),
    )
    total, _ = lax.scan(add, zeros, parts)
    return total


def _sum_of_devices(tree: Any) -> Any:
    """The sum over all devices: of each two neighbours, then of each two of these pairs, and so on,
    the same bits on all of them."""
    devices = lax.axis_size(BATCH)
    if devices == 1:
        return tree
    if devices & (devices - 1):  # no power of two
        return lax.psum(tree, BATCH)
    total, as_tree = ravel_pytree(tree)  # one message takes less time than many small ones
    distance = 1
    while distance < devices:
        pairs = [(k, k ^ distance) for k in range(devices)]
        total += lax.ppermute(total, BATCH, pairs)
        distance *= 2
    return as_tree(total)


def batch_gradient(
    config: Config, params: Params, step: Array, images: Array, key: Array
) -> tuple[Metrics, Params]:
    """Metrics and gradient of the mean loss of step ``step``'s batch, the same on all devices.

    images: uint8 ``[B / devices, H, W, C]``, this device's share; key: the run's base key.
    """
    share, devices = len(images), lax.axis_size(BATCH)
    noise = jax.random.normal(
        jax.random.fold_in(key, step), (share * devices, config.model.noise_dim), jnp.float32
    )
    first = lax.axis_index(BATCH) * share
    noise = lax.dynamic_slice_in_dim(noise, first, share)
    if config.train.flip:
        flips = lax.dynamic_slice_in_dim(_flips(key, step, share * devices), first, share)
        images = jnp.where(flips[:, None, None, None], images[:, :, ::-1], images)
    microbatch = backend.gradient_microbatch_size(share * devices)
    found = loss_and_gradient(config, params, images, noise, microbatch)
    return _sum_of_devices(jax.tree.map(lambda leaf: leaf / devices, found))


def _flips(key: Array, step: Array, batch: int) -> Array:
    """Which images of a step's batch are flipped, bool ``[batch]``: other bits than its noise."""
    return jax.random.bernoulli(
        jax.random.fold_in(jax.random.fold_in(key, step), 1), shape=(batch,)
    )


def update(
    config: Config, total_steps: int, state: TrainState, metrics: Metrics, gradient: Params
) -> TrainState:
    """The state after an optimiser step."""
    updates, opt_state = optimizer(config.train, total_steps).update(
        gradient, state.opt_state, state.params
    )
    params = optax.apply_updates(state.params, updates)
    # A young average follows closely, so that it forgets where the run started.
    decay = jnp.minimum(config.train.average_decay, (1 + state.step) / (10 + state.step))
    average = jax.tree.map(lambda a, p: p + decay * (a - p), state.average, params)
    at = state.step % (total_steps // config.train.epochs)  # 0: an epoch begins
    sums = {k: jnp.where(at == 0, 0.0, state.sums[k]) + metrics[k] for k in metrics}
    return TrainState(state.step + 1, params, average, opt_state, sums)


def make_advance(config: Config, total_steps: int, mesh: Mesh) -> Callable:
    """``advance(state, images, key) -> (state, metrics)``, compiled for a mesh: takes one step.

    images: uint8 ``[B, H, W, C]``, shared out among the devices.  The old state is donated.
    """
    # Compiled one by one: as one, the update would be rounded otherwise on each number of devices,
    # and Adam makes much of that where a gradient is next to nothing.
    gradient_of = _on_each_device(
        functools.partial(batch_gradient, config),
        mesh,
        (REPLICATED, REPLICATED, SHARED, REPLICATED),
    )
    updated = jax.jit(functools.partial(update, config, total_steps), donate_argnums=0)

    def advance(state, images, key):
        metrics, gradient = gradient_of(state.params, state.step, images, key)
        return updated(state, metrics, gradient), metrics

    return advance


def make_finish_epoch(config: Config, total_steps: int, mesh: Mesh) -> Callable:
    """``finish(state, data, order, key) -> (state, metrics)``: the steps to the end of the epoch,
    as one dispatch; otherwise as ``make_advance``.

    data: uint8 ``[N, H, W, C]``, all images, on every device; order: ``[steps, B]`` of the epoch,
    each batch shared out.
    """

    def finish(state, data, order, key):
        def step(_, carry):
            state, _ = carry
            images = data[order[state.step % len(order)]]
            metrics, gradient = batch_gradient(config, state.params, state.step, images, key)
            return update(config, total_steps, state, metrics, gradient), metrics

        return lax.fori_loop(state.step % len(order), len(order), step, (state, state.sums))

    columns = PartitionSpec(None, BATCH)
    return _on_each_device(finish, mesh, (REPLICATED, REPLICATED, columns, REPLICATED), donate=0)


def _on_each_device(
    f: Callable, mesh: Mesh, arguments: tuple[PartitionSpec, ...], donate: int | None = None
) -> Callable:
    # Unchecked: that what comes out is the same everywhere follows from the sum over all devices.
    mapped = jax.shard_map(f, mesh=mesh, in_specs=arguments, out_specs=REPLICATED, check_vma=False)
    return jax.jit(mapped, donate_argnums=donate)


@dataclass(frozen=True)
class Order(Sequence[np.ndarray]):
    """Which images each step of a run sees: a sequence of int32 ``[b]``.

    rows: the places in each batch that are wanted, in their order; a process reads only those that
    its own devices take.
    """

    config: TrainConfig
    images: int
    rows: tuple[int, ...]

    def __len__(self) -> int:
        return self.config.epochs * steps_per_epoch(self.config, self.images)

    def __getitem__(self, step: Any) -> Any:
        epoch, at = divmod(step, steps_per_epoch(self.config, self.images))
        return _newest_order(self.config, epoch, self.images)[at, list(self.rows)]


_newest = functools.lru_cache(maxsize=2)(epoch_order)
_one_at_a_time = threading.Lock()


def _newest_order(config: TrainConfig, epoch: int, images: int) -> np.ndarray:
    """``epoch_order``, made once for all threads that read ahead."""
    with _one_at_a_time:
        return _newest(config, epoch, images)


def rows_of_process(mesh: Mesh, batch_size: int) -> tuple[int, ...]:
    """Which places of a batch are this process's.

    Raises:
      ConfigError: the devices cannot have equal shares.
    """
    if batch_size % mesh.size:
        below = batch_size - batch_size % mesh.size
        near = " or ".join(str(n) for n in (below, below + mesh.size) if n)
        raise ConfigError(
            f"a batch of {batch_size} images does not divide among {mesh.size} devices: "
            f"use --batch-size {near}, or another number of devices"
        )
    slices = NamedSharding(mesh, SHARED).addressable_devices_indices_map((batch_size,)).values()
    starts = sorted(part[0].indices(batch_size)[:2] for part in slices if part)
    return tuple(row for start, stop in starts for row in range(start, stop))


def run(
    config: Config, state: TrainState, images: Source, batches: Batches = feed.batches
) -> Iterator[Dispatch]:
    """Trains from ``state`` to the end of the configured epochs, yielding after every dispatch.

    Each process reads only its own part of a batch.  A yielded state is valid until the iterator
    advances; it is the same on all devices and in all processes.

    Raises:
      ConfigError: the batch cannot be shared out among the devices.
      DataError: an image cannot be read.
      TrainingError: the loss is not finite, or there are fewer images than one batch.
    """
    mesh = backend.mesh()
    rows = rows_of_process(mesh, config.train.batch_size)
    order = Order(config.train, len(images), rows)
    per_epoch, total_steps = steps_per_epoch(config.train, len(images)), len(order)
    step = int(state.step)
    whole = backend.epoch_is_one_dispatch() and isinstance(images, np.ndarray)
    put = functools.partial(_put, mesh)
    state, key = put(state, REPLICATED), put(jax.random.key(config.train.seed), REPLICATED)
    advance = (make_finish_epoch if whole else make_advance)(config, total_steps, mesh)
    if whole:
        data = put(images, REPLICATED)
    else:
        fed = batches(images, order, step)
    previous = None
    while step < total_steps:
        epoch, at = divmod(step, per_epoch)
        if whole:
            columns = epoch_order(config.train, epoch, len(images))[:, list(rows)]
            taken: tuple[Array, ...] = data, put(columns, PartitionSpec(None, BATCH))
        else:
            taken = (put(next(fed), SHARED),)
        with jax.transfer_guard("disallow"):
            state, metrics = advance(state, *taken, key)
        step += per_epoch - at if whole else 1
        # Reading these metrics would wait for the step; the previous ones are ready.  At the end
        # of an epoch they are read all the same, so that no diverged state is kept.
        ready = metrics if previous is None or step % per_epoch == 0 else previous
        yield Dispatch(state, step, _read(ready, step))
        previous = metrics


def _put(mesh: Mesh, tree: Any, spec: PartitionSpec) -> Any:
    """A tree on the devices; of what is shared out, each process gives its own part."""
    sharding = NamedSharding(mesh, spec)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), tree)


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
