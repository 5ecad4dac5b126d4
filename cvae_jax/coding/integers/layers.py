"""Layers of small integers, exact in float32: what context models and priors are made of."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cvae_jax.errors import FormatError

EXACT = 1 << 24  # float32 holds every integer up to here
MAX_SHIFT = 23  # of a sum


class Layer(NamedTuple):
    """Sums of weights times inputs, plus a bias, then shifted right."""

    weights: np.ndarray  # int32 [outputs, inputs]
    bias: np.ndarray  # int32 [outputs]
    shift: np.ndarray  # uint8 [outputs]
    bits: int  # what it passes on is from 0 to 2**bits - 1; 0 for the last, whose sums are outputs

    @property
    def top(self) -> int:
        """The largest number that it passes on."""
        return (1 << self.bits) - 1

    def check(self, largest: np.ndarray, what: str) -> None:
        """Proves that every sum, and any part of one, is exact.

        largest: of each input, the largest size, int64 ``[inputs]``; what: this layer's name.

        Raises:
          FormatError: it is not, or the weights are not for these inputs.
        """
        outputs = (len(self.bias),)
        fits = self.weights.shape == (*outputs, len(largest)) and self.shift.shape == outputs
        if not fits:
            raise FormatError(f"{what} has weights of another architecture")
        sums = np.abs(self.weights.astype(np.int64)) @ largest
        most = int((sums + np.abs(self.bias.astype(np.int64))).max())
        if most >= EXACT:
            raise FormatError(
                f"{what} could reach {most}, beyond 2**24: its sums would not be exact"
            )

    def scaled(self) -> np.ndarray:
        """Weights and bias, ``[outputs, inputs + 1]``, whose sums come out shifted: times powers of
        two, which is exact."""
        weights = np.concatenate([self.weights, self.bias[:, None]], axis=1)
        return weights.astype(np.float32) * self.factor[:, None]

    @property
    def factor(self) -> np.ndarray:
        """What the shift multiplies sums by, float32 ``[outputs]``."""
        return np.float32(2) ** -self.shift.astype(np.float32)


def rounded_layer(weights: np.ndarray, bias: np.ndarray, shift: np.ndarray, bits: int) -> Layer:
    """A layer of whole weights, float ``[inputs, outputs]``, whose sums are shifted to the nearest,
    not down; what is too large to be exact stays so, for ``check`` to find."""
    half = np.floor(2.0 ** (shift - 1))
    whole = np.rint(np.clip(bias + half, -EXACT, EXACT)).astype(np.int32)
    return Layer(weights.T.astype(np.int32), whole, shift.astype(np.uint8), bits)
