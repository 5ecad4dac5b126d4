"""Where outputs go: decided once, apart from all inputs, and never in place of a device."""

import os
import shutil
import stat
import subprocess
import sys
import threading

import command_samples
import numpy as np
import pytest
from command_samples import refuses
from conftest import RELEASED, ROOT

from cvae_jax import codec, data, files
from cvae_jax.bitstream import names
from cvae_jax.cli.files import outputs
from cvae_jax.cli.files.outputs import ToFile, ToFolder, ToStdout
from cvae_jax.coding.vectors import entropy
from cvae_jax.errors import ConfigError

images, folder = command_samples.images, command_samples.folder


@pytest.fixture
def archive(cvae, tmp_path, images):
    """``a.cvae``, twelve images with labels; ``one.cvae``, a single image."""
    np.save("images.npy", images)
    np.save("labels.npy", np.arange(12))
    assert cvae("compress", "images.npy", "--labels", "labels.npy", "-o", "a.cvae")[0] == 0
    (tmp_path / "one.png").write_bytes(data.encode_image(images[0]))
    assert cvae("compress", "one.png")[0] == 0
    return tmp_path / "a.cvae"


def test_a_folder_with_a_dot_comes_back_as_a_folder(cvae, folder, tmp_path):
    folder.rename(tmp_path / "photos.2024")
    assert cvae("compress", "photos.2024/")[0] == 0
    assert (tmp_path / "photos.2024.cvae").is_file()
    (tmp_path / "photos.2024").rename(tmp_path / "originals")
    assert cvae("decompress", "photos.2024.cvae")[0] == 0
    assert len(data.list_images(tmp_path / "photos.2024")) == 12


def test_several_inputs_need_an_output(cvae, folder, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    for inputs in (
        [folder / "digit_1.png", folder / "digit_2.png"],
        [f"{folder}/*.png"],
        ["."],
        ["-", folder],
    ):
        refuses(cvae, 2, "-o", argv=["compress", *inputs])
    refuses(cvae, 2, "names a folder", argv=["compress", folder, "-o", "new/"])
    assert sorted(tmp_path.rglob("*")) == before


def test_where_images_go(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "is.png").mkdir()
    for given, expected in (
        ("x.npy", ToFile),
        ("x.PNG", ToFile),
        ("x", ToFolder),
        ("x.2024", ToFolder),
        ("x.png/", ToFolder),
        ("is.png", ToFolder),
        ("-", ToStdout),
        ("/dev/stdout", ToStdout),
    ):
        assert isinstance(outputs.for_images("a.cvae", given, is_archive=True), expected), given
    for given in ("x.jpg", "x.npz", "x.cvae", ""):
        with pytest.raises(ConfigError):
            outputs.for_images("a.cvae", given, is_archive=True)
    assert str(outputs.for_images("d/a.b.cvae", None, is_archive=True)) == "d/a.b"
    assert str(outputs.for_images("d/a.b.cvae", None, is_archive=False)) == "d/a.b.png"
    assert isinstance(outputs.for_images("-", None, is_archive=True), ToStdout)
    with pytest.raises(ConfigError, match="-o"):
        outputs.for_images("archive", None, is_archive=True)


@pytest.mark.parametrize(
    "argv",
    [
        "decompress a.cvae -o d --labels a.cvae -f",
        "decompress a.cvae -o x.npy --labels x.npy -f",
        "decompress a.cvae -o x.npy --labels X.npy -f",
        "decompress a.cvae -o x.npy --labels ./d/../x.npy -f",
        "decompress a.cvae -o d --labels d/000003.png -f",
        "decompress d/000002.png -o d -f",
        "decompress to_archive.cvae -o d -f",
        "decompress e.cvae --ckpt e.cvae -o x.npy --labels e.cvae -f",
        "decompress a.cvae --ckpt ck -o ck -f",
        "compress d -o e.cvae --ckpt e.cvae -f",
        "compress d -o ck/params.safetensors --ckpt ck -f",
        "compress d -o x/run/steps/1/new --ckpt x/run -f",
        "model ck -o ck/tables.bin -f",
        "evaluate --ckpt mnist --dataset images.npy --json images.npy -f",
        "evaluate --ckpt mnist --dataset images.npy --json labels.npy",
        "evaluate --ckpt mnist --dataset d --figure d/mine.png -f",
        "evaluate --ckpt ck --dataset images.npy --figure ck/reconstructions.png -f",
        "compress images.npy -o labels.npy --labels labels.npy -f",
        "compress images.npy -o link.npy -f",
        "compress d -o d/mine.png -f",
    ],
)
def test_no_path_of_a_command_is_written_over_another(cvae, archive, tmp_path, argv):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "000002.png").write_bytes(archive.read_bytes())
    (tmp_path / "d" / "mine.png").write_bytes((tmp_path / "one.png").read_bytes())
    (tmp_path / "link.npy").symlink_to("images.npy")
    (tmp_path / "to_archive.cvae").symlink_to("d/000002.png")
    (tmp_path / "e.cvae").write_bytes(archive.read_bytes())
    (tmp_path / "x" / "run" / "steps" / "1").mkdir(parents=True)
    shutil.copytree(RELEASED, tmp_path / "ck")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    refuses(cvae, 2, argv=argv.split())
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_fifo_is_written_into(cvae, archive, tmp_path):
    os.mkfifo("fifo")
    for argv, expected in (
        (["compress", "one.png", "-o", "fifo", "-f"], (tmp_path / "one.cvae").read_bytes()),
        (["decompress", "one.cvae", "-o", "fifo"], b"\x89PNG"),
        (["decompress", "a.cvae", "-o", "fifo", "-f"], b"\x93NUMPY"),
        (["decompress", "a.cvae", "-o", "x.npy", "-f", "--labels", "fifo"], b"\x93NUMPY"),
        (["concat", "a.cvae", "-o", "fifo", "-f"], archive.read_bytes()),
    ):
        got = []
        reader = threading.Thread(
            target=lambda got=got: got.append((tmp_path / "fifo").read_bytes()), daemon=True
        )
        reader.start()
        assert cvae(*argv)[0] == 0
        reader.join(10)
        assert got[0].startswith(expected)
        assert stat.S_ISFIFO(os.stat("fifo").st_mode)


