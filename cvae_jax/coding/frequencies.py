"""What all frequency tables have in common: their total, and how the coder takes them."""

from __future__ import annotations

import constriction
import numpy as np

PRECISION = 24
TOTAL = 1 << PRECISION  # every table's frequencies add up to this


def categorical(frequencies: np.ndarray) -> object:
    """A constriction model of exactly these frequencies (at least 1 each, sum TOTAL).

    Its rule is floor(sum of the weights so far * scale) + one for each symbol, where scale
    brings the weights to TOTAL less the number of symbols.  With each frequency less one as its
    weight, the scale is 1 and all numbers are small integers, which float64 holds exactly.
    """
    weights = frequencies.astype(np.float64) - 1
    return constriction.stream.model.Categorical(weights, perfect=False)
