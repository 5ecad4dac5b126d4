"""IDX files, and images in NumPy's files."""

import contextlib
import gzip
import io
import struct
import tracemalloc
import zipfile

import data_samples
import numpy as np
import pytest
from data_samples import failure, idx, noise

from cvae_jax import data
from cvae_jax.errors import DataError

nothing_of_this_machine = data_samples.nothing_of_this_machine


class TestIdx:
    @pytest.mark.parametrize("shape", [(5,), (4, 3, 2), (2, 3, 4, 3)])
    @pytest.mark.parametrize("pack", [bytes, gzip.compress])
    def test_round_trip(self, tmp_path, shape, pack):
        path = tmp_path / "any-name"
        path.write_bytes(pack(idx(noise(*shape))))
        np.testing.assert_array_equal(data.read_idx(path), noise(*shape))

    @pytest.mark.parametrize("pack", [bytes, gzip.compress])
    def test_every_truncation_and_extra_bytes(self, tmp_path, pack):
        whole = idx(noise(3, 2, 2))
        path = tmp_path / "train-images-idx3-ubyte"
        for n in range(len(whole)):
            path.write_bytes(pack(whole[:n]))
            assert str(path) in failure(data.read_idx, path)
        path.write_bytes(pack(whole + b"\0"))
        assert "bytes follow" in failure(data.read_idx, path)

    def test_every_truncation_of_the_gzip_stream(self, tmp_path):
        whole = gzip.compress(idx(noise(3, 2, 2)))
        path = tmp_path / "x.gz"
        for n in range(len(whole)):
            path.write_bytes(whole[:n])
            assert str(path) in failure(data.read_idx, path)

    def test_flipped_bits_in_the_gzip_stream(self, tmp_path):
        whole = gzip.compress(idx(noise(3, 2, 2)), mtime=0)
        path = tmp_path / "x.gz"
        for bit in range(8 * len(whole)):
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            with contextlib.suppress(DataError):  # or a bit that says nothing: the time stamp
                np.testing.assert_array_equal(data.read_idx(path), noise(3, 2, 2))

    @pytest.mark.parametrize(
        "magic", ["00000d03", "00000800", "00000805", "000008ff", "01000803", "89504e47"]
    )
    def test_wrong_magic(self, tmp_path, magic):
        path = tmp_path / "x"
        path.write_bytes(bytes.fromhex(magic) + bytes(100))
        assert magic in failure(data.read_idx, path)

    @pytest.mark.parametrize("pack", [bytes, gzip.compress])
    @pytest.mark.parametrize("shape", [(2**32 - 1,) * 3, (60000, 28, 28), (0,) * 3])
    def test_lying_header_allocates_nothing(self, tmp_path, pack, shape):
        path = tmp_path / "x"
        path.write_bytes(pack(struct.pack(f">I{len(shape)}I", 0x800 + len(shape), *shape)))
        tracemalloc.start()
        try:
            assert "header says" in failure(data.read_idx, path)
            assert tracemalloc.get_traced_memory()[1] < 2e6
        finally:
            tracemalloc.stop()

    def test_another_shape_is_refused_before_it_is_unpacked(self, tmp_path):
        path = tmp_path / "labels.gz"
        path.write_bytes(gzip.compress(idx(np.zeros(50_000_000, np.uint8)), 1))
        tracemalloc.start()
        try:
            reason = failure(data.read_idx, path, (10,))
            assert reason.endswith("of shape [50000000], expected [10]")
            assert tracemalloc.get_traced_memory()[1] < 2e6
        finally:
            tracemalloc.stop()
        path.write_bytes(gzip.compress(idx(noise(10))))
        np.testing.assert_array_equal(data.read_idx(path, (10,)), noise(10))

    def test_missing(self, tmp_path):
        assert "No such file" in failure(data.read_idx, tmp_path / "none")


class TestIdxFolder:
    @pytest.mark.parametrize("name", ["{}-idx3-ubyte.gz", "{}-idx3-ubyte", "{}.idx3-ubyte"])
    def test_names(self, tmp_path, name):
        for stem, n in (("train-images", 5), ("t10k-images", 2)):
            packed = idx(noise(n, 3, 4))
            path = tmp_path / name.format(stem)
            path.write_bytes(gzip.compress(packed) if path.suffix == ".gz" else packed)
        assert data.load(tmp_path, "train").shape == (5, 3, 4, 1)
        np.testing.assert_array_equal(data.load(tmp_path, "test")[..., 0], noise(2, 3, 4))
        both = [data.load(tmp_path, split) for split in ("train", "test")]
        np.testing.assert_array_equal(data.load(tmp_path, "all"), np.concatenate(both))

    def test_a_missing_part_and_labels_for_images(self, tmp_path):
        (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(noise(7)))
        assert "t10k-images" in failure(data.load, tmp_path, "test")
        assert "(7,)" in failure(data.load, tmp_path, "train")


