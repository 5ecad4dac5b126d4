import { productsFor } from "../coding/integers/products.js";

/** The layers of a context model, for many pixels at once. */
export class Network {
  constructor({ layers, places, kernels }) {
    const [first, second, output] = layers;
    // The last layer in two: whether a pixel has the expected level is needed of all pixels, the
    // levels only of those that have not.
    const part = (from, to) => ({
      ...{ inputs: output.inputs, outputs: to - from, top: 0, bias: output.bias.subarray(from, to) },
      weights: output.weights.subarray(from * output.inputs, to * output.inputs),
      shift: output.shift.subarray(from, to),
    });
    this._parts = [first, second, part(0, 1), part(1, 513)];
    this._products = productsFor(layers, kernels);
    const { isQuick } = this._products;
    this._layers = this._parts.map((layer) => {
      const places = Array.from({ length: this._products.wide(layer.inputs) }, (_, i) => (i < layer.inputs ? i : -1));
      return this._products.layer(layer, places);
    });
    this._widths = this._parts.map(({ outputs }) => this._products.wide(outputs));
    Object.assign(this, { places, isQuick, rows: 0 });
    /** Numbers from one pixel's inputs to the next's. */
    this.stride = this._products.wide(first.inputs);
  }

  /** Memory for so many pixels; the inputs are then put into `inputs`, at `stride` of each other. */
  reserve(rows) {
    if (rows <= this.rows) return;
    this.rows = rows;
    const products = this._products;
    const [first, second, hit, levels] = this._widths;
    this._at = {
      inputs: products.numbers(rows * this.stride),
      first: products.numbers(rows * first),
      second: products.numbers(rows * second),
      hits: products.sums(rows * hit),
      levels: products.sums(levels),
    };
    this.inputs = products.numbersIn(this._at.inputs, rows * this.stride);
    this._hits = products.sumsIn(this._at.hits, rows * hit);
    this._levels = products.sumsIn(this._at.levels, levels);
    this._bias = products.biasOf(this._layers[0]);
  }

  /** Computes the hidden layers of n pixels at a place, and the sum of each one's hit. */
  compute(n, channel, row, column) {
    const { _products: products, _at: at } = this;
    const { bias, outputs } = this._parts[0];
    const [rows, columns, channels] = this.places;
    for (let j = 0; j < outputs; j++) {
      const added = rows[row * outputs + j] + columns[column * outputs + j] + channels[channel * outputs + j];
      this._bias[j] = bias[j] + added;
    }
    const [first, second, hit] = this._layers;
    const [a, b, c] = this._widths;
    products.pass(first, at.inputs, this.stride, n, at.first, a);
    products.pass(second, at.first, a, n, at.second, b);
    products.sum(hit, at.second, b, n, at.hits, c);
  }

  /** The logit of a pixel's expected level. */
  hit(pixel) {
    return this._hits[pixel * this._widths[2]] >> this._parts[2].shift[0];
  }

  /** The logits of a pixel's 256 levels and 256 differences: Int32Array, until the next call. */
  levels(pixel) {
    const { shift } = this._parts[3];
    const out = this._levels;
    this._products.sum(this._layers[3], this._at.second, this._widths[1], 1, this._at.levels, 512, pixel);
    for (let j = 0; j < 512; j++) out[j] >>= shift[j];
    return out;
  }
}
