"""``cvae release`` and ``cvae import-keras``: checkpoints made of what training left."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from cvae_jax.errors import needs


def add_parsers(commands: Any) -> None:
    sub = commands.add_parser(
        "release",
        help="turn a finished run into a checkpoint with a model card",
        description="Turns a finished run into a released checkpoint: the parameters of its best "
        "step, their figures on the test split, a picture, and a model card.",
    )
    sub.add_argument("workdir", metavar="WORKDIR", help="of a finished run of cvae train")
    sub.add_argument("out", metavar="OUT", type=Path, help="folder of the new checkpoint")
    sub.add_argument("--data-dir", help="where the run's dataset is")
    sub.set_defaults(program=release)

    sub = commands.add_parser(
        "import-keras",
        help="turn the original Keras project's weights into a checkpoint",
        description="Turns the original Keras project's weights into a checkpoint.",
    )
    sub.add_argument("encoder", metavar="ENCODER.h5")
    sub.add_argument("decoder", metavar="DECODER.h5")
    sub.add_argument("out", metavar="OUT", type=Path, help="folder of the new checkpoint")
    sub.set_defaults(program=import_keras)


def release(args: Namespace) -> int:
    with needs("train", "cvae release"):
        from cvae_jax.runs.release import release
    release(args.workdir, args.out, args.data_dir)
    print(f"{args.out}: released; its model card is {args.out / 'README.md'}")
    return 0


def import_keras(args: Namespace) -> int:
    from cvae_jax.runs.keras_import import convert

    convert(args.encoder, args.decoder, args.out)
    print(f"{args.out}: a checkpoint; cvae evaluate --ckpt {args.out} measures it")
    return 0
