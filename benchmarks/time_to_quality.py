"""How long the default preset takes to a given quality, beside the original's recipe in PyTorch.

    python -m benchmarks.time_to_quality [--data-dir DIR] [--json FILE]

Trains the default preset on MNIST from nothing, compilation included, and stops the clock at the
end of the first epoch after which -ELBO on the test images (sampled z) is at most 104 nats: about
where the original's recipe (50 epochs of 60,000 images) ends.  The time of that recipe in PyTorch
is an extrapolation: its images over the images/s that ``benchmarks.throughput`` measured on this
machine, from ``results/throughput.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from cvae_jax import data, errors, evaluation, training
from cvae_jax.config import PRESETS
from cvae_jax.data.holdout import TrainingData

TARGET = 104.0
ORIGINAL_IMAGES = 50 * 60_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", help="where MNIST is")
    parser.add_argument("--throughput", type=Path, default=Path("results/throughput.json"))
    parser.add_argument("--json", type=Path, default=Path("results/time_to_quality.json"))
    args = parser.parse_args()
    train, test = (data.load("mnist", split, args.data_dir) for split in ("train", "test"))
    config = PRESETS["default"]
    images = TrainingData.split("mnist", train, test, config.train.validation_fraction)
    per_epoch = training.steps_per_epoch(config.train, len(images.train))

    clock, started = 0.0, time.perf_counter()
    state = training.init_state(config, config.train.epochs * per_epoch)
    for at in training.run(config, state, images.train):
        if at.step % per_epoch:
            continue
        at.state.step.block_until_ready()
        clock += time.perf_counter() - started
        summary = evaluation.evaluate(config.model, at.state.average, test).summary
        reached = summary["sampled"]["negative_elbo"]
        epoch = at.step // per_epoch
        print(f"epoch {epoch}: {clock:.1f} s, test -ELBO {reached:.2f} nats", file=sys.stderr)
        if reached <= TARGET:
            break
        started = time.perf_counter()

    result = {
        "target_negative_elbo": TARGET,
        "default_preset": {
            "seconds": round(clock, 1),
            "epochs": epoch,
            "negative_elbo": round(reached, 2),
        },
    }
    if args.throughput.is_file():
        throughput = json.loads(args.throughput.read_text())
        line = "train 128"
        if line in throughput["against_best"]:
            best = throughput["against_best"][line]["best"]
            rate = throughput["lines"][line][best]["images_per_second"]
            result["original_recipe_in_pytorch"] = {
                "seconds_extrapolated": round(ORIGINAL_IMAGES / rate),
                "images_per_second_measured": round(rate),
            }
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(errors.run(main))
