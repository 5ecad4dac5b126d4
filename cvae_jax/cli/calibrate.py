"""``cvae calibrate``: what files take, made for a checkpoint that has none."""

from __future__ import annotations

from argparse import Namespace

from cvae_jax import codec, data
from cvae_jax.cli.reports import Report
from cvae_jax.data.holdout import TrainingData
from cvae_jax.errors import ConfigError
from cvae_jax.runs import tables
from cvae_jax.runs.find import find


def calibrate(args: Namespace) -> Report:
    c = codec.load(args.checkpoint)
    complete = c.stored_tables is not None and c.usual_errors is not None
    if complete and not args.force:
        raise ConfigError(
            f"{args.checkpoint} has coding tables; -f replaces them, and what was compressed with "
            "them can then no longer be decompressed"
        )
    h, w, channels = c.model.image_shape
    dataset = args.dataset or c.made_by().dataset.name
    full = data.load(dataset, "train", args.data_dir, image_size=(h, w), channels=channels)
    fraction = c.made_by().config.train.validation_fraction
    split = TrainingData.split(dataset, full, full[:0], fraction)
    images, found = split.train, find(args.checkpoint)
    if c.stored_tables is None or args.force:
        made = tables.make(found, images, split.validation)
    else:  # a checkpoint from before the usual errors were kept
        made = c.tables
        tables.measure_errors(found, images, split.validation)
    values = {
        "checkpoint": args.checkpoint,
        "images": len(images),
        "components": made.components,
        "tables": made.digest[:16].hex(),
    }
    return Report(
        values,
        [
            f"{args.checkpoint}: tables {values['tables']} of {made.components} components "
            f"from {len(images)} images of {dataset}"
        ],
    )
