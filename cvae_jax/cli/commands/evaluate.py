"""Measures a checkpoint:  cvae evaluate --ckpt mnist

With --rate-distortion: its files, at every quality, against those of every other codec.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvae_jax.errors import CheckpointError, ConfigError, DataError, needs

if TYPE_CHECKING:
    from cvae_jax.codec import Codec
    from cvae_jax.data.sources import Source

OUT = Path("study")  # of the folder that the command is called in


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="measure a checkpoint",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(program=evaluate)
    parser.add_argument(
        "--ckpt",
        required=True,
        nargs="+",
        help="a workdir of cvae train (its best step), a step inside it, or a released checkpoint "
        "or its name; several with --rate-distortion",
    )
    parser.add_argument(
        "--dataset",
        help="what to measure on: mnist, digits, a TFDS name, an IDX directory, an image folder, "
        "or an .npy, .npz, .tar or .zip file (without it: what the checkpoint was trained on)",
    )
    parser.add_argument(
        "--split",
        choices=("train", "test", "all"),
        default="test",
        help="part of the dataset (default: test); all: of a folder or file, every image",
    )
    parser.add_argument("--data-dir", help="where prepared datasets are, and downloads go")
    parser.add_argument(
        "--resize",
        action="store_true",
        help="bring a folder's images to the model's size and colours",
    )
    parser.add_argument(
        "--rate-distortion",
        action="store_true",
        help="sweep the qualities, and JPEG, WebP, AVIF, JPEG XL, JPEG 2000, PNG and others on the "
        "same images; writes tables and pictures to --out",
    )
    parser.add_argument(
        "--out", type=Path, default=OUT, help=f"folder of the study (default: {OUT})"
    )
    parser.add_argument("--name", help="the study's name there (default: the dataset's)")
    parser.add_argument("--seed", type=int, default=0, help="of the sampled reconstruction's noise")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    parser.add_argument(
        "--figure", type=Path, metavar="FILE", help="draw originals over reconstructions there"
    )
    parser.add_argument(
        "-f", "--force", action="store_true", help="overwrite what --json and --figure name"
    )


def check(args: argparse.Namespace) -> None:
    """Raises ConfigError for arguments that cannot be, or do not go together."""
    if not 0 <= args.seed < 2**32:
        raise ConfigError(f"--seed must be from 0 to 4294967295, not {args.seed}")
    if args.figure and args.figure.suffix not in (".png", ".pdf", ".svg"):
        raise ConfigError(
            f"--figure {args.figure}: expected a name that ends in .png, .pdf or .svg"
        )
    if len(args.ckpt) > 1 and not args.rate_distortion:
        raise ConfigError("several --ckpt go with --rate-distortion")


def check_outputs(args: argparse.Namespace) -> None:
    """Raises ConfigError where --json or --figure would overwrite what is read, or unasked."""
    from cvae_jax.cli.files import checkpoints, outputs

    read = checkpoints.named(*args.ckpt)
    if args.dataset and Path(args.dataset).is_dir():
        read += [path for path in Path(args.dataset).rglob("*") if path.is_file()]
    elif args.dataset:
        read.append(Path(args.dataset))
    written = [outputs.to_file(str(path)) for path in (args.json, args.figure) if path]
    outputs.check(written, read, force=args.force)


def evaluate(args: argparse.Namespace) -> int:
    """The numbers of one checkpoint, or the study of several."""
    check(args)
    names = distinct_names(args.ckpt)
    check_outputs(args)
    # Slow to import: after the arguments.
    from cvae_jax import backend, codec

    backend.dispatch_inline()
    codecs = {}
    for name, path in zip(names, args.ckpt, strict=True):
        codecs[name] = codec.load(path)
        if codecs[name].record is None:
            raise CheckpointError(
                f"{path}: an archive's model only decodes, and measuring takes one that encodes; "
                "name the checkpoint that it was made from"
            )
    return (
        rate_distortion(args, codecs) if args.rate_distortion else measure(args, *codecs.values())
    )


def distinct_names(paths: Sequence[str]) -> list[str]:
    """What the study calls each checkpoint: the end of its path, long enough to tell them apart.

    Raises:
      ConfigError: two of them are one.
    """
    parts = [Path(path).resolve().parts for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["-".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise ConfigError(f"the same checkpoint is named twice in --ckpt {' '.join(paths)}")


def dataset_of(args: argparse.Namespace, c: Codec) -> str:
    return args.dataset or c.made_by().dataset.name


def open_images(args: argparse.Namespace, c: Codec, split: str) -> Source:
    """The split's images, as the model wants them."""
    from cvae_jax import data

    dataset = dataset_of(args, c)
    h, w, channels = c.model.image_shape
    # What the checkpoint was trained on may have been resized for it.
    convert = args.resize or not args.dataset
    try:
        images = data.open(
            dataset,
            split,
            args.data_dir,
            image_size=(h, w) if convert else None,
            channels=channels if convert else None,
        )
    except DataError as error:
        if args.dataset:
            raise
        raise DataError(
            f"what {args.ckpt[0]} was trained on is not here: give --dataset ({error})"
        ) from error
    if images.shape[1:] != c.model.image_shape:
        remedy = "; --resize converts them" if Path(dataset).is_dir() else ""
        raise DataError(
            f"the images of {dataset} are {'x'.join(map(str, images.shape[1:]))}, the model's "
            f"{'x'.join(map(str, c.model.image_shape))}{remedy}"
        )
    return images


