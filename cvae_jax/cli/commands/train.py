"""Trains the convolutional VAE:  cvae train --workdir checkpoints

Started again with the same command, a stopped run goes on exactly where its last checkpoint was.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from cvae_jax.config import PRESETS, Config, ModelConfig, TrainConfig
from cvae_jax.errors import ConfigError, needs

SECTIONS = {"model": ModelConfig, "training": TrainConfig}


def presets() -> str:
    """What each preset sets that another does not, for --help."""
    rows = {name: {**c.to_dict()["model"], **c.to_dict()["train"]} for name, c in PRESETS.items()}
    fields = [f for f in rows["original"] if len({str(row[f]) for row in rows.values()}) > 1]
    lines = ["presets:", f"  {'':10}" + "".join(f"{field:>16}" for field in fields)]
    for name, row in rows.items():
        lines.append(f"  {name:10}" + "".join(f"{row[field]!s:>16}" for field in fields))
    shared = {k: v for k, v in rows["original"].items() if k not in fields}
    return (
        "\n".join(lines) + f"\nin all of them: {', '.join(f'{k} {v}' for k, v in shared.items())}"
    )


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "train",
        help="train a model, or go on with a run",
        description=__doc__,
        epilog=presets(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(program=train)
    run = parser.add_argument_group("run")
    run.add_argument(
        "--workdir", type=Path, required=True, help="where checkpoints, metrics and pictures go"
    )
    run.add_argument(
        "--preset",
        choices=PRESETS,
        help="settings to start from, see below; the flags here override single ones "
        "(without it: default, or digits for that small dataset)",
    )
    run.add_argument(
        "--fresh", action="store_true", help="start anew in a workdir that holds another run"
    )
    run.add_argument(
        "--tensorboard",
        action="store_true",
        help="also write TensorBoard events (needs tensorboardX)",
    )
    source = parser.add_argument_group("data")
    source.add_argument(
        "--dataset",
        help="mnist, digits, a TFDS name, an IDX directory, an image folder, or an .npy/.npz file "
        "(without it: the workdir's, or mnist if it is here or can be fetched, else digits)",
    )
    source.add_argument("--data-dir", help="where prepared datasets are, and downloads go")
    for title, section in SECTIONS.items():
        group = parser.add_argument_group(title)
        for field in dataclasses.fields(section):
            several = isinstance(field.default, tuple)
            kind = int if several else type(field.default)
            choices = field.metadata["choices"]
            group.add_argument(
                f"--{field.name.replace('_', '-')}",
                type=kind,
                nargs="+" if several else None,
                choices=choices,
                metavar=None if choices else kind.__name__.upper(),
                help=field.metadata["help"],
            )


def given(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that the command line names."""
    names = [f.name for section in SECTIONS.values() for f in dataclasses.fields(section)]
    settings = {n: getattr(args, n) for n in names if getattr(args, n) is not None}
    if "filters" in settings:
        settings["filters"] = tuple(settings["filters"])
    return settings


def configure(args: argparse.Namespace, dataset: str, image_shape: tuple[int, int, int]) -> Config:
    """The preset with the given settings on top, for images of this shape."""
    preset = args.preset or ("digits" if dataset == "digits" else "default")
    shape = dict(zip(("height", "width", "channels"), image_shape, strict=True))
    return PRESETS[preset].replace(**{**given(args), **shape})


def train(args: argparse.Namespace) -> int:
    """Trains, draws, and prints what the best checkpoint is worth on the test split."""
    if (args.height is None) != (args.width is None):
        raise ConfigError("--height and --width go together")
    Config().replace(**given(args))  # refuses impossible settings before any data is fetched

    # Slow to import: after the arguments.
    from cvae_jax import backend, codec, data
    from cvae_jax.data.holdout import TrainingData

    with needs("train", "training"):
        from cvae_jax import evaluation
        from cvae_jax.runs import run

    backend.dispatch_inline()
    recorded = None if args.fresh else run.recorded_dataset(args.workdir)
    dataset = data.resolve(args.dataset or recorded, args.data_dir)
    if dataset.note:
        print(dataset.note)
    size = None if args.height is None else (args.height, args.width)
    full, test = (
        data.load(dataset.name, split, args.data_dir, image_size=size, channels=args.channels)
        for split in ("train", "test")
    )
    config = configure(args, dataset.name, full.shape[1:])
    images = TrainingData.split(dataset.name, full, test, config.train.validation_fraction)
    del full  # the split has copied it
    print(
        f"{dataset.name}: {len(images.train)} training, {len(images.validation)} validation, "
        f"{len(test)} test images of {'x'.join(map(str, test.shape[1:]))}"
    )
    try:
        best = run.train(
            config, images, args.workdir, fresh=args.fresh, tensorboard=args.tensorboard
        )
    except run.Interrupted as stop:
        print(f"{stop}; the same command goes on from there", file=sys.stderr)
        return stop.exit_code
    trained = codec.load(best)
    result = evaluation.evaluate(trained.model, trained.params, test)
    print(f"\nbest checkpoint: {best}\n{dataset.name}, {len(test)} test images")
    print(evaluation.table(result.summary))
    print(f"pictures: {', '.join(str(p) for p in sorted(args.workdir.glob('*.png')))}")
    return 0
