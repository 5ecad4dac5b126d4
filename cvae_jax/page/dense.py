"""Bytes as text of a script, in 91 characters: 13 bits in two, where base64 has 12.

``web/src/codec/dense.js`` is the inverse.
"""

from __future__ import annotations

import numpy as np

# The printable characters but those with a meaning in HTML or in a string of JavaScript.
ALPHABET = "".join(chr(code) for code in range(33, 127) if chr(code) not in '<"\\')
BITS = 13


def to_text(data: bytes) -> str:
    """Low bits first; what is missing of the last 13 is 0."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    bits = np.concatenate([bits, np.zeros(-len(bits) % BITS, np.uint8)])
    numbers = bits.reshape(-1, BITS) @ (1 << np.arange(BITS))
    codes = np.frombuffer(ALPHABET.encode(), np.uint8)
    pairs = np.stack([numbers % len(codes), numbers // len(codes)], axis=1)
    return codes[pairs].tobytes().decode()
