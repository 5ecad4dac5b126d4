"""Datasets from tensorflow-datasets; once prepared, they are read without TensorFlow."""

from __future__ import annotations

import difflib
import importlib.util
import re
from pathlib import Path

from cvae_jax.data import downloads, splits
from cvae_jax.data.collection import Collection
from cvae_jax.data.sources import Records
from cvae_jax.errors import DataError, needs

# builder, builder/config, either with :version
VERSION = r"\d+\.\d+\.\d+"
NAME = re.compile(rf"(?P<builder>[a-z]\w*)(/(?P<config>[\w.+-]+))?(:(?P<version>{VERSION}))?")


def find(name: str, folders: list[Path]) -> Path | None:
    """The folder of a prepared dataset, in the requested version or else the newest.

    Only datasets prepared as array_record count: TFDS's other formats need TensorFlow.

    Raises:
      DataError: several configurations are there, and ``name`` does not say which.
    """
    parts = NAME.fullmatch(name)
    if parts is None:
        return None
    for root in folders:
        place = root / parts["builder"]
        configs = [place / parts["config"]] if parts["config"] else [place, *place.glob("*")]
        newest = [max(v)[1] for v in (_versions(c, parts["version"]) for c in configs) if v]
        if len(newest) > 1:
            names = ", ".join(sorted(path.parent.name for path in newest))
            raise DataError(f"{name}: several configurations in {place}: name one ({names})")
        if newest:
            return newest[0]
    return None


def _versions(place: Path, wanted: str | None) -> list[tuple[tuple[int, ...], Path]]:
    """The versions (all, or the wanted one) that are completely prepared in a folder."""
    found = []
    for info in place.glob("*.*.*/dataset_info.json"):
        version = info.parent.name
        if (
            re.fullmatch(VERSION, version)
            and wanted in (None, version)
            and re.search(r'"fileFormat":\s*"array_record"', info.read_text())
        ):
            found.append((tuple(int(n) for n in version.split(".")), info.parent))
    return found


def prepare(name: str, folder: Path) -> Path:
    """Downloads and prepares a dataset below ``folder``; returns its folder.

    Raises:
      DataError: there is no such dataset, TensorFlow is missing, or preparing it failed.
      InstallError: tensorflow-datasets is missing.
    """
    with needs("train", f"{name}: no such file or folder, and as a dataset's name it"):
        import tensorflow_datasets as tfds

    parts = NAME.fullmatch(name)
    known = tfds.list_builders(with_community_datasets=False)
    if parts is None or parts["builder"] not in known:
        near = difflib.get_close_matches(parts["builder"] if parts else name, known)
        raise DataError(
            f"{name}: neither a file or folder, nor mnist, digits or a dataset of "
            "tensorflow-datasets" + (f"; is {' or '.join(near)} meant?" if near else "")
        )
    if importlib.util.find_spec("tensorflow") is None:
        raise DataError(
            f"{name}: not prepared as array_record in {folder}, and preparing it needs "
            "TensorFlow: pip install tensorflow, or give the data_dir where it is prepared"
        )
    try:
        builder = tfds.builder(name, data_dir=folder, file_format="array_record")
        with downloads.bounded_requests():
            builder.download_and_prepare()
    except Exception as error:  # whatever the dataset's own code raises becomes one line
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"{name}: cannot be prepared in {folder} ({reason})") from error
    return Path(builder.data_dir)


def collection(folder: Path, split: str) -> Collection:
    """The images of a prepared dataset.

    If it lacks ``train`` or ``test``, both are made from all its examples.

    Raises:
      DataError: it has no images, is damaged, or is in a format that needs TensorFlow.
      InstallError: tensorflow-datasets is missing.
    """
    with needs("train", f"{folder}: a prepared dataset"):
        import tensorflow_datasets as tfds

    try:
        info = tfds.builder_from_directory(folder).info
        is_array_record = info.file_format == tfds.core.FileFormat.ARRAY_RECORD
        images = [k for k, v in info.features.items() if isinstance(v, tfds.features.Image)]
        lengths = {part: info.splits[part].num_examples for part in sorted(info.splits)}
        files = {
            part: [Path(file.filename) for file in info.splits[part].file_instructions]
            for part in lengths
        }
    except Exception as error:  # TFDS's readers raise all sorts on damaged files
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"{folder}: damaged, or not a prepared dataset ({reason})") from error
    if not is_array_record:
        raise DataError(
            f"{folder}: prepared in a format that only TensorFlow reads; prepare it as "
            "array_record in another data_dir"
        )
    if not images:
        raise DataError(f"{folder}: a dataset without images ({', '.join(info.features)})")
    key = "image" if "image" in images else images[0]
    has_both = {"train", "test"} <= lengths.keys()
    parts = list(lengths)
    if has_both:
        parts = ["train", "test"] if split == "all" else [split]
    if not sum(lengths[part] for part in parts):
        raise DataError(f"{folder}: holds no examples")
    records = Records([file for part in parts for file in files[part]], key)
    if len(records) != sum(lengths[part] for part in parts):
        raise DataError(f"{folder}: damaged, not as many examples as it says; prepare it again")
    channels = info.features[key].shape[-1]
    return Collection(
        records,
        splits.member(len(records), "all" if has_both else split),
        channels if channels in (1, 3) else None,
    )
