"""``cvae info``: what a file holds, and what its bytes are spent on."""

from __future__ import annotations

from argparse import Namespace

from cvae_jax.bitstream import Budget
from cvae_jax.cli import models
from cvae_jax.cli.commands import ledger
from cvae_jax.cli.reports import Report


def info(args: Namespace) -> Report:
    account = ledger.account(models.read(args.input), args.ckpt, Budget(args.max_cost))
    return Report({"file": args.input, **account.to_dict()}, [f"{args.input}: {account.text()}"])
