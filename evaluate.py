"""Measures a checkpoint:  python evaluate.py --ckpt checkpoints/mnist"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from cvae_jax import errors


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--ckpt",
        required=True,
        help="a workdir of train.py (its best step), a step inside it, or a released checkpoint",
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
    parser.add_argument("--data_dir", help="where prepared datasets are, and downloads go")
    parser.add_argument(
        "--resize",
        action="store_true",
        help="bring a folder's images to the model's size and colours",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the sampled reconstruction's noise")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument(
        "--figure", type=Path, metavar="FILE", help="draw originals over reconstructions there"
    )
    args = parser.parse_args(argv)
    if not 0 <= args.seed < 2**32:
        parser.error(f"--seed must be from 0 to 4294967295, not {args.seed}")
    if args.figure and args.figure.suffix not in (".png", ".pdf", ".svg"):
        parser.error(f"--figure {args.figure}: expected a name that ends in .png, .pdf or .svg")
    for path in filter(None, (args.json, args.figure)):
        if not path.parent.is_dir():
            parser.error(f"{path}: there is no folder {path.parent}")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    # Slow to import: after the arguments.
    from cvae_jax import backend, codec, data, evaluation, plots

    backend.use_compilation_cache()
    backend.dispatch_inline()
    c = codec.load(args.ckpt)
    trained_on = c.record["dataset"]["name"]
    dataset = args.dataset or trained_on
    h, w, channels = c.model.image_shape
    # What the checkpoint was trained on may have been resized for it.
    convert = args.resize or not args.dataset
    wanted = {"image_size": (h, w), "channels": channels} if convert else {}
    images = data.load(dataset, args.split, args.data_dir, **wanted)
    if images.shape[1:] != c.model.image_shape:
        remedy = "; --resize converts them" if Path(dataset).is_dir() else ""
        raise errors.DataError(
            f"the images of {dataset} are {'x'.join(map(str, images.shape[1:]))}, the model's "
            f"{'x'.join(map(str, c.model.image_shape))}{remedy}"
        )
    result = evaluation.evaluate(c.model, c.params, images, args.seed)
    print(f"{args.ckpt}, trained on {trained_on}")
    print(f"{dataset}, {args.split} split, {len(images)} images")
    print(evaluation.table(result.figures))
    if args.json:
        report = {
            "checkpoint": {"dataset": c.record["dataset"], "config": c.record["config"]},
            "dataset": {"name": dataset, "split": args.split, "images": len(images)},
            "seed": args.seed,
            "figures": evaluation.to_json(result.figures),
        }
        args.json.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n")
    if args.figure:
        plots.save(
            plots.worst_and_best(
                images / 255.0, result.reconstructions / 255.0, result.per_image["mse"]
            ),
            args.figure,
        )
    return 0


if __name__ == "__main__":
    sys.exit(errors.run(main))
