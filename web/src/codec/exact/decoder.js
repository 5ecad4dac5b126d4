import { u16, u32 } from "../bytes.js";
import { EXACT, MAX_SHIFT, requireExact } from "../coding/integers/layers.js";
import { Packed } from "../coding/integers/packing.js";
import { FormatError } from "../errors.js";
import { checkArchitecture, evenSize, layersOf, sizesOf } from "./architecture.js";

/** The integer decoder as numbers (docs/FORMAT.md); `typed` and `wasm` compute it. */

const LEVELS = 255; // thresholds
const MAX_SPAN = 1 << 16;
const DENSE = 1; // versions, of decoders of a vector and of a map
const MAP = 2;
const HEADER = 25; // bytes; of a map, one more
const WHAT = "an integer decoder";

export class IntegerDecoder {
  /** spend: as for `Packed`.  Throws FormatError for bytes that are no decoder, or could overflow. */
  constructor(data, spend) {
    const magic = String.fromCharCode(...data.subarray(0, 4));
    this.isMap = data[4] === MAP;
    const header = HEADER + this.isMap;
    if (data.length < header || magic !== "CVID" || (data[4] !== DENSE && !this.isMap)) {
      throw new FormatError(`${WHAT}: none, or of a newer version`);
    }
    this.shape = [5, 7, 9].map((at) => u16(data, at));
    this.atPlace = u32(data, 11);
    const used = u32(data, 15);
    const stages = data[19];
    this.inputShift = data[20];
    this.unitsCheck = u32(data, 21);
    this.blocks = this.isMap ? data[25] : 0;
    if (used > this.atPlace || this.inputShift > 16) throw new FormatError(`${WHAT} of impossible dimensions`);
    const packed = new Packed(data, header, spend);
    this.filters = Array.from(packed.take(stages));
    checkArchitecture(this);
    const shapes = layersOf(this, used);
    const bits = packed.take(shapes.length);
    this.used = packed.takeSums(used);
    this.limits = packed.take(used);
    const thresholds = packed.takeSums(LEVELS);
    const rises = (sums) => sums.every((x, i) => !i || x > sums[i - 1]);
    check(!used || (this.used[0] >= 0 && this.used[used - 1] < this.atPlace && rises(this.used)));
    check(bits.every((b) => b >= 0 && b <= 16) && !bits.at(-1));
    check(this.limits.every((x) => x >= 0 && x < 65536));
    check(thresholds.every((x, i) => Math.abs(x) < EXACT && (!i || x >= thresholds[i - 1])));
    check(thresholds[LEVELS - 1] - thresholds[0] <= MAX_SPAN);
    this.thresholds = Int32Array.from(thresholds);
    this.layers = shapes.map((shape, k) => takeLayer(packed, shape, bits[k]));
    packed.end();
    this._proveExact();
  }

  /** Rows and columns of the latents. */
  get grid() {
    return this.isMap ? sizesOf(this.shape, this.filters.length)[0] : [1, 1];
  }

  get places() {
    return this.grid[0] * this.grid[1];
  }

  get latents() {
    return this.places * this.atPlace;
  }

  /** Of an image. */
  get multiplyAdds() {
    const each = this.layers.map(({ pixels, weights, skip }) => pixels * (weights.length + (skip?.length ?? 0)));
    return each.reduce((sum, n) => sum + n, 0);
  }

  /** The same layers for images of another size, [height, width]; throws FormatError if there are none. */
  resized(size) {
    const shape = [...evenSize(this, size), this.shape[2]];
    const made = Object.assign(Object.create(IntegerDecoder.prototype), this, { shape });
    checkArchitecture(made);
    const shapes = layersOf(made, this.used.length);
    made.layers = this.layers.map((layer, k) => ({ ...layer, ...shapes[k] }));
    return made;
  }

  /** Throws FormatError unless no sum, and no part of one, can reach 2**24. */
  _proveExact() {
    const { layers, limits } = this;
    layers.forEach((layer, k) => {
      const sums = largestSums(layer, k ? () => layers[k - 1].top : (input) => limits[input]);
      layer.skip?.forEach((times, j) => (sums[j] += Math.abs(times) * layers[k - 2].top));
      requireExact(sums, WHAT);
    });
  }

  /** About the bytes that computing it takes: a number for each weight and each output. */
  get memory() {
    const numbers = this.layers.map(({ weights, outputs, H = 1, W = 1 }) => weights.length + H * W * outputs);
    return 4 * numbers.reduce((sum, n) => sum + n, this.latents);
  }

  /**
   * Puts what goes into the first layer, of an image's D latents in units from `at` on, into `out`:
   * that of place q at `placed(q)`.
   */
  inputsOf(units, at, out, placed) {
    const half = (1 << this.inputShift) >> 1;
    const scale = 2 ** this.inputShift;
    const { used, limits, places } = this;
    for (let place = 0; place < places; place++, at += this.atPlace) {
      const to = placed(place);
      for (let i = 0; i < used.length; i++) {
        const value = Math.floor((units[at + used[i]] + half) / scale);
        out[to + i] = Math.min(Math.max(value, -limits[i]), limits[i]);
      }
    }
  }

  /** The level of each output of the last layer, from `lowest` on: Uint8Array. */
  levelTable() {
    const lowest = this.thresholds[0] - 1;
    const table = new Uint8Array(this.thresholds[LEVELS - 1] - lowest + 1);
    for (const threshold of this.thresholds) table[threshold - lowest]++;
    for (let i = 1; i < table.length; i++) table[i] += table[i - 1];
    return { lowest, table };
  }
}

/**
 * A layer with its numbers; weights are [taps, inputs, outputs].  Its sums are shifted right and cut to
 * what is from 0 to `top`; of the last, they are only shifted.
 */
function takeLayer(packed, shape, bits) {
  const { inputs, channels, outputs, taps } = shape;
  const shift = packed.take(channels);
  check(shift.every((s) => s >= 0 && s <= MAX_SHIFT));
  const grains = packed.take(outputs);
  const skip = shape.skips ? packed.take(channels) : null;
  const weights = packed.take(taps * inputs * outputs);
  for (const numbers of [grains, skip ?? [], weights]) check(numbers.every((x) => Math.abs(x) < EXACT));
  const bias = Float64Array.from(grains, (n, j) => n * 2 ** Math.max(shift[j % channels] - 3, 0));
  return { ...shape, shift, bias, skip, weights: Int32Array.from(weights), top: (1 << bits) - 1 };
}

/** The largest size that each sum of a layer can have; most: of an input, by its number. */
function largestSums({ weights, bias, inputs, outputs, taps }, most) {
  const sums = Float64Array.from(bias, Math.abs);
  for (let tap = 0, at = 0; tap < taps; tap++) {
    for (let input = 0; input < inputs; input++) {
      const largest = most(input);
      for (let j = 0; j < outputs; j++, at++) sums[j] += Math.abs(weights[at]) * largest;
    }
  }
  return sums;
}

function check(right) {
  if (!right) throw new FormatError(`${WHAT} of impossible numbers`);
}
