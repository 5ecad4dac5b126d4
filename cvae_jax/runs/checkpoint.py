"""Checkpoints: named pytrees and a configuration in one directory, whole or not there at all.

A *checkpoint* is a directory::

    params/         a pytree of arrays per subfolder, written by Orbax
    optimizer/
    config.json     configuration, versions, dataset, metrics: whatever the caller records
    tables.bin      and other files of their own format, where a caller attaches them
    manifest.json   size and SHA-256 of every file above (`manifest`)

This is the only module that imports Orbax, and only when something is saved or restored: the
import takes longer than the work.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cvae_jax.errors import CheckpointError, explained
from cvae_jax.files import sync
from cvae_jax.modules import named_leaves
from cvae_jax.runs import manifest

CONFIG = "config.json"
TEMPORARY = ".tmp-"  # what the names of unfinished and discarded checkpoints start with

PyTree = Any
StrPath = str | os.PathLike[str]


def save(path: StrPath, items: Mapping[str, PyTree], config: Mapping[str, Any]) -> Path:
    """Writes a checkpoint that is either complete, and on the disk, or not there.

    Everything goes to a temporary sibling that one atomic rename turns into ``path``; what a
    killed process leaves of it is ignored by every reader.

    Args:
      path: the new directory; it must not exist, or be empty.
      items: pytrees of non-empty arrays or scalars by name, e.g. ``{"params": params}``.
      config: JSON-serialisable and finite; `read_config` returns it.

    Returns:
      The absolute path.

    Raises:
      CheckpointError: the path is taken, cannot be written, or the disk is full.
    """
    path = absolute(path)
    with explained(f"write checkpoint {path}"):
        taken = any(path.iterdir()) if path.is_dir() else path.exists()
    if taken:
        raise CheckpointError(
            f"cannot write checkpoint {path}: it exists already; remove it or name another path"
        )
    overwrite(path, items, config)
    return path


def overwrite(path: Path, items: Mapping[str, PyTree], config: Mapping[str, Any]) -> None:
    """`save`, in place of what may be at ``path``, an absolute path."""
    # Host arrays: a checkpoint should not record the devices that it happened to come from.
    arrays = {name: jax.tree.map(np.asarray, jax.device_get(x)) for name, x in items.items()}
    text = json.dumps(config, indent=2, allow_nan=False) + "\n"
    temporary = path.with_name(TEMPORARY + path.name)
    with explained(f"write checkpoint {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        if temporary.exists():
            shutil.rmtree(temporary)
        try:
            temporary.mkdir()
            for name, tree in arrays.items():
                _save_item(temporary / name, tree)
            (temporary / CONFIG).write_text(text, encoding="utf-8", newline="\n")
            manifest.seal(temporary)
            if path.exists():
                discard(path)
            temporary.rename(path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync(path.parent)


def _save_item(folder: Path, tree: PyTree) -> None:
    with _orbax() as ocp, ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        checkpointer.save(folder, args=ocp.args.PyTreeSave(tree))
    # Orbax needs it on cloud storage only, and its text is the absolute path on this machine.
    (folder / "commit_success.txt").unlink(missing_ok=True)


def discard(folder: Path) -> None:
    """Deletes a checkpoint; a kill on the way leaves a temporary, never half of one."""
    doomed = folder.with_name(f"{TEMPORARY}discarded-{folder.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed)


def read_config(path: StrPath) -> dict[str, Any]:
    """The configuration saved with a checkpoint.

    Raises:
      CheckpointError: it is missing or damaged.
    """
    path = absolute(path)
    manifest.verify(path, {CONFIG})
    with explained(f"read {path / CONFIG}"):
        return json.loads((path / CONFIG).read_text(encoding="utf-8"))


def attach(path: StrPath, name: str, data: bytes) -> None:
    """Adds a file to a checkpoint, or replaces it; under the manifest like all the rest.

    Raises:
      CheckpointError: the checkpoint is damaged, or cannot be written.
    """
    path = absolute(path)
    with explained(f"write {path / name}"):
        manifest.replace(path, name, data)


def attached(path: StrPath, name: str) -> bytes | None:
    """The file that `attach` added, or None.

    Raises:
      CheckpointError: it is damaged.
    """
    path = absolute(path)
    if name not in manifest.read(path):
        return None
    manifest.verify(path, {name})
    with explained(f"read {path / name}"):
        return (path / name).read_bytes()


def restore(path: StrPath, items: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """Reads the named items of a checkpoint, and no others, bit for bit as they were saved.

    Args:
      path: the checkpoint, as `find` returns it.
      items: for each name the structure to fill: a pytree whose leaves have a shape and a
        dtype (arrays, or `jax.eval_shape`'s abstract ones) or are Python scalars.

    Returns:
      The items in the given structures, with NumPy arrays for leaves: whichever devices they
      were saved from, they can go to any.

    Raises:
      CheckpointError: an item is missing, damaged, or differs in structure, shape or dtype.
    """
    path = absolute(path)
    held = {name.split("/")[0] for name in manifest.read(path) if "/" in name}
    for name in items:
        if name not in held:
            raise CheckpointError(
                f"checkpoint {path} holds no {name!r}, only {', '.join(sorted(held))}; "
                "name a checkpoint that has it"
            )
    manifest.verify(path, items)
    with explained(f"read checkpoint {path}"):
        return {name: _restore_item(path / name, target) for name, target in items.items()}


def _restore_item(folder: Path, target: PyTree) -> PyTree:
    with _orbax() as ocp, ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        saved = checkpointer.metadata(folder).item_metadata.tree
        _checknamed_leaves(folder, named_leaves(saved), named_leaves(target))
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), saved)
        tree = checkpointer.restore(folder, args=ocp.args.PyTreeRestore(restore_args=as_numpy))
    # Orbax returns named tuples as dicts: only the paths of the leaves are the same.
    restored = named_leaves(tree)

    def fill(name: str, leaf: Any) -> Any:
        value = restored[name]
        return value.item() if type(leaf) in (bool, int, float) else value

    filled = [fill(name, leaf) for name, leaf in named_leaves(target).items()]
    return jax.tree.unflatten(jax.tree.structure(target), filled)


def _checknamed_leaves(folder: Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raises at the first leaf that is not in both, or differs in shape or dtype."""
    for name in wanted | saved:
        have, want = (
            _describe(side[name]) if name in side else "absent" for side in (saved, wanted)
        )
        if have != want:
            raise CheckpointError(
                f"checkpoint {folder.parent} is of another model: {folder.name}/{name} is "
                f"{have} there, expected {want}; compare the configuration with its {CONFIG}"
            )


def _describe(leaf: Any) -> str:
    array = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return f"{array.dtype}{list(array.shape)}"


def absolute(path: StrPath) -> Path:
    return Path(os.path.abspath(path))  # Orbax refuses relative paths


@contextlib.contextmanager
def _orbax() -> Iterator[Any]:
    """Orbax, muted (it logs every failure before raising it), its failures made OSErrors."""
    import orbax.checkpoint as ocp

    log = logging.getLogger("absl")
    before, log.disabled = log.disabled, True
    try:
        yield ocp
    except CheckpointError:
        raise
    except Exception as error:
        # A full disk comes as a ValueError with a paragraph around the system's error code.
        if code := re.search(r"os_error_code='(\d+)'", str(error)):
            raise OSError(int(code[1]), os.strerror(int(code[1]))) from error
        raise OSError(" ".join(str(error).split()) or type(error).__name__) from error
    finally:
        log.disabled = before
