"""Images read from disk by number: the same as in memory, wherever they are stored."""

import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import zipfile

import data_samples
import numpy as np
import pytest
from data_samples import (
    SHARED,
    failure,
    idx,
    needs_tfds,
    noise,
    write_images,
    write_prepared,
    write_tar,
    write_zip,
)

from cvae_jax import data
from cvae_jax.data import holdout, splits
from cvae_jax.data.sources import blocks, open_source, spread, to_memory

nothing_of_this_machine = data_samples.nothing_of_this_machine
GREY = noise(25, 9, 7, 1)
COLOUR = noise(25, 9, 7, 3)


def write_records(path, images, suffix=".png"):
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(path), "group_size:1")
    for image in images:
        writer.write(data.encode_image(image, suffix))
    writer.close()
    return path


KINDS = (
    *("npy", "npy-of-floats", "npy-by-columns", "npz", "idx", "idx.gz"),
    *("folder", "tar", "zip", "zip-stored", "records", "examples"),
)


def written(kind, images, place):
    """The images as a file or folder of this kind."""
    folder = place / "folder"
    if kind in ("folder", "tar", "zip", "zip-stored"):
        write_images(folder / "a", images[:10])
        write_images(folder / "b", images[10:])
    match kind:
        case "npy":
            np.save(place / "x.npy", images)
        case "npy-of-floats":
            np.save(place / "x.npy", images / np.float64(255))
        case "npy-by-columns":
            np.save(place / "x.npy", np.asfortranarray(images))
        case "npz":
            np.savez(place / "x.npz", images=images)
        case "idx":
            (place / "x-idx3-ubyte").write_bytes(idx(images[..., 0]))
        case "idx.gz":
            import gzip

            (place / "x.gz").write_bytes(gzip.compress(idx(images[..., 0])))
        case "tar":
            write_tar(place / "x.tar", folder, "./")
        case "zip":
            write_zip(place / "x.zip", folder)
        case "zip-stored":
            write_zip(place / "x.zip", folder, method=zipfile.ZIP_STORED)
        case "records":
            write_records(place / "x.array_record-00000-of-00001", images)
        case "examples":
            write_prepared(place / "mnist/1.0.0", {"train": images[..., 0]})
            shard = next((place / "mnist/1.0.0").glob("*array_record*"))
            return shutil.copy(shard, place / "renamed")
    if kind != "folder":
        shutil.rmtree(folder, ignore_errors=True)
    return next(place.iterdir())


def read_elsewhere(sent, numbers, answer):
    source = pickle.loads(sent)
    answer.put(source[numbers])


class TestSource:
    @pytest.mark.parametrize("kind", KINDS)
    def test_same_images_in_any_order(self, tmp_path, kind):
        source = open_source(written(kind, GREY, tmp_path))
        assert source.shape == GREY.shape
        assert len(source) == len(GREY)
        order = np.random.default_rng(0).permutation(25)
        for numbers in (np.arange(25), order, order[:3], np.array([4, 4, 5, 6, 4]), order[:0]):
            got = source[numbers]
            assert got.dtype == np.uint8
            np.testing.assert_array_equal(got, GREY[numbers])
        np.testing.assert_array_equal(to_memory(source), GREY)
        np.testing.assert_array_equal(to_memory(spread(source, 5)), GREY[::5])
        again = pickle.loads(pickle.dumps(source))
        np.testing.assert_array_equal(again[order], GREY[order])

    @pytest.mark.parametrize("kind", ["npy", "folder", "tar", "zip", "records"])
    def test_colour(self, tmp_path, kind):
        np.testing.assert_array_equal(
            to_memory(open_source(written(kind, COLOUR, tmp_path))), COLOUR
        )

    @pytest.mark.parametrize("kind", ["npy", "tar", "zip", "records"])
    def test_in_another_process(self, tmp_path, kind):
        source = open_source(written(kind, GREY, tmp_path))
        source[np.array([0])]  # its files are open here
        spawn = multiprocessing.get_context("spawn")
        answer = spawn.Queue()
        process = spawn.Process(
            target=read_elsewhere, args=(pickle.dumps(source), np.array([20, 3]), answer)
        )
        process.start()
        np.testing.assert_array_equal(answer.get(timeout=60), GREY[[20, 3]])
        process.join(60)

    @pytest.mark.parametrize("kind", ["folder", "tar", "zip"])
    def test_names(self, tmp_path, kind):
        source = open_source(written(kind, GREY, tmp_path))
        assert [source.name(i) for i in (0, 9, 10)] == ["a/000.png", "a/009.png", "b/000.png"]

    def test_no_names(self, tmp_path):
        assert open_source(written("npy", GREY, tmp_path)).name(3) is None

    def test_blocks_of_any_size(self, tmp_path):
        source = open_source(written("npy", GREY, tmp_path))
        for size in (1, 7, 25, 100):
            parts = list(blocks(source, size))
            assert max(map(len, parts)) <= size
            np.testing.assert_array_equal(np.concatenate(parts), GREY)

    def test_conversions(self, tmp_path):
        folder = write_images(tmp_path / "x", COLOUR)
        assert "9x7 colour, expected 5x5 grey; --resize --grayscale" in failure(
            lambda: open_source(folder, (5, 5, 1))[np.array([0])]
        )
        converted = open_source(folder, (5, 5, 1), resize=True, grayscale=True)
        expected = data.load(folder, "all", image_size=(5, 5), channels=1)
        np.testing.assert_array_equal(to_memory(converted), expected)
        np.save(tmp_path / "x.npy", GREY)
        assert "expected images that are 5x5" in failure(open_source, tmp_path / "x.npy", (5, 5, 1))


