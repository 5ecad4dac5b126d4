"""A training run in a workdir: resume, validate, keep checkpoints, log, draw.

All side effects of training are here; ``training`` has the arithmetic.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from cvae_jax import evaluation, training
from cvae_jax.config import Config, TrainConfig
from cvae_jax.data.holdout import TrainingData
from cvae_jax.errors import ConfigError, TrainingError, explained, needs
from cvae_jax.files import whole
from cvae_jax.modules import Params, abstract_params, decode, encode
from cvae_jax.pixels import to_unit
from cvae_jax.runs import checkpoint, plots, retention, saved, tables
from cvae_jax.runs.find import file_model, find
from cvae_jax.runs.manifest import Checkpoint
from cvae_jax.runs.record import Dataset, Record, package_versions

METRICS = "metrics.jsonl"
SECONDS_BETWEEN_PICTURES = 60


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
    say: Callable[[str], None] = print,
) -> Path:
    """Trains, or resumes the run that ``workdir`` holds; returns the best checkpoint, calibrated.

    Raises:
      ConfigError: the workdir holds a run of another configuration or other data.
      CheckpointError: the workdir cannot be written.
      TrainingError: the loss is not finite, or there is too little data.
      InstallError: a package of the extras ``train`` or ``tensorboard`` is missing.
      Interrupted: SIGINT or SIGTERM arrived; everything up to the last step is saved.
    """
    per_epoch = training.steps_per_epoch(config.train, len(data.train))
    with explained(f"write {workdir}"):
        workdir.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_alone(workdir))
        writer = stack.enter_context(_event_writer(workdir)) if tensorboard else None
        state = training.init_state(config, config.train.epochs * per_epoch)
        if fresh:
            retention.clear(workdir)
        latest = saved.latest_valid(workdir, lambda message: say(f"warning: {message}"))
        if latest:
            record = Record.from_dict(checkpoint.read_config(latest))
            _refuse_contradiction(record, config, data, workdir)
            state = _restore(latest, state)
            say(f"resuming from {latest.path}")
        history = _History(workdir, int(state.step), writer)
        pictures = _Pictures(config, data, workdir)
        _run(config, data, workdir, state, history, pictures)
        best = find(workdir)
        params = checkpoint.restore(best, {"params": abstract_params(config.model)})["params"]
        before = file_model(best)
        made = tables.make(best, data.train, data.validation)
        # A finished run that is started again has a context model of just these tables.
        is_new = before is None or before.context is None or before.identity != made.identity
        if config.train.context_steps and is_new:
            tables.make_context(best, data.train, config.train.context_steps, config.train.seed)
        pictures.draw(params, history.rows)
    return best.path


def recorded_dataset(workdir: Path) -> str | None:
    """The name of the dataset of the run that ``workdir`` holds, or None if it holds none."""
    latest = saved.latest_valid(workdir, lambda message: None)
    return Record.from_dict(checkpoint.read_config(latest)).dataset.name if latest else None


def _run(
    config: Config,
    data: TrainingData,
    workdir: Path,
    state: training.TrainState,
    history: _History,
    pictures: _Pictures,
) -> None:
    per_epoch = training.steps_per_epoch(config.train, len(data.train))

    def save(state: training.TrainState, step: int, validation_loss: float | None) -> None:
        # The last update may have diverged even though the losses before it were finite.
        kept = jax.device_get((state.params, state.average))
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(kept)):
            raise TrainingError(
                f"the parameters are no longer finite at step {step}; the last checkpoint is "
                "kept: start again with a lower --learning-rate"
            )
        items = {"params": state.average, "optimizer": state._replace(average={})._asdict()}
        record = Record(
            config, _dataset(data), package_versions(), {"validation_loss": validation_loss}
        )
        retention.save_step(workdir, step, items, record.to_dict(), score=validation_loss)

    start = int(state.step)
    with _Progress(config.train, per_epoch, start) as progress, _signals() as received:
        for at in training.run(config, state, data.train):
            progress.step(at)
            if at.step % per_epoch == 0:
                row = training.epoch_means(at.state, per_epoch)
                loss = evaluation.validation_loss(config, at.state.average, data.validation)
                row |= {"validation_loss": loss}
                row |= {"images_per_second": round(progress.images_per_second, 1)}
                if not np.isfinite(loss):
                    raise TrainingError(
                        f"the validation loss became {loss} at step {at.step}; the last "
                        "checkpoint is kept: start again with a lower --learning-rate"
                    )
                history.append({"step": at.step, "epoch": at.step // per_epoch, **row})
                save(at.state, at.step, loss)
                progress.epoch(at.step // per_epoch, row)
                pictures.draw(
                    at.state.average, history.rows, at_least_every=SECONDS_BETWEEN_PICTURES
                )
            if received:
                if at.step % per_epoch:
                    save(at.state, at.step, None)
                raise Interrupted(received[0], at.step)


def _dataset(data: TrainingData) -> Dataset:
    return Dataset(data.name, data.fingerprint, data.sizes)


def _refuse_contradiction(saved: Record, config: Config, data: TrainingData, workdir: Path) -> None:
    """Raises ConfigError naming every field in which the workdir's run differs."""

    def flat(config: Config, dataset: Dataset) -> dict[str, Any]:
        fields = {**config.to_dict()["model"], **config.to_dict()["train"]}
        fields |= {f"dataset {k}": v for k, v in dataclasses.asdict(dataset).items()}
        return fields

    ours, theirs = flat(config, _dataset(data)), flat(saved.config, saved.dataset)
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
    """The saved state, on the device, with the structure of ``like``."""
    abstract = jax.eval_shape(lambda: like)
    found = checkpoint.restore(
        saved, {"params": abstract.average, "optimizer": abstract._replace(average={})._asdict()}
    )
    state = training.TrainState(**{**found["optimizer"], "average": found["params"]})
    return jax.device_put(state)


