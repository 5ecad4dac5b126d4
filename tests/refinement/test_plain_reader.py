"""docs/FORMAT.md alone suffices for refined files too: a reader in plain Python, written from it.

Nothing of the package is imported, and of NumPy only what loads the expected pixels.
"""

import bisect
import hashlib
import importlib.util
import itertools
import struct
import zlib

import numpy as np
from conftest import ROOT

GOLDEN = ROOT / "tests" / "golden"
T = 2**24
OFFSETS = [(r, c) for r, a, b in ((-4, -1, 1), (-3, -2, 2), (-2, -3, 3), (-1, -3, 3), (0, -4, -1))
           for c in range(a, b + 1)]  # fmt: skip
AROUND = list(itertools.product((-1, 0, 1), repeat=2))

_spec = importlib.util.spec_from_file_location(
    "plain_format", ROOT / "tests" / "exact" / "test_format.py"
)
plain = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(plain)  # packed integers, tables and the integer decoder, as plain


def powers():
    text = (ROOT / "docs" / "FORMAT.md").read_text()
    numbers = text.split("<!-- powers -->\n```\n")[1].split("\n```")[0].split()
    return [int(n) for n in numbers]


POWERS = powers()


def weight(d):
    d = max(d, 0)
    return POWERS[d % 16] >> (d // 16) if d < 256 else 0


class Ans:
    def __init__(self, stream):
        assert len(stream) % 4 == 0
        self.words, self.x = list(struct.unpack(f"<{len(stream) // 4}I", stream)), 0
        assert not self.words or self.words[-1]
        for _ in range(2):
            self.refill()

    def refill(self):
        if self.x < 2**32 and self.words:
            self.x = self.x << 32 | self.words.pop()

    def take(self, c):
        slot = self.x % T
        i = bisect.bisect_right(c, slot) - 1
        self.x = (self.x >> 24) * (c[i + 1] - c[i]) + slot - c[i]
        self.refill()
        return i

    def end(self):
        assert (self.x, self.words) == (0, [])


class Context:
    """A ``context.bin``."""

    def __init__(self, data):
        magic, version, *shape, h1, h2, _, _ = struct.unpack_from("<4sB3HHHBf", data)
        assert (magic, version) == (b"CVCX", 1)
        packed = plain.Packed(data, 20)
        self.shape, sizes = shape, (h1, h2, 513)
        self.bits = packed.take(2)
        self.places = [rows(packed.take(n * h1), h1) for n in shape]
        v = 26 + 9 * shape[2]
        self.layers = []
        for m, n in zip((3 * v + 3, h1, h2), sizes, strict=True):
            shift, bias = packed.take(n), packed.take(n)
            self.layers.append((shift, bias, rows(packed.take(n * m), m)))
        assert packed.at == len(data)
        self.digest = hashlib.sha256(data).digest()

    def logits(self, x, place):
        of_place = [part[i] for part, i in zip(self.places, place, strict=True)]
        added = [sum(numbers) for numbers in zip(*of_place, strict=True)]
        for k, (shift, bias, weights) in enumerate(self.layers):
            sums = [
                b + sum(w * i for w, i in zip(row, x, strict=True) if i)
                for b, row in zip(bias, weights, strict=True)
            ]
            if k == 0:
                sums = [s + a for s, a in zip(sums, added, strict=True)]
            x = [s >> by for s, by in zip(sums, shift, strict=True)]
            if k < 2:
                x = [min(max(s, 0), (1 << self.bits[k]) - 1) for s in x]
        return x


def rows(flat, width):
    return [flat[i : i + width] for i in range(0, len(flat), width)]


class Grid:
    def __init__(self, expected, error):
        self.error, self.pitch = error, 2 * error + 1
        self.of_expected = (expected + error) // self.pitch
        self.lowest = expected - self.pitch * self.of_expected
        self.cells = (255 + 2 * error) // self.pitch + 1

    def level(self, i):
        return min(max(self.lowest + self.pitch * i, 0), 255)

    def levels(self, i):
        middle = self.lowest + self.pitch * i
        return range(max(middle - self.error, 0), min(middle + self.error, 255) + 1)


class Image:
    """One image while it is decoded; base: its pixels, or None."""

    def __init__(self, shape, base):
        self.shape, self.base, self.pixels = shape, base, {}

    def at(self, row, column, channel):
        return self.pixels.get((row, column, channel), 0)

    def of_base(self, row, column, channel):
        h, w, channels = self.shape
        if self.base is None or not (0 <= row < h and 0 <= column < w):
            return 0
        return self.base[(row * w + column) * channels + channel] // 8 * 8

    def guess(self, r, c, k):
        left, up, corner = self.at(r, c - 1, k), self.at(r - 1, c, k), self.at(r - 1, c - 1, k)
        return min(max(left + up - corner, min(left, up)), max(left, up))

    def distribution(self, model, place, error):
        """Expected level's cell, its frequency, the weights of all cells, the grid."""
        r, c, k = place
        expected = self.guess(r, c, k)
        if k:
            miss = self.at(r, c, k - 1) - self.guess(r, c, k - 1)
            expected = min(max(expected + miss, 0), 255)
        causal = [self.at(r + i, c + j, k) for i, j in OFFSETS]
        base = [self.of_base(r + i, c + j, k) for i, j in AROUND]
        earlier = [
            self.at(r + i, c + j, e) if e < k else 0
            for e in range(self.shape[2] - 1)
            for i, j in AROUND
        ]
        based = self.base is not None
        x = [level - expected for level in causal] + base + earlier + [expected, 4 * error]
        zero = [v == 0 for v in causal] + [based and v == 0 for v in base]
        high = [v >= 252 for v in causal] + [v >= 248 for v in base]
        marks = [*zero, *(v == 0 for v in earlier), *high, *(v >= 252 for v in earlier), based]
        hit, *logits = model.logits(x + [255 * mark for mark in marks], place)
        hit = 1 + weight(-hit) * (T - 2) // (weight(-hit) + weight(hit))
        total = [logits[v] + logits[256 + (v - expected) % 256] for v in range(256)]
        largest = max(total[v] for v in range(256) if v != expected)
        of_level = [0 if v == expected else weight(largest - total[v]) for v in range(256)]
        grid = Grid(expected, error)
        w = [sum(of_level[v] for v in grid.levels(i)) for i in range(grid.cells)]
        of_cell = hit + w[grid.of_expected] * (T - 1 - hit) // sum(w)
        w[grid.of_expected] = 0
        return grid, of_cell, w if any(w) else [1] * grid.cells


def refined(stream, modes, bases, error, model):
    """The pixels of images, bytes each; bases: those of mode 2, in order."""
    ans, bases, (h, w, channels) = Ans(stream), iter(bases), model.shape
    images = [Image(model.shape, next(bases) if mode == 2 else None) for mode in modes]
    raw = [image for image, mode in zip(images, modes, strict=True) if mode == 0]
    modelled = [image for image, mode in zip(images, modes, strict=True) if mode != 0]
    for k, r, c in itertools.product(range(channels), range(h), range(w)):
        place, missed = (r, c, k), []
        for image in modelled:
            grid, hit, weights = image.distribution(model, place, error)
            if ans.take([0, hit, T]):
                missed.append((image, grid, weights))
            else:
                image.pixels[place] = grid.level(grid.of_expected)
        for image, grid, weights in missed:
            sums = [0, *itertools.accumulate(weights)]
            cumulative = [s * (T - grid.cells) // sums[-1] + i for i, s in enumerate(sums)]
            image.pixels[place] = grid.level(ans.take(cumulative))
        even = Grid(0, error)
        for image in raw:
            cumulative = [i * T // even.cells for i in range(even.cells + 1)]
            image.pixels[place] = even.level(ans.take(cumulative))
    ans.end()
    order = list(itertools.product(range(h), range(w), range(channels)))
    return [bytes(image.pixels[place] for place in order) for image in images]


def symbols_of(stream, n, step, tables):
    """Symbols of n images from a chunk's stream, none of which is an escape."""
    k, d, weights, row = plain.rows_of(tables)
    ans = Ans(stream)
    sums = [0, *itertools.accumulate(weights)]
    component = [ans.take(sums) if k > 1 else 0 for _ in range(n)]
    order = sorted(range(n), key=lambda i: component[i])
    out = [[0] * d for _ in range(n)]
    for j in range(d):
        for i in order:
            first, cumulative = row(component[i] * d + j, step)
            index = ans.take(cumulative)
            assert index < len(cumulative) - 2, "an escape, which these images have not"
            out[i][j] = first + index
    ans.end()
    return out


def units_of(tables, d):
    return tables[23 : 23 + 4 * d]


def packed_symbols(symbols):
    return b"".join(struct.pack(f"<{len(s)}i", *s) for s in symbols)


def parts_of(archive):
    """``tables.bin``, ``decoder.bin`` and ``context.bin`` of an archive."""
    tables, decoder = plain.model_of(archive)
    at = 68 + 4 + len(tables) + 4 + len(decoder)
    (length,) = struct.unpack_from("<I", archive, at)
    assert struct.unpack_from("<I", archive, 64)[0] == at + 4 + length - 68
    return tables, decoder, archive[at + 4 : at + 4 + length]


def chunks_of(archive):
    """The bodies of its chunks."""
    (offset,) = struct.unpack_from("<Q", archive, len(archive) - 16)
    (n,) = struct.unpack_from("<I", archive, offset + 4)
    index = archive[offset + 8 : offset + 8 + n]
    for at in range(68, n, 16):
        start, length, _ = struct.unpack_from("<QII", index, at)
        assert archive[start : start + 4] == b"CHNK"
        yield archive[start + 8 : start + length - 4]


ARCHIVE = (GOLDEN / "v2_refined.cvae").read_bytes()
TABLES, DECODER, CONTEXT = parts_of(ARCHIVE)
MODEL = Context(CONTEXT)


def base_of(symbols, step):
    return plain.pixels_of(symbols, step, DECODER, units_of(TABLES, len(symbols)))


def test_the_golden_context_model_is_the_archives():
    assert (GOLDEN / "v2_refined_context.bin").read_bytes() == CONTEXT


def test_a_plain_reader_decodes_a_refined_archive():
    found = b""
    for body in chunks_of(ARCHIVE):
        _, count, step, flags, symbol_crc, pixel_crc, n, m = struct.unpack_from("<QIHBIIII", body)
        assert flags & 4
        at = 31 + n + m
        error, digest, crc, a, b = struct.unpack_from("<B16sIII", body, at)
        assert digest == MODEL.digest[:16]
        at += 29
        modes, stream = zlib.decompress(body[at : at + a]), body[at + a : at + a + b]
        assert len(modes) == count
        assert set(modes) == {0, 1, 2}
        symbols = symbols_of(body[at + a + b :], modes.count(2), step, TABLES)
        assert plain.crc32c(packed_symbols(symbols)) == symbol_crc
        bases = [base_of(s, step) for s in symbols]
        assert plain.crc32c(b"".join(bases)) == pixel_crc
        images = b"".join(refined(stream, modes, bases, error, MODEL))
        assert plain.crc32c(images) == crc
        found += images
    assert found == np.load(GOLDEN / "v2_refined.npz")["images"].tobytes()


def test_a_plain_reader_decodes_a_refined_image():
    data = (GOLDEN / "v2_refined_single.cvae").read_bytes()
    magic, version, short, step, context, error, mode, p = struct.unpack_from("<2sB3sH3sBBH", data)
    assert (magic, version, mode) == (b"\x89w", 2, 2)
    names = hashlib.sha256(DECODER).digest()[:16] + hashlib.sha256(TABLES).digest()[:16]
    assert short == hashlib.sha256(names).digest()[:3]
    assert context == MODEL.digest[:3]
    alike = data[:8] + data[15 : 15 + p] + bytes(4)  # a plain image of the same payload
    symbols, found, _ = plain.symbols_of(alike, TABLES)
    assert found == step
    base = base_of(symbols, step)
    (image,) = refined(data[15 + p : -4], [mode], [base], error, MODEL)
    checked = data[:-4] + packed_symbols([symbols]) + base + image
    assert struct.pack("<I", plain.crc32c(checked)) == data[-4:]
    assert image == np.load(GOLDEN / "v2_refined.npz")["single"].tobytes()
