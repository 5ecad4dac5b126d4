"""``cvae model``: an archive of no images that carries its model, for ``--ckpt`` elsewhere."""

from __future__ import annotations

from argparse import Namespace

from cvae_jax import reader
from cvae_jax.cli.files import checkpoints, outputs
from cvae_jax.cli.reports import Report


def model(args: Namespace) -> Report:
    output = outputs.to_file(args.output)
    outputs.check([output], checkpoints.named(args.checkpoint), force=args.force)
    files = reader.load(args.checkpoint).files
    content = files.model_file()
    outputs.write(output, content, force=args.force)
    values = {"output": str(output), "bytes": len(content), "model": files.identity.model.hex()}
    return Report(values, [f"{output}: a model, {len(content)} bytes"])
