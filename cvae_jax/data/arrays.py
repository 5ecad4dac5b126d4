"""IDX, .npy and .npz files: read so that a header that lies cannot make us allocate."""

from __future__ import annotations

import contextlib
import gzip
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cvae_jax.data import splits
from cvae_jax.errors import DataError

# What numpy and zipfile raise on damaged files.
_DAMAGE = (
    *(EOFError, OverflowError, RuntimeError, SyntaxError, TypeError, ValueError),
    *(struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)
MAX_EXPANSION = 1032  # no stream of DEFLATE grows by more when it is unpacked
IdxFile = BufferedReader | gzip.GzipFile
IDX_STARTS = (b"\0\0\x08", b"\x1f\x8b")  # of bytes; of gzip
IDX_STEMS = {"train": "train-images", "test": "t10k-images"}


def read_idx(path: str | Path, expected: tuple[int, ...] | None = None) -> np.ndarray:
    """Reads an IDX file of bytes, plain or gzipped (http://yann.lecun.com/exdb/mnist).

    expected: the shape, where it is known; another is refused before anything is unpacked.

    Returns:
      uint8 array of the shape that the header gives: images ``[N, H, W]``, labels ``[N]``.

    Raises:
      DataError: missing, truncated, with bytes left over, no IDX file of bytes, or of another
        shape.
    """
    path = Path(path)
    with opened_idx(path, expected) as (file, shape):
        data = file.read(math.prod(shape) + 1)  # one more, to see that nothing follows
        check_idx_length(len(data), shape, path)
        return np.frombuffer(data, np.uint8).reshape(shape)


@contextlib.contextmanager
def opened_idx(
    path: Path, expected: tuple[int, ...] | None = None
) -> Iterator[tuple[IdxFile, tuple[int, ...]]]:
    """An IDX file of bytes, whose header is read, and the shape that it says; as ``read_idx``."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            if file.read(2) != b"\x1f\x8b":
                file.seek(0)
                yield file, _idx_shape(file, size, path, expected)
                return
            file.seek(0)
            with gzip.open(file) as unpacked:
                yield unpacked, _idx_shape(unpacked, size * MAX_EXPANSION, path, expected)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip file ({error}); fetch it again") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def check_idx_length(length: int, shape: tuple[int, ...], path: Path) -> None:
    """Raises DataError if the data of an IDX file are of another length than its header says."""
    if length != math.prod(shape):
        fault = "bytes follow" if length > math.prod(shape) else "it ends before that"
        raise DataError(f"{path}: the header says {shape}, but {fault}; fetch it again")


def _idx_shape(
    file: IdxFile, limit: int, path: Path, expected: tuple[int, ...] | None
) -> tuple[int, ...]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] != 8 or not 1 <= magic[3] <= 4:
        raise DataError(
            f"{path}: starts with {magic.hex() or 'nothing'}, no IDX file of bytes (00000801 "
            "for labels, 00000803 for images)"
        )
    rank = magic[3]
    sizes = file.read(4 * rank)
    shape = tuple(int(n) for n in np.frombuffer(sizes[: len(sizes) // 4 * 4], ">u4"))
    count = math.prod(shape)
    if len(shape) < rank or count > limit:
        raise DataError(f"{path}: shorter than the header says, {shape}; fetch it again")
    if expected is not None and shape != expected:
        raise DataError(f"{path}: of shape {list(shape)}, expected {list(expected)}")
    if count == 0:
        raise DataError(f"{path}: the header says {shape}, which is nothing")
    return shape


def idx_images(folder: Path, split: str) -> Path | None:
    """The IDX file of a split's images in ``folder``, named as MNIST's are."""
    for name in (f"{IDX_STEMS[split]}{dot}idx3-ubyte{gz}" for dot in "-." for gz in (".gz", "")):
        if (folder / name).is_file():
            return folder / name
    return None


def load_idx_folder(folder: Path, split: str) -> np.ndarray:
    """uint8 [N, H, W, 1] from a folder with ``train-images...`` and ``t10k-images...``."""
    if split == "all":
        train, test = (load_idx_folder(folder, part) for part in IDX_STEMS)
        if train.shape[1:] != test.shape[1:]:
            raise DataError(f"{folder}: the training and test images differ in size")
        return np.concatenate([train, test])
    path = idx_images(folder, split)
    if path is None:
        raise DataError(f"{folder}: has no {IDX_STEMS[split]}-idx3-ubyte.gz, the {split} images")
    images = read_idx(path)
    if images.ndim != 3:
        raise DataError(f"{path}: holds an array of shape {images.shape}, not images [N, H, W]")
    return images[..., None]


def read_array(path: str | Path, split: str = "all") -> np.ndarray:
    """Reads images from an .npy or .npz file.

    Images are uint8, or floats in [0, 1], of shape ``[N, H, W]`` or ``[N, H, W, C]`` with
    at most 4 channels.  An .npz file holds them as ``x_train`` and ``x_test``, as ``train``
    and ``test``, as ``images``, or as its only array.  Without splits of its own, the file's
    images are divided as :mod:`cvae_jax.data.splits` says.

    Returns:
      uint8 [N, H, W, C], floats rounded to the nearest of the 256 levels.

    Raises:
      DataError: missing, damaged, pickled, or not images.
    """
    path = Path(path)
    if path.suffix.lower() != ".npz":
        return _share(map_array(path), split, str(path))
    with explained(path):
        return _read_npz(path, split)


def map_array(path: str | Path) -> np.ndarray:
    """The array of an .npy file, whatever it holds, mapped into memory.

    Raises:
      DataError: missing, damaged, or pickled.
    """
    path = Path(path)
    with explained(path), np.errstate(over="ignore"):
        # A memory map is refused where the file is smaller than its header says.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: is an .npz file by content; name it so")
    return array


def write_npy(file: BinaryIO, blocks: Iterable[np.ndarray], shape: tuple[int, ...]) -> None:
    """Writes an .npy file of uint8 images, ``[n, H, W, C]`` at a time; shape: of all of them.

    Raises:
      DataError: some are of another size.
    """
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    for block in blocks:
        if block.shape[1:] != shape[1:]:
            raise DataError("images of several sizes, which no .npy file holds: name a folder")
        file.write(np.ascontiguousarray(block).data)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Makes a DataError that names the file of what reading a damaged one raises."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except _DAMAGE as error:
        raise DataError(f"{path}: damaged, or no array of numbers ({_line(error)})") from error


def _read_npz(path: Path, split: str) -> np.ndarray:
    with zipfile.ZipFile(path) as archive:
        members = {i.filename.removesuffix(".npy"): i for i in archive.infolist()}
        for pair in (("x_train", "x_test"), ("train", "test")):
            if all(name in members for name in pair):
                wanted = pair if split == "all" else [pair[split == "test"]]
                parts = [
                    to_images(_read_member(archive, members[name]), f"{path}: {name}")
                    for name in wanted
                ]
                if len({part.shape[1:] for part in parts}) > 1:
                    raise DataError(f"{path}: {' and '.join(pair)} differ in shape")
                return np.concatenate(parts)
        name = "images" if "images" in members else next(iter(members), "")
        if name != "images" and len(members) != 1:
            raise DataError(
                f"{path}: holds {', '.join(sorted(members)) or 'nothing'}; expected x_train "
                "and x_test, train and test, images, or a single array"
            )
        return _share(_read_member(archive, members[name]), split, f"{path}: {name}")


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """One array of an .npz file; its claims are compared before anything is allocated."""
    if info.file_size > info.compress_size * MAX_EXPANSION + 1024:
        raise ValueError(f"{info.filename} cannot unpack to {info.file_size} bytes")
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{info.filename} has format version {version}")
        read_header = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
        shape, _, dtype = read_header(file)
        if file.tell() + math.prod(shape) * dtype.itemsize != info.file_size:
            raise ValueError(f"{info.filename} is not as long as its header says")
    with archive.open(info) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _share(array: np.ndarray, split: str, where: str) -> np.ndarray:
    """The split's images of an array that has no splits of its own."""
    if array.ndim == 0:
        raise DataError(f"{where}: a single number, not images [N, H, W]")
    return to_images(array[splits.member(len(array), split)], where)


def to_images(array: np.ndarray, where: str) -> np.ndarray:
    """An array as images, as ``read_array`` says; raises DataError, naming ``where``, if it is
    none."""
    array = array.reshape(images_shape(array.shape, array.dtype, where))
    if array.dtype != np.uint8:
        if not ((array >= 0) & (array <= 1)).all():  # NaN is neither
            raise DataError(f"{where}: numbers outside [0, 1] or NaN; scale them, or store uint8")
        array = np.round(array * 255)
    return np.ascontiguousarray(array, np.uint8)


def images_shape(shape: tuple[int, ...], dtype: np.dtype, where: str) -> tuple[int, ...]:
    """``[N, H, W, C]`` of an array of images; raises DataError if there can be none in it."""
    images = (*shape, 1) if len(shape) == 3 else shape
    if len(images) != 4 or not 1 <= images[3] <= 4 or 0 in images[1:3]:
        raise DataError(
            f"{where}: shape {images}; expected [N, H, W] or [N, H, W, C] with C up to 4"
        )
    if dtype != np.uint8 and not np.issubdtype(dtype, np.floating):
        raise DataError(f"{where}: dtype {dtype}; expected uint8, or floats in [0, 1]")
    return images


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
