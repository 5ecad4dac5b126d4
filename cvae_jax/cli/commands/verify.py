"""``cvae verify``: everything that a file holds is decoded, and every check compared."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from cvae_jax import bitstream
from cvae_jax.bitstream import Budget
from cvae_jax.bitstream.records import SPOT
from cvae_jax.cli import jobs, models
from cvae_jax.cli.reports import Report, counted
from cvae_jax.jobs.verify import Verification, fault, verified
from cvae_jax.shards import Shards, present


def verify(args: Namespace) -> Report:
    results, lines, status = [], [], 0
    for name in args.inputs:
        if (shards := present(name)) is not None:
            found, faults = _of_set(args, shards)
            results += found
            lines += faults
            status = max(status, *(result.get("exit_code", 0) for result in found))
            continue
        try:
            with models.naming(name):
                count, what = _verified(models.read(name), args.ckpt, Budget(args.max_cost))
        except Exception as error:
            result = fault(name, error)
            results.append(result)
            lines.append(f"{name}: {result['error']}")
            status = max(status, result["exit_code"])
        else:
            results.append({"file": name, "intact": True, "images": count})
            lines.append(f"{name}: intact, {what}")
    return Report({"files": results}, lines, status)


def _of_set(args: Namespace, shards: Shards) -> tuple[list[dict[str, Any]], list[str]]:
    """What to say of each shard, and the lines: of the whole set, and of each fault."""
    work = Verification(shards, args.ckpt, args.max_cost)
    results, _ = jobs.carried_out(args, work, shards.count, models.images_of(shards), "verify")
    faults = [f"{r['file']}: {r['error']}" for r in results if not r["intact"]]
    told = "damaged" if faults else "intact"
    images = sum(result.get("images", 0) for result in results)
    intact = f"{counted(images, 'image')} in {counted(shards.count - len(faults), 'shard')}"
    return results, [*faults, f"{shards}: {told}, {intact}{' intact' if faults else ''}"]


def _verified(content: bytes, ckpt: str | None, allowed: Budget) -> tuple[int, str]:
    """How many images a file holds whose every check matches, and what it holds in words."""
    if not bitstream.is_archive(content):
        model = models.of_single(content, ckpt, allowed)
        bitstream.single.decode(content, model.decoder(1), allowed)
        return 1, counted(1, "image")
    opened = models.open_archive(content, allowed)
    count = verified(opened, models.of_archive(opened, ckpt))
    if opened.is_model_file:
        return count, "a model"
    spots = sum(opened.chunk(k).spot for k in range(len(opened.entries)))
    told = f", of which it vouches for the first {SPOT} in each chunk" if spots else ""
    return count, counted(count, "image") + told
