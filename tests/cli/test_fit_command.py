"""``cvae fit``: what it chooses and plans, a model and an archive of one's own images, stopped and
gone on with."""

import io
import json
import os
import shutil
import signal
from collections import Counter

import numpy as np
import pytest
from command_samples import refuses
from conftest import RELEASED, failure, shared_dir
from PIL import Image

from cvae_jax import codec, config, data, metrics, reader
from cvae_jax.bitstream import Reader
from cvae_jax.cli import parser
from cvae_jax.cli.commands.making import fit, state
from cvae_jax.cli.commands.making.choice import choose
from cvae_jax.cli.commands.making.fit import check_readable, one_shape
from cvae_jax.errors import ConfigError, DataError
from cvae_jax.runs import run
from cvae_jax.runs.run import budget, keeper
from cvae_jax.runs.run.budget import Plan, Speed
from cvae_jax.study import equal
from cvae_jax.study.equal import Point

N, SHAPE = 70, (8, 12, 3)


def smooth(n, shape, seed=0):
    """Images whose neighbouring pixels are alike, as photographs' are: uint8 ``[n, H, W, C]``."""
    h, w, c = shape
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 3, 3, c), np.uint8)
    resized = [
        np.asarray(Image.fromarray(image.squeeze()).resize((w, h), Image.Resampling.BICUBIC))
        for image in coarse
    ]
    return np.stack(resized).reshape(n, h, w, c)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    for i, image in enumerate(smooth(N, SHAPE)):
        path = folder / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode_image(image))
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A preset of the same kind that takes no time to compile."""
    preset = config.PRESETS["collection"].replace(filters=(4, 8), latent_channels=4)
    monkeypatch.setitem(config.PRESETS, "collection", preset)


def test_the_preset_is_chosen_by_the_images():
    assert choose(data.load("digits", "test")).preset == "default"
    assert choose(smooth(50, (28, 28, 1))).preset == "collection"
    assert choose(smooth(50, (28, 28, 3))).preset == "collection"
    strokes = np.zeros((3, 64, 64, 1), np.uint8)
    assert choose(strokes).preset == "collection"
    assert choose(strokes[:, :28, :28]).preset == "default"
    assert choose(255 - strokes[:, :28, :28]).preset == "default"  # on white paper
    assert "100% of the pixels are of level 0" in choose(strokes[:, :28, :28]).reason


def test_the_preset_of_mnist_and_of_grey_photographs():
    mnist = data.load("mnist", "test", shared_dir() / "data")
    assert choose(mnist[:1024]).preset == "default"
    cifar = shared_dir() / "data" / "cifar10" / "test.zip"
    if not cifar.exists():
        pytest.skip(f"no {cifar}")
    assert choose(data.load(cifar, "test", channels=1)).preset == "collection"


def test_epochs_are_those_that_there_is_time_for():
    speed = Speed(step=0.1, epoch=1.0, finish=20)
    whole = budget.plan(620, speed, 64, 6400)
    assert whole == Plan(round(600 * (1 - budget.PICTURES) / 11), 6400)
    assert budget.plan(1220, speed, 64, 6400).epochs == pytest.approx(2 * whole.epochs, abs=1)
    slower = speed._replace(step=0.2)
    assert budget.plan(620, slower, 64, 6400).epochs < whole.epochs
    # No time for all images: some of them, once.
    part = budget.plan(620, speed, 64, 10_000_000)
    assert part.epochs == 1
    assert part.images * speed.step / 64 == pytest.approx(600, rel=0.05)
    # Never nothing.
    for seconds in (-100, 0, 1):
        for images in (8, 100, 10_000_000):
            batch = budget.batch_size(64, images)
            epochs, each = budget.plan(seconds, speed, batch, images)
            assert budget.LEAST_STEPS <= epochs * (each // batch) < 2 * budget.LEAST_STEPS + 8


def test_batches_are_smaller_where_there_are_few_images():
    assert budget.batch_size(64, 10_000) == 64
    assert budget.batch_size(64, 60) == 8
    assert budget.batch_size(64, 3) == 2
    for images in range(1, 600):
        assert 1 <= budget.batch_size(64, images) <= images


def test_mixed_sizes_are_refused_with_counts(cvae, photos):
    for i in range(7):
        for k in range(7 - i):
            Image.new("RGB", (20 + i, 10)).save(photos / f"{i}_{k}.png")
    argv = ["fit", photos, "-o", "mine", "--minutes", 0.01]
    said = "70 of 8x12, 7 of 10x20, 6 of 10x21, 5 of 10x22, 4 of 10x23, and 6 more of 3 others"
    refuses(cvae, 1, "8 sizes", said, "--resize HxW", argv=argv)
    assert not (photos.parent / "mine.fit").exists()


def test_grey_among_coloured_images_counts_as_coloured():
    shapes = Counter({(8, 8, 1): 3, (8, 8, 3): 1})
    assert one_shape("x", shapes, None) == (8, 8, 3)
    shapes[4, 8, 1] = 2
    assert "4 of 8x8, 2 of 4x8;" in failure(DataError, one_shape, "x", shapes, None)
    assert one_shape("x", shapes, (5, 6)) == (5, 6, 3)


def test_a_model_an_archive_and_a_comparison(cvae, photos, tmp_path):
    argv = ["fit", photos, "-o", "mine", "--minutes", 0.01, "--archive", "mine.cvae"]
    status, out, err = cvae(*argv)
    assert status == 0, err
    assert "photos: 8x12 colour, 58 train, 5 validation, 7 test; preset collection: a map" in out
    assert "0.01 minutes: about 3 epochs of 58 images" in out
    assert not (tmp_path / "mine.fit").exists()
    assert "cvae train" in (tmp_path / "mine" / "README.md").read_text()
    assert codec.load("mine").model.image_shape == SHAPE
    # Without the model, the archive opens, with the files' names.
    (tmp_path / "mine").rename(tmp_path / "elsewhere")
    images = data.load(photos, "all")
    with reader.open("mine.cvae") as archive:
        assert archive.names() == [
            p.relative_to(photos).as_posix() for p in data.list_images(photos)
        ]
        decoded = archive.read()
    # It is the very file that cvae compress makes.
    made = ["compress", photos, "--ckpt", "elsewhere", "--embed-model", "-o", "other.cvae"]
    assert cvae(*made)[0] == 0
    content = (tmp_path / "mine.cvae").read_bytes()
    assert (tmp_path / "other.cvae").read_bytes() == content
    # What the table says is true of the files.
    spent = Reader(io.BytesIO(content)).ledger()
    mse = metrics.mse_of_levels(decoded, images)
    assert f"70 images, {len(content)} bytes, of which its model is {spent['model']};" in out
    rows = {line.split("  ")[0]: line for line in out.splitlines()}
    assert f" {len(content) / N:,.1f} " in rows["this archive"]
    assert f" {mse:.5f}" in rows["this archive"]
    assert f" {(len(content) - spent['model']) / N:,.1f}" in rows["without its model"]
    png = sum(len(data.encode_image(image)) for image in images) / N
    assert f" {png:,.1f} " in rows["PNG, own files"]
    for name in ("PNG", "WebP", "AVIF 4:2:0", "AVIF 4:4:4"):
        assert f"{name}, own files" in rows
        assert f"{name}, one sheet" in rows

    refuses(cvae, 2, "mine.cvae exists; -f", argv=argv)


def test_as_json_and_over_what_is_there(cvae, tmp_path):
    """Of an array; its numbers are those of the others' files."""
    images = smooth(N, (8, 12, 1))
    np.save("grey.npy", images)
    argv = ["fit", "grey.npy", "-o", "mine", "--minutes", 0.01, "--archive", "a.cvae", "--json"]
    (tmp_path / "a.cvae").write_bytes(b"old")
    shutil.copytree(RELEASED, tmp_path / "mine")
    refuses(cvae, 2, "mine exists; -f", argv=["fit", "grey.npy", "-o", "mine"])
    status, out, err = cvae(*argv, "-f")
    assert status == 0, err
    assert codec.load("mine").model.image_shape == (8, 12, 1)
    report = json.loads(out)
    archive = report["archive"]
    size = (tmp_path / "a.cvae").stat().st_size
    decoded = reader.decompress((tmp_path / "a.cvae").read_bytes())
    assert report["epochs"] * report["images_per_epoch"] > 0
    assert archive["bytes"] == size
    assert archive["bytes_per_image"] == size / N
    assert archive["mse"] == pytest.approx(metrics.mse_of_levels(decoded, images))
    assert archive["sampled_mse"] == pytest.approx(archive["mse"])
    each = {(row["name"], row["regime"]): row for row in archive["others"]}
    webp = each["WebP", "own files"]
    for point in webp["points"]:
        files = [io.BytesIO() for _ in images]
        for image, file in zip(images, files, strict=True):
            picture = Image.fromarray(image[..., 0])
            picture.save(file, "WEBP", quality=point["quality"], method=6)
        mean = sum(len(file.getvalue()) for file in files) / N
        assert mean == pytest.approx(point["bytes_per_image"])
    for row in archive["others"]:
        n = row["smaller_from"]
        spent = Reader(io.BytesIO((tmp_path / "a.cvae").read_bytes())).ledger()
        grows = (spent["streams"] + spent["checks"] + spent["names"]) / N
        fixed = size - grows * N
        if n is None:
            assert grows >= row["bytes_per_image"]
        else:
            assert fixed + n * grows < n * row["bytes_per_image"]
            assert fixed + (n - 1) * grows >= (n - 1) * row["bytes_per_image"]


