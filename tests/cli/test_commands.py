"""The command ``cvae``: real files in, real files out, errors in one line, exit codes."""

import gzip
import io
import json
import struct
import subprocess
import sys
from pathlib import Path

import command_samples
import numpy as np
import pytest
from command_samples import refuses
from conftest import RELEASED, ROOT
from PIL import Image

from cvae_jax import codec, data
from cvae_jax.bitstream import writer
from cvae_jax.cli import models

images, folder = command_samples.images, command_samples.folder


def test_a_folder_there_and_back(cvae, folder, tmp_path, images):
    status, out, _ = cvae("compress", folder)
    assert status == 0
    assert out.startswith("digits.cvae: 12 images, ") or "digits.cvae: 12 images, " in out
    assert "times smaller than PNG" in out
    archive = tmp_path / "digits.cvae"
    assert archive.exists()
    folder.rename(tmp_path / "originals")
    assert cvae("decompress", archive)[0] == 0
    assert sorted(p.relative_to(folder).as_posix() for p in data.list_images(folder)) == sorted(
        p.relative_to(tmp_path / "originals").as_posix()
        for p in data.list_images(tmp_path / "originals")
    )
    for path in data.list_images(folder):
        original = data.read_image(tmp_path / "originals" / path.relative_to(folder))
        assert np.mean((data.read_image(path) / 255 - original / 255.0) ** 2) < 0.04


def test_json_reports_what_text_says(cvae, folder, tmp_path):
    status, out, _ = cvae("compress", folder, "-o", "d.cvae", "-j", "-v", "-q", 70)
    report = json.loads(out)
    size = (tmp_path / "d.cvae").stat().st_size
    assert (status, report["bytes"], report["images"], report["quality"]) == (0, size, 12, 70)
    assert report["bytes_per_image"] == pytest.approx(size / 12)
    assert report["ratio_to_raw"] == pytest.approx(784 * 12 / size)
    report = json.loads(cvae("info", "d.cvae", "-j")[1])
    assert sum(report["bytes_by_use"].values()) == size
    assert set(report["break_even"]) == {"PNG", "WebP", "WebP sheet", "xz"}
    assert report["qualities"] == [70]
    for row in report["break_even"].values():
        n, each = row["images"], row["bytes_per_image"]
        spent = report["bytes_by_use"]
        grows = sum(spent[use] for use in ("streams", "checks", "names", "labels")) / 12
        fixed = report["model_bytes"] + spent["header"] + spent["index"]
        assert fixed + n * grows < n * each
        assert fixed + (n - 1) * grows >= (n - 1) * each
    assert "from" in cvae("info", "d.cvae")[1]


def test_arrays_labels_and_targets(cvae, tmp_path, images):
    np.save("images.npy", images)
    np.savez("images.npz", images=images)
    header = b"\0\0\x08\x03" + struct.pack(">III", 12, 28, 28)
    (tmp_path / "images.idx.gz").write_bytes(gzip.compress(header + images.tobytes()))
    np.save("labels.npy", np.arange(12))
    for name in ("images.npy", "images.npz", "images.idx.gz"):
        assert cvae("compress", name, "--labels", "labels.npy", "-o", f"{name}.cvae")[0] == 0
        status, _, _ = cvae(
            "decompress", f"{name}.cvae", "-o", "back.npy", "--labels", "l.npy", "-f"
        )
        assert status == 0
        assert np.load("l.npy").tolist() == list(range(12))
        assert np.load("back.npy").shape == images.shape
    report = json.loads(cvae("compress", "images.npy", "-j", "--target-bytes", 40)[1])
    assert 39 < report["bytes_per_image"] <= 40 or report["quality"] == 100
    report = json.loads(cvae("compress", "images.npy", "-f", "-j", "--target-psnr", 19)[1])
    assert report["psnr"] >= 19
    (tmp_path / "empty.npy").write_bytes(b"")
    argv = ["compress", "images.npy", "--labels", "empty.npy", "-o", "x.cvae"]
    refuses(cvae, 1, "empty.npy: no array of labels", argv=argv)
    np.save("none.npy", images[:0])
    refuses(cvae, 1, "none.npy", argv=["compress", "none.npy"])
    assert cvae("decompress", "images.cvae", "-o", "out")[0] == 0
    assert len(list((tmp_path / "out").iterdir())) == 12
    assert (tmp_path / "out" / "000000.png").exists()


