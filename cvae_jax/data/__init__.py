"""Images for training and measurement, uint8 ``[N, H, W, C]``: in memory, or read from disk.

A dataset's name is ``mnist``, ``digits``, a name from tensorflow-datasets
(``fashion_mnist``, ``mnist:3.0.1``), or the path of a folder of IDX files, a folder or an
uncompressed .tar or .zip file of images, or an .npy or .npz file.  To add a kind, write a module
here that gives the images of a split, and call it in ``_found``.

Only these modules import data libraries (tensorflow-datasets, Pillow, scikit-learn, requests),
except that ``study.classical`` imports Pillow for AVIF.  They do so only on first use, and the
modules of datasets that may have to be downloaded are themselves imported on first use.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cvae_jax.data import arrays, collection, sources, splits
from cvae_jax.data.arrays import IDX_STARTS, map_array, read_array, read_idx, write_npy
from cvae_jax.data.collection import Collection
from cvae_jax.data.image_files import (
    SUFFIXES,
    WRITABLE,
    encode_image,
    list_images,
    read_image,
    size_of,
)
from cvae_jax.data.sources import Source, Subset
from cvae_jax.errors import DataError

__all__ = [
    "IDX_STARTS",
    "SUFFIXES",
    "WRITABLE",
    "Resolved",
    "Survey",
    "encode_image",
    "from_jpeg",
    "list_images",
    "load",
    "map_array",
    "open",
    "read_array",
    "read_idx",
    "read_image",
    "resolve",
    "size_of",
    "survey",
    "write_npy",
]

# Bytes of pixels up to which images are kept in memory unasked: quicker than reading them, and
# training, which copies them once, still fits a small machine.
IN_MEMORY = 1 << 30


class Resolved(NamedTuple):
    """The dataset to use, and, if it is a fallback, a line that says why."""

    name: str
    note: str | None


class Survey(NamedTuple):
    """What a dataset holds, whatever the split."""

    shapes: Counter[tuple[int, ...]]  # how many images are of each ``[H, W, C]``
    names: list[str] | None  # of image files, in the order of the split ``all``; else None


def survey(name: str, data_dir: str | Path | None = None) -> Survey:
    """Looks at all images of a dataset, where ``open`` would refuse several sizes.

    Raises:
      DataError, InstallError: as for ``load``, but for the sizes.
    """
    found = _found(name, "all", data_dir)
    if isinstance(found, Collection):
        return Survey(found.shapes(), found.names())
    return Survey(Counter({tuple(found.shape[1:]): len(found)}), None)


def resolve(name: str | None, data_dir: str | Path | None = None) -> Resolved:
    """The dataset that a run uses: the one that was named, or else MNIST, or else the digits.

    Without a name, MNIST is downloaded if it is not on disk; if that fails, the answer is
    ``digits`` and ``note`` says why.
    """
    if name is not None:
        return Resolved(name, None)
    try:
        _mnist_folder(data_dir)
    except DataError as error:
        return Resolved("digits", f"using the embedded digits instead of MNIST: {error}")
    return Resolved("mnist", None)


def load(
    name: str | Path,
    split: str,
    data_dir: str | Path | None = None,
    *,
    image_size: tuple[int, int] | None = None,
    channels: int | None = None,
) -> np.ndarray:
    """A dataset's images in memory, always the same ones in the same order.

    ``mnist`` and ``digits`` always mean the datasets; for other names, an existing path takes
    precedence over a dataset (write ``./mnist`` for a folder of that name).  Sources without
    splits of their own are divided by a hash: one image in ten is for testing.

    Args:
      name: see this module's description.
      split: ``train``, ``test`` or ``all``.
      data_dir: where prepared datasets are looked for first, and where downloads go; None is
        TFDS's default: ``$TFDS_DATA_DIR``, or ``tensorflow_datasets`` in the home folder.
      image_size: (height, width) to which a folder's images are stretched.
      channels: 1 turns a folder's images into grey, 3 into RGB; None means 1 if all images in
        the folder are grey, in whatever mode they are stored, and otherwise 3.

    Returns:
      uint8 [N, H, W, C] with N > 0.

    Raises:
      DataError: there is no such dataset, it is damaged or cannot be downloaded, its images
        differ in size or are not of the wanted size, or the split is unknown or empty.
      InstallError: a package of the extra ``train`` is missing.
    """
    images = open(name, split, data_dir, image_size=image_size, channels=channels, in_memory=True)
    return sources.to_memory(images)


def open(
    name: str | Path,
    split: str,
    data_dir: str | Path | None = None,
    *,
    image_size: tuple[int, int] | None = None,
    channels: int | None = None,
    in_memory: bool | None = None,
) -> Source:
    """The images that ``load`` gives, in memory or as a source that reads them from disk.

    in_memory: by default, if they are no more than ``IN_MEMORY``.  Of a kind that is read as a
    whole (``digits``, IDX and .npz files) they are in memory anyway.  On disk, images of another
    size than the first one's are noticed when they are read.
    """
    if not str(name):
        raise DataError("the name of the dataset is empty; expected one, or a path")
    if split not in splits.SPLITS:
        raise DataError(f"no split {split!r}; expected one of {', '.join(splits.SPLITS)}")
    found = _found(str(name), split, data_dir)
    chosen = found.chosen.any() if isinstance(found, Collection) else len(found)
    if not chosen:
        raise DataError(f"{name}: no images in the split {split!r}; try another, or all")
    if isinstance(found, Collection):
        if in_memory is None:
            in_memory = found.size(image_size, channels) <= IN_MEMORY
        read = found.load if in_memory else found.source
        images = read(image_size, channels)
    else:
        if in_memory is None:
            in_memory = math.prod(found.shape) <= IN_MEMORY
        images = sources.to_memory(found) if in_memory else found
    got = images.shape[1:]
    wanted = (*(image_size or got[:2]), channels or got[2])
    if got != wanted:
        raise DataError(
            f"{name}: images are {_by(got)}, not {_by(wanted)}; only image files are resized"
        )
    return images


def from_jpeg(name: str | Path, data_dir: str | Path | None = None) -> bool:
    """Whether a dataset is image files of which the first is JPEG's, and so has lost something."""
    found = _found(str(name), "all", data_dir)
    return isinstance(found, Collection) and found.stored.read(0).startswith(b"\xff\xd8\xff")


