"""Where the tests find data that is not part of the repository, and what several of them use."""

import io
import os
from pathlib import Path

import numpy as np
import pytest

from cvae_jax import errors
from cvae_jax.cli import parser
from cvae_jax.coding.integers.frequencies import TOTAL
from cvae_jax.coding.vectors.tables import REACH, Book, Tables
from cvae_jax.errors import CvaeError
from cvae_jax.exact.architecture import Architecture
from cvae_jax.exact.integers import IntegerDecoder, Layer

ROOT = Path(__file__).resolve().parent.parent
RELEASED = ROOT / "checkpoints" / "mnist"

# So that their assertions are as talkative as the tests' own.
pytest.register_assert_rewrite(
    "archive_samples",
    "checkpoint_samples",
    "command_samples",
    "context_samples",
    "data_samples",
    "job_samples",
)


def shared_dir() -> Path:
    """The folder with MNIST and the original's weights; skips the test without it."""
    path = Path(os.environ.get("CVAE_JAX_DATA") or ROOT.parent / "shared")
    if not path.is_dir():
        pytest.skip(f"no shared data at {path} (set CVAE_JAX_DATA)")
    return path


def seed_dir() -> Path:
    return shared_dir() / "seed"


def synthetic_tables(components: int, latent_dim: int, seed: int = 0) -> Tables:
    """Coding tables of no model: normal laws with means and widths drawn at random."""
    rng = np.random.default_rng(seed)
    points = (np.arange(2 * REACH + 1) - REACH) / 16
    normal = np.cumsum(np.exp(-0.5 * points**2))
    shape = np.floor((normal - normal[0]) / (normal[-1] - normal[0]) * 2**28)
    weights = rng.multinomial(TOTAL - components, np.full(components, 1 / components)) + 1
    tables = Tables(
        unit=np.full(latent_dim, 0.01, np.float32),
        slope=1e-6,
        weights=weights.astype(np.uint32),
        means=rng.integers(-1500, 1500, (components, latent_dim)).astype(np.int32),
        widths=rng.integers(16 * 50, 16 * 900, (components, latent_dim)).astype(np.uint32),
        curve=(shape + np.arange(len(shape))).astype(np.uint32),
    )
    tables.validate()
    return tables


def row_sums(book: Book, row: int) -> np.ndarray:
    """All cumulative sums of a row, int64 ``[count + 2]``."""
    return book.cumulative(np.array(row), np.arange(book.count[row] + 2))


def decoder_of_zeros(
    architecture: Architecture, used: int = 0, units_check: int = 0
) -> IntegerDecoder:
    """An integer decoder of this architecture that uses so many of its latents."""
    shapes = architecture.layers
    shapes[0] = shapes[0]._replace(inputs=used)
    layers = []
    for shape in shapes:
        last = shape is shapes[-1]
        layers.append(
            Layer(
                np.zeros(shape.weights, np.int32),
                np.zeros(shape.outputs, np.int64),
                np.zeros(shape.channels, np.uint8),
                0 if last else 8,
                np.zeros(shape.channels, np.int64) if shape.skips else None,
            )
        )
    return IntegerDecoder(
        *(architecture, np.arange(used, dtype=np.uint32), np.ones(used, np.uint16), 3),
        *(tuple(layers), np.arange(255, dtype=np.int32), units_check),
    )


def typical_symbols(tables: Tables, step: int, n: int, seed: int = 0) -> np.ndarray:
    """Symbols that are distributed about as the tables say, int32 [n, D]."""
    rng = np.random.default_rng(seed)
    k = rng.choice(tables.components, n, p=tables.weights / TOTAL)
    spread = tables.widths[k] / 16
    units = tables.means[k] + rng.normal(size=(n, tables.latent_dim)) * spread
    return np.rint(units / step).astype(np.int32)


@pytest.fixture
def cvae(capsys, monkeypatch, tmp_path):
    """Runs the command in a fresh folder: ``(exit code, output, errors)``."""
    monkeypatch.chdir(tmp_path)

    def run(*argv):
        try:
            status = errors.run(lambda: parser.main([str(a) for a in argv]))
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return status, out, err

    return run


def failure(kind: type[CvaeError], function, *args, **kwargs) -> str:
    """The one line of the error of this kind that the call must raise."""
    with pytest.raises(kind) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


class Counting(io.BytesIO):
    """A file in memory that counts what is read of it."""

    total = 0

    def read(self, size=-1):
        data = super().read(size)
        self.total += len(data)
        return data