class TestDatasets:
    """``data.open`` on disk gives what ``data.load`` gives."""

    @pytest.mark.parametrize("kind", ["npy", "npy-of-floats", "folder", "tar", "zip"])
    @pytest.mark.parametrize("split", splits.SPLITS)
    def test_as_loaded(self, tmp_path, kind, split):
        path = written(kind, GREY, tmp_path)
        expected = data.load(path, split)
        source = data.open(path, split, in_memory=False)
        assert not isinstance(source, np.ndarray)
        assert source.shape == expected.shape
        np.testing.assert_array_equal(to_memory(source), expected)
        assert isinstance(data.open(path, split), np.ndarray)  # they are few

    def test_large_ones_stay_on_disk_unasked(self, tmp_path, monkeypatch):
        monkeypatch.setattr(data, "IN_MEMORY", GREY.nbytes - 1)
        for kind in ("npy", "tar"):
            place = tmp_path / kind
            place.mkdir()
            path = written(kind, GREY, place)
            assert not isinstance(data.open(path, "all"), np.ndarray)
            assert isinstance(data.open(path, "test"), np.ndarray)

    @pytest.mark.parametrize("split", splits.SPLITS)
    @pytest.mark.parametrize("prefix", ["", "photos/"])
    def test_an_archive_is_the_folder_in_it(self, tmp_path, split, prefix):
        folder = tmp_path / "x"
        write_images(folder / "train", GREY[:20])
        write_images(folder / "test", GREY[20:])
        (folder / "train" / "notes.txt").write_text("no image")
        (folder / "test" / ".hidden.png").write_text("no image")
        expected = data.load(folder, split)
        for path in (
            write_tar(tmp_path / "x.tar", folder, prefix),
            write_zip(tmp_path / "x.zip", folder, prefix),
        ):
            np.testing.assert_array_equal(data.load(path, split), expected)

    def test_split_of_an_archive_by_names(self, tmp_path):
        folder = write_images(tmp_path / "x", GREY)
        for split in splits.SPLITS:
            np.testing.assert_array_equal(
                data.load(write_zip(tmp_path / f"{split}.zip", folder), split),
                data.load(folder, split),
            )

    @pytest.mark.parametrize("channels", [None, 1, 3])
    def test_grey_and_coloured_mixed(self, tmp_path, channels):
        folder = write_images(tmp_path / "x", GREY[:5])
        write_images(folder / "z", COLOUR[5:])
        for split in splits.SPLITS:
            source = data.open(folder, split, channels=channels, in_memory=False)
            np.testing.assert_array_equal(
                to_memory(source), data.load(folder, split, channels=channels)
            )

    def test_resized(self, tmp_path):
        folder = write_images(tmp_path / "x", GREY)
        size = (6, 11)
        np.testing.assert_array_equal(
            to_memory(data.open(folder, "all", image_size=size, in_memory=False)),
            data.load(folder, "all", image_size=size),
        )

    @needs_tfds
    def test_prepared(self):
        place = SHARED / "data/tfds"
        expected = data.load("mnist", "test", place)
        source = data.open("mnist", "test", place, in_memory=False)
        np.testing.assert_array_equal(to_memory(source), expected)

    def test_held_out_and_fingerprint(self, tmp_path):
        np.save(tmp_path / "x.npy", GREY)
        disk, memory = (
            holdout.TrainingData.split(
                "x", data.open(tmp_path / "x.npy", "train", in_memory=kept), GREY[:3], 0.2
            )
            for kept in (False, True)
        )
        assert disk.fingerprint == memory.fingerprint
        assert disk.sizes == memory.sizes
        np.testing.assert_array_equal(disk.validation, memory.validation)
        np.testing.assert_array_equal(to_memory(disk.train), memory.train)

    def test_no_more_are_held_out_than_help(self, monkeypatch):
        monkeypatch.setattr(holdout, "MOST_HELD_OUT", 4)
        rest, held_out = holdout.hold_out("x", GREY, 0.9)
        assert (len(rest), len(held_out)) == (21, 4)


