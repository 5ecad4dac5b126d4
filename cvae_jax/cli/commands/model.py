"""``cvae model``: a file of a checkpoint's decoder, for who only decodes."""

from __future__ import annotations

from argparse import Namespace

from cvae_jax import codec
from cvae_jax.cli.files import outputs
from cvae_jax.cli.reports import Report


def model(args: Namespace) -> Report:
    output = outputs.for_compressed([args.checkpoint], args.output)
    outputs.check([output], [], force=args.force)
    c = codec.load(args.checkpoint)
    content = c.model_file()
    outputs.write(output, content, force=args.force)
    values = {"output": str(output), "bytes": len(content), "model": c.identity.model.hex()}
    return Report(values, [f"{output}: a model, {len(content)} bytes"])
