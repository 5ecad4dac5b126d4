"""Trains the convolutional VAE:  cvae train --workdir checkpoints

Started again with the same command, a stopped run goes on exactly where its last checkpoint was.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cvae_jax.config import PRESETS, Config, ModelConfig, TrainConfig
from cvae_jax.errors import ConfigError, needs

SECTIONS = {"model": ModelConfig, "training": TrainConfig}


class Meeting(NamedTuple):
    """How the processes of a run find each other; all None: as their launcher says."""

    coordinator: str | None = None  # host and port
    processes: int | None = None
    number: int | None = None


def presets() -> str:
    """What each preset sets that another does not, for --help."""
    rows = {name: {**c.to_dict()["model"], **c.to_dict()["train"]} for name, c in PRESETS.items()}
    fields = [f for f in rows["original"] if len({str(row[f]) for row in rows.values()}) > 1]
    lines = ["presets:", f"  {'':14}" + "".join(f"{name:>10}" for name in rows)]
    for field in fields:
        lines.append(
            f"  {field:14}" + "".join(f"{_shown(row[field]):>10}" for row in rows.values())
        )
    shared = {k: v for k, v in rows["original"].items() if k not in fields}
    return (
        "\n".join(lines) + f"\nin all of them: {', '.join(f'{k} {v}' for k, v in shared.items())}"
    )


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


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
    several = parser.add_argument_group(
        "several processes",
        "One process takes all devices of its machine.  On several machines, start one on each; "
        "each takes its share of every batch.",
    )
    several.add_argument(
        "--distributed",
        action="store_true",
        help="train together with other processes: those that SLURM, Open MPI or Kubernetes "
        "started, or those that these three describe",
    )
    several.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="where process 0 listens (default: $JAX_COORDINATOR_ADDRESS)",
    )
    several.add_argument(
        "--processes", type=int, metavar="N", help="how many (default: $JAX_NUM_PROCESSES)"
    )
    several.add_argument(
        "--process-id", type=int, metavar="I", help="this one's, from 0 (default: $JAX_PROCESS_ID)"
    )
    source = parser.add_argument_group("data")
    source.add_argument(
        "--dataset",
        help="mnist, digits, a TFDS name, an IDX directory, a folder, .tar or .zip file of images, "
        "or an .npy/.npz file (without it: the workdir's, or mnist if it is here or can be "
        "fetched, else digits)",
    )
    source.add_argument("--data-dir", help="where prepared datasets are, and downloads go")
    source.add_argument(
        "--images",
        choices=("memory", "disk"),
        help="where the training images are kept; the run is the same (default: in memory up to "
        "1 GiB of pixels)",
    )
    source.add_argument(
        "--workers",
        type=int,
        default=0,
        metavar="N",
        help="processes that read images from disk (default: 0, in threads)",
    )
    for title, section in SECTIONS.items():
        group = parser.add_argument_group(title)
        for field in dataclasses.fields(section):
            flag, text = f"--{field.name.replace('_', '-')}", field.metadata["help"]
            if isinstance(field.default, bool):
                yes_or_no = argparse.BooleanOptionalAction
                group.add_argument(flag, action=yes_or_no, default=None, help=text)
                continue
            several = isinstance(field.default, tuple)
            kind = int if several else type(field.default)
            choices = field.metadata["choices"]
            group.add_argument(
                flag,
                type=kind,
                nargs="+" if several else None,
                choices=choices,
                metavar=None if choices else kind.__name__.upper(),
                help=text,
            )


def given(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that the command line names."""
    names = [f.name for section in SECTIONS.values() for f in dataclasses.fields(section)]
    settings = {n: getattr(args, n) for n in names if getattr(args, n) is not None}
    if "filters" in settings:
        settings["filters"] = tuple(settings["filters"])
    return settings


def configure(args: argparse.Namespace, dataset: str, image_shape: Sequence[int]) -> Config:
    """The preset with the given settings on top, for images of this shape."""
    preset = args.preset or ("digits" if dataset == "digits" else "default")
    shape = dict(zip(("height", "width", "channels"), image_shape, strict=True))
    return PRESETS[preset].replace(**{**given(args), **shape})


