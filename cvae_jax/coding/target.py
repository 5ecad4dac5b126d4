"""The quality that meets a target, by bisection over the whole qualities from 0 to 100."""

from __future__ import annotations

from collections.abc import Callable

from cvae_jax.errors import ConfigError


def quality_for_bytes(bytes_per_image: Callable[[int], float], target: float) -> int:
    """The highest quality that takes at most ``target`` bytes per image.

    Raises:
      ConfigError: even quality 0 takes more.
    """
    found = _first(lambda quality: bytes_per_image(quality) > target) - 1
    if found < 0:
        raise ConfigError(f"no quality from 0 to 100 reaches {target} bytes with these images")
    return found


def quality_for_psnr(mse: Callable[[int], float], target: float) -> int:
    """The lowest quality that gives at least ``target`` dB, of the mean squared error.

    Raises:
      ConfigError: even quality 100 gives less.
    """
    found = _first(lambda quality: mse(quality) <= 10 ** (-target / 10))
    if found > 100:
        raise ConfigError(f"no quality from 0 to 100 reaches {target} dB with these images")
    return found


def _first(holds: Callable[[int], bool]) -> int:
    """The first quality for which ``holds``, as it then does for all above; 101 if for none."""
    low, high = 0, 101
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
