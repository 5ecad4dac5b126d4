"""The command run in a fresh folder, and digits to run it on.

Test modules take the fixtures from here by assignment: the tests import the one ``conftest`` by
name, so there can be no second.
"""

import pytest
from PIL import Image

from cvae_jax import data


@pytest.fixture(scope="module")
def images():
    return data.load("digits", "test")[:12]


@pytest.fixture
def folder(tmp_path, images):
    """Twelve digits as files, some in a folder below."""
    for i, image in enumerate(images):
        path = tmp_path / "digits" / ("more" if i % 3 == 0 else "") / f"digit_{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(path)
    return tmp_path / "digits"


def refuses(cvae, status, *words, argv):
    found, out, err = cvae(*argv)
    assert found == status, err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    for word in words:
        assert word in line
    assert out == ""
