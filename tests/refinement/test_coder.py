"""Images come back from their stream: identical, or within the largest error, whatever they are."""

import numpy as np
import pytest
from conftest import RELEASED, ROOT, synthetic_tables
from context_samples import KINDS, images, mixed, random_model, trained

from cvae_jax import codec, data
from cvae_jax.bitstream.records import ALONE, BASED, MAX_ERROR, RAW
from cvae_jax.errors import ConfigError, FormatError
from cvae_jax.refinement import coder, encoder, grid
from cvae_jax.refinement.canvas import near
from cvae_jax.refinement.encoder import Base

SHAPES = [(12, 10, 1), (9, 7, 3), (5, 3, 2), (1, 1, 1)]
ERRORS = [0, 1, 4, MAX_ERROR]


def coded(model, some, base, modes, max_error):
    """The coding and the stream of images."""
    modelled, based = modes != RAW, modes == BASED
    seen = np.where(based[:, None, None, None], base, 0)[modelled]
    made = near(some[modelled], max_error)
    coding = coder.coding(model, made, seen, based[modelled], max_error)
    return coding, coder.encode(coding, some[~modelled], max_error)


def decoded(model, stream, base, modes, max_error):
    return coder.decode(stream, modes, base[modes == BASED], max_error, model)


def round_trip(model, some, base, modes, max_error):
    _, stream = coded(model, some, base, modes, max_error)
    return decoded(model, stream, base, modes, max_error)


@pytest.mark.parametrize("max_error", ERRORS)
@pytest.mark.parametrize("shape", SHAPES)
def test_all_modes_in_one_chunk_come_back(shape, max_error):
    some, base, modes = mixed(shape)
    out = round_trip(random_model(shape), some, base, modes, max_error)
    assert np.abs(out.astype(int) - some).max() <= max_error
    raw = modes == RAW
    np.testing.assert_array_equal(out[~raw], near(some, max_error)[~raw])
    np.testing.assert_array_equal(out[raw], coder.evenly(some[raw], max_error))
    if max_error == 0:
        np.testing.assert_array_equal(out, some)


@pytest.mark.parametrize("mode", [RAW, ALONE, BASED])
@pytest.mark.parametrize("n", [0, 1, 2])
def test_chunks_of_few_images_of_one_mode(n, mode):
    shape = (9, 7, 3)
    some, modes = images("smooth", n, shape), np.full(n, mode, np.uint8)
    for max_error in (0, 4):
        out = round_trip(random_model(shape), some, some, modes, max_error)
        assert out.shape == (n, *shape)
        assert np.abs(out.astype(int) - some).max(initial=0) <= max_error


@pytest.mark.parametrize("kind", KINDS)
def test_no_images_are_too_odd_for_a_model_that_has_learnt_others(kind):
    model = trained()[-1]
    some = images(kind, 3, model.image_shape)
    for mode in (ALONE, BASED):
        modes = np.full(3, mode, np.uint8)
        np.testing.assert_array_equal(round_trip(model, some, 255 - some, modes, 0), some)


def test_the_stream_is_as_long_as_its_bits():
    model = trained()[-1]
    some, base, modes = mixed(model.image_shape)
    modes[modes == RAW] = BASED
    for max_error in (0, 4):
        coding, stream = coded(model, some, base, modes, max_error)
        assert abs(8 * len(stream) - coder.bits(coding).sum()) < 64


@pytest.mark.parametrize("max_error", [0, 4])
def test_what_an_image_costs_does_not_depend_on_the_others(max_error):
    shape = (9, 7, 3)
    model = random_model(shape)
    some, base, modes = mixed(shape)
    based = modes == BASED
    base[~based] = 0
    made = near(some, max_error)
    together = coder.coding(model, made, base, based, max_error)
    for k in range(len(some)):
        one = np.array([k])
        alone = coder.coding(model, made[one], base[one], based[one], max_error)
        for field, own in zip(together.take(one), alone, strict=True):
            np.testing.assert_array_equal(field, own)


@pytest.mark.parametrize("block", [1, 40, 150])
def test_how_many_places_are_coded_at_once_changes_nothing(monkeypatch, block):
    model = random_model((9, 7, 3))
    some, base, modes = mixed(model.image_shape)
    whole = coded(model, some, base, modes, 4)
    monkeypatch.setattr(coder, "BLOCK", block)
    assert coded(model, some, base, modes, 4)[1] == whole[1]