def test_a_fifo_is_read(cvae, archive, tmp_path):
    os.mkfifo("fifo")
    for argv in (["verify", "fifo"], ["concat", "fifo", "a.cvae", "-o", "x.cvae"]):
        content = archive.read_bytes()
        writer = threading.Thread(
            target=lambda content=content: (tmp_path / "fifo").write_bytes(content), daemon=True
        )
        writer.start()
        status, _, err = cvae(*argv)
        assert status == 0, err
        writer.join(10)
    refuses(cvae, 1, "missing.cvae: ", argv=["concat", "missing.cvae", "-o", "y.cvae"])


def test_a_character_device_is_written_into(cvae, archive, tmp_path):
    device = tmp_path / "null"
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        device.write_bytes(b"")
    except PermissionError:
        pytest.skip("no device nodes can be made here")
    (tmp_path / "link").symlink_to(device)
    for output in ("null", "link"):
        for argv in (["compress", "one.png"], ["decompress", "a.cvae"], ["concat", "a.cvae"]):
            assert cvae(*argv, "-o", output, "-f")[0] == 0
        assert cvae("decompress", "a.cvae", "-o", "x.npy", "--labels", output, "-f")[0] == 0
    assert stat.S_ISCHR(os.lstat(device).st_mode)
    assert (tmp_path / "link").is_symlink()


def test_a_device_in_the_way_of_a_folders_file_stays(cvae, archive, tmp_path):
    (tmp_path / "d").mkdir()
    os.mkfifo("d/000003.png")
    refuses(cvae, 2, "000003.png", argv=["decompress", "a.cvae", "-o", "d", "-f"])
    assert stat.S_ISFIFO(os.stat("d/000003.png").st_mode)


