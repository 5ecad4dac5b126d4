"""What commands say: of files without their model, of all files, of errors; and at what cost."""

import json
import shutil
import subprocess
import sys
from collections import Counter

import command_samples
import numpy as np
import pytest
from command_samples import refuses
from conftest import RELEASED, ROOT

from cvae_jax import codec, data
from cvae_jax.bitstream import records
from cvae_jax.cli import reports
from cvae_jax.cli.commands.info import other_formats
from cvae_jax.coding import target
from cvae_jax.errors import CheckpointError
from cvae_jax.runs.manifest import Checkpoint
from cvae_jax.runs.record import Record

images, folder = command_samples.images, command_samples.folder
DIGITS = ROOT / "examples" / "digits"


@pytest.fixture
def foreign(monkeypatch):
    """No model at hand is that of a file."""
    monkeypatch.setattr("cvae_jax.runs.find.RELEASED", ())


def test_a_target_of_bytes_is_met_by_the_very_file(cvae, tmp_path):
    np.save("labels.npy", np.arange(10))
    argv = ["compress", DIGITS, "-o", "d.cvae", "-f", "-j", "--target-bytes"]
    report = json.loads(cvae(*argv, 33)[1])
    assert report["bytes"] == (tmp_path / "d.cvae").stat().st_size
    assert 31 < report["bytes_per_image"] <= 33
    assert report["quality"] < json.loads(cvae(*argv, 33, "--no-names")[1])["quality"]
    labelled = json.loads(cvae(*argv, 40, "--labels", "labels.npy")[1])
    assert labelled["bytes_per_image"] <= 40
    refuses(cvae, 2, "without names", argv=["compress", DIGITS, "-o", "x", "--target-bytes", 26])
    argv = ["compress", DIGITS, "-o", "x", "--target-bytes", 30, "--embed-model"]
    refuses(cvae, 2, "without names and the embedded model", argv=argv)
    line = cvae("compress", DIGITS, "-o", "x", "--target-bytes", 5)[2]
    assert line.endswith(" without names\n")
    line = cvae("compress", DIGITS, "-o", "x", "--target-bytes", 5, "--no-names")[2]
    assert "without" not in line
    assert not (tmp_path / "x").exists()


def test_each_image_is_encoded_once_and_probes_are_watched(cvae, monkeypatch):
    seen, bars = [], []
    encoder = codec.Codec._z_mean.func

    def counted(self):
        def encode(images):
            seen.append(len(images))
            return encoder(self)(images)

        return encode

    def watched(total, what):
        bars.append((what, total))
        return reports.progress(total, what)

    monkeypatch.setattr(codec.Codec, "_z_mean", property(counted))
    monkeypatch.setattr("cvae_jax.cli.commands.compress.progress", watched)
    assert cvae("compress", DIGITS, "-o", "d.cvae")[0] == 0
    assert seen == [10]
    bars.clear()
    assert cvae("compress", DIGITS, "-o", "d.cvae", "-f", "--target-psnr", 18)[0] == 0
    assert seen == [10, 10, 10]  # once for all probes, once for the file
    assert bars == [("find quality", 10 * target.PROBES), ("compress", 10)]


def test_the_worst_image_is_named_and_can_be_refused(cvae, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (28, 28, 1), np.uint8)
    shutil.copytree(DIGITS, tmp_path / "in")
    (tmp_path / "in" / "noise.png").write_bytes(data.encode_image(noise))
    argv = ["compress", "in", "-o", "x.cvae", "--min-psnr", 15]
    refuses(cvae, 1, "1 of 11 images", "15 dB", "noise.png with", argv=argv)
    assert not (tmp_path / "x.cvae").exists()
    status, out, _ = cvae(*argv[:-1], 5, "-v")
    assert status == 0
    (line,) = [line for line in out.splitlines() if line.startswith("worst: ")]
    assert "noise.png, PSNR " in line
    report = json.loads(cvae(*argv[:-1], 5, "-f", "-j")[1])
    c = codec.load(RELEASED)
    decoded = c.decompress((tmp_path / "x.cvae").read_bytes())
    found = np.mean((decoded[-1] / 255 - noise / 255) ** 2)
    assert report["worst"] == "noise.png"
    assert report["worst_psnr"] == pytest.approx(-10 * np.log10(found), abs=1e-4)
    np.save("noise.npy", noise[None])
    refuses(cvae, 1, "image 0", argv=["compress", "noise.npy", "--min-psnr", 15])


