"""The page as a file: what is committed is what is built, and the command writes it."""

import base64
import re

import numpy as np
import pytest
from conftest import ROOT

from benchmarks.page.node import carried
from cvae_jax import codec, errors, page, reader
from cvae_jax.cli import parser

INDEX = ROOT / "web" / "index.html"
MOST = 600_000  # bytes


def test_the_committed_page_is_what_is_built():
    """With the encoder that it carries: rounding its weights is the work of seconds, and not the
    same on all machines.  If this fails: ``cvae web web/index.html -f``."""
    committed = INDEX.read_text()
    built = page.build(reader.load("mnist").files, "mnist", carried(committed, "encoder"))
    assert built == committed
    assert len(committed.encode()) <= MOST


def test_the_page_asks_no_host():
    text = re.sub(r"http://www\.w3\.org/\S+", "", INDEX.read_text())
    for pattern in (r"\bsrc\s*=\s*[\"']?http", r"https?://", "@import"):
        assert not re.search(pattern, re.sub(r'"[^"]{2000,}"', "", text)), pattern


def test_what_it_carries():
    made = codec.load("mnist")
    committed = INDEX.read_text()
    assert carried(committed, "model") == made.file_model.model_file()
    assert carried(committed, "kernels") == (ROOT / "web/wasm/kernels.wasm").read_bytes()


def test_the_command(tmp_path, capsys):
    """Of a model that only reads, with an archive that is shown first."""
    made = codec.load("mnist")
    archive = tmp_path / "a<b>.cvae"
    archive.write_bytes(made.compress(np.zeros((3, 28, 28), np.uint8)))
    model = tmp_path / "only.cvae"
    model.write_bytes(made.file_model.model_file())
    out = tmp_path / "page.html"
    run = ["web", str(out), "--ckpt", str(model), "--archive", str(archive)]
    assert errors.run(lambda: parser.main(run)) == 0
    assert capsys.readouterr().out == f"{out}: a page, {out.stat().st_size} bytes\n"
    text = out.read_text()
    assert '"encoder":' not in text
    name, content = re.search(r'id="archive" data-name="([^"]*)">\n(\S*)\n', text).groups()
    assert name == "a&lt;b&gt;.cvae"
    assert base64.b64decode(content) == archive.read_bytes()
    assert errors.run(lambda: parser.main(run)) == 2  # it is there
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize("other", ["image", "damaged", "missing", "mnist-hq"])
def test_what_is_no_archive_of_the_model_is_refused(tmp_path, capsys, other):
    made = codec.load("mnist-hq" if other == "mnist-hq" else "mnist")
    file, out = tmp_path / "file.cvae", tmp_path / "page.html"
    images = np.zeros((2, 28, 28), np.uint8)
    if other != "missing":
        data = made.compress(images[0] if other == "image" else images)
        file.write_bytes(data[:-9] if other == "damaged" else data)
    code = errors.run(lambda: parser.main(["web", str(out), "--archive", str(file)]))
    assert code in (1, 2, 3, 5)
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.count("\n") == 1
    assert str(file) in line
    assert not out.exists()


def test_a_set_of_shards_is_refused(tmp_path, capsys):
    """Whether its files are there or not: a page takes one archive."""
    out = tmp_path / "page.html"
    name = str(tmp_path / "set@3.cvae")
    assert errors.run(lambda: parser.main(["web", str(out), "--archive", name])) == 1
    assert capsys.readouterr().err == (
        f"error: {name}: a set of shards, and a page takes one archive: "
        f"cvae concat {name} -o one.cvae joins them\n"
    )
    assert not out.exists()
