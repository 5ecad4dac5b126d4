"""Archives in which some images have names, or labels, and others have none."""

import io

import numpy as np
import pytest
from command_samples import refuses
from conftest import RELEASED, ROOT

from cvae_jax import codec, data
from cvae_jax.bitstream import Writer

DIGITS = ROOT / "examples" / "digits"


@pytest.fixture
def mixed(tmp_path, monkeypatch):
    """An archive of a chunk with names, one with neither, one with labels."""
    monkeypatch.chdir(tmp_path)
    c = codec.load(RELEASED)
    file = io.BytesIO()
    writer = Writer(file, c.header)
    symbols, step = c.encode_symbols(data.load("digits", "test")[:3])
    for i, more in enumerate(({"names": ["deep/a.png"]}, {}, {"labels": [7]})):
        rows = symbols[i : i + 1]
        writer.add(rows, step, c.tables, c.decode_symbols(rows, step), **more)
    writer.finish()
    (tmp_path / "mixed.cvae").write_bytes(file.getvalue())
    return tmp_path


@pytest.mark.parametrize("how", [[], ["--keep-going"]])
def test_names_are_used_where_there_are_some(cvae, mixed, how):
    assert cvae("decompress", "mixed.cvae", "-o", "out", *how)[0] == 0
    found = {p.relative_to(mixed / "out").as_posix() for p in data.list_images(mixed / "out")}
    assert found == {"deep/a.png", "000001.png", "000002.png"}


def test_labels_of_some_images_are_no_labels(cvae, mixed):
    argv = ["decompress", "mixed.cvae", "-o", "out", "--labels", "l.npy"]
    refuses(cvae, 1, "mixed.cvae: it holds labels of some images only", argv=argv)
    assert [p.name for p in mixed.iterdir()] == ["mixed.cvae"]


def test_joining_refuses_a_mixture(cvae, mixed):
    np.save("labels.npy", np.arange(10))
    cvae("compress", DIGITS, "-o", "names.cvae")
    cvae("compress", DIGITS, "-o", "neither.cvae", "--no-names")
    cvae("compress", DIGITS, "-o", "labels.cvae", "--no-names", "--labels", "labels.npy")
    for first, second, *words in (
        (
            "names",
            "neither",
            "neither.cvae: its images have no names, those of names",
            "--no-names",
        ),
        (
            "neither",
            "names",
            "neither.cvae: its images have no names, those of names",
            "--no-names",
        ),
        ("neither", "labels", "neither.cvae: its images have no labels, those of", "--labels"),
        ("mixed", "names", "mixed.cvae: its images have no names, those of mixed"),
    ):
        argv = ["concat", f"{first}.cvae", f"{second}.cvae", "-o", "x.cvae"]
        refuses(cvae, 1, *words, argv=argv)
    assert not (mixed / "x.cvae").exists()


def test_a_model_file_joins_either(cvae, tmp_path):
    """It has no images, and so none without names."""
    cvae("compress", DIGITS, "-o", "names.cvae")
    cvae("compress", DIGITS, "-o", "neither.cvae", "--no-names")
    cvae("model", "mnist", "-o", "m.cvae")
    for name in ("names", "neither"):
        assert cvae("concat", "m.cvae", f"{name}.cvae", "-o", "x.cvae", "-f")[0] == 0
