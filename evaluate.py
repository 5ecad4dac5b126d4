"""Measures a checkpoint:  python evaluate.py --ckpt checkpoints/mnist"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from cvae_jax import backend, data, errors


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
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    backend.use_compilation_cache()
    from cvae_jax import codec, evaluation, plots  # slow to import: after the arguments

    c = codec.load(args.ckpt)
    trained_on = c.record["dataset"]["name"]
    dataset = args.dataset or trained_on
    h, w, channels = c.model.image_shape
    wanted = {"image_size": (h, w), "channels": channels} if args.resize else {}
    images = data.load(dataset, args.split, args.data_dir, **wanted)
    if images.shape[1:] != c.model.image_shape:
        raise errors.DataError(
            f"the images of {dataset} are {'x'.join(map(str, images.shape[1:]))}, the model's "
            f"{'x'.join(map(str, c.model.image_shape))}: --resize converts a folder's images"
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
            "figures": result.figures,
        }
        args.json.write_text(json.dumps(report, indent=2) + "\n")
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
