"""A training run in a workdir: resume, validate, keep checkpoints, log, draw.

All side effects of training are here; ``training`` has the arithmetic.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from cvae_jax import backend, training
from cvae_jax.config import Config, TrainConfig
from cvae_jax.data import feed
from cvae_jax.data.holdout import TrainingData
from cvae_jax.errors import ConfigError, explained, needs
from cvae_jax.modules import abstract_params
from cvae_jax.runs import checkpoint, retention, saved, tables
from cvae_jax.runs.find import file_model, find
from cvae_jax.runs.manifest import Checkpoint
from cvae_jax.runs.record import Dataset, Record
from cvae_jax.runs.run import processes
from cvae_jax.runs.run.keeper import History, Keeper, Pictures, Progress, recorded


class Interrupted(Exception):
    """The run was asked to stop, and has saved its state."""

    def __init__(self, signum: int, step: int):
        super().__init__(f"stopped by {signal.Signals(signum).name} at step {step}")
        self.exit_code = 128 + signum


def train(
    config: Config,
    data: TrainingData,
    workdir: Path,
    *,
    fresh: bool = False,
    tensorboard: bool = False,
    batches: training.Batches = feed.batches,
    say: Callable[[str], None] = print,
) -> Path | None:
    """Trains, or resumes the run that ``workdir`` holds; returns the best checkpoint, calibrated
    unless its latents are a map.

    batches: what reads the training images.  Of several processes (``processes``) the first
    alone writes to the workdir, and the others return None.

    Raises:
      ConfigError: the workdir holds a run of another configuration or other data, or the batch
        cannot be shared out among the devices, or another process has other settings or data.
      CheckpointError: the workdir cannot be written.
      TrainingError: the loss is not finite, or there is too little data.
      InstallError: a package of the extras ``train`` or ``tensorboard`` is missing.
      Interrupted: SIGINT or SIGTERM arrived; everything up to the last step is saved.
    """
    per_epoch = training.steps_per_epoch(config.train, len(data.train))
    training.rows_of_process(backend.mesh(), config.train.batch_size)
    processes.check_alike(_settings(config, recorded(data)))
    state = training.init_state(config, config.train.epochs * per_epoch)
    if not processes.is_first():
        _run(config, data, processes.from_first(state), batches)
        return None
    with explained(f"write {workdir}"):
        workdir.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(alone(workdir))
        writer = stack.enter_context(_event_writer(workdir)) if tensorboard else None
        if fresh:
            retention.clear(workdir)
        latest = saved.latest_valid(workdir, lambda message: say(f"warning: {message}"))
        if latest:
            record = Record.from_dict(checkpoint.read_config(latest))
            _refuse_contradiction(record, config, data, workdir)
            state = _restore(latest, state)
            say(f"resuming from {latest.path}")
        if (devices := jax.device_count()) > 1:
            say(f"{devices} devices, {jax.process_count()} processes")
        state = processes.from_first(state)
        history = History(workdir, int(state.step), writer)
        pictures = Pictures(config, data, workdir)
        with Progress(config.train, per_epoch, int(state.step)) as progress:
            keeper = Keeper(config, data, workdir, history, pictures, progress)
            _run(config, data, state, batches, keeper)
        best = find(workdir)
        params = checkpoint.restore(best, {"params": abstract_params(config.model)})["params"]
        _calibrate(config.train, data, best, say)
        pictures.draw(params, history.rows)
    return best.path


def _calibrate(
    config: TrainConfig, data: TrainingData, best: Checkpoint, say: Callable[[str], None]
) -> None:
    before = file_model(best)
    say("making coding tables and the integer decoder")
    made = tables.make(best, data.train, data.validation)
    # A finished run that is started again has a context model of just these tables.
    is_new = before is None or before.context is None or before.identity != made.identity
    if config.context_steps and is_new:
        say(f"training the context model, {config.context_steps} steps")
        tables.make_context(best, data.train, config.context_steps, config.seed)


def recorded_dataset(workdir: Path) -> str | None:
    """The name of the dataset of the run that ``workdir`` holds, or None if it holds none."""
    latest = saved.latest_valid(workdir, lambda message: None)
    return Record.from_dict(checkpoint.read_config(latest)).dataset.name if latest else None


def _run(
    config: Config,
    data: TrainingData,
    state: training.TrainState,
    batches: training.Batches,
    keeper: Keeper | None = None,
) -> None:
    """keeper: None in all processes but the first."""
    per_epoch = training.steps_per_epoch(config.train, len(data.train))
    with _signals() as received:
        for at in training.run(config, state, data.train, batches):
            if keeper:
                keeper.see(at)
            if processes.any_of(bool(received), at.step, per_epoch):
                if keeper:
                    keeper.leave(at)
                raise Interrupted(received[0] if received else signal.SIGTERM, at.step)


def _settings(config: Config, dataset: Dataset) -> dict[str, Any]:
    """All that a run is made of, by name."""
    fields = {**config.to_dict()["model"], **config.to_dict()["train"]}
    return fields | {f"dataset {k}": v for k, v in dataclasses.asdict(dataset).items()}


def _refuse_contradiction(saved: Record, config: Config, data: TrainingData, workdir: Path) -> None:
    """Raises ConfigError naming every field in which the workdir's run differs."""
    ours, theirs = _settings(config, recorded(data)), _settings(saved.config, saved.dataset)
    differences = [
        f"{name} is {theirs.get(name)} there and {ours.get(name)} here"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    ]
    if differences:
        raise ConfigError(
            f"{workdir} holds another run: {'; '.join(differences)}. "
            "Choose another --workdir, the same settings, or --fresh to start again"
        )


def _restore(saved: Checkpoint, like: training.TrainState) -> training.TrainState:
    """The saved state, on the host, with the structure of ``like``."""
    abstract = jax.eval_shape(lambda: like)
    found = checkpoint.restore(
        saved, {"params": abstract.average, "optimizer": abstract._replace(average={})._asdict()}
    )
    return training.TrainState(**{**found["optimizer"], "average": found["params"]})


@contextlib.contextmanager
def alone(workdir: Path) -> Iterator[None]:
    """Refuses a second run in the same workdir while the first is still running."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    with explained(f"write {workdir}"):
        file = (workdir / ".lock").open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"another run is using {workdir}: wait for it, or choose another --workdir"
            ) from error
        yield


def _event_writer(workdir: Path) -> Any:
    """TensorBoard's writer, a context manager."""
    with needs("tensorboard", "--tensorboard"):
        from tensorboardX import SummaryWriter
    return SummaryWriter(str(workdir / "tensorboard"))


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM; a second one has its usual effect."""
    received: list[int] = []
    previous: dict[signal.Signals, Any] = {}

    def handle(signum: int, frame: Any) -> None:
        received.append(signum)
        signal.signal(signum, previous[signal.Signals(signum)])

    for caught in (signal.SIGINT, signal.SIGTERM):
        # None: it was not Python's.
        previous[caught] = signal.signal(caught, handle) or signal.SIG_DFL
    try:
        yield received
    finally:
        for caught, handler in previous.items():
            signal.signal(caught, handler)
