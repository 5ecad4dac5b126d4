"""Checkpoints: named pytrees and a configuration in one directory, whole or not there at all.

A *checkpoint* is a directory::

    params/         a pytree of arrays per subfolder, written by Orbax
    optimizer/
    config.json     configuration, versions, dataset, metrics: whatever the caller records
    tables.bin      and other files of their own format, where a caller attaches them
    manifest.json   size and SHA-256 of every file above (`cvae_jax.manifest`)

A *workdir* holds the checkpoints of one run as ``steps/00001234/``; a *released* checkpoint is
such a directory alone.

This is the only module that imports Orbax, and only when something is saved or restored: the
import takes longer than the work.
"""

import contextlib
import json
import logging
import math
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cvae_jax import manifest
from cvae_jax.errors import CheckpointError

STEPS = "steps"
CONFIG = "config.json"
_TEMPORARY = ".tmp-"  # never a step: steps are plain numbers

PyTree = Any
Warn = Callable[[str], None]
StrPath = str | os.PathLike[str]


def save(path: StrPath, items: Mapping[str, PyTree], config: Mapping[str, Any]) -> Path:
    """Writes a checkpoint that is either complete, and on the disk, or not there.

    Everything goes to a temporary sibling that one atomic rename turns into ``path``; what a
    killed process leaves of it is ignored by every reader and removed by the next save.

    Args:
      path: the new directory; it must not exist, or be empty.
      items: pytrees of non-empty arrays or scalars by name, e.g. ``{"params": params}``.
      config: JSON-serialisable and finite; `read_config` returns it.

    Returns:
      The absolute path.

    Raises:
      CheckpointError: the path is taken, cannot be written, or the disk is full.
    """
    path = _absolute(path)
    with _reported(f"write checkpoint {path}"):
        taken = any(path.iterdir()) if path.is_dir() else path.exists()
    if taken:
        raise CheckpointError(
            f"cannot write checkpoint {path}: it exists already; remove it or name another path"
        )
    _write(path, items, config)
    return path


def save_step(
    workdir: StrPath,
    step: int,
    items: Mapping[str, PyTree],
    config: Mapping[str, Any],
    *,
    score: float | None = None,
    keep_last: int = 3,
) -> Path:
    """Saves a step of a run, then deletes the steps that are no longer needed.

    Kept are this step, the ``keep_last`` newest intact ones, and the intact one of the lowest
    score.  A step of the same number is replaced.

    Args:
      workdir: the run's directory, created if need be.
      step: number of the step, at least 0.
      items, config: as for `save`; the stored config also gets ``step`` and ``score``.
      score: lower is better, e.g. the validation loss; not finite counts as none.
      keep_last: how many of the newest steps to keep.

    Returns:
      The checkpoint's absolute path.

    Raises:
      CheckpointError: the workdir cannot be written, or the disk is full.
    """
    folder = _absolute(workdir) / STEPS / f"{step:08d}"
    score = float(score) if score is not None and math.isfinite(score) else None
    with _reported(f"clean up {folder.parent}"):
        for leftover in folder.parent.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(leftover)
    _write(folder, items, {**config, "step": step, "score": score})

    intact = [s for s in steps(workdir) if _first_intact([s], warn=lambda message: None)]
    keep = {folder, *intact[::-1][:keep_last], *_best_first(intact)[:1]}
    with _reported(f"delete an old checkpoint in {folder.parent}"):
        for candidate in steps(workdir):
            if candidate not in keep:
                _discard(candidate)
    return folder


def steps(workdir: StrPath) -> list[Path]:
    """The step directories of a workdir, intact or not, in the order of their numbers."""
    folder = _absolute(workdir) / STEPS
    with _reported(f"list {folder}"):
        entries = list(folder.iterdir()) if folder.is_dir() else []
    return sorted(
        (p for p in entries if p.name.isascii() and p.name.isdigit() and p.is_dir()),
        key=lambda p: int(p.name),
    )


def latest_valid(workdir: StrPath, warn: Warn = warnings.warn) -> Path | None:
    """The newest intact step; ``warn`` gets one line for each damaged one passed over."""
    return _first_intact(steps(workdir)[::-1], warn)


def best(workdir: StrPath, warn: Warn = warnings.warn) -> Path | None:
    """The intact step of the lowest score (the newest if there are no scores)."""
    return _first_intact(_best_first(steps(workdir)), warn)


def clear(workdir: StrPath) -> None:
    """Deletes all steps of a workdir, to start the run anew.

    Raises:
      CheckpointError: they cannot be deleted.
    """
    for step in steps(workdir):
        with _reported(f"delete {step}"):
            _discard(step)


def find(path: StrPath, warn: Warn = warnings.warn) -> Path:
    """The checkpoint that a user's ``--ckpt`` means, verified.

    Args:
      path: a workdir (meaning its best step), a step inside it, or a released checkpoint.
      warn: gets one line for each damaged step that is passed over in a workdir.

    Raises:
      CheckpointError: there is none, or it is damaged.
    """
    path = _absolute(path)
    if (path / manifest.NAME).is_file():
        manifest.verify(path)
        return path
    if (path / STEPS).is_dir():
        found = best(path, warn)
        if found is None:
            raise CheckpointError(
                f"no intact checkpoint among the {len(steps(path))} steps in {path / STEPS}; "
                "train first, or name another path"
            )
        return found
    state = "it" if path.exists() else "which does not exist; it"
    raise CheckpointError(
        f"no checkpoint at {path}, {state} should hold {manifest.NAME} (a checkpoint) "
        f"or {STEPS}/ (a workdir); {_nearby(path)}"
    )


