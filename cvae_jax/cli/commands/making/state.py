"""Where a fit writes, and how far it is."""

from __future__ import annotations

import json
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any, NamedTuple

from cvae_jax.cli.files import outputs, paths
from cvae_jax.cli.files.outputs import ToFile
from cvae_jax.errors import CheckpointError, ConfigError, explained, needs
from cvae_jax.files import whole
from cvae_jax.runs import checkpoint, manifest

with needs("train", "cvae fit"):
    from cvae_jax.runs.run import alone

STATE = "fit.json"  # in the workdir
# What a fit that goes on must be given again.
GIVEN = ("dataset", "output", "minutes", "preset", "resize")
# How far it is; while it is releasing, the model may be half there.
PLANNING, TRAINING, RELEASING, RELEASED = "planning", "training", "releasing", "released"


class State(NamedTuple):
    given: dict[str, Any]
    fingerprint: str  # of the images
    stage: str = PLANNING
    epochs: int = 0
    images: int = 0  # that an epoch goes through

    def write(self, workdir: Path) -> None:
        path = workdir / STATE
        with explained(f"write {path}"), whole(path, force=True) as file:
            file.write(json.dumps(self._asdict()).encode())

    def at(self, stage: str, workdir: Path) -> State:
        """The next stage, written down."""
        state = self._replace(stage=stage)
        state.write(workdir)
        return state


class Places(NamedTuple):
    """What a fit writes."""

    model: Path
    workdir: Path
    archive: ToFile | None

    @classmethod
    def of(cls, args: Namespace) -> Places:
        """Those that the command names.  Raises ConfigError for what is no place of its kind."""
        if paths.is_stdout(args.output):
            raise ConfigError(f"-o {args.output}: a model is a folder; name one")
        archive = None
        if args.archive is not None:
            found = outputs.to_file(args.archive)
            if not isinstance(found, ToFile):
                raise ConfigError(f"--archive {args.archive}: it is read back; name a file")
            archive = found
        model = Path(args.output)
        beside = checkpoint.absolute(model)
        if not beside.name:
            raise ConfigError(f"-o {args.output}: a model is a folder of its own; name one")
        return cls(model, args.workdir or beside.with_name(f"{beside.name}.fit"), archive)

    def begun(self, args: Namespace) -> State | None:
        """How far the fit is that the workdir holds; None: there is none, or ``--force`` is to
        replace it.

        Raises:
          CheckpointError: it cannot be read.
          ConfigError: it was given other words, or the workdir is of something else.
        """
        path = self.workdir / STATE
        with explained(f"read {self.workdir}"):
            if not path.is_file():
                if self.workdir.is_dir() and any(self.workdir.iterdir()):
                    raise ConfigError(
                        f"{self.workdir} is there, and not of a fit; name another --workdir"
                    )
                return None
            content = path.read_bytes()
        try:
            state = State(**json.loads(content))
            if not isinstance(state.given, dict):
                raise TypeError("words that are no object")
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{path}: damaged; remove {self.workdir}") from error
        given = said(args)
        changed = [
            f"{name} is {state.given.get(name)} there and {given[name]} here"
            for name in GIVEN
            if state.given.get(name) != given[name]
        ]
        if changed and not args.force:
            raise ConfigError(
                f"{self.workdir} holds another fit: {'; '.join(changed)}. Give the same words to "
                "go on with it, -f to start anew, or another --workdir"
            )
        return None if changed else state

    def check(self, dataset: str, state: State | None, *, force: bool) -> None:
        """Refuses, before any work, what must not be written.

        Raises:
          ConfigError: an output is there (and ``force`` is not set), or cannot be there, or is
            among what is read.
        """
        read = [Path(dataset)] if Path(dataset).exists() else []
        written = [self.archive] if self.archive else []
        places = [*(o.path for o in written), self.model, self.workdir]
        paths.check_apart(places, read)
        paths.check_not_inside(places, [self.model, self.workdir])
        outputs.check(written, read, force=force)
        ours = force or (state is not None and state.stage in (RELEASING, RELEASED))
        taken = self.model.exists() and not (self.model.is_dir() and not any(self.model.iterdir()))
        if taken and not ours:
            raise ConfigError(f"{self.model} exists; -f overwrites it")
        if taken and not self.has_model():
            raise ConfigError(f"{self.model} exists and is no checkpoint; name another folder")

    def prepare(self, args: Namespace, fingerprint: str) -> State:
        """An empty workdir, and a fit that begins in it.  Raises ConfigError: another is in it."""
        if self.workdir.is_dir():
            with alone(self.workdir), explained(f"write {self.workdir}"):
                shutil.rmtree(self.workdir)
        with explained(f"write {self.workdir}"):
            self.workdir.mkdir(parents=True)
        state = State(said(args), fingerprint)
        state.write(self.workdir)
        return state

    def has_model(self) -> bool:
        """Whether the model is there."""
        return (self.model / manifest.NAME).is_file()

    def clear_model(self) -> None:
        """Removes the checkpoint that is to be replaced."""
        if self.has_model():
            with explained(f"remove {self.model}"):
                checkpoint.discard(checkpoint.absolute(self.model))


def said(args: Namespace) -> dict[str, Any]:
    """What the command says of the model, as JSON holds it."""
    words = {name: getattr(args, name) for name in GIVEN}
    # Wherever the command is given again.
    words["output"] = str(checkpoint.absolute(Path(args.output)))
    return json.loads(json.dumps(words))
