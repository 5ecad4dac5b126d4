import { u16, f32, sha256 } from "../bytes.js";
import { largestSums, requireExact, small, takeLayer } from "../coding/integers/layers.js";
import { Packed } from "../coding/integers/packing.js";
import { FormatError } from "../errors.js";
import { refine } from "./coder.js";

/** The context model as numbers (docs/FORMAT.md); `coder` computes it. */

const MAX_SIDE = 1 << 13;
const MAX_CHANNELS = 4;
const MAX_HIDDEN = 1 << 10;
const NO_BASE = 255;
const OUTPUTS = 513;
const FULL = 255; // the largest input
const HEADER = 20; // bytes
const WHAT = "a context model";

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
    this.places = this.shape.map((n) => small(packed.take(n * hidden[0]), WHAT));
    const inputs = 3 * (26 + 9 * this.shape[2]) + 3;
    const widths = [inputs, ...hidden, OUTPUTS];
    this.layers = [...bits, 0].map((ofLayer, k) =>
      takeLayer(packed, { inputs: widths[k], outputs: widths[k + 1], bits: ofLayer }, WHAT),
    );
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
    this.layers.forEach((layer, k) => {
      sums = largestSums(layer, () => most);
      if (!k) added.forEach((more, j) => (sums[j] += more));
      requireExact(sums, WHAT);
      most = layer.top;
    });
    // A level's logit is two of the last sums, shifted.
    const { shift } = this.layers[2];
    const logits = sums.map((sum, j) => Math.floor(sum / 2 ** shift[j]) + 1);
    requireExact([Math.max(...logits.subarray(1, 257)) + Math.max(...logits.subarray(257))], WHAT);
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
  if (!right) throw new FormatError(`${WHAT} of impossible numbers`);
}
