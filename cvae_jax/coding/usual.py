"""How well a model usually reproduces images, and so which images are unlike its training data.

Calibration measures it, and a checkpoint keeps it as ``calibration.json``.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import numpy as np

from cvae_jax.errors import FormatError, VersionError

QUALITIES = (0, 25, 50, 75, 100)  # at which errors are measured
PERCENT = (50, 90, 99, 100)  # the quantiles that are stored; the last is the worst image
# An image is unlike the training data if its error is more than this many times the worst that was
# measured.  At the default quality, MNIST's worst test image has 1.5 times the error of the worst
# held-out one, and nearly all photographs have more than twice.
TOLERANCE = 2
_FORMAT = 1


@dataclass(frozen=True)
class UsualErrors:
    """Quantiles of the mean squared errors of single images, decoded after ``quantize``."""

    images: int  # how many were measured
    steps: tuple[int, ...]  # of the quantiser, in units, coarse to fine
    mse: tuple[tuple[float, ...], ...]  # for each step, the quantiles PERCENT over the images

    def far(self, mse: np.ndarray, step: int) -> np.ndarray:
        """The indices of the errors, ``[N]``, far above what is usual at a step, worst first.

        Between steps, the limit is interpolated over the logarithm of the step.
        """
        worst = [quantiles[-1] for quantiles in self.mse]
        # np.interp needs rising positions, and the steps fall.
        places = [-math.log(at) for at in self.steps]
        limit = TOLERANCE * np.interp(-math.log(step), places, worst)
        order = np.argsort(-mse, kind="stable")
        return order[mse[order] > limit]

    def to_bytes(self) -> bytes:
        """As JSON."""
        fields = {"format": _FORMAT, "images": self.images, "percent": PERCENT}
        fields |= {"steps": self.steps, "mse": self.mse}
        return (json.dumps(fields, allow_nan=False) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> UsualErrors:
        """The inverse of ``to_bytes``.

        Raises:
          FormatError: these bytes are something else.
          VersionError: they are of a newer version.
        """
        try:
            fields = json.loads(data)
            version = fields["format"]
            if type(version) is int and version > _FORMAT:
                raise VersionError(
                    f"calibration.json has format {version}, this program reads format {_FORMAT}; "
                    "update cvae_jax"
                )
            steps = tuple(fields["steps"])
            mse = tuple(tuple(map(float, quantiles)) for quantiles in fields["mse"])
            intact = (
                version == _FORMAT
                and fields["percent"] == list(PERCENT)
                and type(fields["images"]) is int
                and len(steps) == len(mse) > 0
                and all(type(at) is int and 1 <= at < 1 << 16 for at in steps)
                and steps == tuple(sorted(set(steps), reverse=True))
                and all(len(quantiles) == len(PERCENT) for quantiles in mse)
                and all(0 <= error <= 1 for quantiles in mse for error in quantiles)
            )
        # RecursionError: brackets nested too deeply.
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise FormatError("calibration.json is not what calibration wrote") from error
        if not intact:
            raise FormatError("calibration.json is not what calibration wrote")
        return cls(fields["images"], steps, mse)
