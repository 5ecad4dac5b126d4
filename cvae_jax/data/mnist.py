"""MNIST's own four files: where they are looked for, and how they are downloaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import cvae_jax
from cvae_jax.data import arrays, downloads
from cvae_jax.errors import DataError

# The mirror and the checksums that tensorflow-datasets registers: (bytes, SHA-256).
# Images last: a folder counts as complete once it has them.
URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"
FILES = {
    "train-labels-idx1-ubyte.gz": (
        28881,
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
    "t10k-labels-idx1-ubyte.gz": (
        4542,
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
    "t10k-images-idx3-ubyte.gz": (
        1648877,
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
    "train-images-idx3-ubyte.gz": (
        9912422,
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
}
TOTAL_SECONDS = 600


def find(folders: list[Path]) -> Path | None:
    """The first folder to hold both image files, itself or in its subfolder ``mnist``."""
    for folder in (place for root in folders for place in (root, root / "mnist")):
        if all(arrays.idx_images(folder, split) for split in arrays.IDX_STEMS):
            return folder
    return None


def fetch(folder: Path) -> Path:
    """Downloads the four files into ``folder``, each whole and verified, or not at all.

    Gives up within seconds if there is no network, and after ``TOTAL_SECONDS`` in any case.

    Returns:
      ``folder``.

    Raises:
      DataError: the download failed; the message gives the reason in a few words.
    """
    host = urlsplit(URL).netloc
    print(f"fetching MNIST from {host} into {folder}", file=sys.stderr)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as temporary:
            paths = _download(temporary, host)
            for name in FILES:
                os.replace(paths[URL + name], folder / name)
    except OSError as error:
        raise DataError(f"cannot write to {folder}: {error.strerror}") from error
    return folder


def _download(folder: str, host: str) -> dict[str, str]:
    """Runs the child process; returns the path in ``folder`` of each URL's file."""
    job = {
        "folder": folder,
        "files": {URL + name: check for name, check in FILES.items()},
        "limits": (downloads.ANSWER_SECONDS, downloads.READ_SECONDS),
    }
    package = str(Path(cvae_jax.__file__).parents[1])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        child = subprocess.run(
            [sys.executable, "-P", "-c", "from cvae_jax.data.downloads import main; main()"],
            input=json.dumps(job),
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            timeout=TOTAL_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(f"{host} is too slow: not done after {TOTAL_SECONDS} s") from error
    last = (child.stdout.splitlines() or child.stderr.splitlines() or ["no reason given"])[-1]
    if child.returncode:
        raise DataError(last)
    return json.loads(last)