class TestDamage:
    def test_arrays(self, tmp_path):
        np.save(tmp_path / "x.npy", GREY)
        whole = (tmp_path / "x.npy").read_bytes()
        (tmp_path / "cut.npy").write_bytes(whole[:-1])
        assert "cut.npy" in failure(open_source, tmp_path / "cut.npy")
        (tmp_path / "idx").write_bytes(idx(GREY[..., 0])[:-1])
        assert "ends before that" in failure(open_source, tmp_path / "idx")
        (tmp_path / "idx").write_bytes(idx(GREY[..., 0]) + b"?")
        assert "bytes follow" in failure(open_source, tmp_path / "idx")
        assert "no_such" in failure(open_source, tmp_path / "no_such.npy")
        np.save(tmp_path / "x.npy", np.arange(5))
        assert "(5,)" in failure(open_source, tmp_path / "x.npy")
        np.save(tmp_path / "nan.npy", np.full((2, 3, 3), np.nan))
        assert "NaN" in failure(lambda: open_source(tmp_path / "nan.npy")[np.array([1])])

    def test_a_file_that_changes(self, tmp_path):
        path = tmp_path / "x.npy"
        np.save(path, GREY)
        unopened, opened = (open_source(path) for _ in range(2))
        opened[np.array([0])]
        with path.open("r+b") as file:
            file.truncate(500)
        assert "changed" in failure(lambda: unopened[np.array([20])])
        assert "ends too early" in failure(lambda: opened[np.array([20])])

    def test_an_image_is_named(self, tmp_path):
        folder = write_images(tmp_path / "x", GREY)
        (folder / "013.png").write_bytes(b"no image")
        for path in (
            folder,
            write_tar(tmp_path / "x.tar", folder),
            write_zip(tmp_path / "x.zip", folder),
        ):
            source = open_source(path)
            source[np.array([12, 14])]
            assert "013.png" in failure(lambda source=source: source[np.array([12, 13])])
            assert "013.png" in failure(data.load, path, "all")

    def test_records(self, tmp_path):
        path = write_records(tmp_path / "x.array_record", GREY)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        assert "x.array_record" in failure(open_source, path)
        from array_record.python.array_record_module import ArrayRecordWriter

        for record, expected in ((b"\n\xff", "damaged"), (b"", "not an image")):
            writer = ArrayRecordWriter(str(path), "group_size:1")
            writer.write(record)
            writer.close()
            message = failure(open_source, path)
            assert "record 0" in message
            assert expected in message
        os.mkfifo(tmp_path / "fifo")
        assert "no regular file" in failure(open_source, tmp_path / "fifo")


def test_splits_of_many_examples_take_little_memory():
    code = (
        "import resource; from cvae_jax.data import splits; "
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; "
        "test = splits.member(1_000_000, 'test'); "
        "print(test.sum(), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    chosen, megabytes = map(int, done.stdout.split())
    assert chosen == 100_000
    assert megabytes < 60


def test_sources_import_no_image_library():
    code = (
        "import sys; import cvae_jax.data.sources, cvae_jax.data.feed; "
        "print([m for m in ('grain', 'PIL', 'jax', 'array_record') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n"