def measure(args: argparse.Namespace, c: Codec) -> int:
    """The numbers of one checkpoint."""
    from cvae_jax import evaluation
    from cvae_jax.cli.files import outputs
    from cvae_jax.cli.files.paths import is_stdout

    if args.figure:
        with needs("train", "--figure"):
            from cvae_jax.runs import plots
    images, dataset = open_images(args, c, args.split), dataset_of(args, c)
    result = evaluation.evaluate(c.model, c.params, images, args.seed)
    # What is reported must not be mixed with a file that goes to standard output.
    to = sys.stderr if args.json and is_stdout(str(args.json)) else sys.stdout
    print(f"{args.ckpt[0]}, trained on {c.made_by().dataset.name}", file=to)
    print(f"{dataset}, {args.split} split, {len(images)} images", file=to)
    print(evaluation.table(result.summary), file=to)
    if args.json:
        record = c.made_by().to_dict()
        report = {
            "checkpoint": {"dataset": record["dataset"], "config": record["config"]},
            "dataset": {"name": dataset, "split": args.split, "images": len(images)},
            "seed": args.seed,
            "summary": evaluation.to_json(result.summary),
        }
        content = json.dumps(report, indent=2, allow_nan=False) + "\n"
        outputs.write(outputs.to_file(str(args.json)), content.encode(), force=args.force)
    if args.figure:
        reconstruct = functools.partial(evaluation.reconstruct, c.model, c.params)
        figure = plots.worst_and_best(images, reconstruct, result.per_image["mse"])
        # By its suffix it is drawn, so the picture has that from the start.
        with tempfile.TemporaryDirectory() as folder:
            drawn = Path(folder) / f"figure{args.figure.suffix}"
            plots.save(figure, drawn)
            outputs.write(outputs.to_file(str(args.figure)), drawn.read_bytes(), force=args.force)
    return 0


def rate_distortion(args: argparse.Namespace, codecs: dict[str, Codec]) -> int:
    """The study of the checkpoints' files against other codecs'."""
    from cvae_jax import data
    from cvae_jax.data.sources import to_memory

    with needs("bench", "--rate-distortion"):
        from cvae_jax.study import report, sweep

    first = next(iter(codecs.values()))
    images, training = (
        to_memory(open_images(args, first, split)) for split in (args.split, "train")
    )
    for name, c in codecs.items():
        if c.model.image_shape != first.model.image_shape:
            raise ConfigError(f"{name} is for images of another size than the first")
        c.tables  # noqa: B018, refuses a checkpoint without them before the work
    dataset = dataset_of(args, first)
    name = args.name or Path(dataset).stem
    command = f"cvae evaluate --ckpt {' '.join(args.ckpt)} --rate-distortion"
    for flag in ("dataset", "name", "out"):
        if (value := getattr(args, flag)) not in (None, OUT):
            command += f" --{flag} {value}"
    print(f"{dataset}, {args.split} split, {len(images)} images", flush=True)
    found = sweep.run(codecs, images, training, lambda line: print(line, flush=True))
    print(report.summary(found.report))
    from_jpeg = data.from_jpeg(dataset, args.data_dir)
    written = report.write(found, codecs, images, args.out, name, command, from_jpeg=from_jpeg)
    for path in written:
        print(path)
    return 0
