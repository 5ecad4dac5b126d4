"""Principal components, coded as the latents are."""

import numpy as np

from cvae_jax import bitstream
from cvae_jax.study import pca


def images_of_three_patterns():
    rng = np.random.default_rng(0)
    patterns = rng.random((3, 6, 6, 1)) - 0.5
    weights = rng.normal(size=(500, 3)) * 0.2
    return np.rint(255 * np.clip(0.5 + np.tensordot(weights, patterns, 1), 0, 1)).astype(np.uint8)


def test_images_of_few_components_come_back():
    images = images_of_three_patterns()
    model = pca.fit(images, components=3)
    np.testing.assert_allclose(model.basis.T @ model.basis, np.eye(3), atol=1e-9)
    sizes, errors = [], []
    for halvings in (1, 3, 5, 7):
        archive = model.archive(images, 2.0**-halvings)
        decoded = model.read(archive)
        assert decoded.shape == images.shape
        sizes.append(len(archive))
        errors.append(np.mean((decoded - images.astype(float)) ** 2))
    assert sizes == sorted(set(sizes))
    assert errors == sorted(set(errors), reverse=True)
    assert errors[-1] < 2  # squared grey levels


def test_its_files_are_real_ones():
    """What is counted is read again by the format's own reader, checks and all."""
    images = images_of_three_patterns()[:20]
    model = pca.fit(images, components=3)
    assert bitstream.is_archive(model.archive(images, 0.1))
    files = model.singles(images, 0.1)
    assert not any(map(bitstream.is_archive, files))
    decoded = model.read_singles(files)
    assert np.abs(decoded.astype(int) - model.read(model.archive(images, 0.1))).max() <= 1


def test_colour_is_a_vector_as_any_other():
    rng = np.random.default_rng(1)
    weights = rng.random((200, 2))
    patterns = rng.random((2, 4, 5, 3))
    images = np.rint(127 * np.tensordot(weights, patterns, 1)).astype(np.uint8)
    model = pca.fit(images, components=2)
    decoded = model.read(model.archive(images, 2.0**-7))
    assert decoded.shape == images.shape
    assert np.mean((decoded - images.astype(float)) ** 2) < 2
    assert np.array_equal(model.read_singles(model.singles(images[:3], 2.0**-7)), decoded[:3])


def test_no_more_components_than_an_image_has_numbers():
    model = pca.fit(images_of_three_patterns(), components=100)
    assert model.basis.shape == (36, 36)
    assert model.tables.latent_dim == 36
