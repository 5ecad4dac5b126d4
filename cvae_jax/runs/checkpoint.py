"""Checkpoints: named pytrees and a configuration in one directory, written whole or not at all.

A *checkpoint* is a directory::

    params/              a pytree of arrays per subfolder, written by Orbax
    optimizer/
    params.safetensors   in a release, instead: float32 arrays by name, like `decoder/dense/bias`
    config.json          configuration, versions, dataset, metrics: whatever the caller records
    tables.bin           and other files that a caller attaches, each in its own format
    manifest.json        size and SHA-256 of every file above (`manifest`)

This is the only module that imports Orbax, and only when a run is saved or restored: the import
takes longer than the work.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cvae_jax.errors import CheckpointError, explained, needs
from cvae_jax.files import sync
from cvae_jax.modules import named_leaves
from cvae_jax.runs import manifest
from cvae_jax.runs.manifest import CONFIG, Checkpoint, StrPath, absolute

TENSORS = ".safetensors"  # suffix of an item that is a single file
_DTYPES = {"F32": "float32"}  # by their names in safetensors; a release holds no others
TEMPORARY = ".tmp-"  # what the names of unfinished and discarded checkpoints start with

PyTree = Any


def save(path: StrPath, items: Mapping[str, PyTree], config: Mapping[str, Any]) -> Path:
    """Writes a checkpoint that is either complete and flushed to disk, or absent.

    Everything goes to a temporary sibling that one atomic rename turns into ``path``; readers
    ignore whatever a killed process leaves behind.

    Args:
      path: the new directory; it must either not exist or be empty.
      items: pytrees of non-empty arrays or scalars by name, e.g. ``{"params": params}``.
      config: JSON-serialisable, all numbers finite; `read_config` returns it.

    Returns:
      The absolute path.

    Raises:
      CheckpointError: the path is taken or cannot be written, or the disk is full.
    """
    path = absolute(path)
    check_free(path)
    overwrite(path, items, config)
    return path


def release(
    path: StrPath, params: PyTree, config: Mapping[str, Any], files: Mapping[str, bytes]
) -> Path:
    """Writes a checkpoint of parameters only, readable without Orbax; otherwise like `save`.

    Args:
      path, config: as for `save`.
      params: a tree of float32 arrays.
      files: the contents of any other files to include, by name.

    Raises:
      CheckpointError: as for `save`.
    """
    from safetensors.numpy import save as packed

    path = absolute(path)
    check_free(path)
    arrays = {name: np.asarray(leaf, np.float32) for name, leaf in named_leaves(params).items()}
    files = {f"params{TENSORS}": packed(arrays), **files}

    def write(folder: Path) -> None:
        for name, content in files.items():
            (folder / name).write_bytes(content)

    _put(path, config, write)
    return path


def check_free(path: Path) -> None:
    """Raises CheckpointError if the place of a new checkpoint is taken."""
    with explained(f"write checkpoint {path}"):
        taken = any(path.iterdir()) if path.is_dir() else path.exists()
    if taken:
        raise CheckpointError(
            f"cannot write checkpoint {path}: it already exists; remove it or name another path"
        )


def overwrite(path: Path, items: Mapping[str, PyTree], config: Mapping[str, Any]) -> None:
    """Like `save`, but replaces whatever is at ``path``, which must be absolute."""
    # Host arrays: a checkpoint should not record the devices it happened to come from.
    arrays = {name: jax.tree.map(np.asarray, jax.device_get(x)) for name, x in items.items()}

    def write(folder: Path) -> None:
        for name, tree in arrays.items():
            _save_item(folder / name, tree)

    _put(path, config, write)


def _put(path: Path, config: Mapping[str, Any], write: Callable[[Path], None]) -> None:
    """Has ``write`` fill a temporary folder, then adds the configuration and manifest and renames
    it to ``path``."""
    text = json.dumps(config, indent=2, allow_nan=False) + "\n"
    temporary = path.with_name(TEMPORARY + path.name)
    with explained(f"write checkpoint {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        if temporary.exists():
            shutil.rmtree(temporary)
        try:
            temporary.mkdir()
            write(temporary)
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
    with _orbax() as ocp, _checkpointer(ocp) as checkpointer:
        checkpointer.save(folder, args=ocp.args.PyTreeSave(tree))
    # Orbax needs it only on cloud storage, and it contains an absolute path on this machine.
    (folder / "commit_success.txt").unlink(missing_ok=True)


def _checkpointer(ocp: Any) -> Any:
    """Of this process alone: of several that train together, one reads and writes."""
    alone = ocp.options.MultiprocessingOptions(
        primary_host=jax.process_index(), active_processes={jax.process_index()}
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def discard(folder: Path) -> None:
    """Deletes a checkpoint; if killed midway, leaves a temporary, never half a checkpoint."""
    doomed = folder.with_name(f"{TEMPORARY}discarded-{folder.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed)


def read_config(path: StrPath) -> dict[str, Any]:
    """The configuration saved with a checkpoint.

    Raises:
      CheckpointError: it is missing or damaged.
    """
    return opened(path).read_json(CONFIG)


def attach(path: StrPath, contents: Mapping[str, bytes]) -> None:
    """Adds files, by name, to a checkpoint, or replaces them; the manifest covers them too.

    Readers find all of them or, while they are replaced and after a kill midway, none.

    Raises:
      CheckpointError: the checkpoint is damaged or cannot be written.
    """
    path = absolute(path)
    with explained(f"write {' and '.join(contents)} in {path}"):
        manifest.replace(path, contents)


def attached(path: StrPath, name: str) -> bytes | None:
    """The contents of a file that `attach` added, or None if there is none.

    Raises:
      CheckpointError: it is damaged.
    """
    saved = opened(path)
    return saved.read(name) if name in saved.files else None


def restore(path: StrPath, items: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """Reads the named items of a checkpoint, and only those, bit for bit as they were saved.

    Args:
      path: the checkpoint, as `find` returns it.
      items: for each name, the structure to fill: a pytree whose leaves have a shape and a
        dtype (arrays, or abstract ones from `jax.eval_shape`) or are Python scalars.

    Returns:
      The items in the given structures, with NumPy arrays as leaves: they can go to any device,
      whichever they were saved from.

    Raises:
      CheckpointError: an item is missing, damaged, or differs in structure, shape or dtype.
    """
    saved = opened(path)
    held = {name.split("/")[0].removesuffix(TENSORS) for name in saved.files if _of_item(name)}
    for name in items:
        if name not in held:
            raise CheckpointError(
                f"checkpoint {saved.path} does not hold {name!r}, only {', '.join(sorted(held))}; "
                "name a checkpoint that has it"
            )
    saved.verify({*items, *(name + TENSORS for name in items)})
    restored = {}
    for name, target in items.items():
        if name + TENSORS in saved.files:
            leaves = _restore_tensors(saved, name, target)
        else:
            with explained(f"read checkpoint {saved.path}"):
                leaves = _restore_item(saved, name, target)
        restored[name] = _filled(target, leaves)
    return restored


def _of_item(name: str) -> bool:
    return "/" in name or name.endswith(TENSORS)


def _restore_tensors(saved: Checkpoint, name: str, target: PyTree) -> dict[str, np.ndarray]:
    """The leaves, by name, of an item that is a single file."""
    from safetensors import SafetensorError, deserialize

    try:
        tensors = dict(deserialize(saved.read(name + TENSORS)))
    except SafetensorError as error:
        raise CheckpointError(
            f"checkpoint {saved.path} is damaged: {name}{TENSORS} is not a safetensors file "
            f"({error}); use a fresh copy"
        ) from error
    found = {
        # Keeps the message to one short line whatever the name; our own names are unchanged.
        ascii(n)[1:-1][:80]: f"{_DTYPES.get(t['dtype'], t['dtype'])}{t['shape']}"
        for n, t in tensors.items()
    }
    _check_leaves(saved.path, name, found, _described(target))
    return {n: np.frombuffer(t["data"], "<f4").reshape(t["shape"]) for n, t in tensors.items()}


def _restore_item(saved: Checkpoint, name: str, target: PyTree) -> dict[str, Any]:
    """The leaves, by name, of an item that Orbax wrote."""
    folder = saved.path / name
    with _orbax() as ocp, _checkpointer(ocp) as checkpointer:
        found = checkpointer.metadata(folder).item_metadata.tree
        _check_leaves(saved.path, name, _described(found), _described(target))
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), found)
        tree = checkpointer.restore(folder, args=ocp.args.PyTreeRestore(restore_args=as_numpy))
    # Orbax returns named tuples as dicts: only the leaves' paths stay the same.
    return named_leaves(tree)


def _filled(target: PyTree, leaves: Mapping[str, Any]) -> PyTree:
    """The structure filled with the leaves of these names; Python scalars stay Python scalars."""

    def fill(name: str, leaf: Any) -> Any:
        value = leaves[name]
        return value.item() if type(leaf) in (bool, int, float) else value

    filled = [fill(name, leaf) for name, leaf in named_leaves(target).items()]
    return jax.tree.unflatten(jax.tree.structure(target), filled)


def _check_leaves(path: Path, item: str, found: dict[str, str], wanted: dict[str, str]) -> None:
    """Raises CheckpointError at the first leaf that is missing, or differs in shape or dtype."""
    for name in wanted | found:
        have, want = (side.get(name, "absent") for side in (found, wanted))
        if have != want:
            raise CheckpointError(
                f"checkpoint {path} is of another model: {item}/{name} is "
                f"{have:.80} there, expected {want}; compare the configuration with its {CONFIG}"
            )


def _described(tree: PyTree) -> dict[str, str]:
    """Each leaf's dtype and shape by its name."""
    leaves = {
        name: leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
        for name, leaf in named_leaves(tree).items()
    }
    return {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in leaves.items()}


def opened(path: StrPath) -> Checkpoint:
    """The checkpoint at a path; a Checkpoint is returned as it is."""
    return path if isinstance(path, Checkpoint) else Checkpoint(absolute(path))


@contextlib.contextmanager
def _orbax() -> Iterator[Any]:
    """Orbax with its log muted, as it logs every failure that it raises; they become OSErrors."""
    with needs("train", "reading and writing the steps of a run"):
        import orbax.checkpoint as ocp
    log = logging.getLogger("absl")
    before, log.disabled = log.disabled, True
    try:
        yield ocp
    except CheckpointError:
        raise
    except Exception as error:
        # A full disk shows up as a ValueError with the system's error code buried in a paragraph.
        if code := re.search(r"os_error_code='(\d+)'", str(error)):
            raise OSError(int(code[1]), os.strerror(int(code[1]))) from error
        raise OSError(" ".join(str(error).split()) or type(error).__name__) from error
    finally:
        log.disabled = before
