"""Measures a checkpoint:  python evaluate.py --ckpt checkpoints/mnist

With --rate-distortion: its files, at every quality, against those of every other codec.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cvae_jax import errors
from cvae_jax.cli.flags import Parser

if TYPE_CHECKING:
    import numpy as np

    from cvae_jax.codec import Codec


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--ckpt",
        required=True,
        nargs="+",
        help="a workdir of train.py (its best step), a step inside it, or a released checkpoint; "
        "several with --rate-distortion",
    )
    parser.add_argument(
        "--dataset",
        help="what to measure on: mnist, digits, a TFDS name, an IDX directory, an image folder, "
        "or an .npy/.npz file (without it: what the checkpoint was trained on)",
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
        "--out", type=Path, default=Path("results"), help="folder of the study (default: results)"
    )
    parser.add_argument("--name", help="the study's name there (default: the dataset's)")
    parser.add_argument("--seed", type=int, default=0, help="of the sampled reconstruction's noise")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    parser.add_argument(
        "--figure", type=Path, metavar="FILE", help="draw originals over reconstructions there"
    )
    args = parser.parse_args(argv)
    if not 0 <= args.seed < 2**32:
        parser.error(f"--seed must be from 0 to 4294967295, not {args.seed}")
    if args.figure and args.figure.suffix not in (".png", ".pdf", ".svg"):
        parser.error(f"--figure {args.figure}: expected a name that ends in .png, .pdf or .svg")
    if len(args.ckpt) > 1 and not args.rate_distortion:
        parser.error("several --ckpt go with --rate-distortion")
    for path in filter(None, (args.json, args.figure)):
        if not path.parent.is_dir():
            parser.error(f"{path}: there is no folder {path.parent}")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    # Slow to import: after the arguments.
    from cvae_jax import backend, codec

    backend.use_compilation_cache()
    backend.dispatch_inline()
    codecs = {Path(path).resolve().name: codec.load(path) for path in args.ckpt}
    return (
        rate_distortion(args, codecs) if args.rate_distortion else measure(args, *codecs.values())
    )


def dataset_of(args: argparse.Namespace, c: Codec) -> str:
    return args.dataset or c.made_by().dataset.name


def load(args: argparse.Namespace, c: Codec, split: str) -> np.ndarray:
    """The split's images, uint8 ``[N, H, W, C]``, as the model wants them."""
    from cvae_jax import data

    dataset = dataset_of(args, c)
    h, w, channels = c.model.image_shape
    # What the checkpoint was trained on may have been resized for it.
    convert = args.resize or not args.dataset
    wanted = {"image_size": (h, w), "channels": channels} if convert else {}
    images = data.load(dataset, split, args.data_dir, **wanted)
    if images.shape[1:] != c.model.image_shape:
        remedy = "; --resize converts them" if Path(dataset).is_dir() else ""
        raise errors.DataError(
            f"the images of {dataset} are {'x'.join(map(str, images.shape[1:]))}, the model's "
            f"{'x'.join(map(str, c.model.image_shape))}{remedy}"
        )
    return images


def measure(args: argparse.Namespace, c: Codec) -> int:
    """The numbers of one checkpoint."""
    from cvae_jax.pixels import to_unit
    from cvae_jax.runs import evaluation, plots

    images, dataset = load(args, c, args.split), dataset_of(args, c)
    result = evaluation.evaluate(c.model, c.params, images, args.seed)
    print(f"{args.ckpt[0]}, trained on {c.made_by().dataset.name}")
    print(f"{dataset}, {args.split} split, {len(images)} images")
    print(evaluation.table(result.summary))
    if args.json:
        record = c.made_by().to_dict()
        report = {
            "checkpoint": {"dataset": record["dataset"], "config": record["config"]},
            "dataset": {"name": dataset, "split": args.split, "images": len(images)},
            "seed": args.seed,
            "summary": evaluation.to_json(result.summary),
        }
        args.json.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n")
    if args.figure:
        plots.save(
            plots.worst_and_best(
                to_unit(images), to_unit(result.reconstructions), result.per_image["mse"]
            ),
            args.figure,
        )
    return 0


def rate_distortion(args: argparse.Namespace, codecs: dict[str, Codec]) -> int:
    """The study of the checkpoints' files against other codecs'."""
    from cvae_jax.study import report, sweep

    first = next(iter(codecs.values()))
    images, training = (load(args, first, split) for split in (args.split, "train"))
    for name, c in codecs.items():
        if c.model.image_shape != first.model.image_shape:
            raise errors.ConfigError(f"{name} is for images of another size than the first")
        c.tables  # noqa: B018, refuses a checkpoint without them before the work
    dataset = dataset_of(args, first)
    name = args.name or Path(dataset).stem
    command = f"python evaluate.py --ckpt {' '.join(args.ckpt)} --rate-distortion"
    for flag in ("dataset", "name"):
        if value := getattr(args, flag):
            command += f" --{flag} {value}"
    print(f"{dataset}, {args.split} split, {len(images)} images", flush=True)
    found = sweep.run(codecs, images, training, lambda line: print(line, flush=True))
    print(report.summary(found.report))
    for path in report.write(found, codecs, images, args.out, name, command):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(errors.run(main))
