"""The other codecs: what each encodes comes back, and each dial does something."""

import numpy as np
import pytest
from conftest import ROOT

from cvae_jax import data, metrics
from cvae_jax.data.image_files import sheet
from cvae_jax.study import classical, lossless

pytest.importorskip("imagecodecs")

IMAGES = np.stack([data.read_image(p) for p in data.list_images(ROOT / "examples" / "digits")])
COLOUR = np.repeat(IMAGES, 3, axis=3)
COLOUR[..., 0] //= 2


def error(a, b):
    return np.mean((a.astype(float) - b) ** 2) / 255**2


@pytest.mark.parametrize("images", [IMAGES, COLOUR], ids=["grey", "colour"])
def test_every_dial_trades_bytes_for_error(images):
    """A flat line would be a fault of ours: a level that is ignored, a codec that is lossless."""
    curves = {}
    whole = sheet(images)
    for setting in classical.settings(images.shape[3]):
        content = setting.encode(whole)
        decoded = classical.cut(setting.decode(content), images.shape)
        assert decoded.shape == images.shape
        assert decoded.dtype == np.uint8
        assert setting.bound is None
        curves.setdefault(setting.codec, []).append((len(content), error(decoded, images)))
    jpegs = {"JPEG", "AVIF"}
    if images is COLOUR:
        jpegs = {f"{codec} {of}" for codec in jpegs for of in ("4:4:4", "4:2:0")}
    assert set(curves) == {*jpegs, "WebP", "JPEG XL", "JPEG 2000"}
    for codec, points in curves.items():
        sizes, errors = zip(*sorted(points), strict=True)
        assert len(set(sizes)) >= len(points) - 1, codec
        assert min(errors) > 0, codec
        assert errors[0] > 3 * errors[-1], codec


@pytest.mark.parametrize("images", [IMAGES, COLOUR], ids=["grey", "colour"])
def test_what_a_codec_promises_of_every_pixel_is_kept_and_used(images):
    whole = sheet(images)
    errors = {}
    for setting in lossless.settings(images.shape[3]):
        decoded = classical.cut(setting.decode(setting.encode(whole)), images.shape)
        largest = metrics.largest_error(decoded, images)
        assert largest <= setting.bound, (setting.codec, setting.label)
        errors.setdefault(setting.codec, {})[setting.bound] = largest
    assert set(errors) == {"PNG", "WebP", "JPEG XL", "JPEG 2000", "QOI", "JPEG-LS", "LERC"}
    assert errors["JPEG-LS"] == {bound: bound for bound in lossless.BOUNDS}


def test_colours_are_at_half_resolution_where_that_is_said_and_only_there():
    """Stripes of one pixel, of two colours of equal brightness, are lost at half resolution."""
    stripes = np.zeros((1, 32, 32, 3), np.uint8)
    stripes[:, :, ::2], stripes[:, :, 1::2] = (200, 80, 80), (80, 132, 141)
    assert np.ptp(metrics.luma(stripes)) < 0.01
    for setting in classical.settings(3):
        codec, _, sampling = setting.codec.partition(" 4:")
        if sampling and setting.label in ("quality 80", "quality 45"):
            decoded = setting.decode(setting.encode(stripes[0]))
            contrast = np.abs(decoded[:, ::2, 0].astype(int) - decoded[:, 1::2, 0]).mean()
            assert (contrast > 60) == (sampling == "4:4"), (codec, sampling, contrast)


def test_sheets():
    for n in (1, 3, 4, 10):
        assert np.array_equal(classical.cut(sheet(IMAGES[:n]), IMAGES[:n].shape), IMAGES[:n])
    assert np.array_equal(sheet(IMAGES)[28:56, 28:56], IMAGES[5])


@pytest.mark.parametrize("images", [IMAGES, COLOUR], ids=["grey", "colour"])
def test_only_what_a_reader_can_put_back_is_stripped(images):
    for setting in classical.settings(images.shape[3]):
        files = [setting.encode(image) for image in images]
        payload = classical.payload_sizes(setting.codec, files)
        if setting.codec.startswith(("AVIF", "JPEG XL")):
            assert payload is None
        else:
            assert all(0 < p < len(f) for p, f in zip(payload, files, strict=True)), setting
    assert classical.payload_sizes("WebP", [b"RIFF, or not" + bytes(20)]) is None


def test_streams_are_those_of_the_standard_library():
    import bz2
    import gzip
    import lzma

    raw = IMAGES.tobytes()
    for name, library in (("xz", lzma), ("bzip2", bz2), ("gzip", gzip)):
        content = lossless.STREAMS[name].compress(raw)
        assert library.decompress(content) == lossless.STREAMS[name].decompress(content) == raw
    for stream in lossless.streams().values():
        assert stream.decompress(stream.compress(raw)) == raw