class TestArrays:
    @pytest.mark.parametrize("shape", [(20, 4, 5), (20, 4, 5, 1), (20, 4, 5, 3)])
    def test_npy(self, tmp_path, shape):
        np.save(tmp_path / "x.npy", noise(*shape))
        expected = noise(*shape).reshape(20, 4, 5, -1)
        np.testing.assert_array_equal(data.load(tmp_path / "x.npy", "all"), expected)
        assert [len(data.load(tmp_path / "x.npy", s)) for s in ("train", "test")] == [18, 2]

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
    def test_floats_of_all_levels_come_back(self, tmp_path, dtype):
        levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
        np.save(tmp_path / "x.npy", (levels / 255).astype(dtype))
        np.testing.assert_array_equal(data.read_array(tmp_path / "x.npy"), levels)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -0.01, 1.01, 255.0])
    def test_floats_out_of_range(self, tmp_path, value):
        array = np.zeros((3, 4, 4), np.float32)
        array[1, 2, 3] = value
        np.save(tmp_path / "x.npy", array)
        assert "x.npy: numbers outside [0, 1]" in failure(data.read_array, tmp_path / "x.npy")

    @pytest.mark.parametrize(
        ("array", "expected"),
        [
            (np.zeros((3, 4, 4), np.int64), "int64"),
            (np.zeros((3, 4, 4), bool), "bool"),
            (np.zeros((3, 4, 4), complex), "complex"),
            (np.array([["a"]]), "(1, 1)"),
            (np.zeros((4, 4), np.uint8), "(4, 4)"),
            (np.zeros((3, 1, 28, 28), np.uint8), "(3, 1, 28, 28)"),
            (np.zeros((3, 0, 28), np.uint8), "(3, 0, 28, 1)"),
            (np.uint8(3), "single number"),
            (np.zeros((0, 4, 4), np.uint8), "no images"),
        ],
    )
    def test_what_is_no_images(self, tmp_path, array, expected):
        np.save(tmp_path / "x.npy", array)
        assert expected in failure(data.load, tmp_path / "x.npy", "all")

    def test_pickles_are_not_run(self, tmp_path):
        class Touch:
            def __reduce__(self):
                return open, (str(tmp_path / "touched"), "w")

        np.save(tmp_path / "x.npy", np.array([Touch()]), allow_pickle=True)
        np.savez(tmp_path / "x.npz", np.array([Touch()]))
        for name in ("x.npy", "x.npz"):
            failure(data.read_array, tmp_path / name)
        assert not (tmp_path / "touched").exists()

    @pytest.mark.parametrize("names", [("x_train", "x_test"), ("train", "test")])
    def test_npz_with_splits(self, tmp_path, names):
        arrays = {names[0]: noise(5, 4, 4), names[1]: noise(2, 4, 4), "y_train": np.arange(5)}
        np.savez_compressed(tmp_path / "x.npz", **arrays)
        assert [len(data.load(tmp_path / "x.npz", s)) for s in ("train", "test")] == [5, 2]
        assert len(data.load(tmp_path / "x.npz", "all")) == 7

    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_npz_without_splits(self, tmp_path, save):
        save(tmp_path / "one.npz", noise(5, 4, 4))
        save(tmp_path / "images.npz", images=noise(5, 4, 4), labels=np.arange(5))
        for name in ("one", "images"):
            loaded = data.read_array(tmp_path / f"{name}.npz")
            np.testing.assert_array_equal(loaded[..., 0], noise(5, 4, 4))

    def test_npz_that_cannot_be_understood(self, tmp_path):
        np.savez(tmp_path / "x.npz", a=noise(5, 4, 4), b=noise(5, 4, 4))
        message = failure(data.read_array, tmp_path / "x.npz")
        assert "holds a, b" in message
        assert "x_train" in message
        np.savez(tmp_path / "x.npz")
        assert "holds nothing" in failure(data.read_array, tmp_path / "x.npz")
        np.savez(tmp_path / "x.npz", x_train=noise(5, 4, 4), x_test=noise(5, 4, 5))
        assert "differ in shape" in failure(data.read_array, tmp_path / "x.npz")

    def test_wrong_suffix(self, tmp_path):
        np.savez(tmp_path / "x.npz", noise(5, 4, 4))
        (tmp_path / "x.npz").rename(tmp_path / "x.npy")
        assert "name it so" in failure(data.read_array, tmp_path / "x.npy")

    @pytest.mark.parametrize("zipped", [False, True])
    def test_lying_header_allocates_nothing(self, tmp_path, zipped):
        header = io.BytesIO()
        shape = (10**6, 1000, 1000)
        np.lib.format.write_array_header_1_0(
            header, {"descr": "|u1", "fortran_order": False, "shape": shape}
        )
        path = tmp_path / ("x.npz" if zipped else "x.npy")
        path.write_bytes(header.getvalue() + bytes(100))
        if zipped:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("images.npy", header.getvalue() + bytes(100))
        tracemalloc.start()
        try:
            assert str(path) in failure(data.read_array, path)
            assert tracemalloc.get_traced_memory()[1] < 2e6
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize("suffix", [".npy", ".npz"])
    def test_damage_is_an_error_or_other_pixels(self, tmp_path, suffix):
        """Never another exception: each truncation, and random bytes overwritten."""
        path = tmp_path / f"x{suffix}"
        save = np.save if suffix == ".npy" else np.savez_compressed
        save(path, noise(3, 4, 4))
        whole = path.read_bytes()
        for n in range(len(whole)):
            path.write_bytes(whole[:n])
            failure(data.read_array, path)
        rng = np.random.default_rng(1)
        for _ in range(300):
            damaged = np.frombuffer(whole, np.uint8).copy()
            damaged[rng.integers(len(whole), size=2)] = rng.integers(256, size=2)
            path.write_bytes(damaged.tobytes())
            with contextlib.suppress(DataError):
                assert data.read_array(path).dtype == np.uint8
