"""Images for training and measurement, as uint8 arrays ``[N, H, W, C]`` in memory.

A dataset's name is ``mnist``, ``digits``, a name from tensorflow-datasets
(``fashion_mnist``, ``mnist:3.0.1``), or the path of a folder of IDX files, a folder of
images, or an .npy or .npz file.  To add a kind of source, write a module here with a function
that returns the images of a split, and call it in :func:`load`.

Only these modules import data libraries (tensorflow-datasets, Pillow, scikit-learn, requests),
except that ``study.classical`` imports Pillow for AVIF.  They do so only on first use, and the
modules of datasets that may have to be downloaded are themselves imported on first use.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cvae_jax.data import arrays, image_files, splits
from cvae_jax.data.arrays import IDX_STARTS, map_array, read_array, read_idx
from cvae_jax.data.image_files import SUFFIXES, WRITABLE, encode_image, list_images, read_image
from cvae_jax.errors import DataError

__all__ = [
    "IDX_STARTS",
    "SUFFIXES",
    "WRITABLE",
    "Resolved",
    "encode_image",
    "list_images",
    "load",
    "map_array",
    "read_array",
    "read_idx",
    "read_image",
    "resolve",
]


class Resolved(NamedTuple):
    """The dataset to use, and, if it is a fallback, a line that says why."""

    name: str
    note: str | None


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
    """Loads a dataset's images, always the same ones in the same order.

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
    if not str(name):
        raise DataError("the name of the dataset is empty; expected one, or a path")
    if split not in splits.SPLITS:
        raise DataError(f"no split {split!r}; expected one of {', '.join(splits.SPLITS)}")
    images = _load(str(name), split, data_dir, image_size, channels)
    if not len(images):
        raise DataError(f"{name}: no images in the split {split!r}; try another, or all")
    got = images.shape[1:]
    wanted = (*(image_size or got[:2]), channels or got[2])
    if got != wanted:
        raise DataError(
            f"{name}: images are {_by(got)}, not {_by(wanted)}; only image files are resized"
        )
    return images


def _load(
    name: str,
    split: str,
    data_dir: str | Path | None,
    image_size: tuple[int, int] | None,
    channels: int | None,
) -> np.ndarray:
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
        return prepared.load(folder, split, image_size, channels)
    path = _home(name)
    if path.is_dir():
        if any(arrays.idx_images(path, part) for part in arrays.IDX_STEMS):
            return arrays.load_idx_folder(path, split)
        return image_files.load_folder(path, split, image_size, channels)
    if path.suffix.lower() in (".npy", ".npz"):
        return read_array(path, split)
    if path.exists():
        raise DataError(f"{path}: expected a folder, or an .npy or .npz file")
    folder = prepared.find(name, _places(data_dir)) or prepared.prepare(name, _places(data_dir)[0])
    return prepared.load(folder, split, image_size, channels)


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
