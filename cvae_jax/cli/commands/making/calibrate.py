"""``cvae calibrate``: what files need, made for a checkpoint that has none."""

from __future__ import annotations

from argparse import Namespace

from cvae_jax import data
from cvae_jax.cli.reports import Report
from cvae_jax.data.holdout import hold_out
from cvae_jax.errors import ConfigError
from cvae_jax.runs import checkpoint, tables
from cvae_jax.runs.find import file_model, find, usual_errors
from cvae_jax.runs.manifest import Checkpoint
from cvae_jax.runs.record import Record


def calibrate(args: Namespace) -> Report:
    found = find(args.checkpoint)
    record = Record.from_dict(checkpoint.read_config(found))
    stored = None if args.force else file_model(found)
    complete = stored is not None and usual_errors(found) is not None
    steps = args.context_steps
    if steps is not None and steps < 0:
        raise ConfigError(f"--context-steps must be 0 or more, not {steps}")
    if complete and not steps:
        raise ConfigError(
            f"{args.checkpoint} has coding tables; -f replaces them, and what was compressed with "
            "them can then no longer be decompressed"
        )
    if stored is not None and stored.context is not None and steps:
        raise ConfigError(
            f"{args.checkpoint} has a context model; -f replaces it, tables and decoder too, and "
            "what was compressed with them can then no longer be decompressed"
        )
    h, w, channels = record.config.model.image_shape
    dataset = args.dataset or record.dataset.name
    full = data.open(dataset, "train", args.data_dir, image_size=(h, w), channels=channels)
    rest, validation = hold_out(dataset, full, record.config.train.validation_fraction)
    images = tables.sample(rest)
    if stored is None:
        stored = tables.make(found, images, validation)
        steps = record.config.train.context_steps if steps is None else steps
    elif not complete:  # a checkpoint from before the usual errors were kept
        tables.measure_errors(found, images, validation)
    if steps:
        tables.make_context(found, images, steps, record.config.train.seed)
    there = file_model(Checkpoint(found.path))
    context = there.context if there else None
    made = stored.tables
    values = {
        "checkpoint": args.checkpoint,
        "images": len(images),
        "kind": made.kind,
        "tables": made.digest[:16].hex(),
        "decoder": stored.decoder.digest[:16].hex(),
        "context": context.digest[:16].hex() if context else None,
    }
    lines = [
        f"{args.checkpoint}: tables {values['tables']} of {made.kind} "
        f"from {_of(len(images), len(rest))} images of {dataset}"
    ]
    if context:
        lines.append(f"context model {values['context']}, {len(context.packed)} bytes")
    return Report(values, lines)


def _of(sampled: int, there: int) -> str:
    return f"{sampled}" if sampled == there else f"{sampled} of {there}"