class _History:
    """``metrics.jsonl``: one row per finished epoch, up to the step of the state."""

    def __init__(self, workdir: Path, after_step: int, writer: Any | None):
        self.path = workdir / METRICS
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.rows = []
        for line in lines:
            with contextlib.suppress(ValueError):  # a line that a kill cut short
                row = json.loads(line)
                if row["step"] <= after_step:
                    self.rows.append(row)
        with explained(f"write {self.path}"), whole(self.path, force=True) as file:
            file.write("".join(json.dumps(row) + "\n" for row in self.rows).encode())
        self._writer = writer

    def append(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        with explained(f"write {self.path}"), self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        if self._writer:
            for name in row.keys() - {"step", "epoch"}:
                self._writer.add_scalar(name, row[name], row["step"])


@contextlib.contextmanager
def _alone(workdir: Path) -> Iterator[None]:
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


class _Pictures:
    """Draws loss curves, test reconstructions and samples from the prior into the workdir."""

    def __init__(self, config: Config, data: TrainingData, workdir: Path):
        self.workdir = workdir
        self.reconstruction = config.train.reconstruction
        self.images = plots.spread(data.test, plots.COLUMNS * 4)
        self.drawn = time.monotonic()
        noise = evaluation.noise_for(config.train.seed, plots.COLUMNS * 8, config.model.latent_dim)

        @jax.jit
        def render(params, images):
            z_mean = encode(params, images, config.model)
            return decode(params, z_mean, config.model), decode(params, noise, config.model)

        self.render = render

    def draw(self, params: Params, rows: list[dict], at_least_every: float = 0) -> None:
        if time.monotonic() - self.drawn < at_least_every:
            return
        self.drawn = time.monotonic()
        reconstructions, samples = self.render(params, self.images)
        title = "Test images (odd rows), each with its reconstruction below"
        figures = {
            "loss_curves": plots.loss_curves(rows, self.reconstruction),
            "reconstructions": plots.pairs(to_unit(self.images), reconstructions, title),
            "samples": plots.grid(samples, "New images: decoded from random latents"),
        }
        for name, figure in figures.items():
            path = self.workdir / f"{name}.png"
            with explained(f"write {path}"):
                plots.save(figure, path)


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM; a second one has its usual effect."""
    received: list[int] = []
    previous: dict[signal.Signals, Any] = {}

    def handle(signum: int, frame: Any) -> None:
        received.append(signum)
        signal.signal(signum, previous[signal.Signals(signum)])

    for caught in (signal.SIGINT, signal.SIGTERM):
        previous[caught] = signal.signal(caught, handle)
    try:
        yield received
    finally:
        for caught, handler in previous.items():
            signal.signal(caught, handler)


class _Progress:
    """Shows epoch, losses, images/s and time left on stderr."""

    def __init__(self, config: TrainConfig, steps_per_epoch: int, start_step: int):
        self.config, self.steps_per_epoch = config, steps_per_epoch
        self.total = config.epochs * steps_per_epoch
        self.started, self.start_step = time.monotonic(), start_step
        self.mark, self.mark_step = self.started, start_step
        self.images_per_second = 0.0
        self.bar = tqdm(
            total=self.total,
            initial=start_step,
            unit="step",
            disable=not sys.stderr.isatty(),
            bar_format="{desc} {percentage:3.0f}%|{bar}| {postfix} [{elapsed}<{remaining}]",
        )

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def step(self, at: training.Dispatch) -> None:
        self.bar.update(at.step - self.bar.n)
        if (at.step - self.mark_step) >= self.steps_per_epoch or at.step % 20 == 0:
            self._measure(at.step)
            epoch = min(at.step // self.steps_per_epoch + 1, self.config.epochs)
            self.bar.set_description_str(f"epoch {epoch}/{self.config.epochs}")
            shown = " ".join(f"{k} {v:.2f}" for k, v in at.metrics.items())
            self.bar.set_postfix_str(f"{shown} {self.images_per_second:,.0f} images/s")

    def epoch(self, epoch: int, row: dict[str, float]) -> None:
        """Prints a line for a finished epoch, above the progress bar if there is one."""
        done = epoch * self.steps_per_epoch
        elapsed = time.monotonic() - self.started
        left = elapsed / max(done - self.start_step, 1) * (self.total - done)
        shown = "  ".join(
            f"{name} {value:.2f}" for name, value in row.items() if name != "images_per_second"
        )
        speed = f"{row['images_per_second']:,.0f} images/s"
        line = f"epoch {epoch}/{self.config.epochs}  {shown}  {speed}  {_minutes(left)} left"
        tqdm.write(line, file=sys.stderr)
        self.mark, self.mark_step = (
            time.monotonic(),
            done,
        )  # time spent validating and saving does not count

    def _measure(self, step: int) -> None:
        seconds = time.monotonic() - self.mark
        if seconds > 0:
            self.images_per_second = (step - self.mark_step) * self.config.batch_size / seconds


def _minutes(seconds: float) -> str:
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"
