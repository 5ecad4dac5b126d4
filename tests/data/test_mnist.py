"""MNIST: its files where they are on disk, and their download from a mirror on loopback."""

import gzip
import hashlib
import http.server
import subprocess
import sys
import threading
import time
from pathlib import Path

import data_samples
import numpy as np
import pytest
from data_samples import SHARED, failure, idx, needs_idx, noise

from cvae_jax import data
from cvae_jax.data import downloads, mnist

nothing_of_this_machine = data_samples.nothing_of_this_machine


@needs_idx
class TestMnistIdx:
    def test_the_images(self):
        train, test = (data.load("mnist", s, SHARED / "data") for s in ("train", "test"))
        assert (train.shape, test.shape) == ((60000, 28, 28, 1), (10000, 28, 28, 1))
        # The MD5 that all copies of the unpacked files carry.
        for images, md5 in (
            (train, "6bbc9ace898e44ae57da46a324031adb"),
            (test, "2646ac647ad5339dbf082846283269ea"),
        ):
            assert hashlib.md5(idx(images[..., 0])).hexdigest() == md5

    def test_labels(self):
        labels = data.read_idx(SHARED / "data/mnist/t10k-labels-idx1-ubyte.gz")
        assert hashlib.md5(idx(labels)).hexdigest() == "27ae3e4e09519cfbb04c329615203637"


class TestFound:
    @pytest.fixture
    def here(self, tmp_path):
        (tmp_path / "data" / "mnist").mkdir(parents=True)
        for name in ("train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte"):
            (tmp_path / "data" / "mnist" / name).write_bytes(b"")
        return tmp_path

    @pytest.mark.parametrize("place", ["data", "data/mnist"])
    def test_without_a_name(self, here, place):
        assert data.resolve(None, here / place) == ("mnist", None)

    def test_in_the_default_folder(self, here, monkeypatch):
        monkeypatch.setenv("TFDS_DATA_DIR", str(here / "data"))
        assert data.resolve(None, here) == ("mnist", None)
        assert data.resolve(None) == ("mnist", None)


class Server(http.server.ThreadingHTTPServer):
    """A mirror of MNIST on loopback that can be told to fail."""

    daemon_threads = True
    files: dict[str, bytes]
    fault = None

    def handle_error(self, request, client_address):
        pass  # clients that give up are what is tested


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        content = self.server.files.get(Path(self.path).name)
        if self.server.fault == "silent":
            time.sleep(30)
        if content is None or self.server.fault == "404":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.server.fault == "stalls":
            self.wfile.write(content[:10])
            self.wfile.flush()
            time.sleep(30)
        elif self.server.fault == "trickles":
            for byte in content:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(0.1)
        elif self.server.fault == "breaks off":
            self.wfile.write(content[:-1])
        else:
            self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture
def mirror(monkeypatch):
    """Four small files, served from loopback and registered with their checksums."""
    arrays = {
        "train-images-idx3-ubyte.gz": noise(50, 28, 28),
        "train-labels-idx1-ubyte.gz": noise(50),
        "t10k-images-idx3-ubyte.gz": noise(10, 28, 28),
        "t10k-labels-idx1-ubyte.gz": noise(10),
    }
    files = {name: gzip.compress(idx(array)) for name, array in arrays.items()}
    with Server(("127.0.0.1", 0), Handler) as server:
        server.files = files
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        checks = {
            name: (len(files[name]), hashlib.sha256(files[name]).hexdigest())
            for name in mnist.FILES
        }
        monkeypatch.setattr(mnist, "URL", f"http://127.0.0.1:{server.server_port}/mnist/")
        monkeypatch.setattr(mnist, "FILES", checks)
        yield server
        server.shutdown()


def everything_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if not path.is_dir()]


