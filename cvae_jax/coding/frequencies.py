"""What all frequency tables have in common: their total, and how the library's coder is used."""

from __future__ import annotations

import constriction
import numpy as np

from cvae_jax.errors import FormatError

PRECISION = 24
TOTAL = 1 << PRECISION  # every table's frequencies add up to this


# Takes the weights of each symbol's own distribution, ``[n, symbols]``.
EACH_ITS_OWN = constriction.stream.model.Categorical(perfect=False)


def weights_of(frequencies: np.ndarray) -> np.ndarray:
    """What constriction makes exactly these frequencies of (at least 1 each, sum TOTAL): float64.

    Its rule is floor(sum of the weights so far * scale) + one for each symbol, where scale
    brings the weights to TOTAL less the number of symbols.  With each frequency less one as its
    weight, the scale is 1 and all numbers are small integers, which float64 holds exactly.
    """
    return frequencies.astype(np.float64) - 1


def categorical(frequencies: np.ndarray) -> object:
    """A constriction model of exactly these frequencies, as for ``weights_of``."""
    return constriction.stream.model.Categorical(weights_of(frequencies), perfect=False)


def ans_words(stream: bytes, what: str) -> np.ndarray:
    """The words of an ANS stream, uint32; raises FormatError, naming ``what``, if it has no whole
    number of them."""
    if len(stream) % 4:
        raise FormatError(f"{what} of {len(stream)} bytes; expected a multiple of 4")
    return np.frombuffer(stream, "<u4").astype(np.uint32)


def ans_decoder(words: np.ndarray, what: str) -> constriction.stream.stack.AnsCoder:
    """Reads from words, uint32; raises FormatError, naming ``what``, if no encoder ends so."""
    try:
        return constriction.stream.stack.AnsCoder(words)
    except ValueError as error:
        raise FormatError(f"{what} that ends in zeros") from error
