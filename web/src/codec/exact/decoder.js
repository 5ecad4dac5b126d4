import { u16, u32 } from "../bytes.js";
import { Packed } from "../coding/packing.js";
import { FormatError } from "../errors.js";

/** The integer decoder as numbers (docs/FORMAT.md); `kernels` compute it. */

export const EXACT = 1 << 24; // sums stay below it
const KERNEL = 3;
const LEVELS = 255; // thresholds
const MAX_SIDE = 1 << 13;
const MAX_STAGES = 8;
export const MAX_SHIFT = 23;
const MAX_SPAN = 1 << 16;
const HEADER = 25; // bytes

/**
 * A transposed convolution from [h, w, inputs] to [H, W, outputs]; weights are [3, 3, inputs,
 * outputs].  Its sums are shifted right and cut to what is from 0 to `top`; of the last, they are
 * only shifted.
 */
const place = (h, w, H, W, stride) => ({
  ...{ h, w, H, W, stride },
  above: Math.max((h - 1) * stride + KERNEL - H, 0) >> 1,
  before: Math.max((w - 1) * stride + KERNEL - W, 0) >> 1,
});

export class IntegerDecoder {
  /** spend: as for `Packed`.  Throws FormatError for bytes that are no decoder, or could overflow. */
  constructor(data, spend) {
    const magic = String.fromCharCode(...data.subarray(0, 4));
    if (data.length < HEADER || magic !== "CVID" || data[4] !== 1) {
      throw new FormatError("an integer decoder: none, or of a newer version");
    }
    this.shape = [5, 7, 9].map((at) => u16(data, at));
    this.latents = u32(data, 11);
    const used = u32(data, 15);
    const stages = data[19];
    this.inputShift = data[20];
    this.unitsCheck = u32(data, 21);
    if (!stages || stages > MAX_STAGES || used > this.latents || this.inputShift > 16) {
      throw new FormatError("an integer decoder of impossible dimensions");
    }
    const packed = new Packed(data, HEADER, spend);
    const filters = Array.from(packed.take(stages));
    const numbers = [...this.shape, this.latents, ...filters];
    if (!numbers.every((n) => n >= 1 && n <= MAX_SIDE)) {
      throw new FormatError("an integer decoder of impossible dimensions");
    }
    const bits = packed.take(stages + 2);
    this.used = packed.takeSums(used);
    this.limits = packed.take(used);
    const thresholds = packed.takeSums(LEVELS);
    const rises = (sums) => sums.every((x, i) => !i || x > sums[i - 1]);
    check(!used || (this.used[0] >= 0 && this.used[used - 1] < this.latents && rises(this.used)));
    check(bits.every((b) => b >= 0 && b <= 16) && !bits[stages + 1]);
    check(this.limits.every((x) => x >= 0 && x < 65536));
    check(thresholds.every((x, i) => Math.abs(x) < EXACT && (!i || x >= thresholds[i - 1])));
    check(thresholds[LEVELS - 1] - thresholds[0] <= MAX_SPAN);
    this.thresholds = Int32Array.from(thresholds);
    this._takeLayers(packed, filters, bits);
    packed.end();
  }

  _takeLayers(packed, filters, bits) {
    const [height, width, outputs] = this.shape;
    const sizes = [[height, width]];
    for (const _ of filters) sizes.unshift(sizes[0].map((side) => Math.ceil(side / 2)));
    sizes.push([height, width]);
    const [[h0, w0]] = sizes;
    const channels = [filters.at(-1), ...filters.toReversed(), outputs];
    this.multiplyAdds = 0;
    this.layers = channels.map((count, k) => {
      const dense = k === 0;
      const many = dense ? h0 * w0 * count : count;
      const inputs = dense ? this.used.length : channels[k - 1];
      const taps = dense ? 1 : KERNEL * KERNEL;
      const shift = packed.take(count);
      check(shift.every((s) => s >= 0 && s <= MAX_SHIFT));
      const grain = (j) => 2 ** Math.max(shift[j % count] - 3, 0);
      const bias = Float64Array.from(packed.take(many), (grains, j) => grains * grain(j));
      const weights = packed.take(taps * inputs * many);
      const last = k === channels.length - 1;
      const layer = { inputs, outputs: many, channels: count, taps, weights, bias, shift, last };
      layer.top = (1 << bits[k]) - 1;
      if (!dense) {
        const stride = last ? 1 : 2;
        Object.assign(layer, place(...sizes[k - 1], ...sizes[k], stride));
      }
      const pixels = dense ? 1 : sizes[k - 1][0] * sizes[k - 1][1];
      this.multiplyAdds += pixels * taps * inputs * many;
      return layer;
    });
    this.layers.forEach((layer, k) => {
      proveExact(layer, k ? () => this.layers[k - 1].top : (input) => this.limits[input]);
      layer.weights = Int32Array.from(layer.weights);
      layer.bias = Int32Array.from(layer.bias);
    });
  }

  /** About the bytes that computing it takes: a number for each weight and each output. */
  get memory() {
    const numbers = this.layers.map(({ weights, outputs, H = 1, W = 1 }) => weights.length + H * W * outputs);
    return 4 * numbers.reduce((sum, n) => sum + n, 0);
  }

  /** What goes into the first layer, Int32Array [L], of an image's D symbols from `at` on. */
  inputsOf(symbols, at, step, out) {
    const half = (1 << this.inputShift) >> 1;
    const scale = 2 ** this.inputShift;
    this.used.forEach((latent, i) => {
      const value = Math.floor((symbols[at + latent] * step + half) / scale);
      const limit = this.limits[i];
      out[i] = Math.min(Math.max(value, -limit), limit);
    });
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

function check(right) {
  if (!right) throw new FormatError("an integer decoder of impossible numbers");
}

/**
 * Throws FormatError unless no sum, and no part of one, can reach 2**24.
 *
 * largest: of an input, by its number.
 */
function proveExact({ weights, bias, inputs, outputs, taps }, largest) {
  const sums = Float64Array.from(bias, Math.abs);
  for (let tap = 0, at = 0; tap < taps; tap++) {
    for (let input = 0; input < inputs; input++) {
      const most = largest(input);
      for (let j = 0; j < outputs; j++, at++) sums[j] += Math.abs(weights[at]) * most;
    }
  }
  if (!sums.every((sum) => sum < EXACT) || !weights.every((x) => Math.abs(x) < EXACT)) {
    throw new FormatError("an integer decoder with sums beyond 2**24, which would not be exact");
  }
}