def _found(name: str, split: str, data_dir: str | Path | None) -> Source | Collection:
    """What a name means: images, or image files."""
    from cvae_jax.data import digits, mnist, prepared

    if name == "digits":
        return digits.load(split)
    if name == "mnist":
        try:
            folder = _mnist_folder(data_dir)
        except DataError as error:
            place = _places(data_dir)[0] / "mnist"
            remedy = f"put its four *-ubyte.gz files into {place}, or use the dataset digits"
            raise DataError(f"{error}; {remedy}") from error
        if mnist.find([folder]):
            return arrays.load_idx_folder(folder, split)
        return prepared.collection(folder, split)
    path = _home(name)
    if path.is_dir():
        if any(arrays.idx_images(path, part) for part in arrays.IDX_STEMS):
            return arrays.load_idx_folder(path, split)
        return collection.of_folder(path, split)
    if path.suffix.lower() == ".npz":
        return read_array(path, split)
    if path.suffix.lower() == ".npy":
        source = sources.open_source(path)
        chosen = splits.member(len(source), split)
        return source if chosen.all() else Subset(source, np.flatnonzero(chosen))
    if path.exists():
        kind = sources.kind(path)
        if kind not in ("tar", "zip"):
            raise DataError(f"{path}: expected a folder, or an .npy, .npz, .tar or .zip file")
        return collection.of_packed(sources.open_packed(path, kind), split)
    folder = prepared.find(name, _places(data_dir)) or prepared.prepare(name, _places(data_dir)[0])
    return prepared.collection(folder, split)


def _places(data_dir: str | Path | None) -> list[Path]:
    """Where datasets are looked for; downloads go to the first."""
    default = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    places = [default] if data_dir is None else [data_dir, default]
    return [_home(place) for place in places]


def _home(path: str | Path) -> Path:
    """The path with ``~`` expanded."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(f"{path}: {str(error).rstrip('.').lower()}") from error


def _mnist_folder(data_dir: str | Path | None) -> Path:
    """The folder of MNIST's IDX files or of its prepared form; downloaded if there is neither."""
    from cvae_jax.data import mnist, prepared

    places = _places(data_dir)
    # Both forms hold the same images, in a different order; IDX is quicker to read.
    for place in places:
        if found := mnist.find([place]) or prepared.find("mnist", [place]):
            return found
    try:
        return mnist.fetch(places[0] / "mnist")
    except DataError as error:
        where = " or ".join(map(str, places))
        raise DataError(f"MNIST is not in {where}, and could not be fetched: {error}") from error


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