def test_single_images(cvae, folder, tmp_path):
    assert cvae("compress", folder / "digit_1.png", "-o", "one.cvae")[0] == 0
    assert (tmp_path / "one.cvae").stat().st_size < 30
    argv = ["compress", folder / "digit_1.png", "-o", "tiny.cvae", "--target-bytes", 16, "-j"]
    assert json.loads(cvae(*argv)[1])["bytes"] <= 16
    for output in ("one.png", "one.bmp", "one.webp", "one.npy"):
        assert cvae("decompress", "one.cvae", "-o", output)[0] == 0
    pixels = data.read_image("one.png")
    assert np.array_equal(pixels, data.read_image("one.bmp"))
    assert np.array_equal(pixels, data.read_image("one.webp"))
    assert np.array_equal(pixels, np.load("one.npy")[0])
    status, out, _ = cvae("info", "one.cvae")
    assert (status, "single image" in out) == (0, True)
    refuses(cvae, 2, ".jpg", argv=["decompress", "one.cvae", "-o", "one.jpg"])
    glob = str(folder / "digit_*.png")
    assert "8 images" in cvae("compress", glob, "-o", "many.cvae")[1]


def test_damage(cvae, folder, tmp_path):
    cvae("compress", folder, "-o", "good.cvae")
    content = bytearray((tmp_path / "good.cvae").read_bytes())
    content[80] ^= 1
    (tmp_path / "bad.cvae").write_bytes(content)
    (tmp_path / "cut.cvae").write_bytes(content[:50])
    status, out, _ = cvae("verify", "good.cvae", "bad.cvae", "cut.cvae")
    assert status == 3
    lines = out.splitlines()
    assert lines[0] == "good.cvae: intact, 12 images"
    assert "chunk 0 (images 0 to 11" in lines[1]
    assert "truncated" in lines[2]
    refuses(cvae, 3, "chunk 0", argv=["decompress", "bad.cvae", "-o", "out"])
    assert not (tmp_path / "out").exists()
    refuses(cvae, 3, "neither", argv=["info", folder / "digit_1.png"])
    content = bytearray((tmp_path / "good.cvae").read_bytes())
    content[-20] ^= 1  # in the index
    (tmp_path / "bad.cvae").write_bytes(content)
    status, out, _ = cvae("decompress", "bad.cvae", "-o", "out", "--keep-going")
    assert status == 3
    assert "12 images" in out
    assert "fault: the index is damaged" in out
    assert len(data.list_images(tmp_path / "out")) == 12
    (tmp_path / "bad.cvae").write_bytes(b"broken!!" + bytes(content[8:-20]) + bytes(20))
    refuses(cvae, 3, "no intact index", argv=["decompress", "bad.cvae", "-o", "x", "--keep-going"])
    whole = (tmp_path / "good.cvae").read_bytes()
    (tmp_path / "bad.cvae").write_bytes(b"broken!!" + whole[8:])
    status, out, _ = cvae("decompress", "bad.cvae", "-o", "again", "--keep-going")
    assert (status, "12 images" in out) == (3, True)
    content[8] = 9
    (tmp_path / "bad.cvae").write_bytes(content)
    refuses(cvae, 4, "version 9", argv=["decompress", "bad.cvae", "-o", "elsewhere"])


def test_nothing_is_overwritten_unasked(cvae, folder, tmp_path):
    (tmp_path / "d.cvae").write_bytes(b"precious")
    refuses(cvae, 2, "d.cvae exists; -f", argv=["compress", folder, "-o", "d.cvae"])
    assert (tmp_path / "d.cvae").read_bytes() == b"precious"
    assert cvae("compress", folder, "-o", "d.cvae", "-f")[0] == 0
    refuses(cvae, 2, "not empty", argv=["decompress", "d.cvae", "-o", folder])
    one = folder / "digit_1.png"
    refuses(cvae, 2, "also an input", argv=["compress", one, "-o", one, "-f"])
    refuses(cvae, 2, "no folder", argv=["compress", one, "-o", "nowhere/x.cvae"])


