"""What the first process of a run does beside training: it validates, saves, logs, draws, and shows
how far the run is."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from cvae_jax import evaluation, training
from cvae_jax.config import Config, TrainConfig
from cvae_jax.data.holdout import TrainingData
from cvae_jax.errors import TrainingError, explained
from cvae_jax.files import whole
from cvae_jax.modules import Params, decode, encode, from_prior
from cvae_jax.pixels import to_unit
from cvae_jax.runs import plots, retention
from cvae_jax.runs.record import Dataset, Record, package_versions

METRICS = "metrics.jsonl"
SECONDS_BETWEEN_PICTURES = 60


def recorded(data: TrainingData) -> Dataset:
    return Dataset(data.name, data.fingerprint, data.sizes)


class Keeper:
    """Validates and saves at the end of each epoch, and shows how far the run is."""

    def __init__(
        self,
        config: Config,
        data: TrainingData,
        workdir: Path,
        history: History,
        pictures: Pictures,
        progress: Progress,
    ):
        self.config, self.data, self.workdir = config, data, workdir
        self.history, self.pictures, self.progress = history, pictures, progress
        self.per_epoch = training.steps_per_epoch(config.train, len(data.train))

    def see(self, at: training.Dispatch) -> None:
        """After each dispatch."""
        self.progress.step(at)
        if at.step % self.per_epoch:
            return
        state = jax.device_get(at.state)
        row = training.epoch_means(state, self.per_epoch)
        loss = evaluation.validation_loss(self.config, state.average, self.data.validation)
        row |= {"validation_loss": loss}
        row |= {"images_per_second": round(self.progress.images_per_second, 1)}
        if not np.isfinite(loss):
            raise TrainingError(
                f"the validation loss became {loss} at step {at.step}; the last "
                "checkpoint is kept: start again with a lower --learning-rate"
            )
        epoch = at.step // self.per_epoch
        self.history.append({"step": at.step, "epoch": epoch, **row})
        self._save(state, at.step, loss)
        self.progress.epoch(epoch, row)
        self.pictures.draw(
            state.average, self.history.rows, at_least_every=SECONDS_BETWEEN_PICTURES
        )

    def leave(self, at: training.Dispatch) -> None:
        """Where the run stops before its end."""
        if at.step % self.per_epoch:
            self._save(jax.device_get(at.state), at.step, None)

    def _save(self, state: training.TrainState, step: int, validation_loss: float | None) -> None:
        """state: on the host."""
        # The last update may have diverged even though the losses before it were finite.
        kept = jax.tree.leaves((state.params, state.average))
        if not all(np.isfinite(leaf).all() for leaf in kept):
            raise TrainingError(
                f"the parameters are no longer finite at step {step}; the last checkpoint is "
                "kept: start again with a lower --learning-rate"
            )
        items = {"params": state.average, "optimizer": state._replace(average={})._asdict()}
        record = Record(
            self.config,
            recorded(self.data),
            package_versions(),
            {"validation_loss": validation_loss},
        )
        retention.save_step(self.workdir, step, items, record.to_dict(), score=validation_loss)


class History:
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


class Pictures:
    """Draws loss curves, test reconstructions and samples from the prior into the workdir."""

    def __init__(self, config: Config, data: TrainingData, workdir: Path):
        self.workdir = workdir
        self.reconstruction = config.train.reconstruction
        self.images = plots.spread(data.test, plots.COLUMNS * 4)
        self.drawn = time.monotonic()
        noise = evaluation.noise_for(config.train.seed, plots.COLUMNS * 8, config.model.latents)

        @jax.jit
        def render(params, images):
            z_mean = encode(params, images, config.model)
            drawn = from_prior(params, noise, config.model)
            return decode(params, z_mean, config.model), decode(params, drawn, config.model)

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


class Progress:
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

    def __enter__(self) -> Progress:
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
