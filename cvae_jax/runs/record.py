"""What a checkpoint says of its making: its ``config.json``."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cvae_jax.config import Config
from cvae_jax.errors import CheckpointError, ConfigError

PACKAGES = ("cvae_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


@dataclass(frozen=True)
class Dataset:
    """The images of a run."""

    name: str
    fingerprint: str | None  # of the training split, validation images included; None: unknown
    images: dict[str, int] = field(default_factory=dict)  # how many: train, validation, test


@dataclass(frozen=True)
class Record:
    """What a checkpoint says of its making."""

    config: Config
    dataset: Dataset
    versions: dict[str, str] = field(default_factory=dict)  # of the packages in PACKAGES
    results: dict[str, float | None] = field(default_factory=dict)  # of validation
    test: dict[str, Any] = field(default_factory=dict)  # `evaluation.to_json`, of a release
    imported_from: dict[str, str] = field(default_factory=dict)  # SHA-256 of Keras's files
    # The smallest sheet of another codec, no worse than files of the default quality, of a release.
    best_sheet: dict[str, Any] = field(default_factory=dict)
    step: int | None = None
    score: float | None = None  # what the best step is chosen by; lower is better

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it; what is empty or None is left out."""
        record = {**dataclasses.asdict(self), "config": self.config.to_dict()}
        return {name: value for name, value in record.items() if value not in ({}, None)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Record:
        """The inverse of ``to_dict``; what it does not know is passed over.

        Raises:
          CheckpointError: a part is missing, or not what it should be.
        """
        try:
            known = {f.name for f in dataclasses.fields(cls)}
            fields = {name: value for name, value in data.items() if name in known}
            fields["config"] = Config.from_dict(data["config"])
            fields["dataset"] = dataset = Dataset(**data["dataset"])
            record = cls(**fields)
            tables = (record.versions, record.results, record.test, record.imported_from)
            if not all(isinstance(table, Mapping) for table in (*tables, dataset.images)):
                raise TypeError("a list or a value where names and values should be")
            if not isinstance(dataset.name, str):
                raise TypeError("the dataset's name is no text")
            _check_sheet(record.best_sheet)
            return record
        except (KeyError, TypeError, AttributeError, ConfigError) as error:
            raise CheckpointError(
                f"the checkpoint's config.json is not one of this version of cvae_jax: {error}"
            ) from error


def package_versions() -> dict[str, str]:
    """The versions of what a run depends on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def _check_sheet(sheet: Any) -> None:
    """Raises KeyError or TypeError unless it is empty, or names a codec and its size."""
    if sheet == {}:
        return
    size = sheet["bytes_per_image"]
    is_number = isinstance(size, (int, float)) and math.isfinite(size)
    if not isinstance(sheet["codec"], str) or not is_number:
        raise TypeError("best_sheet needs a codec's name and a number of bytes_per_image")
