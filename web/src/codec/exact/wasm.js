/**
 * The sums of layers in WebAssembly (`web/wasm/kernels.c`): the same numbers as `typed.js`, faster,
 * for models whose numbers fit into 16 bits.
 */

const MOST = 32767;
const PAGE = 65536; // bytes

/** n, rounded up to a multiple. */
export const upTo = (n, of) => Math.ceil(n / of) * of;

const fits = (numbers) => numbers.every((x) => x >= -MOST && x <= MOST);

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

  /** Calls `product`; bias: in place of the layer's own. */
  product({ weights, bias, factor, pairs, outputs, top }, x, places, out, raw = 0, outStride = outputs) {
    this.calls.product(x, 2 * pairs, places, weights, bias, factor, pairs, outputs, top, out, outStride, raw);
  }
}

/** Whether the kernels can compute a decoder. */
export const canDecode = ({ layers, limits }) =>
  fits(limits) && layers.every(({ weights, top, last }) => fits(weights) && (last || top <= MOST));

/** As `typedLevels`, by kernels. */
export function wasmLevels(decoder, kernels) {
  const [dense, ...others] = decoder.layers;
  const inputs = kernels.allocate(2 * upTo(dense.inputs, 2));
  const channels = upTo(dense.channels, 4);
  const { h, w } = others[0];
  // Maps have zeros around, and channels in fours, the last of which may be zeros.
  const maps = others.map((layer, k) => {
    const wide = k ? upTo(others[k - 1].outputs, 4) : channels;
    return kernels.allocate(2 * (layer.h + 2) * (layer.w + 2) * wide);
  });
  const sums = kernels.allocate(4 * others.at(-1).H * others.at(-1).W * upTo(others.at(-1).outputs, 4));
  const rows = Array.from({ length: h }, (_, y) => {
    const place = (output) => (y * w + Math.floor(output / channels)) * dense.channels + (output % channels);
    const real = (output) => output % channels < dense.channels;
    return kernels.layer({
      inputs: dense.inputs,
      outputs: w * channels,
      top: dense.top,
      weight: (_, input, output) => (real(output) ? dense.weights[input * dense.outputs + place(output)] : 0),
      bias: (output) => (real(output) ? dense.bias[place(output)] : 0),
      shift: (output) => (real(output) ? dense.shift[output % channels] : 0),
    });
  });
  const layers = others.map(({ taps, inputs: real, outputs, top, weights, bias, shift }) =>
    kernels.layer({
      taps,
      inputs: upTo(real, 4),
      outputs,
      top,
      weight: (tap, input, output) => (input < real ? weights[(tap * real + input) * outputs + output] : 0),
      bias: (output) => bias[output],
      shift: (output) => shift[output],
    }),
  );
  const { lowest, table } = decoder.levelTable();
  const { channels: colours, shift, H, W } = others.at(-1);
  const wide = upTo(colours, 4);
  const found = kernels.view(Int32Array, sums, H * W * wide);
  const taken = kernels.view(Int16Array, inputs, dense.inputs);
  const size = H * W * colours;

  function decodeOne() {
    rows.forEach((row, y) => kernels.product(row, inputs, 1, maps[0] + 2 * ((y + 1) * (w + 2) + 1) * channels));
    others.forEach((layer, k) => {
      const { weights, bias, factor, pairs, outputs, top } = layers[k];
      kernels.calls.transposed(
        ...[maps[k], layer.w, weights, bias, factor, pairs, outputs, top, layer.last ? 0 : maps[k + 1]],
        ...[layer.H, layer.W, layer.stride, layer.above, layer.before, layer.last ? sums : 0],
      );
    });
  }

  return (symbols, n, step) => {
    const out = new Uint8Array(n * size);
    for (let image = 0, to = 0; image < n; image++) {
      decoder.inputsOf(symbols, image * decoder.latents, step, taken);
      decodeOne();
      for (let from = 0; from < found.length; from += wide) {
        for (let colour = 0; colour < colours; colour++, to++) {
          const place = Math.max((found[from + colour] >> shift[colour]) - lowest, 0);
          out[to] = table[Math.min(place, table.length - 1)];
        }
      }
    }
    return out;
  };
}
