"""A run of a model with a map of latents, by the commands; its files, and what reads them."""

import json
import zipfile

import numpy as np
import pytest

from cvae_jax import codec, data, errors, reader
from cvae_jax.cli import parser
from cvae_jax.coding import quantize, streams
from cvae_jax.config import PRESETS
from cvae_jax.runs import saved

FLAGS = ["--preset", "photos32", "--filters", 4, 8, "--latent-channels", 4, "--no-flip"]
FLAGS += ["--epochs", 2, "--batch-size", 8, "--context-steps", 0]


def called(*argv):
    return errors.run(lambda: parser.main([str(a) for a in argv]))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A zip of colour images in folders, as CIFAR-10 often comes."""
    path = tmp_path_factory.mktemp("photos") / "photos.zip"
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 11, 3), np.uint8)
    with zipfile.ZipFile(path, "w") as archive:
        for i, image in enumerate(images):
            archive.writestr(
                f"{'cat' if i % 2 else 'dog'}/{i}.png", data.encode_image(image, ".png")
            )
    return path


@pytest.fixture(scope="module")
def workdir(dataset):
    folder = dataset.parent / "run"
    assert called("train", "--workdir", folder, "--dataset", dataset, *FLAGS) == 0
    return folder


def test_a_run_keeps_its_checkpoint_and_pictures(workdir, dataset, capsys):
    assert [step.name for step in saved.steps(workdir)] == ["00000006", "00000012"]
    for picture in ("loss_curves", "reconstructions", "samples"):
        assert (workdir / f"{picture}.png").stat().st_size > 1000
    # Started again, it has nothing left to do, and says what it says at its end.
    assert called("train", "--workdir", workdir, "--dataset", dataset, *FLAGS) == 0
    assert "best checkpoint" in capsys.readouterr().out


def test_what_was_trained_encodes_decodes_and_draws(workdir):
    c = codec.load(workdir)
    expected = PRESETS["photos32"].replace(height=8, width=11, filters=(4, 8), latent_channels=4)
    assert c.model == expected.model
    images = np.random.default_rng(1).integers(0, 256, (3, 8, 11, 3), np.uint8)
    z = c.encode(images)
    assert z.shape == (3, c.latent_dim) == (3, 24)
    assert c.decode(z).shape == images.shape
    assert np.abs(c.sample_posterior(0, images) - z).max() <= 0.5 + 1e-4
    drawn = c.sample(0, 5)
    assert drawn.shape == (5, 8, 11, 3)
    np.testing.assert_array_equal(drawn, c.sample(0, 5))
    assert not np.array_equal(drawn, c.sample(1, 5))
    assert c.sample(0, 0).shape == (0, 8, 11, 3)


def test_it_is_evaluated(workdir, tmp_path, capsys):
    written = ["--json", tmp_path / "numbers.json", "--figure", tmp_path / "some.png"]
    assert called("evaluate", "--ckpt", workdir, *written) == 0
    summary = json.loads((tmp_path / "numbers.json").read_text())["summary"]
    for section in ("deterministic", "sampled"):
        row = summary[section]
        assert row["negative_elbo"] == pytest.approx(row["bce"] + row["kl"])
    assert summary["deterministic"]["kl"] != summary["sampled"]["kl"]
    assert (tmp_path / "some.png").stat().st_size > 1000


def test_the_study_takes_a_map(workdir, tmp_path, monkeypatch, cvae):
    pytest.importorskip("imagecodecs")
    monkeypatch.setattr("cvae_jax.study.sweep.QUALITIES", (0, 50))
    monkeypatch.setattr("cvae_jax.study.sweep.SEARCHED_OF_MAPS", (9,))
    status, out, err = cvae("evaluate", "--ckpt", workdir, "--rate-distortion", "--out", "study")
    assert status == 0, err
    report = json.loads((tmp_path / "study" / "photos.json").read_text())
    ours = [row for row in report["rows"] if row["codec"] == "run"]
    assert {row["setting"] for row in ours} == {"quality 0", "quality 50", "quality 9, effort 2"}
    assert {row["regime"] for row in ours} == {"together", "own file", "with its model"}
    others = {row["codec"] for row in report["rows"]}
    assert others >= {"AVIF 4:4:4", "AVIF 4:2:0", "JPEG 4:4:4", "JPEG 4:2:0"}
    assert all("psnr_of_mean_mse_luma" in row for row in report["rows"])
    assert report["from_jpeg"] is False
    for line in out.splitlines():
        if line.startswith("study/"):
            assert (tmp_path / line).stat().st_size > 100


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (70, 8, 11, 3), np.uint8)


@pytest.mark.parametrize("quality", [0, 50, 100])
def test_files_come_back_as_the_same_pixels_everywhere(workdir, images, quality, tmp_path):
    c = codec.load(workdir)
    data = c.compress(images, quality, embed_model=True)
    decoded = c.decompress(data)
    np.testing.assert_array_equal(reader.decompress(data), decoded)
    (tmp_path / "archive.cvae").write_bytes(data)
    carried = codec.load(tmp_path / "archive.cvae")
    np.testing.assert_array_equal(carried.decompress(data), decoded)
    assert carried.model.latent_map == c.model.latent_map
    for one in (c.compress(images[3], quality), c.compress(images[3:4], quality)):
        np.testing.assert_array_equal(c.decompress(one), decoded[3:4])


def test_finer_steps_mean_smaller_errors_and_larger_files(workdir, images):
    c = codec.load(workdir)
    files = [c.compress(images, quality) for quality in (20, 50, 80)]
    found = [c.encode_symbols(images, quality) for quality in (20, 50, 80)]
    latents = [quantize.dequantize(symbols, c.tables, step) for symbols, step in found]
    errors = [np.mean((c.encode(images) - z) ** 2) for z in latents]
    assert errors[0] > errors[1] > errors[2]
    assert len(files[0]) < len(files[1]) < len(files[2])


def test_an_archive_is_verified_described_and_joined(workdir, images, tmp_path, cvae):
    np.save("images.npy", images)
    model = "--ckpt", workdir, "--embed-model"
    assert cvae("compress", "images.npy", *model, "-o", "a.cvae")[0] == 0
    assert cvae("verify", "a.cvae")[0] == 0
    status, out, _ = cvae("info", "a.cvae", "--json")
    assert status == 0
    assert json.loads(out)["images"] == 70
    assert cvae("concat", "a.cvae", "a.cvae", "-o", "b.cvae")[0] == 0
    assert cvae("decompress", "b.cvae", "-o", "b.npy")[0] == 0
    expected = codec.load(workdir).decompress((tmp_path / "a.cvae").read_bytes())
    np.testing.assert_array_equal(np.load("b.npy")[70:], expected)


def test_a_search_lowers_what_each_image_costs_and_the_files_are_read_by_all(workdir, images):
    c = codec.load(workdir)
    step = c.encode_symbols(images[:1], 60)[1]
    costs = []
    for effort in (0, 1, 3):
        symbols, _ = c.encode_symbols(images, 60, effort)
        errors = ((c.decode_symbols(symbols, step) - images.astype(float)) ** 2).sum((1, 2, 3))
        costs.append(
            errors / 255**2 + c.tables.slope * step**2 * streams.bits(symbols, c.tables, step)
        )
        # Alone as among others.
        np.testing.assert_array_equal(c.encode_symbols(images[:3], 60, effort)[0], symbols[:3])
    assert (costs[1] <= costs[0] + 1e-9).all()
    assert costs[2].mean() < costs[1].mean() < costs[0].mean()
    data = c.compress(images, 60, effort=1, embed_model=True)
    np.testing.assert_array_equal(reader.decompress(data), c.decompress(data))


def test_a_run_is_released_and_the_release_makes_the_same_files(workdir, images, tmp_path):
    assert called("release", workdir, tmp_path / "out") == 0
    data = codec.load(workdir).compress(images)
    assert codec.load(tmp_path / "out").compress(images) == data
    assert "2x3x4 map of latents" in (tmp_path / "out" / "README.md").read_text()


def test_a_page_of_it_opens_files(workdir, tmp_path, cvae):
    status, out, err = cvae("web", "page.html", "--ckpt", workdir)
    assert status == 0, err
    page, said = out.splitlines()
    assert page.startswith("page.html: a page, ")
    assert said == "It opens files, and cannot draw: the model's latents form a map."
    assert '"encoder":' not in (tmp_path / "page.html").read_text()
