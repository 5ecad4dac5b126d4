"""Files that are slow to read cost a page little, and only once."""

import numpy as np
import pytest
from page_samples import in_session, needs_node

from cvae_jax import reader
from cvae_jax.bitstream.records import ALONE, Refinement, crc32c

pytestmark = needs_node

ASKED_IN_GROUPS = """
ask("open", { bytes: files[0].buffer });
const { context } = session.model;
const refine = context.refine.bind(context);
let decoded = 0;
context.refine = (...given) => (decoded++, refine(...given));
const started = performance.now();
const answers = [0, 60, 60, 500].map((first) => ask("images", { first, count: 50 }));
console.log(JSON.stringify({
  decoded, seconds: (performance.now() - started) / 1000,
  faults: answers.map(({ faults }) => faults),
  shown: answers.map(({ intact }) => intact.includes(1)),
}));
"""


@pytest.fixture(scope="module")
def mnist():
    return reader.load("mnist").files


@pytest.fixture(scope="module")
def model(tmp_path_factory, mnist):
    path = tmp_path_factory.mktemp("costs") / "model.cvae"
    path.write_bytes(mnist.model_file())
    return path


def black(mnist, n, stream=b""):
    """A chunk of n black images, alone: nothing is a stream of them, of no bytes."""
    crc = crc32c(bytes(28 * 28 * n))
    modes = np.full(n, ALONE, np.uint8)
    refinement = Refinement(0, mnist.context.digest[:16], crc, modes, stream)
    no_symbols = np.zeros((0, mnist.tables.latent_dim), np.int32)
    return mnist.chunk(no_symbols, 600, np.zeros((0, 28, 28, 1), np.uint8), refinement)


def archive(mnist, *chunks):
    return mnist.archive(chunks, refined=True)


@pytest.mark.parametrize(("n", "stream", "words"), [
    (8192, b"", "distributions of pixels, and"),
    (2000, 99 * b"\0\0\0\1", "left over"),
])  # fmt: skip
def test_a_chunk_that_cannot_be_decoded_is_tried_once(mnist, model, tmp_path, n, stream, words):
    """Images that nothing is known of have a price, too."""
    path = tmp_path / "slow.cvae"
    path.write_bytes(archive(mnist, black(mnist, n, stream)))
    found = in_session(ASKED_IN_GROUPS, model, path)
    assert found["decoded"] == 1
    assert found["seconds"] < 2
    assert not any(found["shown"])
    first, *others = found["faults"]
    assert words in first[0]
    assert all(faults == first for faults in others)


def test_a_chunk_that_was_too_much_beside_others_is_shown_alone(mnist, model, tmp_path):
    path = tmp_path / "two.cvae"
    path.write_bytes(archive(mnist, black(mnist, 4500), black(mnist, 4500)))
    script = """
ask("open", { bytes: files[0].buffer });
const answers = [[4400, 200], [4600, 9]].map(([first, count]) => ask("images", { first, count }));
const found = ({ intact, faults }) => [intact[0], intact.at(-1), faults.length];
console.log(JSON.stringify(answers.map(found)));
"""
    assert in_session(script, model, path) == [[1, 0, 1], [1, 1, 0]]