def test_names_that_could_not_be_unpacked_are_not_packed(cvae, images, tmp_path):
    """One function decides the files' names, for what is packed and for what is unpacked."""
    png = data.encode_image(images[0])
    (tmp_path / "in" / "a.png").mkdir(parents=True)
    (tmp_path / "in" / "a.jpg").write_bytes(png)
    (tmp_path / "in" / "a.png" / "b.png").write_bytes(png)
    assert cvae("compress", "in")[0] == 0
    assert cvae("decompress", "in.cvae", "-o", "out")[0] == 0
    found = [p.relative_to(tmp_path / "out").as_posix() for p in data.list_images(tmp_path / "out")]
    assert found == ["a.jpg.png", "a.png/b.png.png"]

    (tmp_path / "in" / "a.jpg").rename(tmp_path / "in" / "a.bmp")
    (tmp_path / "in" / "A.jpg").write_bytes(png)
    for name in ("NUL.png", "a\u202eb.png", "e\u0301.png", "\u00e9.png"):
        (tmp_path / "in" / name).write_bytes(png)
    refuses(cvae, 1, "refused", "--no-names", argv=["compress", "in", "-f"])
    assert cvae("compress", "in", "-f", "--no-names")[0] == 0
    refuses(cvae, 1, "twice", argv=["compress", "in/a.bmp", "in/a.bmp", "-o", "x.cvae"])
    assert not (tmp_path / "x.cvae").exists()


def test_a_name_of_every_allowed_length_comes_back(cvae, images, tmp_path):
    longest = "x" * names.MAX_COMPONENT  # without a suffix: .png is added
    deep = "/".join(["y" * 199] * 5)
    content = codec.load(ROOT / "checkpoints/mnist").compress(images[:2], names=[longest, deep])
    (tmp_path / "a.cvae").write_bytes(content)
    assert cvae("decompress", "a.cvae")[0] == 0
    assert len(data.list_images(tmp_path / "a")) == 2


def test_what_was_written_is_read_back_before_it_takes_the_name(
    cvae, archive, folder, tmp_path, monkeypatch
):
    one, many = (tmp_path / "one.cvae").read_bytes(), archive.read_bytes()
    write, many_symbols, one_symbols = files._Raw.write, entropy.encode, entropy.encode_one

    def lying(self, data):
        return write(self, bytes(data[:-1]) + bytes([data[-1] ^ 1]))

    for patch in (
        {(files._Raw, "write"): lying},
        {
            (entropy, "encode"): lambda symbols, book: many_symbols(symbols + 1, book),
            (entropy, "encode_one"): lambda symbols, book: one_symbols(symbols + 1, book),
        },
    ):
        with monkeypatch.context() as patched:
            for (where, name), wrong in patch.items():
                patched.setattr(where, name, wrong)
            refuses(cvae, 1, "reads back", argv=["compress", "one.png", "-o", "one.cvae", "-f"])
            refuses(cvae, 1, "reads back", argv=["compress", folder, "-o", "a.cvae", "-f"])
            argv = ["compress", folder, "--lossless", "-o", "a.cvae", "-f"]
            refuses(cvae, 1, "reads back", argv=argv)
    assert (one, many) == ((tmp_path / "one.cvae").read_bytes(), archive.read_bytes())


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
@pytest.mark.parametrize(
    "argv", ["decompress a.cvae -o", "decompress a.cvae -o d --labels", "concat a.cvae -o"]
)
def test_standard_output_by_any_name(archive, tmp_path, argv, name):
    """As a process, with its output in a file: the report is not mixed with it."""
    with (tmp_path / "out").open("wb") as out:
        done = subprocess.run(
            [sys.executable, "-m", "cvae_jax.cli", *argv.split(), name],
            stdout=out, stderr=subprocess.PIPE, cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    if argv.startswith("concat"):
        assert (tmp_path / "out").read_bytes() == archive.read_bytes()
    else:
        assert np.load(tmp_path / "out").shape[0] == 12
    assert b"12 images" in done.stderr


def test_standard_output_is_not_written_twice(cvae, archive):
    refuses(cvae, 2, "twice", argv=["decompress", "a.cvae", "-o", "-", "--labels", "/dev/stdout"])


def test_labels_beside_the_images(cvae, archive, tmp_path):
    (tmp_path / "d").mkdir()
    assert cvae("decompress", "a.cvae", "-o", "d", "--labels", "d/labels.npy")[0] == 0
    assert len(list((tmp_path / "d").iterdir())) == 13
    argv = ["decompress", "a.cvae", "-o", "d", "--labels", "d/more.npy"]
    refuses(cvae, 2, "not empty", argv=argv)
