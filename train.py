"""Trains the convolutional VAE: ``cvae train``, in a clone that may not be installed."""

import sys

from cvae_jax.cli.start import run

run(["train", *sys.argv[1:]])
