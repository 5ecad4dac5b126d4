import { Kernels, MOST, fits, upTo } from "./kernels.js";

/**
 * Layers for many vectors at once: by WebAssembly where there is such and the numbers fit into 16
 * bits, else in typed arrays.  Vectors lie in memory, `stride` numbers apart.
 */

/** What computes these layers, in a memory of its own; kernels: as for `FileModel`. */
export const productsFor = (layers, kernels) =>
  kernels && layers.every(({ weights, top }) => fits(weights) && top <= MOST) ? new Quick(kernels) : new Plain();

class Quick {
  isQuick = true;

  constructor(module) {
    this._kernels = new Kernels(module);
  }

  /** How many numbers a layer of so many outputs writes: the last may be zeros. */
  wide(outputs) {
    return upTo(outputs, 4);
  }

  /** Memory for n numbers between layers, and for n sums. */
  numbers(n) {
    return this._kernels.allocate(2 * n);
  }

  sums(n) {
    return this._kernels.allocate(4 * n);
  }

  /** The numbers, or sums, in such memory; it holds until more is asked for. */
  numbersIn(at, n) {
    return this._kernels.view(Int16Array, at, n);
  }

  sumsIn(at, n) {
    return this._kernels.view(Int32Array, at, n);
  }

  /** A layer, ready; places: of each number of a vector which input it is, -1 for none. */
  layer({ inputs, outputs, weights, bias, shift, top }, places) {
    return this._kernels.layer({
      inputs: places.length,
      outputs,
      top,
      weight: (_, place, output) => (places[place] < 0 ? 0 : weights[output * inputs + places[place]]),
      bias: (output) => bias[output],
      shift: (output) => shift[output],
    });
  }

  /** A layer's biases, to be changed. */
  biasOf(layer) {
    return this._kernels.view(Int32Array, layer.bias, layer.outputs);
  }

  /** What a layer passes on of n vectors, into `out`. */
  pass(layer, x, stride, n, out, outStride) {
    this._kernels.product(layer, x, n, out, 0, { stride, outStride });
  }

  /** Its sums, as they are; first: the number of the first vector. */
  sum(layer, x, stride, n, out, outStride, first = 0) {
    this._kernels.product(layer, x + 2 * first * stride, n, 0, out, { stride, outStride });
  }
}

class Plain {
  isQuick = false;

  wide(outputs) {
    return outputs;
  }

  numbers(n) {
    return new Int32Array(n);
  }

  sums(n) {
    return new Int32Array(n);
  }

  numbersIn(memory) {
    return memory;
  }

  sumsIn(memory) {
    return memory;
  }

  layer({ inputs, outputs, weights, bias, shift, top }, places) {
    const taken = new Int32Array(outputs * places.length);
    for (let j = 0, to = 0; j < outputs; j++) for (const place of places) taken[to++] = weights[j * inputs + place];
    return { inputs: places.length, outputs, weights: taken, bias: bias.slice(), shift, top };
  }

  biasOf({ bias }) {
    return bias;
  }

  pass(layer, x, stride, n, out, outStride) {
    this.sum(layer, x, stride, n, out, outStride);
    const { outputs, shift, top } = layer;
    for (let i = 0; i < n; i++) {
      for (let j = 0, at = i * outStride; j < outputs; j++, at++) {
        out[at] = Math.min(Math.max(out[at] >> shift[j], 0), top);
      }
    }
  }

  sum({ inputs, outputs, weights, bias }, x, stride, n, out, outStride, first = 0) {
    for (let i = 0; i < n; i++) {
      const start = (first + i) * stride;
      for (let j = 0, at = 0; j < outputs; j++) {
        let sum = bias[j];
        for (let from = start; from < start + inputs; from++, at++) sum += weights[at] * x[from];
        out[i * outStride + j] = sum;
      }
    }
  }
}