def train(args: argparse.Namespace) -> int:
    """Trains, draws, and prints what the best checkpoint is worth on the test split."""
    if (args.height is None) != (args.width is None):
        raise ConfigError("--height and --width go together")
    if args.workers < 0:
        raise ConfigError(f"--workers must be 0 or more, not {args.workers}")
    PRESETS[args.preset or "default"].replace(
        **given(args)
    )  # refuses impossible settings before any data is fetched

    with contextlib.ExitStack() as stack:
        if meeting := _meeting(args):
            # Slow to import: after the arguments.
            with needs("train", "training"):
                from cvae_jax.runs.run.processes import joined
            stack.enter_context(joined(*meeting))
        return _train(args)


def _meeting(args: argparse.Namespace) -> Meeting | None:
    """How the processes of a run meet, None if there is only this one.

    Raises:
      ConfigError: something is missing, or impossible.
    """
    named = {
        "--coordinator": args.coordinator,
        "--processes": args.processes,
        "--process-id": args.process_id,
    }
    if not args.distributed and set(named.values()) == {None}:
        return None
    found: dict[str, Any] = {
        "--coordinator": args.coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS") or None,
        "--processes": _number(args.processes, "JAX_NUM_PROCESSES"),
        "--process-id": _number(args.process_id, "JAX_PROCESS_ID"),
    }
    missing = [flag for flag, value in found.items() if value is None]
    if len(missing) == len(found):
        return Meeting()  # as the launcher says
    if missing:
        raise ConfigError(
            f"{' and '.join(missing)}: not given; several processes need all of {', '.join(found)}"
        )
    coordinator, count, number = found.values()
    host, _, port = str(coordinator).rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ConfigError(f"--coordinator {coordinator}: expected HOST:PORT")
    if not 0 <= number < count:
        raise ConfigError(
            f"--process-id {number} of --processes {count}: expected 0 to one less than that number"
        )
    return Meeting(coordinator, count, number)


def _number(given: int | None, variable: str) -> int | None:
    text = os.environ.get(variable)
    if given is not None or not text:
        return given
    if not text.isdecimal():
        raise ConfigError(f"{variable} must be a whole number, not {text!r:.40}")
    return int(text)


def _say_nothing(line: str) -> None:
    """What all processes but the first do."""


def _train(args: argparse.Namespace) -> int:
    # Slow to import: after the arguments.
    from cvae_jax import backend, codec, data
    from cvae_jax.data import feed
    from cvae_jax.data.holdout import TrainingData

    with needs("train", "training"):
        from cvae_jax import evaluation
        from cvae_jax.runs import run
        from cvae_jax.runs.run import processes

    backend.dispatch_inline()
    recorded = None if args.fresh else run.recorded_dataset(args.workdir)
    dataset = data.resolve(args.dataset or recorded, args.data_dir)
    say = print if processes.is_first() else _say_nothing
    if dataset.note:
        say(dataset.note)
    size = None if args.height is None else (args.height, args.width)
    full, test = (
        data.open(
            dataset.name,
            split,
            args.data_dir,
            image_size=size,
            channels=args.channels,
            in_memory=None if args.images is None else args.images == "memory",
        )
        for split in ("train", "test")
    )
    config = configure(args, dataset.name, full.shape[1:])
    images = TrainingData.split(dataset.name, full, test, config.train.validation_fraction)
    del full  # what was in memory has been copied
    say(
        f"{dataset.name}: {len(images.train)} training, {len(images.validation)} validation, "
        f"{len(test)} test images of {'x'.join(map(str, test.shape[1:]))}"
    )
    try:
        best = run.train(
            config,
            images,
            args.workdir,
            fresh=args.fresh,
            tensorboard=args.tensorboard,
            batches=functools.partial(feed.batches, workers=args.workers),
            say=say,
        )
    except run.Interrupted as stop:
        if processes.is_first():
            print(f"{stop}; the same command goes on from there", file=sys.stderr)
        return stop.exit_code
    if best is None:  # the first process reports
        return 0
    trained = codec.load(best)
    result = evaluation.evaluate(trained.model, trained.params, test)
    print(f"\nbest checkpoint: {best}\n{dataset.name}, {len(test)} test images")
    print(evaluation.table(result.summary))
    print(f"pictures: {', '.join(str(p) for p in sorted(args.workdir.glob('*.png')))}")
    return 0