def test_files_at_equal_error():
    images = smooth(20, (16, 16, 3))
    for other in equal.others(images, 4e-3):
        if not other.points:
            assert (other.name, other.mse) == ("PNG", 0)
            continue
        low, high = other.points[0], other.points[-1]
        assert high.quality - low.quality == 1
        assert high.mse <= 4e-3 < low.mse
        assert low.bytes_per_image <= other.bytes_per_image <= high.bytes_per_image
        assert other.quality == f"{low.quality}-{high.quality}"
    # An error that even the lowest quality stays below, and one that none reaches.
    (lowest,) = equal.enclosing(lambda q: Point(q, q, 0.5), 0.6)
    assert lowest.quality == 0
    (highest,) = equal.enclosing(lambda q: Point(q, q, 0.5), 0.4)
    assert highest.quality == 100
    assert equal.between([highest], 0.4) == (100, 0.5)


def test_a_stopped_fit_goes_on(cvae, photos, tmp_path, monkeypatch):
    """Stopped in training, then when the model is there and the fit does not know yet."""
    argv = ["fit", photos, "-o", "mine", "--minutes", 0.01]

    def save_and_stop(*args, **kwargs):
        saved = save_step(*args, **kwargs)
        if not stopped:  # saved once more on the way out
            stopped.append(True)
            os.kill(os.getpid(), signal.SIGTERM)
        return saved

    def release_and_stop(*args):
        made(*args)
        raise KeyboardInterrupt

    stopped: list[bool] = []
    save_step, made = keeper.retention.save_step, fit.release.release
    with monkeypatch.context() as patch:
        patch.setattr(budget, "_saving", lambda state, folder: 0.1)
        patch.setattr(keeper.retention, "save_step", save_and_stop)
        status, _, err = cvae(*argv)
    assert status == 128 + signal.SIGTERM
    assert "the same command goes on" in err
    assert not (tmp_path / "mine").exists()
    refuses(cvae, 2, "minutes is 0.01 there and 5.0 here", argv=[*argv[:-1], 5])
    with monkeypatch.context() as patch:
        patch.setattr(fit.release, "release", release_and_stop)
        status, out, _ = cvae(*argv)
    assert status == 130
    assert "going on with" in out
    assert "resuming from" in out
    assert "about 3 epochs of 58 images" in out
    (tmp_path / "mine" / "README.md").unlink()
    status, out, err = cvae(*argv)
    assert status == 0, err
    assert (tmp_path / "mine" / "README.md").exists()
    assert codec.load("mine").model.image_shape == SHAPE
    assert not (tmp_path / "mine.fit").exists()


