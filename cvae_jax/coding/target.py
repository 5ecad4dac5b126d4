"""The quality that meets a target, by bisection over the whole qualities from 0 to 100."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from cvae_jax.errors import ConfigError

_WORDS = {"embed_model": "the embedded model"}
PROBES = 7  # qualities tried at most: 2**7 > 101


class Size(Protocol):
    """Bytes per image of the file at a quality, with everything else that goes into it."""

    def __call__(self, quality: int, **extras: Any) -> float: ...


def quality_for_bytes(size: Size, target: float, extras: Mapping[str, Any]) -> int:
    """The highest quality whose file takes at most ``target`` bytes per image.

    extras: what goes into the file besides symbols (names, labels, the model), by name; None or
    False for what does not.

    Raises:
      ConfigError: even the file of quality 0 takes more, or the target is not a positive number.
    """
    _check(target, "bytes per image")
    found = _first(lambda quality: size(quality, **extras) > target) - 1
    if found >= 0:
        return found
    # By identity, as labels are an array.
    there = [name for name, value in extras.items() if value is not None and value is not False]
    given = [_WORDS.get(name, name) for name in there]
    fault = f"the smallest file, of quality 0, takes {size(0, **extras):.2f} bytes per image"
    if given:
        fault += f", and {size(0):.2f} without {' and '.join(given)}"
    raise ConfigError(f"{target:g} bytes per image cannot be met: {fault}")


def quality_for_psnr(mse: Callable[[int], float], target: float) -> int:
    """The lowest quality whose mean squared error gives a PSNR of at least ``target`` dB.

    Raises:
      ConfigError: even quality 100 gives less, or the target is not a positive number.
    """
    _check(target, "dB")
    found = _first(lambda quality: mse(quality) <= 10 ** (-target / 10))
    if found > 100:
        best = -10 * math.log10(mse(100))
        raise ConfigError(f"{target:g} dB cannot be met: quality 100 gives {best:.2f} dB")
    return found


def _check(target: float, unit: str) -> None:
    if not (math.isfinite(target) and target > 0):
        raise ConfigError(f"a target must be a positive number of {unit}, not {target:g}")


def _first(holds: Callable[[int], bool]) -> int:
    """The first quality where ``holds`` is true, as it is for all above; 101 if there is none."""
    low, high = 0, 101
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
