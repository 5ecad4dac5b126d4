"""Trains the convolutional VAE:  python train.py --workdir checkpoints

Started again with the same command, a stopped run goes on exactly where its last checkpoint was.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from cvae_jax import backend, data, errors
from cvae_jax.config import PRESETS, Config, ModelConfig, TrainConfig

SECTIONS = {"model": ModelConfig, "training": TrainConfig}


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    run = parser.add_argument_group("run")
    run.add_argument(
        "--workdir", type=Path, required=True, help="where checkpoints, metrics and pictures go"
    )
    run.add_argument(
        "--preset",
        choices=PRESETS,
        help="settings to start from; flags below override single ones "
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
        "(without it: mnist if it is here or can be fetched, else digits)",
    )
    source.add_argument("--data_dir", help="where prepared datasets are, and downloads go")
    for title, section in SECTIONS.items():
        group = parser.add_argument_group(title)
        for field in dataclasses.fields(section):
            several = isinstance(field.default, tuple)
            group.add_argument(
                f"--{field.name}",
                type=int if several else type(field.default),
                nargs="+" if several else None,
                choices=field.metadata["choices"],
                metavar=None if field.metadata["choices"] else "N",
                help=field.metadata["help"],
            )
    return parser.parse_args(argv)


def configure(args: argparse.Namespace, dataset: str, image_shape: tuple[int, int, int]) -> Config:
    """The preset with the flags given on top, for images of this shape."""
    preset = args.preset or ("digits" if dataset == "digits" else "default")
    names = [f.name for section in SECTIONS.values() for f in dataclasses.fields(section)]
    given = {n: getattr(args, n) for n in names if getattr(args, n) is not None}
    if "filters" in given:
        given["filters"] = tuple(given["filters"])
    shape = dict(zip(("height", "width", "channels"), image_shape, strict=True))
    return PRESETS[preset].replace(**{**given, **shape})


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    backend.use_compilation_cache()
    dataset = data.resolve(args.dataset, args.data_dir)
    if dataset.note:
        print(dataset.note)
    if (args.height is None) != (args.width is None):
        raise errors.ConfigError("--height and --width go together")
    size = None if args.height is None else (args.height, args.width)
    full, test = (
        data.load(dataset.name, split, args.data_dir, image_size=size, channels=args.channels)
        for split in ("train", "test")
    )
    config = configure(args, dataset.name, full.shape[1:])

    from cvae_jax import codec, evaluation, experiment  # slow to import: after the arguments

    images = experiment.TrainingData.split(
        dataset.name, full, test, config.train.validation_fraction
    )
    del full  # the split has copied it
    print(
        f"{dataset.name}: {len(images.train)} training, {len(images.validation)} validation, "
        f"{len(test)} test images of {'x'.join(map(str, test.shape[1:]))}"
    )
    try:
        best = experiment.train(
            config, images, args.workdir, fresh=args.fresh, tensorboard=args.tensorboard
        )
    except experiment.Interrupted as stop:
        print(f"{stop}; the same command goes on from there", file=sys.stderr)
        return stop.exit_code
    trained = codec.load(best)
    result = evaluation.evaluate(trained.model, trained.params, test)
    print(f"\nbest checkpoint: {best}\n{dataset.name}, {len(test)} test images")
    print(evaluation.table(result.figures))
    print(f"pictures: {', '.join(str(p) for p in sorted(args.workdir.glob('*.png')))}")
    return 0


if __name__ == "__main__":
    sys.exit(errors.run(main))
