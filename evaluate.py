"""Measures a checkpoint: ``cvae evaluate``, in a clone that may not be installed."""

import sys

from cvae_jax.cli.start import run

run(["evaluate", *sys.argv[1:]])
