"""``cvae web``: a page, one HTML file, that opens archives of a model and makes single images."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from cvae_jax import bitstream, codec, page
from cvae_jax.cli import models
from cvae_jax.cli.files import checkpoints, outputs
from cvae_jax.cli.reports import Report
from cvae_jax.errors import DataError
from cvae_jax.page import weights
from cvae_jax.runs.find import DEFAULT
from cvae_jax.shards import parse


def web(args: Namespace) -> Report:
    if args.archive and parse(args.archive) is not None:
        raise DataError(
            f"{args.archive}: a set of shards, and a page takes one archive: "
            f"cvae concat {args.archive} -o one.cvae joins them"
        )
    ckpt = args.ckpt or DEFAULT
    output = outputs.to_file(args.output)
    read = [Path(args.archive)] if args.archive else []
    outputs.check([output], [*checkpoints.named(ckpt), *read], force=args.force)
    made = codec.load(ckpt)
    archive = None
    if args.archive:
        with models.naming(args.archive):
            content = models.read(args.archive)
            of_archive = models.open_archive(content, bitstream.Budget())
            if not of_archive.has_model:
                of_archive.header.identity.require(made.identity)
            archive = Path(args.archive).name, content
    opens_only = made.model.latent_map is not None
    encoder = weights.pack(made) if made.record is not None and not opens_only else None
    content = page.build(made.file_model, Path(ckpt).name, encoder, archive).encode()
    outputs.write(output, content, force=args.force)
    values = {"output": str(output), "bytes": len(content), "encodes": encoder is not None}
    lines = [f"{output}: a page, {len(content)} bytes"]
    if opens_only:
        lines.append("It opens files, and cannot draw: the model's latents form a map.")
    return Report(values, lines)