def test_other_images_are_another_fit(cvae, photos, tmp_path):
    places = state.Places(tmp_path / "mine", tmp_path / "run", None)
    argv = ["fit", photos, "-o", "mine", "--minutes", 0.01, "--workdir", "run"]
    places.prepare(parser.parser().parse_args([str(a) for a in argv]), "of other images")
    status, _, err = cvae(*argv)
    assert (status, "a fit of other images" in err) == (2, True)
    for damaged in ("{", '{"given": 3, "fingerprint": ""}'):
        (tmp_path / "run" / "fit.json").write_text(damaged)
        refuses(cvae, 1, "fit.json: damaged", argv=argv)


def test_a_fit_goes_on_to_the_model_that_it_began(cvae, photos, tmp_path):
    """Kept in a workdir: it makes no other model, and its own again where that is gone."""
    argv = ["fit", photos, "-o", "mine", "--minutes", 0.01, "--workdir", "run"]
    assert cvae(*argv)[0] == 0
    made = (tmp_path / "mine" / "config.json").read_bytes()
    shutil.copytree(RELEASED, tmp_path / "precious")
    other = [*argv[:3], "precious", *argv[4:]]
    refuses(cvae, 2, "output is", argv=other)
    shutil.rmtree(tmp_path / "mine")
    assert cvae(*argv)[0] == 0
    assert (tmp_path / "mine" / "config.json").read_bytes() == made
    with run.alone(tmp_path / "run"):
        status, _, err = cvae(*argv[:-1], "run", "--minutes", 5, "-f")
        assert (status, "another run is using" in err) == (2, True)
    assert (tmp_path / "run" / "fit.json").exists()


