"""Datasets from tensorflow-datasets; once prepared, they are read without TensorFlow."""

from __future__ import annotations

import difflib
import importlib.util
import re
from pathlib import Path

import numpy as np

from cvae_jax.data import downloads, image_files, splits
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


def load(
    folder: Path, split: str, image_size: tuple[int, int] | None, channels: int | None
) -> np.ndarray:
    """uint8 [N, H, W, C]: the images of a prepared dataset.

    If it lacks ``train`` or ``test``, both are made from all its examples.

    Raises:
      DataError: it has no images, is damaged, or is in a format that needs TensorFlow.
      InstallError: tensorflow-datasets is missing.
    """
    with needs("train", f"{folder}: a prepared dataset"):
        import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(folder)
        features = builder.info.features
        images = [k for k, v in features.items() if isinstance(v, tfds.features.Image)]
        if not images:
            raise DataError(f"{folder}: a dataset without images ({', '.join(features)})")
        key = "image" if "image" in images else images[0]
        has_both = {"train", "test"} <= builder.info.splits.keys()
        if has_both:
            parts = ["train", "test"] if split == "all" else [split]
        else:
            parts = sorted(builder.info.splits)
        if channels is None and features[key].shape[-1] in (1, 3):
            channels = features[key].shape[-1]
        # Decoded here rather than by TFDS: quicker, and with the same checks as for files.
        skip = {key: tfds.decode.SkipDecoding()}
        encoded: list[bytes] = []
        for part in parts:
            source = builder.as_data_source(part, decoders=skip)
            # All at once: one at a time takes twice as long.
            encoded += [example[key] for example in source.__getitems__(range(len(source)))]
    except DataError:
        raise
    except NotImplementedError as error:
        raise DataError(
            f"{folder}: prepared in a format that only TensorFlow reads; prepare it as "
            "array_record in another data_dir"
        ) from error
    except Exception as error:  # TFDS's readers raise all sorts on damaged files
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"{folder}: damaged, or not a prepared dataset ({reason})") from error
    if not encoded:
        raise DataError(f"{folder}: holds no examples")
    named = [(f"{folder}, example {i}", data) for i, data in enumerate(encoded)]
    if not has_both:
        chosen = splits.member(len(named), split)
        named = [pair for pair, wanted in zip(named, chosen, strict=True) if wanted]
    return image_files.stack(
        (name, image_files.decode(data, name, image_size, channels)) for name, data in named
    )