def test_images_of_another_kind(cvae, tmp_path):
    Image.new("RGB", (40, 30), "red").save("red.png")
    Image.new("L", (28, 28)).save("grey.png")
    Image.new("RGB", (28, 28), "red").save("small.png")
    argv = ["compress", "red.png", "-o", "r.cvae"]
    refuses(cvae, 1, "30x40 colour", "28x28 grey", "--resize --grayscale", argv=argv)
    refuses(cvae, 1, "28x28 colour", "--grayscale", argv=["compress", "small.png"])
    assert cvae(*argv, "--resize", "--grayscale")[0] == 0
    np.save("wide.npy", np.zeros((3, 28, 29), np.uint8))
    refuses(cvae, 1, "wide.npy", "[3, 28, 29, 1]", argv=["compress", "wide.npy"])
    refuses(cvae, 1, "no such file", argv=["compress", "nothing.png"])
    refuses(cvae, 1, "no file matches", argv=["compress", "*.tiff", "-o", "t.cvae"])
    (tmp_path / "text.png").write_text("hello")
    refuses(cvae, 1, "text.png", argv=["compress", "text.png"])
    refuses(cvae, 2, "0 to 100", argv=["compress", "grey.png", "-q", 200])
    refuses(cvae, 2, "0 to 9", argv=["compress", "grey.png", "--effort", 10])
    refuses(cvae, 2, "not allowed with", argv=["compress", "grey.png", "-q", 5, "--target-psnr", 9])
    refuses(cvae, 1, "nowhere", argv=["compress", "grey.png", "--ckpt", "nowhere"])


def test_archives_with_evil_names_write_nothing(cvae, tmp_path, images, monkeypatch):
    with monkeypatch.context() as patch:  # a writer that does not refuse them
        patch.setattr(writer, "check_names", lambda names: None)
        content = codec.load(RELEASED).compress(images[:2], names=["fine.png", "../evil.png"])
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "evil.cvae").write_bytes(content)
    refuses(cvae, 3, "../evil.png", argv=["decompress", "in/evil.cvae", "-o", "in/out"])
    assert [p.name for p in tmp_path.rglob("*")] == ["in", "evil.cvae"]


def test_joining(cvae, folder, tmp_path):
    cvae("compress", folder / "more", "-o", "a.cvae")
    cvae("compress", folder / "digit_1.png", folder / "digit_2.png", "-q", 80, "-o", "b.cvae")
    cvae("compress", folder / "digit_4.png", folder / "digit_5.png", "-o", "c.cvae")
    assert cvae("concat", "a.cvae", "b.cvae", "-o", "ab.cvae")[0] == 0
    argv = ["concat", "ab.cvae", "b.cvae", "-o", "ab.cvae", "-f"]
    refuses(cvae, 1, "b.cvae: joined", "twice", "--no-names", argv=argv)
    assert cvae("concat", "ab.cvae", "c.cvae", "-o", "ab.cvae", "-f")[0] == 0
    with codec.load(RELEASED).open("ab.cvae") as opened:
        assert opened.names()[4:] == [f"digit_{i}.png" for i in (1, 2, 4, 5)]
        assert len(opened) == 8
    whole = (tmp_path / "ab.cvae").read_bytes()
    argv = ["concat", "ab.cvae", "b.cvae", "-o", "ab.cvae", "-f"]
    refuses(cvae, 1, "'digit_1.png'", "twice", argv=argv)
    assert (tmp_path / "ab.cvae").read_bytes() == whole
    content = bytearray((tmp_path / "b.cvae").read_bytes())
    content[80] ^= 1
    (tmp_path / "b.cvae").write_bytes(content)
    refuses(cvae, 3, "b.cvae: chunk 0", argv=["concat", "a.cvae", "b.cvae", "-o", "x.cvae"])
    (tmp_path / "b.cvae").write_bytes(b"")
    refuses(cvae, 3, "b.cvae: truncated", argv=["concat", "a.cvae", "b.cvae", "-o", "x.cvae"])
    assert not (tmp_path / "x.cvae").exists()