def test_what_is_refused_before_any_work(cvae, photos, tmp_path):
    fit = ["fit", photos, "-o"]
    refuses(cvae, 2, "add --archive", argv=[*fit, "mine", "-q", 50])
    refuses(cvae, 2, "0 to 100", argv=[*fit, "mine", "-q", 500, "--archive", "a.cvae"])
    refuses(cvae, 2, "HxW", argv=[*fit, "mine", "--resize", "32"])
    refuses(cvae, 2, "inside", "photos", argv=[*fit, photos / "mine"])
    refuses(cvae, 2, "inside", "photos", argv=[*fit, "m", "--archive", photos / "a.cvae"])
    refuses(cvae, 2, "a model is a folder", argv=[*fit, "-"])
    refuses(cvae, 2, "read back", argv=[*fit, "mine", "--archive", "-"])
    refuses(cvae, 2, "a model is a folder", argv=[*fit, "/"])
    refuses(cvae, 2, "a year", argv=[*fit, "mine", "--minutes", 1e308])
    refuses(cvae, 2, "is inside mine", argv=[*fit, "mine", "--archive", "mine/a.cvae"])
    refuses(cvae, 2, "is inside", "run", argv=[*fit, "run/m", "--workdir", "run"])
    refuses(cvae, 2, "is inside", "mine.fit", argv=[*fit, "mine", "--archive", "mine.fit/a.cvae"])
    large = config.PRESETS["photos32"].replace(height=900, width=900).model
    assert "take too much to decode" in failure(ConfigError, check_readable, large)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious").write_text("")
    refuses(cvae, 2, "mine exists and is no checkpoint", argv=[*fit, "mine", "-f"])
    refuses(cvae, 2, "not of a fit", argv=[*fit, "m", "--workdir", "mine"])
    assert (tmp_path / "mine" / "precious").exists()
    assert not (tmp_path / "mine.fit").exists()
