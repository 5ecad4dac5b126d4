"""Principal components, coded as the latents are."""

import numpy as np

from cvae_jax.study import pca


def test_images_of_few_components_come_back():
    rng = np.random.default_rng(0)
    patterns = rng.random((3, 6, 6, 1)) - 0.5
    weights = rng.normal(size=(500, 3)) * 0.2
    images = np.rint(255 * np.clip(0.5 + np.tensordot(weights, patterns, 1), 0, 1)).astype(np.uint8)
    model = pca.fit(images, components=3)
    np.testing.assert_allclose(model.basis.T @ model.basis, np.eye(3), atol=1e-9)
    sizes, errors = [], []
    for halvings in (1, 3, 5, 7):
        size, decoded = model.code(images, halvings)
        assert decoded.shape == images.shape
        sizes.append(size)
        errors.append(np.mean((decoded - images.astype(float)) ** 2))
    assert sizes == sorted(set(sizes))
    assert errors == sorted(set(errors), reverse=True)
    assert errors[-1] < 2  # squared grey levels
