import { productsFor } from "../integers/products.js";

/** The network of a map's prior: from the latents around a place to what is expected there. */

const BORDER = 2; // rows above, and columns on each side, that neighbours reach beyond a map
const REACH = 2 * BORDER + 1;
const MEAN_UNIT = 16; // units that means are whole multiples of
const MOST_WIDTH = 103;

export class Network {
  /** images: that there is memory for; places: of each at once. */
  constructor(prior, images, places) {
    const room = images * places;
    const { grid, context, groups, each, layers, kernels } = prior;
    const [h, w, c] = grid;
    const products = productsFor(layers, kernels);
    Object.assign(this, { prior, images, products, columns: w + 2 * BORDER });
    this._scale = 2 ** prior.inputShift; // units that an input is worth
    this._half = Math.floor(this._scale / 2);
    this._size = (h + BORDER) * this.columns * c; // of a canvas
    const numbers = (count) => Array.from({ length: count }, (_, i) => i);
    const spread = (outputs) => numbers(products.wide(outputs)).map((i) => (i < outputs ? i : -1));
    // Without the step's logarithm, which adds the same everywhere.
    this._context = products.layer(context, numbers(context.inputs - 1));
    this._groups = groups.map(([first, second, output], k) => [
      products.layer(first, [...spread(context.outputs), ...numbers(k * each).map((i) => context.outputs + i)]),
      products.layer(second, spread(first.outputs)),
      products.layer(output, spread(second.outputs)),
    ]);
    const [[first, second, output]] = groups;
    this._widths = [first, second, output].map(({ outputs }) => products.wide(outputs));
    this._contextWidth = products.wide(context.outputs);
    this._aroundWidth = context.inputs - 1;
    // What is known at a place: the context, and then the channels before a group.
    this._knownWidth = this._contextWidth + c + (c % 2);
    const [a, b, out] = this._widths;
    this._at = {
      ...{ around: products.numbers(room * this._aroundWidth), known: products.numbers(room * this._knownWidth) },
      ...{ first: products.numbers(room * a), second: products.numbers(room * b), outputs: products.sums(room * out) },
    };
    this._canvas = new Int16Array(images * this._size);
    this._around = products.numbersIn(this._at.around, room * this._aroundWidth);
    this._known = products.numbersIn(this._at.known, room * this._knownWidth);
    this._outputs = products.sumsIn(this._at.outputs, room * out);
  }

  /** Sets the step of the quantiser. */
  use(step) {
    const { bias, weights, inputs } = this.prior.context;
    const log = logOf(step);
    const biases = this.products.biasOf(this._context);
    bias.forEach((b, j) => (biases[j] = b + weights[(j + 1) * inputs - 1] * log));
  }

  /** Goes to places of n images, [row, column] each: image by image, a vector for each place. */
  go(n, places) {
    const { products, columns, _canvas: canvas, _around: around, _at: at } = this;
    const c = this.prior.grid[2];
    const starts = places.map(([row, column]) => (row * columns + column) * c);
    for (let image = 0, to = 0; image < n; image++) {
      for (const start of starts) {
        const from = image * this._size + start;
        around.set(canvas.subarray(from, from + REACH * c), to);
        around.set(canvas.subarray(from + columns * c, from + (columns + REACH) * c), to + REACH * c);
        around.set(canvas.subarray(from + 2 * columns * c, from + (2 * columns + BORDER) * c), to + 2 * REACH * c);
        to += this._aroundWidth;
      }
    }
    this._vectors = n * places.length;
    this._here = starts.map((start) => start + (BORDER * columns + BORDER) * c); // in an image's canvas
    products.pass(this._context, at.around, this._aroundWidth, this._vectors, at.known, this._knownWidth);
  }

  /** Expects what a group of these places' channels holds: its means and widths are to be asked for. */
  expect(k) {
    const { products, _at: at, _vectors: n } = this;
    const [a, b, out] = this._widths;
    const [first, second, output] = this._groups[k];
    products.pass(first, at.known, this._knownWidth, n, at.first, a);
    products.pass(second, at.first, a, n, at.second, b);
    products.sum(output, at.second, b, n, at.outputs, out);
    this._shift = this.prior.groups[k][2].shift;
  }

  /** The mean of channel j of the group, in units. */
  mean(vector, j) {
    return (this._outputs[vector * this._widths[2] + j] >> this._shift[j]) * MEAN_UNIT;
  }

  /** The number of its width. */
  width(vector, j) {
    const output = this.prior.each + j;
    const found = this._outputs[vector * this._widths[2] + output] >> this._shift[output];
    return Math.min(Math.max(found, 0), MOST_WIDTH);
  }

  /** Takes a latent, in units. */
  put(vector, channel, units) {
    const places = this._here.length;
    const seen = Math.floor((units + this._half) / this._scale);
    const limit = this.prior.limits[channel];
    const input = Math.min(Math.max(seen, -limit), limit);
    this._canvas[Math.floor(vector / places) * this._size + this._here[vector % places] + channel] = input;
    this._known[vector * this._knownWidth + this._contextWidth + channel] = input;
  }
}

/** 16 times the binary logarithm of a step, rounded down. */
function logOf(step) {
  const power = BigInt(step) ** 16n;
  return power.toString(2).length - 1;
}
