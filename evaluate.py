"""Measures a checkpoint: ``cvae evaluate``, in a clone that may not be installed."""

import sys

from cvae_jax.cli.parser import run

run(["evaluate", *sys.argv[1:]])