@pytest.mark.parametrize("max_error", ERRORS)
def test_cells_partition_the_levels(max_error):
    levels = np.arange(256, dtype=np.uint8)
    for expected in range(256):
        cells = grid.Grid(np.full(256, expected, np.uint8), max_error)
        cell = cells.cell(levels)
        assert 0 <= cell.min() <= cell.max() < cells.cells
        assert (np.diff(cell) >= 0).all()
        assert np.abs(cells.level(cell).astype(int) - levels).max() <= max_error
        assert cell[expected] == cells.of_expected[0]
        assert cells.level(cell)[expected] == expected
        sums = cells.sums(np.ones((256, 256), np.float32))
        assert sums.sum(1).tolist() == [256] * 256
        np.testing.assert_array_equal(sums[0], np.bincount(cell, minlength=cells.cells))


def test_only_whole_errors_in_range_are_possible():
    for good in (0, MAX_ERROR, np.int64(4)):
        grid.checked(good)
    for bad in (-1, MAX_ERROR + 1, 0.5, "4", None, True):
        with pytest.raises(ConfigError, match="whole number of grey levels from 0 to 63"):
            grid.checked(bad)


@pytest.mark.parametrize("max_error", [0, 4])
def test_other_streams_are_refused_or_other_images(max_error):
    """Changed, cut, lengthened; and nothing that is no stream at all."""
    model = random_model((9, 7, 3))
    some, base, modes = mixed(model.image_shape)
    _, stream = coded(model, some, base, modes, max_error)
    rng = np.random.default_rng(0)
    changed = [stream[:-1], stream[4:], stream[:-4], stream + bytes(4), b"", stream + stream]
    for _ in range(20):
        flipped = bytearray(stream)
        flipped[rng.integers(len(stream))] ^= 1 << rng.integers(8)
        changed.append(bytes(flipped))
    refused = 0
    for other in changed:
        try:
            out = decoded(model, other, base, modes, max_error)
        except FormatError:
            refused += 1
            continue
        assert not np.array_equal(out, some)
    assert refused > 15


def test_an_image_that_its_base_makes_worse_goes_alone():
    c = codec.load(RELEASED)
    names = sorted((ROOT / "examples" / "digits").glob("*.png"))
    some = np.stack([data.read_image(name, channels=1) for name in names])
    symbols, step = c.encode_symbols(some)
    levels = c.decode_symbols(symbols, step)
    levels[5:] = 255 - levels[5:]  # of these, what the network expects is the opposite
    context = c.file_model.context
    chunk = encoder.chunk(some, Base(symbols, step, levels), c.tables, context, 0)
    modes = chunk.refinement.modes
    assert set(modes[5:]) == {ALONE}
    assert BASED in modes[:5]
    bits = encoder.bits(
        some[5:], Base(symbols, step, levels).take(slice(5, 10)), c.tables, context, 0
    )
    assert (encoder.bits(some[5:], None, c.tables, context, 0) < bits).all()
    decoded = coder.decode(chunk.refinement.stream, modes, chunk.base.levels, 0, context)
    np.testing.assert_array_equal(decoded, some)


def test_a_bound_that_the_model_cannot_use_takes_no_more_than_a_tighter_one():
    """Steep waves, which no digits are: at 20 levels, what is coded already says little."""
    c = codec.load(RELEASED)
    rows, columns = np.indices((28, 28))
    some = np.stack([127 + 120 * np.sin(rows / k + columns / 3) for k in (2, 3, 4)])
    some = some.astype(np.uint8)[..., None]
    sizes = [len(c.compress(some, max_error=bound)) for bound in (encoder.TIGHTER, 20)]
    assert sizes[1] <= sizes[0]


def test_an_encoder_takes_what_is_smallest():
    """Noise goes raw, and what costs no more than its raw pixels does not."""
    model = trained()[-1]
    tables = synthetic_tables(components=2, latent_dim=3)
    smooth, noise = (images(kind, 4, model.image_shape) for kind in ("black", "noise"))
    some = np.concatenate([smooth, noise])
    base = Base(np.zeros((8, 3), np.int32), 300, np.concatenate([smooth, noise[::-1]]))
    chunk = encoder.chunk(some, base, tables, model, 0)
    assert set(chunk.refinement.modes[4:]) == {RAW}
    np.testing.assert_array_equal(chunk.images, some)
    assert len(chunk.base.symbols) == (chunk.refinement.modes == BASED).sum()
    raw_size = noise.size
    assert len(chunk.refinement.stream) < raw_size * 1.02 + 8
    without = encoder.chunk(some, None, tables, model, 0)
    assert not (without.refinement.modes == BASED).any()
    assert len(without.base.symbols) == 0


def test_chunks_are_of_about_the_same_size():
    for n, values in ((1, 784), (5000, 784), (10_000, 1), (3, 10**7)):
        size = encoder.chunk_images(values, n)
        most = max(encoder.CHUNK_VALUES // values, 1)
        assert 1 <= size <= most
        sizes = [min(size, n - at) for at in range(0, n, size)]
        assert max(sizes) - min(sizes) < len(sizes)
        assert encoder.chunk_images(values) >= size
