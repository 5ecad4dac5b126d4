"""Live progress of training: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

from cvae_jax.config import TrainConfig
from cvae_jax.training import Dispatch


class TrainingProgress:
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

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def step(self, at: Dispatch) -> None:
        self.bar.update(at.step - self.bar.n)
        if (at.step - self.mark_step) >= self.steps_per_epoch or at.step % 20 == 0:
            self._measure(at.step)
            epoch = min(at.step // self.steps_per_epoch + 1, self.config.epochs)
            self.bar.set_description_str(f"epoch {epoch}/{self.config.epochs}")
            shown = " ".join(f"{k} {v:.2f}" for k, v in at.metrics.items())
            self.bar.set_postfix_str(f"{shown} {self.images_per_second:,.0f} images/s")

    def epoch(self, epoch: int, row: dict[str, float]) -> None:
        """A line for a finished epoch, above the bar where there is one."""
        done = epoch * self.steps_per_epoch
        elapsed = time.monotonic() - self.started
        left = elapsed / max(done - self.start_step, 1) * (self.total - done)
        shown = "  ".join(
            f"{name} {value:.2f}" for name, value in row.items() if name != "images_per_second"
        )
        speed = f"{row['images_per_second']:,.0f} images/s"
        line = f"epoch {epoch}/{self.config.epochs}  {shown}  {speed}  {_minutes(left)} left"
        tqdm.write(line, file=sys.stderr)
        self.mark, self.mark_step = time.monotonic(), done  # validating and saving do not count

    def _measure(self, step: int) -> None:
        seconds = time.monotonic() - self.mark
        if seconds > 0:
            self.images_per_second = (step - self.mark_step) * self.config.batch_size / seconds


def _minutes(seconds: float) -> str:
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"
