"""Archives of images as inputs of ``cvae compress``: as the folder in them."""

import sys
import tarfile
import zipfile
from io import BufferedReader, BytesIO
from types import SimpleNamespace

import command_samples
import numpy as np
from command_samples import refuses

images = command_samples.images
folder = command_samples.folder


def test_a_tar_and_a_zip_make_the_file_that_their_folder_makes(cvae, folder, tmp_path, monkeypatch):
    with tarfile.open("x.tar", "w") as tar, zipfile.ZipFile("x.zip", "w") as packed:
        for path in sorted(folder.rglob("*.png"), reverse=True):
            tar.add(path, path.relative_to(folder))
            packed.write(path, path.relative_to(folder))
    for source in (folder, "x.tar", "x.zip"):
        assert cvae("compress", source, "-o", "made.cvae", "-f")[0] == 0
        made = (tmp_path / "made.cvae").read_bytes()
        if source == folder:
            expected = made
        assert made == expected
    given = BufferedReader(BytesIO((tmp_path / "x.zip").read_bytes()))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=given))
    assert cvae("compress", "-", "-o", "made.cvae", "-f")[0] == 0
    assert (tmp_path / "made.cvae").read_bytes() == expected


def test_array_records(cvae, tmp_path, images):
    from array_record.python.array_record_module import ArrayRecordWriter

    from cvae_jax import data

    writer = ArrayRecordWriter("x.array_record", "group_size:1")
    for image in images:
        writer.write(data.encode_image(image))
    writer.close()
    np.save("x.npy", images)
    for source in ("x.array_record", "x.npy"):
        assert cvae("compress", source, "-o", f"{source}.cvae")[0] == 0
    made, expected = ((tmp_path / f"{x}.cvae").read_bytes() for x in ("x.array_record", "x.npy"))
    assert made == expected


def test_what_cannot_be_read_is_named(cvae, folder, tmp_path):
    (folder / "digit_4.png").write_bytes(b"no image")
    with zipfile.ZipFile("x.zip", "w") as packed:
        for path in sorted(folder.rglob("*.png")):
            packed.write(path, path.relative_to(folder))
    refuses(cvae, 1, "x.zip: digit_4.png", argv=["compress", "x.zip", "-o", "made.cvae"])
    assert not (tmp_path / "made.cvae").exists()
