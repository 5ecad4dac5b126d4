"""``cvae verify``: everything that a file holds is decoded, and every check compared."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from cvae_jax import bitstream, errors
from cvae_jax.bitstream import Budget
from cvae_jax.bitstream.records import SPOT
from cvae_jax.cli import models
from cvae_jax.cli.reports import Report, counted


def verify(args: Namespace) -> Report:
    results, lines, status = [], [], 0
    for name in args.inputs:
        result: dict[str, Any] = {"file": name}
        try:
            with models.naming(name):
                count, what = _verified(models.read(name), args.ckpt, Budget(args.max_cost))
        except Exception as error:
            failure = errors.failure(error)
            if failure is None:
                raise
            fault = failure.line.removeprefix(f"{name}: ")
            results.append({**result, "intact": False, "error": fault})
            lines.append(f"{name}: {fault}")
            status = max(status, failure.exit_code)
        else:
            results.append({**result, "intact": True, "images": count})
            lines.append(f"{name}: intact, {what}")
    return Report({"files": results}, lines, status)


def _verified(content: bytes, ckpt: str | None, allowed: Budget) -> tuple[int, str]:
    """How many images a file holds whose every check matches, and what it holds in words."""
    if not bitstream.is_archive(content):
        model = models.of_single(content, ckpt, allowed)
        bitstream.single.decode(content, model.decoder(1), allowed)
        return 1, counted(1, "image")
    opened = models.open_archive(content, allowed)
    decoder = models.of_archive(opened, ckpt).decoder(len(opened))
    count = bitstream.verify_archive(opened, decoder)
    if opened.is_model_file:
        return count, "a model"
    spots = sum(opened.chunk(k).spot for k in range(len(opened.entries)))
    told = f", of which it vouches for the first {SPOT} in each chunk" if spots else ""
    return count, counted(count, "image") + told
