"""Files that are slow to read cost a page little, and only once."""

import numpy as np
import pytest
from coding.maps.prior_samples import random_prior
from conftest import decoder_of_zeros
from map_samples import map_model
from page_samples import in_session, needs_node

from cvae_jax import reader
from cvae_jax.bitstream.records import ALONE, Chunk, Refinement, crc32c
from cvae_jax.exact.architecture import Architecture
from cvae_jax.exact.integers import units_check
from cvae_jax.file_model import FileModel

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


# Models of maps


def of_zeros(side, filters, blocks, channels, groups=1):
    """Few bytes, whatever it costs."""
    architecture = Architecture((side, side, 3), 0, filters, channels, blocks)
    prior = random_prior((*architecture.places, channels), groups)
    return FileModel(prior, decoder_of_zeros(architecture, 0, units_check(prior.unit)))


FIRST_IMAGE = """
const started = performance.now();
const { ok, error } = ask("open", { bytes: files[0].buffer });
const answer = ok ? ask("images", { first: 0, count: 1 }) : { error };
const seconds = (performance.now() - started) / 1000;
console.log(JSON.stringify({ seconds, said: answer.error ?? answer.faults[0] }));
"""


@pytest.mark.parametrize(("words", "n", "made"), [
    ("symbols at once", 8192, lambda: of_zeros(32, (2, 2), 0, 24)),
    ("symbols at once", 1, lambda: of_zeros(1024, (2,), 0, 8, groups=8)),  # turns take long
    ("multiply-adds of its model", 1, lambda: of_zeros(1024, (32,), 8, 1)),
    ("bytes of memory to compute its model", 1, lambda: of_zeros(2048, (18,), 0, 1)),
])  # fmt: skip
def test_what_a_map_would_cost_is_refused_before_it_is_spent(model, tmp_path, words, n, made):
    of_map = made()
    chunk = Chunk(0, n, 600, 0, 0, None, None, b"")
    path = tmp_path / "dear.cvae"
    path.write_bytes(of_map.archive([chunk], embed_model=True))
    found = in_session(FIRST_IMAGE, model, path)
    assert words in found["said"]
    assert "is the limit here" in found["said"]
    assert found["seconds"] < 2


def test_a_single_image_of_a_large_map_is_refused(model, tmp_path):
    """It would be a number of hundreds of thousands of bits."""
    of_map = of_zeros(384, (2,), 0, 1)
    head = b"\x89\x76\2" + of_map.identity.short + b"\x58\2"
    paths = [tmp_path / name for name in ("model.cvae", "one.cvae")]
    for path, data in zip(paths, (of_map.model_file(), head + bytes(500)), strict=True):
        path.write_bytes(data)
    script = """
ask("open", { bytes: files[0].buffer });
console.log(JSON.stringify(ask("open", { bytes: files[1].buffer })));
"""
    found = in_session(script, model, *paths)
    assert "symbols of a single image" in found["error"]


DAMAGED = """
import { MapPrior } from "./web/src/codec/coding/maps/prior.js";
import { IntegerDecoder } from "./web/src/codec/exact/decoder.js";
import { meter, NUMBERS } from "./web/src/codec/budget.js";
import { CodecError } from "./web/src/codec/errors.js";
const random = (n) => (random.state = (Math.imul(random.state ?? 1, 1103515245) + 12345) >>> 1) % n;
const counts = { read: 0, refused: 0, others: [] };
let slowest = 0;
for (const [Type, data] of [[MapPrior, files[0]], [IntegerDecoder, files[1]]]) {
  const tried = (bytes) => {
    const started = performance.now();
    try {
      new Type(bytes, meter(NUMBERS, 0), null);
      counts.read++;
    } catch (error) {
      if (error instanceof CodecError) counts.refused++;
      else counts.others.push(`${error}`);
    }
    slowest = Math.max(slowest, performance.now() - started);
  };
  for (let size = 0; size < data.length; size += 1 + random(9)) tried(data.subarray(0, size));
  for (let k = 0; k < 500; k++) {
    const changed = data.slice();
    for (let i = random(3); i >= 0; i--) {
      const at = random(random(2) ? 60 : changed.length);
      changed[at] = [0, 1, 127, 128, 255, random(256)][random(6)];
    }
    tried(changed);
  }
}
console.log(JSON.stringify({ ...counts, slowest }));
"""


def test_damaged_priors_and_decoders_are_refused_or_proved_exact(model, tmp_path):
    of_map = map_model()
    paths = [tmp_path / name for name in ("tables.bin", "decoder.bin")]
    for path, part in zip(paths, (of_map.tables, of_map.decoder), strict=True):
        path.write_bytes(part.to_bytes())
    found = in_session(DAMAGED, model, *paths)
    assert found["others"] == []
    assert found["refused"] > 500
    assert found["slowest"] < 500


def test_many_sizes_of_a_large_model_are_refused_before_they_are_spent(model, tmp_path):
    """For each, the weights are laid out anew."""
    of_map = of_zeros(64, (128,), 1, 4)
    chunks = [Chunk(0, 1, 600, 0, 0, None, None, b"", size=(1 + k % 9, 2)) for k in range(400)]
    path = tmp_path / "sizes.cvae"
    path.write_bytes(of_map.archive(chunks, embed_model=True))
    script = FIRST_IMAGE.replace("count: 1", "count: 400").replace("faults[0]", "faults.at(-1)")
    found = in_session(script, model, path)
    assert "multiply-adds of its model" in found["said"]
    assert found["seconds"] < 2
