import { u16, f32, sha256 } from "../bytes.js";
import { Packed } from "../coding/packing.js";
import { FormatError } from "../errors.js";
import { EXACT, MAX_SHIFT } from "../exact/decoder.js";
import { refine } from "./coder.js";

/** The context model as numbers (docs/FORMAT.md); `coder` computes it. */

const MAX_SIDE = 1 << 13;
const MAX_CHANNELS = 4;
const MAX_HIDDEN = 1 << 10;
const NO_BASE = 255;
const OUTPUTS = 513;
const FULL = 255; // the largest input
const HEADER = 20; // bytes

export class ContextModel {
  /** spend: as for `Packed`.  Throws FormatError for bytes that are no context model, or could overflow. */
  constructor(data, spend, kernels) {
    const magic = String.fromCharCode(...data.subarray(0, 4));
    if (data.length < HEADER || magic !== "CVCX" || data[4] !== 1) {
      throw new FormatError("a context model: none, or of a newer version");
    }
    this.kernels = kernels;
    this.digest = sha256(data);
    this.shape = [5, 7, 9].map((at) => u16(data, at));
    const hidden = [11, 13].map((at) => u16(data, at));
    const [quality, usual] = [data[15], f32(data, 16)];
    check((quality <= 100 || quality === NO_BASE) && usual >= 0 && usual <= 1);
    check([...this.shape, ...hidden].every((n) => n >= 1 && n <= MAX_SIDE));
    check(this.shape[2] <= MAX_CHANNELS && Math.max(...hidden) <= MAX_HIDDEN);
    const packed = new Packed(data, HEADER, spend);
    const bits = packed.take(2);
    check(bits.every((b) => b >= 1 && b <= 16));
    // What a pixel's row, column and channel add to the first layer's sums.
    this.places = this.shape.map((n) => small(packed.take(n * hidden[0])));
    const inputs = 3 * (26 + 9 * this.shape[2]) + 3;
    const widths = [inputs, ...hidden, OUTPUTS];
    this.layers = widths.slice(1).map((outputs, k) => {
      const shift = packed.take(outputs);
      check(shift.every((s) => s >= 0 && s <= MAX_SHIFT));
      const bias = small(packed.take(outputs));
      const weights = small(packed.take(outputs * widths[k])); // [outputs, inputs]
      return { inputs: widths[k], outputs, weights, bias, shift, top: k < 2 ? (1 << bits[k]) - 1 : 0 };
    });
    packed.end();
    this._proveExact();
    this.pixelWork = this.layers.reduce((sum, { weights }) => sum + weights.length, 0);
  }

  /** Throws FormatError unless all sums stay below 2**24. */
  _proveExact() {
    const [first] = this.layers;
    const added = new Float64Array(first.outputs);
    for (const place of this.places) {
      added.forEach((sum, j) => {
        let most = 0;
        for (let at = j; at < place.length; at += first.outputs) most = Math.max(most, Math.abs(place[at]));
        added[j] = sum + most;
      });
    }
    let most = FULL;
    let sums;
    for (const { inputs, weights, bias, top } of this.layers) {
      sums = Float64Array.from(bias, (b, j) => {
        let sum = Math.abs(b) + (bias === first.bias ? added[j] : 0);
        for (let at = j * inputs; at < (j + 1) * inputs; at++) sum += Math.abs(weights[at]) * most;
        return sum;
      });
      checkExact(Math.max(...sums));
      most = top;
    }
    // A level's logit is two of the last sums, shifted.
    const { shift } = this.layers[2];
    const logits = sums.map((sum, j) => Math.floor(sum / 2 ** shift[j]) + 1);
    checkExact(Math.max(...logits.subarray(1, 257)) + Math.max(...logits.subarray(257)));
  }

  /**
   * The images of a refinement: {images: Uint8Array [n * H * W * C], bits: Float64Array [n]}.
   *
   * base: Uint8Array, of the images of mode BASED; spend: told what it costs, in distributions.
   * Throws FormatError if the stream is not one that this model can produce.
   */
  refine(refinement, base, spend) {
    return refine(this, refinement, base, spend);
  }
}

function check(right) {
  if (!right) throw new FormatError("a context model of impossible numbers");
}

function checkExact(largest) {
  if (largest >= EXACT) throw new FormatError("a context model with sums beyond 2**24, which would not be exact");
}

function small(numbers) {
  check(numbers.every((x) => Math.abs(x) < EXACT));
  return Int32Array.from(numbers);
}
