"""Priors of small maps, of random weights."""

import numpy as np

from cvae_jax.coding.integers.layers import Layer
from cvae_jax.coding.maps.prior import NEIGHBOURS, Group, MapPrior
from cvae_jax.coding.vectors.tables import REACH


def random_prior(grid=(3, 2, 4), groups=2, hidden=(6, 5, 4), seed=0) -> MapPrior:
    """A valid prior whose means and widths depend on everything around."""
    rng = np.random.default_rng(seed)
    width = grid[2] // groups

    def layer(inputs, outputs, bits, spread, shift):
        weights = rng.integers(-spread, spread + 1, (outputs, inputs)).astype(np.int32)
        bias = rng.integers(-300, 300, outputs).astype(np.int32)
        return Layer(weights, bias, np.full(outputs, shift, np.uint8), bits)

    def output(inputs):
        made = layer(inputs, 2 * width, 0, 1, 4)
        made.bias[width:] += 16 * 72  # wide enough for typical latents
        return made

    h0, h1, h2 = hidden
    return MapPrior(
        grid=grid,
        unit_size=float(np.float32(0.001)),
        slope=1.0,
        curve=_bell(),
        input_shift=6,
        limits=rng.integers(30, 60, grid[2]).astype(np.uint16),
        context=layer(len(NEIGHBOURS) * grid[2] + 1, h0, 7, 9, 3),
        groups=tuple(
            Group(layer(h0 + k * width, h1, 7, 9, 3), layer(h1, h2, 7, 9, 3), output(h2))
            for k in range(groups)
        ),
    )


def _bell() -> np.ndarray:
    points = np.arange(-REACH, REACH + 1) / 8
    rising = np.rint((1 << 20) / (1 + np.exp(-points))).astype(np.int64)
    return (rising + np.arange(len(points))).astype(np.uint32)


def typical_latents(prior: MapPrior, n: int, seed: int = 0) -> np.ndarray:
    """float32 ``[n, D]``."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, prior.latent_dim)) * prior.unit_size * 300).astype(np.float32)
