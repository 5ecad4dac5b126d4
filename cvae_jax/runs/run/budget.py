"""How many epochs of how many images a run has time for: the plan, and the speed it is made of."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax

from cvae_jax import evaluation, training
from cvae_jax.config import Config
from cvae_jax.data.holdout import TrainingData
from cvae_jax.runs import retention, tables

LEAST_STEPS = 20  # that a run takes, however little time there is
LEAST_PER_EPOCH = 8  # steps: with fewer, a run would save and validate more than it trains
SMALLEST_BATCH = 8
WARM = 2  # dispatches that are not timed: the first one compiles, and the next may not wait
MEASURED = 30  # dispatches that are timed, unless that takes more than
SHARE = 0.03  # of the time that there is
SOME = 512  # held-out images that validating is timed on
SAVES = 4  # the last of which finds as many checkpoints there as that of a long run does
PICTURES = 0.03  # share of a run that goes into its pictures
# What calibrating and releasing take however few images there are: seconds, and in images trained
# on, as slow machines are slow at it too.
FINISH_SECONDS, FINISH_IMAGES = 20.0, 8000
EPOCHS = 1000  # of the run whose steps are timed, of which it takes but a few


class Speed(NamedTuple):
    """What takes how many seconds on this machine."""

    step: float  # of the optimiser
    epoch: float  # validating and saving, after each
    finish: float  # calibrating and releasing


class Plan(NamedTuple):
    epochs: int
    images: int  # that each goes through


def plan(seconds: float, speed: Speed, batch: int, images: int) -> Plan:
    """What fits into so many seconds, the finish included.

    All images, and as many epochs as there is time for.  Where there is none for even one epoch, it
    is one of fewer images; and at least ``LEAST_STEPS`` steps whatever the time.
    """
    left = (seconds - speed.finish) * (1 - PICTURES)
    per_epoch = images // batch
    epochs = round(left / (per_epoch * speed.step + speed.epoch))
    if epochs < 1:
        steps = max(int((left - speed.epoch) / speed.step), LEAST_STEPS)
        if steps < per_epoch:
            per_epoch, images = steps, steps * batch
    return Plan(max(epochs, -(-LEAST_STEPS // per_epoch)), images)


def batch_size(usual: int, images: int) -> int:
    """The usual number of images of a step, or fewer where there are few: halved until an epoch
    has ``LEAST_PER_EPOCH`` steps, or, below ``SMALLEST_BATCH``, one."""
    batch = usual
    while batch > 1 and images // batch < (LEAST_PER_EPOCH if batch > SMALLEST_BATCH else 1):
        batch //= 2
    return batch


def measure(config: Config, data: TrainingData, folder: Path, seconds: float) -> Speed:
    """Times a few steps of a run of this configuration, and what ends an epoch; of its images all
    are calibrated on.

    folder: on the file system of the workdir; seconds: that there are for all.

    Raises: as ``training.run``.
    """
    config = config.replace(epochs=EPOCHS)
    per_epoch = training.steps_per_epoch(config.train, len(data.train))
    state = training.init_state(config, EPOCHS * per_epoch)
    begun = step = 0.0
    first = 0
    for count, at in enumerate(training.run(config, state, data.train)):
        state, now = at.state, time.monotonic()
        if count < WARM:
            begun, first = now, at.step
            continue
        step = (now - begun) / (at.step - first)
        if count == WARM + MEASURED or now - begun > SHARE * seconds:
            break
    host = jax.device_get(state)
    some = data.validation[:SOME]
    validating = min(
        _seconds(lambda: evaluation.validation_loss(config, host.average, some)) for _ in range(2)
    )
    forward = validating / len(some)
    epoch = forward * len(data.validation) + _saving(host, folder)
    encoded = min(len(data.train), tables.MOST_IMAGES) / 2
    measured = min(len(data.validation) + tables.FEWEST, tables.MOST)
    finish = FINISH_SECONDS + FINISH_IMAGES * step / config.train.batch_size
    finish += forward * (encoded + measured + 2 * len(data.test))
    return Speed(step, epoch, finish)


def _seconds(f: Callable[[], object]) -> float:
    begun = time.monotonic()
    f()
    return time.monotonic() - begun


def _saving(state: training.TrainState, folder: Path) -> float:
    items = {"params": state.average, "optimizer": state._replace(average={})._asdict()}
    with tempfile.TemporaryDirectory(dir=folder) as workdir:
        numbers = itertools.count()
        times = [
            _seconds(lambda: retention.save_step(workdir, next(numbers), items, {}))
            for _ in range(SAVES)
        ]
    return times[-1]