def test_verify_reports_every_file(cvae, tmp_path):
    cvae("compress", DIGITS, "-o", "a.cvae")
    cvae("compress", DIGITS / "digit_3.png", "-o", "b.cvae")
    status, out, _ = cvae("verify", "a.cvae", "missing", ".", "b.cvae")
    assert status == 1
    lines = out.splitlines()
    assert lines[0] == "a.cvae: intact, 10 images"
    assert lines[1].startswith("missing: No such file")
    assert lines[2].startswith(".: ")
    assert lines[3] == "b.cvae: intact, 1 image"
    content = bytearray((tmp_path / "b.cvae").read_bytes())
    content[-1] ^= 1
    (tmp_path / "c.cvae").write_bytes(content)
    status, out, _ = cvae("verify", "-j", "a.cvae", "missing", "c.cvae")
    assert status == 3
    assert [row["intact"] for row in json.loads(out)["files"]] == [True, False, False]


def test_info_describes_a_file_without_its_model(cvae, tmp_path, foreign):
    c = codec.load(RELEASED)
    found = c.compress(
        np.zeros((3, 28, 28, 1), np.uint8), 30, names=["a", "b", "c"], labels=[1, 2, 3]
    )
    (tmp_path / "a.cvae").write_bytes(found)
    (tmp_path / "one.cvae").write_bytes(c.compress(np.zeros((28, 28), np.uint8), 30))
    status, out, _ = cvae("info", "a.cvae")
    assert status == 0
    assert "archive, 3 images of 28x28x1, quality 30" in out
    assert c.identity.model.hex() in out
    assert "as the model is missing" in out
    assert "--ckpt" in out
    report = json.loads(cvae("info", "a.cvae", "-j")[1])
    assert (report["names"], report["labels"], report["qualities"]) == (True, True, [30])
    assert sum(report["bytes_by_use"].values()) == report["bytes"] == len(found)
    assert report["break_even"] is None
    status, out, _ = cvae("info", "one.cvae")
    assert status == 0
    assert "single image, 1 image, quality 30" in out
    assert c.identity.short.hex() in out
    report = json.loads(cvae("info", "a.cvae", "-j", "--ckpt", RELEASED)[1])
    assert report["missing"] is None
    assert report["break_even"]["PNG"]["images"] is None or report["model_bytes"] > 0
    refuses(cvae, 1, "nowhere", argv=["info", "a.cvae", "--ckpt", "nowhere"])


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        ("decompress missing.cvae -j", 1),
        ("compress missing.png --json", 1),
        ("decompress bad.cvae -j", 3),
        ("compress good.png -q 200 -j", 2),
        ("compress good.png -q nan -j", 2),
        ("compress --json", 2),
        ("nonsense -j", 2),
    ],
)
def test_errors_are_json_too(cvae, tmp_path, argv, status):
    (tmp_path / "bad.cvae").write_bytes(b"nothing")
    shutil.copy(DIGITS / "digit_1.png", tmp_path / "good.png")
    found, out, err = cvae(*argv.split())
    assert found == status
    report = json.loads(out)
    assert report["exit_code"] == status
    assert f"error: {report['error']}" in err.splitlines()


def test_errors_of_a_file_for_standard_output_are_not_mixed_with_it(cvae):
    found, out, err = cvae("compress", "missing.png", "-o", "-", "-j")
    assert (found, out) == (1, "")
    assert '"exit_code": 1' in err


def test_a_file_is_read_once(cvae, tmp_path, monkeypatch):
    c = codec.load(RELEASED)
    digits = data.load("digits", "test")[:10]
    content = c.compress(digits, names=[f"{i}.png" for i in range(10)], labels=range(10))
    (tmp_path / "a.cvae").write_bytes(content)
    embedded = c.compress(digits, embed_model=True)
    (tmp_path / "e.cvae").write_bytes(embedded)
    calls = Counter()

    def count(module, name):
        function = getattr(module, name)

        def counted(*args):
            if name != "unpack_section" or args[1] != records.INDEX:
                calls[name] += 1
            return function(*args)

        monkeypatch.setattr(module, name, counted)

    count(records, "unpack_section")
    count(records, "_inflate")
    for argv, expected in (
        (["decompress", "a.cvae", "-o", "x", "--labels", "l.npy"], (1, 2)),
        (["verify", "a.cvae"], (1, 2)),
        (["info", "a.cvae"], (1, 0)),
        (["decompress", "e.cvae", "-o", "y"], (2, 0)),
        (["verify", "e.cvae"], (2, 0)),
    ):
        calls.clear()
        assert cvae(*argv)[0] == 0
        assert (calls["unpack_section"], calls["_inflate"]) == expected, argv


