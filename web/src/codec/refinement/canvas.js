/** Images while they are decoded, pixel by pixel, and what is known when it comes to each. */

const MARGIN = 4;
const CAUSAL_RUNS = [[-4, -1, 2], [-3, -2, 3], [-2, -3, 4], [-1, -3, 4], [0, -4, 0]];
const CAUSAL = CAUSAL_RUNS.flatMap(([row, low, high]) =>
  Array.from({ length: high - low }, (_, k) => [row, low + k]),
);
const AROUND = [-1, 0, 1].flatMap((row) => [-1, 0, 1].map((column) => [row, column]));
const BASE_STEP = 8;
const HIGH = 252;
const HIGH_BASE = 248;
const FULL = 255;
const ERROR_UNIT = 4;

const guess = (left, up, corner) => {
  const low = Math.min(left, up);
  const high = Math.max(left, up);
  return Math.min(Math.max(left + up - corner, low), high);
};

/** n images of a shape, black at first, and their bases: places are [channel, row, column, image]. */
export class Canvas {
  /** based: Uint8Array [n], whether each has a base; base: Uint8Array, of those that have. */
  constructor([h, w, channels], based, base, maxError) {
    const n = based.length;
    Object.assign(this, { h, w, channels, based, n, error: ERROR_UNIT * maxError });
    this._row = (w + 2 * MARGIN) * n;
    this._channel = (h + 2 * MARGIN) * this._row;
    this._pixels = new Uint8Array(channels * this._channel);
    this._base = new Uint8Array(channels * this._channel);
    let from = 0;
    based.forEach((has, image) => {
      if (!has) return;
      for (let y = 0; y < h; y++) {
        for (let x = 0; x < w; x++) {
          for (let channel = 0; channel < channels; channel++, from++) {
            this._base[this._at(channel, y, x) + image] = base[from] & -BASE_STEP;
          }
        }
      }
    });
    this._missed = channels > 1 ? new Int16Array(h * w * n) : null;
    this.expected = new Uint8Array(n);
    this._values = new Uint8Array((26 + 9 * channels) * n);
    this._telling = new Uint8Array(n);
  }

  _at(channel, row, column) {
    return channel * this._channel + (row + MARGIN) * this._row + (column + MARGIN) * this.n;
  }

  /** Goes to a place; sets `expected`, and returns the images whose neighbours are not all 0. */
  go(channel, row, column) {
    const { n, _pixels: pixels, _values: values } = this;
    const here = this._at(channel, row, column);
    this._here = here;
    let v = 0;
    const take = (from, at) => values.set(from.subarray(at, at + n), v++ * n);
    for (const [down, right] of CAUSAL) take(pixels, here + down * this._row + right * n);
    for (const [down, right] of AROUND) take(this._base, here + down * this._row + right * n);
    for (let earlier = 0; earlier < channel; earlier++) {
      const there = here + (earlier - channel) * this._channel;
      for (const [down, right] of AROUND) take(pixels, there + down * this._row + right * n);
    }
    this._telling.fill(0);
    for (let k = 0, at = 0; k < v; k++) for (let i = 0; i < n; i++, at++) this._telling[i] |= values[at];
    if (channel && !row && !column) this._miss(channel - 1);
    const telling = [];
    const missed = channel ? (row * this.w + column) * n : 0;
    for (let i = 0; i < n; i++) {
      const found = guess(pixels[here - n + i], pixels[here - this._row + i], pixels[here - this._row - n + i]);
      this.expected[i] = channel ? Math.min(Math.max(found + this._missed[missed + i], 0), 255) : found;
      if (this._telling[i]) telling.push(i);
    }
    return telling;
  }

  /** By how much the guess of a channel alone misses, of all its pixels. */
  _miss(channel) {
    const { n, _pixels: pixels } = this;
    for (let y = 0, to = 0; y < this.h; y++) {
      for (let x = 0; x < this.w; x++) {
        const at = this._at(channel, y, x);
        for (let i = at; i < at + n; i++, to++) {
          const up = i - this._row;
          this._missed[to] = pixels[i] - guess(pixels[i - n], pixels[up], pixels[up - n]);
        }
      }
    }
  }

  /** Puts the network's inputs of an image at this place into `out`, from `to` on. */
  inputs(image, out, to) {
    const { n, _values: values } = this;
    const count = values.length / n;
    const expected = this.expected[image];
    const based = this.based[image] ? FULL : 0;
    const zeros = to + count + 2;
    const highs = zeros + count;
    for (let v = 0, at = image; v < count; v++, at += n) {
      const value = values[at];
      const causal = v < CAUSAL.length;
      const ofBase = !causal && v < CAUSAL.length + AROUND.length;
      out[to + v] = causal ? value - expected : value;
      out[zeros + v] = value === 0 ? (ofBase ? based : FULL) : 0;
      out[highs + v] = value >= (ofBase ? HIGH_BASE : HIGH) ? FULL : 0;
    }
    out[to + count] = expected;
    out[to + count + 1] = this.error;
    out[highs + count] = based;
  }

  /** As `inputs`, of an image whose neighbours are all 0. */
  silent(based, out, to) {
    const count = this._values.length / this.n;
    out.fill(0, to, to + 3 * count + 3);
    out[to + count + 1] = this.error;
    out.fill(FULL, to + count + 2, to + 2 * count + 2);
    if (!based) out.fill(0, to + count + 2 + CAUSAL.length, to + count + 2 + CAUSAL.length + AROUND.length);
    out[to + 3 * count + 2] = based ? FULL : 0;
  }

  /** Sets the level of an image at this place. */
  put(image, level) {
    this._pixels[this._here + image] = level;
  }

  /** Copies an image to where it belongs in `out`, [H, W, C] from `to` on. */
  copy(image, out, to) {
    for (let y = 0; y < this.h; y++) {
      for (let x = 0; x < this.w; x++) {
        for (let channel = 0; channel < this.channels; channel++, to++) {
          out[to] = this._pixels[this._at(channel, y, x) + image];
        }
      }
    }
  }
}