def read_config(path: StrPath) -> dict[str, Any]:
    """The configuration saved with a checkpoint.

    Raises:
      CheckpointError: it is missing or damaged.
    """
    path = _absolute(path)
    manifest.verify(path, {CONFIG})
    with _reported(f"read {path / CONFIG}"):
        return json.loads((path / CONFIG).read_text(encoding="utf-8"))


def attach(path: StrPath, name: str, data: bytes) -> None:
    """Adds a file to a checkpoint, or replaces it; under the manifest like all the rest.

    Raises:
      CheckpointError: the checkpoint is damaged, or cannot be written.
    """
    path = _absolute(path)
    with _reported(f"write {path / name}"):
        manifest.replace(path, name, data)


def attached(path: StrPath, name: str) -> bytes | None:
    """The file that `attach` added, or None.

    Raises:
      CheckpointError: it is damaged.
    """
    path = _absolute(path)
    if name not in manifest.read(path):
        return None
    manifest.verify(path, {name})
    with _reported(f"read {path / name}"):
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
    path = _absolute(path)
    held = {name.split("/")[0] for name in manifest.read(path) if "/" in name}
    for name in items:
        if name not in held:
            raise CheckpointError(
                f"checkpoint {path} holds no {name!r}, only {', '.join(sorted(held))}; "
                "name a checkpoint that has it"
            )
    manifest.verify(path, items)
    with _reported(f"read checkpoint {path}"):
        return {name: _restore_item(path / name, target) for name, target in items.items()}


# Writing


def _write(path: Path, items: Mapping[str, PyTree], config: Mapping[str, Any]) -> None:
    """Writes a checkpoint in place of what may be at ``path``."""
    # Host arrays: a checkpoint should not record the devices that it happened to come from.
    arrays = {name: jax.tree.map(np.asarray, jax.device_get(x)) for name, x in items.items()}
    text = json.dumps(config, indent=2, allow_nan=False) + "\n"
    temporary = path.with_name(_TEMPORARY + path.name)
    with _reported(f"write checkpoint {path}"):
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
                _discard(path)
            temporary.rename(path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        manifest.sync(path.parent)


def _save_item(folder: Path, tree: PyTree) -> None:
    with _orbax() as ocp, ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        checkpointer.save(folder, args=ocp.args.PyTreeSave(tree))
    # Orbax needs it on cloud storage only, and its text is the absolute path on this machine.
    (folder / "commit_success.txt").unlink(missing_ok=True)


def _discard(folder: Path) -> None:
    """Deletes a step; a kill on the way leaves a temporary, never half of a step."""
    doomed = folder.with_name(f"{_TEMPORARY}discarded-{folder.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed)


# Reading


def _restore_item(folder: Path, target: PyTree) -> PyTree:
    with _orbax() as ocp, ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        saved = checkpointer.metadata(folder).item_metadata.tree
        _check_leaves(folder, _leaves(saved), _leaves(target))
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), saved)
        tree = checkpointer.restore(folder, args=ocp.args.PyTreeRestore(restore_args=as_numpy))
    # Orbax returns named tuples as dicts: only the paths of the leaves are the same.
    restored = _leaves(tree)

    def fill(path: tuple, leaf: Any) -> Any:
        value = restored[_path_name(path)]
        return value.item() if type(leaf) in (bool, int, float) else value

    return jax.tree_util.tree_map_with_path(fill, target)


def _check_leaves(folder: Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
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


def _leaves(tree: PyTree) -> dict[str, Any]:
    return {_path_name(p): leaf for p, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def _path_name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _first_intact(candidates: list[Path], warn: Warn) -> Path | None:
    for candidate in candidates:
        try:
            manifest.verify(candidate)
        except CheckpointError as error:
            warn(f"skipped: {error}")
        else:
            return candidate
    return None


def _best_first(candidates: list[Path]) -> list[Path]:
    def rank(step: Path) -> tuple[float, int]:
        try:
            score = read_config(step).get("score")
        except CheckpointError:
            score = None
        return (math.inf if score is None else score, -int(step.name))

    return sorted(candidates, key=rank)


# Paths and errors


def _absolute(path: StrPath) -> Path:
    return Path(os.path.abspath(path))  # Orbax refuses relative paths


def _nearby(path: Path) -> str:
    """What could have been meant instead of ``path``, in words."""
    base = next(p for p in (path, *path.parents) if p.is_dir())
    with _reported(f"list {base}"):
        names = sorted(
            p.name for p in base.iterdir() if (p / manifest.NAME).is_file() or (p / STEPS).is_dir()
        )
    return f"{base} holds {', '.join(names[:5])}" if names else f"{base} holds none either"


@contextlib.contextmanager
def _reported(action: str) -> Iterator[None]:
    """Turns a failure of the system into one line for the user."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise CheckpointError(f"cannot {action}: {error.strerror or error}{where}") from error


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
