/** The kernels (`web/wasm/kernels.c`): sums of layers in WebAssembly, in integers of 16 bits. */

export const MOST = 32767; // size of a number that the kernels take
const PAGE = 65536; // bytes

/** n, rounded up to a multiple. */
export const upTo = (n, of) => Math.ceil(n / of) * of;

export const fits = (numbers) => numbers.every((x) => x >= -MOST && x <= MOST);

/** A memory of its own for one model, and what computes in it. */
export class Kernels {
  /** module: WebAssembly.Module of kernels.wasm. */
  constructor(module) {
    this.calls = new WebAssembly.Instance(module).exports;
    this._end = this.calls.memory.buffer.byteLength;
  }

  /** The address of so many bytes, which are 0. */
  allocate(bytes) {
    const at = this._end;
    this._end += upTo(bytes, 16);
    const missing = this._end - this.calls.memory.buffer.byteLength;
    if (missing > 0) this.calls.memory.grow(Math.ceil(missing / PAGE));
    return at;
  }

  /** A view of n numbers; it holds until the next allocation. */
  view(Type, at, n) {
    return new Type(this.calls.memory.buffer, at, n);
  }

  /** The address of a copy of a typed array. */
  put(array) {
    const at = this.allocate(array.byteLength);
    this.view(array.constructor, at, array.length).set(array);
    return at;
  }

  /**
   * A layer as the kernels take it, of `weights(tap, input, output)` for so many of each; bias and
   * shift are of an output.
   */
  layer({ taps = 1, inputs, outputs, top, weight, bias, shift }) {
    const pairs = upTo(inputs, 2) / 2;
    const wide = upTo(outputs, 4);
    const weights = new Int16Array(taps * pairs * wide * 2);
    for (let tap = 0; tap < taps; tap++) {
      for (let input = 0; input < inputs; input++) {
        const at = (tap * pairs + (input >> 1)) * wide * 2 + (input & 1);
        for (let output = 0; output < outputs; output++) weights[at + 2 * output] = weight(tap, input, output);
      }
    }
    const all = Array.from({ length: outputs }, (_, output) => output);
    const biases = new Int32Array(wide);
    biases.set(all.map(bias));
    const factors = new Float32Array(wide).fill(1);
    factors.set(all.map((output) => 2 ** -shift(output)));
    return { weights: this.put(weights), bias: this.put(biases), factor: this.put(factors), pairs, outputs: wide, top };
  }

  /** Calls `product`: of vectors `stride` numbers apart, what is passed on into `out`, or sums into `raw`. */
  product({ weights, bias, factor, pairs, outputs, top }, x, places, out, raw = 0, strides = {}) {
    const { stride = 2 * pairs, outStride = outputs } = strides;
    this.calls.product(x, stride, places, weights, bias, factor, pairs, outputs, top, out, outStride, raw);
  }
}
