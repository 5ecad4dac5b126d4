import { Kernels, upTo } from "../exact/wasm.js";

/**
 * The layers of a context model, for many pixels at once: by WebAssembly where there is such and the
 * numbers fit into 16 bits, else in typed arrays.
 */

const MOST = 32767;

export class Network {
  constructor({ layers, places, kernels }) {
    const fits = layers.every(({ weights, top }) => top <= MOST && weights.every((x) => Math.abs(x) <= MOST));
    const [first, second, output] = layers;
    // The last layer in two: whether a pixel has the expected level is needed of all pixels, the
    // levels only of those that have not.
    const part = (from, to) => ({
      ...{ inputs: output.inputs, outputs: to - from, top: 0, bias: output.bias.subarray(from, to) },
      weights: output.weights.subarray(from * output.inputs, to * output.inputs),
      shift: output.shift.subarray(from, to),
    });
    this._parts = [first, second, part(0, 1), part(1, 513)];
    this.places = places;
    this.isQuick = fits && kernels !== null;
    this.rows = 0;
    if (this.isQuick) {
      this._kernels = new Kernels(kernels);
      this._quick = this._parts.map(({ weights, bias, shift, inputs, ...sizes }) =>
        this._kernels.layer({
          ...sizes,
          // As many as the layer before gives, in fours.
          inputs: upTo(inputs, 4),
          weight: (_, input, output) => (input < inputs ? weights[output * inputs + input] : 0),
          bias: (output) => bias[output],
          shift: (output) => shift[output],
        }),
      );
    }
    /** Numbers from one pixel's inputs to the next's. */
    this.stride = this.isQuick ? 2 * this._quick[0].pairs : first.inputs;
  }

  /** Memory for so many pixels; the inputs are then put into `inputs`, at `stride` of each other. */
  reserve(rows) {
    if (rows <= this.rows) return;
    this.rows = rows;
    if (!this.isQuick) {
      const [first, second] = this._parts;
      this.inputs = new Int32Array(rows * first.inputs);
      this._hidden = [new Int32Array(rows * first.outputs), new Int32Array(rows * second.outputs)];
      this._hits = new Int32Array(rows);
      this._levels = new Int32Array(512);
      return;
    }
    const kernels = this._kernels;
    const [first, second, hit, levels] = this._quick;
    this._at = {
      inputs: kernels.allocate(2 * rows * this.stride),
      first: kernels.allocate(2 * rows * first.outputs),
      second: kernels.allocate(2 * rows * second.outputs),
      hits: kernels.allocate(4 * rows * hit.outputs),
      levels: kernels.allocate(4 * levels.outputs),
    };
    this.inputs = kernels.view(Int16Array, this._at.inputs, rows * this.stride);
    this._hits = kernels.view(Int32Array, this._at.hits, rows * hit.outputs);
    this._levels = kernels.view(Int32Array, this._at.levels, levels.outputs);
    this._bias = kernels.view(Int32Array, first.bias, first.outputs);
  }

  /** Computes the hidden layers of n pixels at a place, and the sum of each one's hit. */
  compute(n, channel, row, column) {
    const [first, second, hit] = this._parts;
    const bias = this.isQuick ? this._bias : new Int32Array(first.outputs);
    const width = first.outputs;
    const [rows, columns, channels] = this.places;
    for (let j = 0; j < width; j++) {
      bias[j] = first.bias[j] + rows[row * width + j] + columns[column * width + j] + channels[channel * width + j];
    }
    if (this.isQuick) {
      const { inputs, first: a, second: b, hits } = this._at;
      this._kernels.product(this._quick[0], inputs, n, a);
      this._kernels.product(this._quick[1], a, n, b);
      this._kernels.product(this._quick[2], b, n, 0, hits);
      return;
    }
    passed({ ...first, bias }, this.inputs, n, this._hidden[0]);
    passed(second, this._hidden[0], n, this._hidden[1]);
    for (let i = 0; i < n; i++) this._hits[i] = sumOf(hit, 0, this._hidden[1], i * hit.inputs);
  }

  /** The logit of a pixel's expected level. */
  hit(pixel) {
    const wide = this.isQuick ? this._quick[2].outputs : 1;
    return this._hits[pixel * wide] >> this._parts[2].shift[0];
  }

  /** The logits of a pixel's 256 levels and 256 differences: Int32Array, until the next call. */
  levels(pixel) {
    const { shift, inputs } = this._parts[3];
    const out = this._levels;
    if (this.isQuick) {
      const { second, levels } = this._at;
      this._kernels.product(this._quick[3], second + 2 * pixel * this._quick[1].outputs, 1, 0, levels);
    } else {
      for (let j = 0; j < 512; j++) out[j] = sumOf(this._parts[3], j, this._hidden[1], pixel * inputs);
    }
    for (let j = 0; j < 512; j++) out[j] >>= shift[j];
    return out;
  }
}

function sumOf({ weights, bias, inputs }, output, x, at) {
  let sum = bias[output];
  for (let i = 0, from = output * inputs; i < inputs; i++) sum += weights[from + i] * x[at + i];
  return sum;
}

function passed(layer, x, n, out) {
  const { inputs, outputs, shift, top } = layer;
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < outputs; j++) {
      const sum = sumOf(layer, j, x, i * inputs) >> shift[j];
      out[i * outputs + j] = Math.min(Math.max(sum, 0), top);
    }
  }
}
