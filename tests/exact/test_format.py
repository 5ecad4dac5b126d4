"""docs/FORMAT.md alone suffices: a reader of one image in plain Python, written from it.

Nothing of the package is imported, and of NumPy only what loads the expected pixels.
"""

import bisect
import hashlib
import itertools
import struct

import numpy as np
from conftest import ROOT

GOLDEN = ROOT / "tests" / "golden"


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
    return crc ^ 0xFFFFFFFF


class Packed:
    def __init__(self, data, at):
        self.data, self.at = data, at

    def take(self, count):
        low, m, p, w = struct.unpack_from("<iHBI", self.data, self.at)
        self.at += 11
        weights = [
            b + 1 if b < 8 else (b % 8 + 9) << (b // 8 - 1)
            for b in self.data[self.at : self.at + m]
        ]
        self.at += m
        words = list(struct.unpack_from(f"<{w}I", self.data, self.at))
        self.at += 4 * w
        sums = [0, *itertools.accumulate(weights)]
        cumulative = [s * (2**24 - m) // sums[m] + i for i, s in enumerate(sums)]
        x = 0

        assert words[-1:] != [0]
        while x < 2**32 and words:
            x = x << 32 | words.pop()

        def index_of(c):
            nonlocal x
            slot = x % 2**24
            i = bisect.bisect_right(c, slot) - 1
            x = (x >> 24) * (c[i + 1] - c[i]) + slot - c[i]
            if x < 2**32 and words:
                x = x << 32 | words.pop()
            return i

        high = [index_of(cumulative) if m > 1 else 0 for _ in range(count)]
        uniform = [i << (24 - p) for i in range(2**p + 1)]
        plain = [index_of(uniform) if p else 0 for _ in range(count)]
        assert (x, words) == (0, [])
        return [low + (i << p) + j for i, j in zip(high, plain, strict=True)]


def model_of(archive):
    """``tables.bin`` and ``decoder.bin`` of an archive that carries its model."""
    assert archive[:9] == b"\x89CVAE\r\n\x1a\x02"
    assert archive[9] == 1
    assert archive[60:64] == b"MODL"
    parts, at = [], 68
    for _ in range(2):
        (length,) = struct.unpack_from("<I", archive, at)
        parts.append(archive[at + 4 : at + 4 + length])
        at += 4 + length
    tables, decoder = parts
    assert hashlib.sha256(decoder).digest()[:16] == archive[24:40]
    assert hashlib.sha256(tables).digest()[:16] == archive[40:56]
    return tables, decoder


def rows_of(data):
    """Of a ``tables.bin``: K, D, the weights, and first symbol and sums of a row at a step."""
    _, version, k, d, _, mean_shift, p = struct.unpack_from("<4sHHIdBH", data)
    assert version == 2
    packed = Packed(data, 23 + 4 * d)
    weights, means, palette = packed.take(k), packed.take(k * d), packed.take(p)
    widths = [palette[i] for i in packed.take(k * d)]
    curve = [0, *itertools.accumulate(packed.take(256))]

    def row(which, step):
        mean, width = means[which] << mean_shift, widths[which]

        def below(x):
            cell, within = divmod((x - mean) * 256, width)
            if cell < -128:
                return 0
            if cell >= 128:
                return curve[256]
            c = cell + 128
            return curve[c] + (curve[c + 1] - curve[c]) * within // width

        reach = -(-128 * width // 256)
        first = (mean - reach + step // 2) // step
        n = (mean + reach + step // 2) // step - first + 1
        raw = [below((first + i) * step - step // 2) for i in range(n + 1)]
        raw.append(curve[256])
        return first, [r * (2**24 - n - 1) // curve[256] + i for i, r in enumerate(raw)]

    return k, d, weights, row


def symbols_of(image, data):
    """Symbols and step of a single image's file, by a ``tables.bin``."""
    _, d, weights, row = rows_of(data)
    (step,) = struct.unpack_from("<H", image, 6)
    payload = image[8:-4]
    position, width = int.from_bytes(payload, "big"), 256 ** len(payload)

    def take(c):
        nonlocal position, width
        i = bisect.bisect_right(c, (position << 24) // width) - 1
        position = (position << 24) - c[i] * width
        width *= c[i + 1] - c[i]
        return i

    component, symbols = take([0, *itertools.accumulate(weights)]), []
    for j in range(d):
        first, sums = row(component * d + j, step)
        i = take(sums)
        assert i < len(sums) - 2, "an escape, which this image has not"
        symbols.append(first + i)
    return symbols, step, data[23 : 23 + 4 * d]


def pixels_of(symbols, step, data, units):
    """The bytes of an image, by a ``decoder.bin``."""
    head = struct.unpack_from("<4sBHHHIIBBI", data)
    magic, version, height, width, image_channels, d, used_count, stages, input_shift, check = head
    assert magic == b"CVID"
    assert version in (1, 2)
    assert crc32c(units) == check
    blocks = data[25] if version == 2 else 0
    packed = Packed(data, 24 + version)
    filters, bits = packed.take(stages), packed.take(1 + 2 * blocks + stages + 1)
    used = list(itertools.accumulate(packed.take(used_count)))
    limits = packed.take(used_count)
    thresholds = list(itertools.accumulate(packed.take(255)))
    sizes = [(height, width)]
    for _ in range(stages):
        h, w = sizes[-1]
        sizes.append((-(-h // 2), -(-w // 2)))
    smallest, top = sizes[-1], filters[-1]
    # Kind, sizes and channels of each layer, before and after.
    kind, before = ("dense", (1, 1)) if version == 1 else ("same", smallest)
    layers = [(kind, before, smallest, used_count, top)]
    layers += [(kind, smallest, smallest, top, top) for kind in ["same", "skip"] * blocks]
    channels = [top, *filters[::-1]]
    for i in range(stages):
        layers.append(("up", sizes[stages - i], sizes[stages - i - 1], *channels[i : i + 2]))
    layers.append(("same", sizes[0], sizes[0], channels[-1], image_channels))

    places = smallest[0] * smallest[1] if version == 2 else 1
    assert len(symbols) == places * d
    x = []
    for place in range(places):
        for latent, limit in zip(used, limits, strict=True):
            a = (symbols[place * d + latent] * step + (1 << input_shift >> 1)) >> input_shift
            x.append(min(max(a, -limit), limit))
    before = None
    for k, (kind, (h, w), (H, W), c_in, c) in enumerate(layers):
        outputs = c * H * W if kind == "dense" else c
        shift, grains = packed.take(c), packed.take(outputs)
        bias = [g << max(shift[j % c] - 3, 0) for j, g in enumerate(grains)]
        skip = packed.take(c) if kind == "skip" else None
        weights = packed.take((c_in if kind == "dense" else 9 * c_in) * outputs)
        if kind == "dense":
            sums = bias
            for i, a in enumerate(x):
                sums = [s + a * v for s, v in zip(sums, weights[i * outputs :], strict=False)]
        else:
            r = 2 if kind == "up" else 1
            top, left = max((h - 1) * r + 3 - H, 0) // 2, max((w - 1) * r + 3 - W, 0) // 2
            sums = bias * (H * W)
            at_each = itertools.product(range(h), range(w), range(c_in))
            for (y, z, a), v in zip(at_each, x, strict=True):
                for i, j in itertools.product(range(3), range(3)):
                    to_y, to_z = r * y + i - top, r * z + j - left
                    if v and 0 <= to_y < H and 0 <= to_z < W:
                        at, tap = (to_y * W + to_z) * c, ((i * 3 + j) * c_in + a) * c
                        for f in range(c):
                            sums[at + f] += v * weights[tap + f]
        if kind == "skip":
            sums = [s + before[j] * skip[j % c] for j, s in enumerate(sums)]
        if k == len(layers) - 1:
            assert packed.at == len(data)
            return bytes(
                bisect.bisect_right(thresholds, s >> shift[j % c]) for j, s in enumerate(sums)
            )
        highest = (1 << bits[k]) - 1
        before, x = x, [min(max(s >> shift[j % c], 0), highest) for j, s in enumerate(sums)]


def test_a_plain_reader_decodes_the_released_models_image():
    tables, decoder = model_of((GOLDEN / "v2_mnist.cvae").read_bytes())
    image = (GOLDEN / "v2_mnist_single.cvae").read_bytes()
    assert image[:3] == b"\x89v\x02"
    names = hashlib.sha256(decoder).digest()[:16] + hashlib.sha256(tables).digest()[:16]
    assert image[3:6] == hashlib.sha256(names).digest()[:3]
    symbols, step, units = symbols_of(image, tables)
    pixels = pixels_of(symbols, step, decoder, units)
    checked = image[:-4] + struct.pack(f"<{len(symbols)}i", *symbols) + pixels
    assert struct.pack("<I", crc32c(checked)) == image[-4:]
    expected = np.load(GOLDEN / "v2_mnist.npz")
    assert symbols == expected["symbols"][3].tolist()
    assert pixels == expected["pixels"][3].tobytes()
