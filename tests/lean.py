"""A Python that has what a machine takes to read files, and nothing else.

A virtual environment of its own, without pip, whose packages are links to those that are
installed here; the package itself as its wheel would hold it.
"""

import configparser
import os
import re
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

from conftest import ROOT

_REQUIRED = configparser.ConfigParser(inline_comment_prefixes="#")
_REQUIRED.read(ROOT / "setup.cfg")
READING = re.findall(r"^[\w-]+", _REQUIRED["options"]["install_requires"], re.MULTILINE)
FORBIDDEN = ("jax", "jaxlib", "flax", "optax", "orbax", "matplotlib", "safetensors", "scipy",
             "tensorflow_datasets")  # fmt: skip


class Lean:
    def __init__(self, folder: Path):
        self.folder = folder
        venv.create(folder / "env", symlinks=True, with_pip=False)
        (packages,) = (folder / "env" / "lib").glob("python*/site-packages")
        for name in READING:
            _link(metadata.distribution(name), packages)
        (packages / "cvae_jax").mkdir()
        for path in (ROOT / "cvae_jax").iterdir():
            (packages / "cvae_jax" / path.name).symlink_to(path)
        (packages / "cvae_jax" / "released").symlink_to(ROOT / "checkpoints")

    def python(self, *arguments, status=0):
        """Runs Python in the folder: what it prints to standard output and to standard error."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        done = subprocess.run(
            [self.folder / "env" / "bin" / "python", *map(str, arguments)],
            cwd=self.folder, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == status, done.stderr
        return done.stdout, done.stderr

    def cvae(self, *arguments, status=0):
        return self.python("-m", "cvae_jax", *arguments, status=status)


def _link(distribution, packages: Path) -> None:
    top = {Path(file).parts[0] for file in distribution.files if ".." not in Path(file).parts}
    for name in top - {"__pycache__"}:
        (packages / name).symlink_to(Path(distribution.locate_file(name)))


def modules_of(*arguments) -> list[str]:
    """What a command in this environment, in which all is installed, has imported at its end."""
    code = (
        "import sys; from cvae_jax import errors; from cvae_jax.cli import parser\n"
        f"status = errors.run(lambda: parser.main({[str(a) for a in arguments]!r}))\n"
        "print(*sys.modules, file=sys.stderr); sys.exit(status)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines()[-1].split()