def test_joining_keeps_a_model_wherever_it_is(cvae, folder):
    cvae("compress", folder / "digit_1.png", "-o", "with.cvae", "--embed-model")
    cvae("compress", folder / "digit_1.png", "-o", "one.cvae")
    cvae("compress", folder / "more", "-o", "without.cvae")
    for names in (("with", "without"), ("without", "with")):
        assert cvae("concat", *(f"{name}.cvae" for name in names), "-o", "x.cvae", "-f")[0] == 0
        assert json.loads(cvae("info", "x.cvae", "-j")[1])["bytes_by_use"]["model"] > 10_000
    argv = ["concat", "with.cvae", "one.cvae", "-o", "x.cvae", "-f"]
    refuses(cvae, 1, "one.cvae: a single image", "cannot be joined", argv=argv)


def test_embedded_models_are_used(cvae, folder, tmp_path, monkeypatch):
    assert cvae("compress", folder, "-o", "d.cvae", "--embed-model")[0] == 0
    monkeypatch.setattr("cvae_jax.runs.find.RELEASED", ())
    models.load.cache_clear()
    assert "12 images" in cvae("verify", "d.cvae")[1]
    content = bytearray((tmp_path / "d.cvae").read_bytes())
    content[-3] ^= 1
    (tmp_path / "d2.cvae").write_bytes(content)
    assert "12 images" in cvae("decompress", "d2.cvae", "-o", "out", "--keep-going")[1]
    refuses(cvae, 1, "--ckpt", argv=["compress", folder, "-o", "e.cvae"])


def test_calibrating(cvae, tmp_path):
    refuses(cvae, 2, "-f replaces", argv=["calibrate", RELEASED])


def test_pipes_and_the_console_script(folder, tmp_path):
    """As processes: standard input to standard output, the report on standard error."""
    command = [sys.executable, "-m", "cvae_jax"]
    image = (folder / "digit_2.png").read_bytes()
    packed = subprocess.run(
        [*command, "compress", "-"], input=image, capture_output=True, cwd=ROOT, check=True
    )
    assert len(packed.stdout) < 30
    assert b"1 image" in packed.stderr
    unpacked = subprocess.run(
        [*command, "decompress", "-"],
        input=packed.stdout,
        capture_output=True,
        cwd=ROOT,
        check=True,
    )
    assert np.asarray(Image.open(io.BytesIO(unpacked.stdout))).shape == (28, 28)
    wrong = subprocess.run(
        [*command, "decompress", "-", "-o", tmp_path / "x"],
        input=image,
        capture_output=True,
        cwd=ROOT,
    )
    assert wrong.returncode == 3
    assert wrong.stderr.startswith(b"error: neither")
    script = Path(sys.executable).parent / "cvae"
    version = subprocess.run([script, "-V"], capture_output=True, check=True)
    assert version.stdout.startswith(b"cvae_jax ")


def test_a_quiet_file_says_what_it_vouches_for(cvae, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (70, 28, 28), np.uint8)
    np.save("noise.npy", noise)
    assert cvae("compress", "noise.npy", "-o", "loud.cvae")[0] == 0
    status, out, told = cvae("compress", "noise.npy", "-o", "quiet.cvae", "--quiet")
    assert (status, out) == (0, "")
    assert "64 of 64 images are unlike" in told
    assert "pixels checked of 64 images in a chunk" in cvae("info", "quiet.cvae")[1]
    assert "vouches for the first 64" in cvae("verify", "quiet.cvae")[1]
    assert "vouches" not in cvae("verify", "loud.cvae")[1]
    for name in ("quiet", "loud"):
        assert cvae("decompress", f"{name}.cvae", "-o", f"{name}.npy")[0] == 0
    np.testing.assert_array_equal(np.load("quiet.npy"), np.load("loud.npy"))
    for flag in ("-j", "-v"):
        assert cvae("compress", "noise.npy", "-o", "x.cvae", "--quiet", flag)[0] == 2
