"""Tars and zips that are damaged, or made to do harm."""

import contextlib
import io
import os
import struct
import tarfile
import zipfile

import data_samples
import numpy as np
import pytest
from data_samples import failure, noise, write_images, write_tar, write_zip

from cvae_jax import data
from cvae_jax.data.sources import open_source, packed, to_memory
from cvae_jax.errors import DataError

nothing_of_this_machine = data_samples.nothing_of_this_machine
IMAGES = noise(6, 9, 7, 1)
PNG = data.encode_image(IMAGES[0])


@pytest.fixture
def folder(tmp_path):
    return write_images(tmp_path / "x", IMAGES)


def member(name, kind=tarfile.REGTYPE, size=None, **more):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(PNG) if size is None else size
    for field, value in more.items():
        setattr(info, field, value)
    return info


def tar_of(path, *members, format=tarfile.PAX_FORMAT):
    with tarfile.open(path, "w", format=format) as archive:
        for info in members:
            archive.addfile(info, io.BytesIO(PNG.ljust(info.size, b"\0")))
    return path


def zip_of(path, *names, content=PNG, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name in names:
            archive.writestr(name, content)
    return path


HOSTILE_NAMES = ("/etc/a.png", "../a.png", "a/../../b.png")


class TestTar:
    @pytest.mark.parametrize("name", HOSTILE_NAMES)
    def test_names_that_lead_out(self, tmp_path, name):
        assert "leads out" in failure(open_source, tar_of(tmp_path / "x.tar", member(name)))

    @pytest.mark.parametrize(
        "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
    )
    def test_links_and_devices(self, tmp_path, kind):
        info = member("a.png", kind, 0, linkname="/etc/passwd")
        message = failure(open_source, tar_of(tmp_path / "x.tar", member("0.png"), info))
        assert "a.png is a link" in message

    def test_sparse(self, tmp_path):
        info = member("a.png", pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": "1"})
        assert "sparse" in failure(open_source, tar_of(tmp_path / "x.tar", info))

    def test_twice_the_same_name(self, tmp_path):
        message = failure(open_source, tar_of(tmp_path / "x.tar", *[member("a.png")] * 2))
        assert "two members are called a.png" in message

    @pytest.mark.parametrize(
        "format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
    )
    def test_every_format_and_long_names(self, tmp_path, format):
        name = "/".join(["folder" * 5] * 4) + "/ä.png"
        source = open_source(tar_of(tmp_path / "x.tar", member(name), format=format))
        assert source.name(0) == name
        np.testing.assert_array_equal(to_memory(source), IMAGES[:1])

    def test_cut_short_anywhere(self, tmp_path, folder):
        whole = write_tar(tmp_path / "x.tar", folder).read_bytes()
        end = len(whole.rstrip(b"\0")) + 511 & -512
        for length in (10, 512, 700, 1024, end // 2 & -512, end - 512, end):
            (tmp_path / "cut.tar").write_bytes(whole[:length])
            assert "cut.tar" in failure(open_source, tmp_path / "cut.tar")

    def test_a_damaged_header_is_no_end(self, tmp_path, folder):
        path = write_tar(tmp_path / "x.tar", folder)
        content = bytearray(path.read_bytes())
        at = content.rindex(b"ustar")  # of the last member
        content[at - 200] ^= 1
        path.write_bytes(content)
        assert "damaged" in failure(open_source, path)

    def test_a_header_that_asks_for_much(self, tmp_path):
        path = tar_of(tmp_path / "x.tar", member("a.png"))
        for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
            info = member("a", kind, 1 << 40)
            header = info.tobuf(tarfile.GNU_FORMAT)
            path.write_bytes(header + bytes(10240))
            assert "damaged tar file" in failure(open_source, path)

    def test_too_large_or_too_many(self, tmp_path, folder, monkeypatch):
        path = write_tar(tmp_path / "x.tar", folder)
        monkeypatch.setattr(packed, "MOST_MEMBERS", 4)
        assert "more than 4 members" in failure(open_source, path)
        info = member("a.png", size=0)
        info.size = packed.MOST_BYTES + 1
        path.write_bytes(info.tobuf(tarfile.GNU_FORMAT))
        with path.open("r+b") as file:
            file.truncate(packed.MOST_BYTES + 10240)
        assert "too large for an image" in failure(open_source, path)

    @pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
    def test_compressed(self, tmp_path, compression):
        path = tmp_path / f"x.tar.{compression}"
        with tarfile.open(path, f"w:{compression}") as archive:
            archive.addfile(member("a.png"), io.BytesIO(PNG))
        for read in (open_source, lambda path: data.load(path, "all")):
            message = failure(read, path)
            assert "compressed tar" in message
            assert "unpack it" in message

    def test_nothing_in_it(self, tmp_path):
        assert "no images" in failure(open_source, tar_of(tmp_path / "x.tar", member("a.txt")))


class TestZip:
    @pytest.mark.parametrize("name", HOSTILE_NAMES)
    def test_names_that_lead_out(self, tmp_path, name):
        assert "leads out" in failure(open_source, zip_of(tmp_path / "x.zip", name))

    def test_links(self, tmp_path):
        info = zipfile.ZipInfo("a.png")
        info.external_attr = 0o120777 << 16
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            archive.writestr(info, "/etc/passwd")
        assert "a.png is a link" in failure(open_source, tmp_path / "x.zip")

    def test_twice_the_same_name(self, tmp_path):
        with pytest.warns(UserWarning, match="Duplicate"):
            path = zip_of(tmp_path / "x.zip", "a.png", "a.png")
        assert "two members are called a.png" in failure(open_source, path)

    def test_unusual_compression(self, tmp_path):
        path = zip_of(tmp_path / "x.zip", "a.png", method=zipfile.ZIP_LZMA)
        assert "unusual" in failure(open_source, path)

    def test_encrypted(self, tmp_path):
        path = zip_of(tmp_path / "x.zip", "a.png")
        content = bytearray(path.read_bytes())
        content[content.rindex(b"PK\1\2") + 8] |= 1
        path.write_bytes(content)
        assert "encrypted" in failure(open_source, path)

    def test_a_bad_check_names_the_image(self, tmp_path, folder):
        path = write_zip(tmp_path / "x.zip", folder, method=zipfile.ZIP_STORED)
        content = bytearray(path.read_bytes())
        content[content.index(b"IDAT", content.index(b"002.png")) + 5] ^= 1
        path.write_bytes(content)
        source = open_source(path)
        source[np.array([0, 1, 3, 4])]
        message = failure(lambda: source[np.array([2])])
        assert "002.png" in message
        assert "its check differs" in message

    def test_a_bomb(self, tmp_path):
        path = zip_of(tmp_path / "x.zip", "a.png", content=bytes(1 << 20))
        content = bytearray(path.read_bytes())
        at = content.rindex(b"PK\1\2")
        struct.pack_into("<L", content, at + 24, packed.MOST_BYTES + 1)  # the size unpacked
        path.write_bytes(content)
        assert "too large for an image" in failure(open_source, path)
        # Smaller than it is: no more than that is unpacked.
        struct.pack_into("<L", content, at + 24, 100)
        path.write_bytes(content)
        assert "its check differs" in failure(open_source, path)

    def test_members_that_overlap(self, tmp_path):
        content = np.random.default_rng(0).bytes(5000)
        path = zip_of(tmp_path / "x.zip", "a.png", content=content)
        content = path.read_bytes()
        at, end = content.index(b"PK\1\2"), content.index(b"PK\5\6")
        entries = b"".join(content[at:end].replace(b"a.png", b"%d.png" % i) for i in range(9))
        tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 9, 9, len(entries), at, 0)
        path.write_bytes(content[:at] + entries + tail)
        assert "overlap" in failure(open_source, path)

    def test_a_directory_that_lies(self, tmp_path, folder):
        path = write_zip(tmp_path / "x.zip", folder)
        content = bytearray(path.read_bytes())
        end = content.rindex(b"PK\5\6")
        for at, value, size in (
            *((end + 10, 7, "H"), (end + 10, 0xFFFE, "H")),  # entries
            *((end + 16, 1 << 31, "L"), (end + 16, 5, "L")),  # where they start
            *((end + 4, 3, "H"), (end + 20, 9, "H")),  # parts; the comment's length
        ):
            changed = bytearray(content)
            struct.pack_into(f"<{size}", changed, at, value)
            path.write_bytes(changed)
            assert "damaged zip file" in failure(open_source, path)

    def test_too_many(self, tmp_path, folder, monkeypatch):
        monkeypatch.setattr(packed, "MOST_MEMBERS", 4)
        path = write_zip(tmp_path / "x.zip", folder)
        assert "more than 4 members" in failure(open_source, path)

    def test_cut_short_anywhere(self, tmp_path, folder):
        whole = write_zip(tmp_path / "x.zip", folder).read_bytes()
        for length in range(4, len(whole), 97):
            (tmp_path / "cut.zip").write_bytes(whole[:length])
            assert "cut.zip" in failure(open_source, tmp_path / "cut.zip")

    def test_large_numbers(self, tmp_path):
        """Members whose sizes and places are numbers of 64 bits, as a streaming writer stores."""
        path = tmp_path / "x.zip"
        with (
            zipfile.ZipFile(path, "w") as archive,
            archive.open("a.png", "w", force_zip64=True) as f,
        ):
            f.write(PNG)
        content = path.read_bytes()
        at, end = content.index(b"PK\1\2"), content.index(b"PK\5\6")
        entry = bytearray(content[at:end])
        sizes = struct.unpack_from("<2L", entry, 20)
        struct.pack_into("<2L", entry, 20, 0xFFFFFFFF, 0xFFFFFFFF)
        extra = struct.pack("<2H2Q", 1, 16, sizes[1], sizes[0])
        struct.pack_into("<H", entry, 30, len(extra))
        directory = entry[:46] + b"a.png" + extra
        end_64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(directory), at)
        locator = struct.pack("<4sLQL", b"PK\6\7", 0, at + len(directory), 1)
        tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
        path.write_bytes(content[:at] + directory + end_64 + locator + tail)
        np.testing.assert_array_equal(to_memory(open_source(path)), IMAGES[:1])
        assert zipfile.ZipFile(path).read("a.png") == PNG  # as others read it


@pytest.mark.parametrize("write", [write_tar, write_zip])
def test_a_flipped_bit_raises_nothing_but_data_errors(tmp_path, folder, write):
    path = write(tmp_path / "packed", folder)
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for at in rng.integers(0, len(content), 150):
        changed = bytearray(content)
        changed[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        with contextlib.suppress(DataError):
            assert len(to_memory(open_source(path))) <= len(IMAGES)


def test_names_that_are_not_utf8_stay_what_they_are(tmp_path):
    name = os.fsdecode(b"\xff.png")
    source = open_source(tar_of(tmp_path / "x.tar", member(name)))
    assert source.name(0) == name