class TestDownload:
    def test_fetched_once_and_found_again(self, mirror, tmp_path, capfd):
        place = tmp_path / "new" / "folder"
        assert data.resolve(None, place) == ("mnist", None)
        assert capfd.readouterr().err.count("\n") == 1  # that it is being fetched; no noise
        assert {p.name for p in everything_in(place)} == set(mnist.FILES)
        assert [p.name for p in (place / "mnist").iterdir() if p.is_dir()] == []
        mirror.shutdown()
        np.testing.assert_array_equal(data.load("mnist", "train", place)[..., 0], noise(50, 28, 28))
        assert capfd.readouterr().err == ""

    def test_the_default_folder(self, mirror, tmp_path):
        assert data.load("mnist", "test").shape == (10, 28, 28, 1)
        assert len(everything_in(tmp_path / "tfds-default/mnist")) == 4

    @pytest.mark.parametrize(
        ("fault", "expected"),
        [
            ("404", "answered 404"),
            ("silent", "did not answer within 1 seconds"),
            ("stalls", "stopped answering"),
            ("trickles", "too slow"),
            ("breaks off", "broke off"),
            ("checksum", "wrong checksum"),
        ],
    )
    def test_faults(self, mirror, tmp_path, monkeypatch, capfd, fault, expected):
        monkeypatch.setattr(downloads, "ANSWER_SECONDS", 1)
        monkeypatch.setattr(downloads, "READ_SECONDS", 2)
        if fault == "trickles":
            monkeypatch.setattr(mnist, "TOTAL_SECONDS", 2)
        if fault == "checksum":
            name = "train-images-idx3-ubyte.gz"
            mirror.files[name] = mirror.files[name][:-1] + b"\1"
        mirror.fault = fault
        (name, note) = data.resolve(None, tmp_path / "d")
        assert name == "digits"
        assert "using the embedded digits" in note
        assert expected in note
        assert mnist.URL.split("/")[2] in note
        assert "\n" not in note
        assert everything_in(tmp_path / "d") == []
        assert capfd.readouterr().err.count("\n") == 1

    def test_other_datasets_downloads_do_not_wait_for_ever_either(self, mirror):
        import requests

        mirror.fault = "silent"
        with downloads.bounded_requests(1, 1), pytest.raises(requests.Timeout):
            requests.get(mnist.URL)

    def test_killed_in_the_middle(self, mirror, tmp_path):
        mirror.fault = "stalls"
        code = (
            "import sys; from cvae_jax import data; from cvae_jax.data import mnist; "
            "mnist.URL = sys.argv[1]; data.load('mnist', 'train', sys.argv[2])"
        )
        run = subprocess.Popen(
            [sys.executable, "-c", code, mnist.URL, str(tmp_path)], stderr=subprocess.PIPE
        )
        while not everything_in(tmp_path):  # the beginning of a file
            assert run.poll() is None
            time.sleep(0.05)
        run.kill()
        run.communicate()
        mirror.fault = None
        assert mnist.find([tmp_path]) is None
        assert len(data.load("mnist", "train", tmp_path)) == 50

    def test_no_network(self, tmp_path):
        """Nobody listens at the address; an explicit name is an error with a remedy."""
        message = failure(data.load, "mnist", "train", tmp_path)
        assert "127.0.0.1:9 is not reachable" in message
        assert str(tmp_path / "mnist") in message
        assert "dataset digits" in message

    def test_a_place_that_cannot_be_written(self, mirror, tmp_path):
        (tmp_path / "file").write_text("")
        assert "cannot write to" in failure(data.load, "mnist", "train", tmp_path / "file")

    def test_half_a_download_is_not_taken_for_mnist(self, mirror, tmp_path):
        (tmp_path / "mnist").mkdir()
        name = "t10k-images-idx3-ubyte.gz"
        (tmp_path / "mnist" / name).write_bytes(mirror.files[name])
        assert mnist.find([tmp_path]) is None
        assert len(data.load("mnist", "train", tmp_path)) == 50


def test_registered_checksums_are_those_of_tfds():
    from tensorflow_datasets.core.download import checksums

    registered = checksums.get_all_url_infos()
    base = "https://storage.googleapis.com/cvdf-datasets/mnist/"
    for name, check in mnist.FILES.items():
        info = registered[base + name]
        assert (info.size, info.checksum) == check