def test_calibrating_replaces_tables(cvae, tmp_path):
    refuses(cvae, 2, "-f replaces", argv=["calibrate", RELEASED])
    shutil.copytree(RELEASED, tmp_path / "mine")
    np.save("few.npy", data.load("digits", "train")[:300])
    before = codec.load("mine").tables.digest
    # The released model's own setting would train the context model for minutes.
    few = ("--dataset", "few.npy", "--context-steps", 2)
    status, out, _ = cvae("calibrate", "mine", *few, "-f", "-j")
    assert status == 0
    report = json.loads(out)
    made = codec.load(tmp_path / "mine")
    after = made.tables.digest
    assert (report["tables"], after != before) == (after[:16].hex(), True)
    assert report["context"] == made.file_model.context.digest[:16].hex()
    assert 200 < report["images"] < 300
    assert cvae("compress", DIGITS, "-o", "d.cvae", "--ckpt", "mine")[0] == 0
    assert cvae("verify", "d.cvae", "--ckpt", "mine")[0] == 0
    assert cvae("verify", "d.cvae")[0] == 5


@pytest.mark.parametrize("module", ["cvae_jax", "cvae_jax.cli"])
def test_the_package_is_the_command(module):
    done = subprocess.run([sys.executable, "-m", module, "-V"], capture_output=True, cwd=ROOT)
    assert done.returncode == 0
    assert done.stdout.startswith(b"cvae_jax ")


def test_info_compares_with_the_best_sheet_of_another_codec(cvae, folder):
    """As the study of the released checkpoint measured it, at the default quality alone."""
    for quality, compared in ((50, True), (30, False)):
        cvae("compress", folder, "-q", quality, "-o", "q.cvae", "-f")
        rows = json.loads(cvae("info", "q.cvae", "-j")[1])["break_even"]
        assert ("AVIF sheet, lossy (measured)" in rows) is compared


def test_formats_that_cannot_hold_the_images_are_left_out():
    """WebP has a limit of 16383 pixels each way, which a sheet of large images is over first."""
    assert {"WebP", "WebP sheet"} <= other_formats(np.zeros((4, 8191, 1, 1), np.uint8)).keys()
    found = other_formats(np.zeros((4, 8192, 1, 1), np.uint8))
    assert {"PNG", "WebP", "xz"} == found.keys()
    assert {"PNG", "xz"} == other_formats(np.zeros((1, 16384, 1, 1), np.uint8)).keys()


def test_a_file_finds_the_released_checkpoint_that_made_it(cvae, folder):
    cvae("compress", folder, "-o", "hq.cvae", "--ckpt", "mnist-hq")
    cvae("compress", folder / "digit_1.png", "-o", "one.cvae", "--ckpt", "mnist-hq")
    for name in ("hq.cvae", "one.cvae"):
        for command in ("verify", "info"):
            assert cvae(command, name)[0] == 0
        assert cvae("decompress", name, "-f")[0] == 0


@pytest.mark.parametrize(
    "sheet",
    [
        {"codec": "x"},
        {"codec": 1, "bytes_per_image": 9},
        {"codec": "x", "bytes_per_image": "many"},
        {"codec": "x", "bytes_per_image": float("nan")},
        ["x"],
    ],
)
def test_a_hostile_record_of_the_best_sheet(cvae, tmp_path, monkeypatch, sheet):
    config = json.loads((RELEASED / "config.json").read_text())
    with pytest.raises(CheckpointError, match="not one of this version"):
        Record.from_dict({**config, "best_sheet": sheet})
    with pytest.raises(CheckpointError, match="name"):
        Record.from_dict({**config, "dataset": {"name": 7, "fingerprint": None}})
    cvae("compress", DIGITS, "-o", "d.cvae")
    read_json = Checkpoint.read_json
    monkeypatch.setattr(
        Checkpoint, "read_json", lambda self, name: {**read_json(self, name), "best_sheet": sheet}
    )
    assert "measured" not in cvae("info", "d.cvae")[1]


def test_sizes_that_are_larger_are_called_so(cvae):
    out = cvae("compress", DIGITS / "digit_1.png", "-o", "d.cvae", "--embed-model")[1]
    assert "times larger than raw" in out
    assert "times larger than PNG" in out
    status, _, err = cvae("compress", DIGITS, "-o", "x.cvae", "-q", 101)
    assert (status, err.endswith("not 101\n")) == (2, True)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("compress a.png --qualty 5", ["--qualty", "did you mean --quality?", "cvae compress --h"]),
        ("compress a.png --xyz", ["--xyz; see cvae compress --help"]),
        ("decompress", ["required: FILE; see cvae decompress --help"]),
        ("evaluate --ckpt mnist --jsno=x", ["--json?", "cvae evaluate --help"]),
        ("evaluate --json x", ["--ckpt"]),
        ("", ["COMMAND; see cvae --help"]),
    ],
)
def test_wrong_use_is_one_line(cvae, argv, words):
    refuses(cvae, 2, *words, argv=argv.split())
    assert len(cvae(*argv.split())[2].splitlines()) == 1
