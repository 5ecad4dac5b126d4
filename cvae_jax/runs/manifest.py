"""The manifest of a checkpoint directory: size and SHA-256 of each of its files.

It tells a complete checkpoint from an empty, half-copied or damaged directory, all of which Orbax
would count as finished.  The directory may also hold files that it does not name (a model card).
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from cvae_jax.errors import CheckpointError
from cvae_jax.files import sync, whole

NAME = "manifest.json"
CONFIG = "config.json"  # what the caller records about a checkpoint
LARGEST_JSON = 1 << 20  # bytes; about the size of a manifest of ten thousand files
LARGEST = 1 << 30  # bytes of a file that is read whole
_FORMAT = 1

StrPath = str | os.PathLike[str]
Fingerprint = dict[str, Any]  # {"size": bytes, "sha256": hexadecimal}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint directory; its methods return exactly what was saved.

    The manifest is parsed once, and each file is read and compared with it once, before its first
    use.  The object can stand in for its path, and remembers the checkpoint as it was then: after
    a change (`replace`), make a new one.
    """

    path: Path  # absolute

    def __fspath__(self) -> str:
        return str(self.path)

    @functools.cached_property
    def files(self) -> dict[str, Fingerprint]:
        """The fingerprint of each file, by name (relative, with forward slashes).

        Raises:
          CheckpointError: the manifest is missing, damaged or of a newer format, or names files
            outside the folder.
        """
        try:
            with (self.path / NAME).open("rb") as file:
                manifest = _object(file.read(LARGEST_JSON + 1))
            version, files = manifest["format"], manifest["files"]
            intact = version != _FORMAT or all(map(_is_fingerprint, files.values()))
        except OSError as error:
            raise self._damaged(f"{NAME} cannot be read ({error.strerror})") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise self._damaged(f"{NAME} is not what was saved") from error
        if not intact:
            raise self._damaged(f"{NAME} is not what was saved")
        if version != _FORMAT:
            raise CheckpointError(
                f"checkpoint {self.path} has format {version!r:.20}, this program reads format "
                f"{_FORMAT}; update cvae_jax"
            )
        root = os.path.realpath(self.path)
        for name in files:
            # Links are followed: a harmless name may lead somewhere that is not.
            if not (
                _is_plain(name) and Path(os.path.realpath(f"{root}/{name}")).is_relative_to(root)
            ):
                raise self._damaged(f"{NAME} names {name!r:.80}, which is outside its folder")
        return files

    def verify(self, names: Container[str] | None = None) -> None:
        """Compares the files with the manifest.

        Args:
          names: look only at these subfolders and top-level files (default: all).

        Raises:
          CheckpointError: a file is not what was saved; the message names the first such file.
        """
        for name in self.files:
            if names is None or name.split("/")[0] in names:
                self._intact(name)

    def read(self, name: str) -> bytes:
        """The content of a top-level file that the manifest names.

        Raises:
          CheckpointError: it is damaged, or not in the manifest.
        """
        if name not in self.files:
            raise self._damaged(f"{name} is missing")
        return self._intact(name)

    def read_json(self, name: str) -> dict[str, Any]:
        """The object that a top-level JSON file holds.

        Raises:
          CheckpointError: it is damaged, or not an object of a reasonable size and depth.
        """
        try:
            return _object(self.read(name))
        except ValueError as error:
            raise self._damaged(f"{name} is not a JSON object ({error})") from error

    @functools.cached_property
    def _contents(self) -> dict[str, bytes]:
        """The content of each file found intact; for files in subfolders, nothing."""
        return {}

    def _intact(self, name: str) -> bytes:
        if name not in self._contents:
            self._contents[name] = self._compared(name, **self.files[name])
        return self._contents[name]

    def _compared(self, name: str, size: int, sha256: str) -> bytes:
        file, top_level = self.path / name, "/" not in name
        if top_level and size > LARGEST:
            raise self._damaged(f"{name} is said to have more than {LARGEST} bytes")
        content = b""
        try:
            if not file.is_file():
                raise self._damaged(f"{name} is missing")
            with file.open("rb") as stream:
                same_size = os.fstat(stream.fileno()).st_size == size
                if same_size and top_level:
                    content = stream.read(size)
                    digest = hashlib.sha256(content)
                elif same_size:
                    digest = hashlib.file_digest(stream, "sha256")
        except OSError as error:
            raise self._damaged(f"{name} cannot be read ({error.strerror})") from error
        if not same_size or digest.hexdigest() != sha256:
            raise self._damaged(f"{name} is not what was saved")
        return content

    def _damaged(self, fault: str) -> CheckpointError:
        return CheckpointError(
            f"checkpoint {self.path} is damaged: {fault}; use another step or a fresh copy"
        )


def absolute(path: StrPath) -> Path:
    return Path(os.path.abspath(path))  # Orbax refuses relative paths


def seal(folder: Path) -> None:
    """Writes the manifest of all files in ``folder``, and flushes everything to disk.

    Raises:
      OSError: the disk is full, or failing.
    """
    files = {
        file.relative_to(folder).as_posix(): _fingerprint(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    _write(folder, files)
    for path in (folder, *folder.rglob("*")):
        sync(path)


def replace(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Puts files, by name, into a sealed folder, replacing any of these names.

    A kill midway leaves an intact folder, with all of the files or with none.

    Raises:
      CheckpointError: the manifest is damaged.
      OSError: the disk is full, or failing.
    """
    files = Checkpoint(folder).files
    others = {name: each for name, each in files.items() if name not in contents}
    if len(others) < len(files):
        _write(folder, others)
    for name, data in contents.items():
        with whole(folder / name, force=True) as file:
            file.write(data)
    _write(folder, {**others, **{name: _fingerprint(folder / name) for name in contents}})


def _write(folder: Path, files: dict[str, Fingerprint]) -> None:
    text = json.dumps({"format": _FORMAT, "files": files}, indent=2) + "\n"
    with whole(folder / NAME, force=True) as file:
        file.write(text.encode())


def _fingerprint(file: Path) -> Fingerprint:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"size": file.stat().st_size, "sha256": digest}


def _object(data: bytes) -> dict[str, Any]:
    """The object in JSON from outside.

    Raises:
      ValueError: it is not an object, or is larger, deeper or has longer numbers than any of
        ours.
    """
    if len(data) > LARGEST_JSON:
        raise ValueError(f"more than {LARGEST_JSON} bytes")
    try:
        value = json.loads(data.decode())
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("of another type")
    return value


def _is_fingerprint(value: dict[str, Any]) -> bool:
    size, digest = value["size"], value["sha256"]
    return len(value) == 2 and type(size) is int and size >= 0 and type(digest) is str


def _is_plain(name: str) -> bool:
    """Whether this is a relative name that means the same on every system."""
    path = PurePosixPath(name)
    return (
        name == path.as_posix()
        and not path.is_absolute()
        and not {".", ".."} & set(name.split("/"))
        and name.isprintable()
        and not set(name) & set("\\:")
    )
