"""The network of a map's prior: from the latents around a place to what is expected there."""

from __future__ import annotations

import numpy as np

from cvae_jax.coding.integers.layers import Layer
from cvae_jax.coding.maps.prior import (
    MEAN_UNIT,
    NEIGHBOURS,
    WIDTHS,
    MapPrior,
    Places,
    log_of_step,
)

BORDER = 2  # rows above, and columns on each side, that neighbours reach beyond a map


class Network:
    """A prior, ready to be computed for one step of the quantiser."""

    def __init__(self, prior: MapPrior, step: int):
        self._prior = prior
        self._context = prior.context.scaled().T.copy()
        # What the step adds is the same everywhere.
        self._context[-1] += self._context[-2] * log_of_step(step)
        self._context = np.delete(self._context, -2, axis=0)
        self._groups = [[layer.scaled().T.copy() for layer in group] for group in prior.groups]

    def canvas(self, n: int) -> np.ndarray:
        """Room for the inputs of n maps and the zeros around them: float32
        ``[n, h + 2, w + 4, c]``."""
        h, w, c = self._prior.grid
        return np.zeros((n, h + BORDER, w + 2 * BORDER, c), np.float32)

    def inputs(self, units: np.ndarray, channels: slice) -> np.ndarray:
        """What the network sees of latents of these channels, int64 ``[..., channels]`` in units:
        float32 of that shape."""
        prior = self._prior
        half = 1 << prior.input_shift >> 1
        limits = prior.limits[channels].astype(np.int64)
        return np.clip((units + half) >> prior.input_shift, -limits, limits).astype(np.float32)

    def context(self, canvas: np.ndarray, places: Places) -> np.ndarray:
        """What is known around P places of each map: float32 ``[n * P, h0]``."""
        y, x = places.rows + BORDER, places.columns + BORDER
        around = np.concatenate([canvas[:, y + i, x + j] for i, j in NEIGHBOURS], axis=2)
        return _passed(around.reshape(-1, around.shape[2]), self._context, self._prior.context)

    def group(
        self, k: int, context: np.ndarray, known: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """A group's means, in units, and the numbers of their widths: int64 ``[n * P, g]`` each.

        context: ``[n * P, h0]``; known: the inputs of the earlier groups, float32
        ``[n * P, k * g]``.
        """
        layers, scaled = self._prior.groups[k], self._groups[k]
        x = np.concatenate([context, known], axis=1)
        for layer, weights in zip(layers[:2], scaled, strict=False):
            x = _passed(x, weights, layer)
        outputs = np.floor(x @ scaled[2][:-1] + scaled[2][-1]).astype(np.int64)
        means, widths = np.split(outputs, 2, axis=1)
        return means * MEAN_UNIT, np.clip(widths, 0, WIDTHS - 1)


def _passed(x: np.ndarray, scaled: np.ndarray, layer: Layer) -> np.ndarray:
    """What a layer passes on; scaled: its weights, and the bias as the last row."""
    out = x @ scaled[:-1]
    out += scaled[-1]
    np.clip(out, 0, layer.top, out=out)
    return np.floor(out, out=out)
