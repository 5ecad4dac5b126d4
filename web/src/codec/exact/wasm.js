import { MOST, fits, upTo } from "../coding/integers/kernels.js";

/**
 * The sums of layers in WebAssembly (`web/wasm/kernels.c`): the same numbers as `typed.js`, faster,
 * for models whose numbers fit into 16 bits.
 */

/** Whether the kernels can compute a decoder. */
export const canDecode = ({ layers, limits }) =>
  fits(limits) && layers.every(({ weights, top, last }) => fits(weights) && (last || top <= MOST));

/** As `typedLevels`, by kernels. */
export function wasmLevels(decoder, kernels) {
  const { layers } = decoder;
  const { lowest, table } = decoder.levelTable();
  // Maps have zeros around, and channels in fours, the last of which may be zeros.
  const maps = layers.map(({ h, w, inputs }) => h && new PaddedMap(kernels, h, w, inputs));
  const { H, W, channels, shift } = layers.at(-1);
  const skipping = layers.filter(({ skips }) => skips).map((layer) => layer.H * layer.W * upTo(layer.channels, 4));
  const wide = upTo(channels, 4);
  const sums = kernels.allocate(4 * Math.max(H * W * wide, ...skipping));
  const [first] = layers;
  const vector = first.H ? null : kernels.allocate(2 * upTo(first.inputs, 2));
  const steps = layers.map((layer, k) => {
    if (!layer.H) return denseStep(kernels, layer, vector, maps[1]);
    return convolutionStep(kernels, layer, maps[k], maps[k + 1], layer.skips ? maps[k - 1] : null, sums);
  });
  const inputs = first.H
    ? maps[0].numbers()
    : kernels.view(Int16Array, vector, first.inputs);
  const placed = first.H ? (place) => maps[0].at(Math.floor(place / first.w), place % first.w) : () => 0;
  const views = steps.map((step) => step()); // once there is memory for all
  const found = kernels.view(Int32Array, sums, H * W * wide);
  const size = H * W * channels;
  return (units, n) => {
    const out = new Uint8Array(n * size);
    for (let image = 0, to = 0; image < n; image++) {
      decoder.inputsOf(units, image * decoder.latents, inputs, placed);
      for (const compute of views) compute();
      for (let from = 0; from < found.length; from += wide) {
        for (let channel = 0; channel < channels; channel++, to++) {
          const place = Math.max((found[from + channel] >> shift[channel]) - lowest, 0);
          out[to] = table[Math.min(place, table.length - 1)];
        }
      }
    }
    return out;
  };
}

/** A map [h, w, channels] in memory, with zeros around. */
class PaddedMap {
  constructor(kernels, h, w, channels) {
    Object.assign(this, { kernels, h, w, wide: upTo(channels, 4) });
    this.size = (h + 2) * (w + 2) * this.wide;
    this.address = kernels.allocate(2 * this.size);
  }

  /** The number of the first channel of a place. */
  at(y, x) {
    return ((y + 1) * (this.w + 2) + x + 1) * this.wide;
  }

  numbers() {
    return this.kernels.view(Int16Array, this.address, this.size);
  }
}

/** Gives, once there is memory for all, what computes a dense layer: from a vector into a map, row by row. */
function denseStep(kernels, layer, vector, map) {
  const { h, w, wide } = map;
  const { weights, bias, shift, channels, inputs, outputs, top } = layer;
  const rows = Array.from({ length: h }, (_, y) => {
    const place = (output) => (y * w + Math.floor(output / wide)) * channels + (output % wide);
    const real = (output) => output % wide < channels;
    return kernels.layer({
      ...{ inputs, outputs: w * wide, top },
      weight: (_, input, output) => (real(output) ? weights[input * outputs + place(output)] : 0),
      bias: (output) => (real(output) ? bias[place(output)] : 0),
      shift: (output) => (real(output) ? shift[output % wide] : 0),
    });
  });
  return () => () => rows.forEach((row, y) => kernels.product(row, vector, 1, map.address + 2 * map.at(y, 0)));
}

/**
 * The same of a convolution, from a map into the next, or, where there is none, its sums into `sums`;
 * skipped: the map that it adds, null if none.
 */
function convolutionStep(kernels, layer, from, to, skipped, sums) {
  const { inputs, outputs, weights, bias, shift, taps, top, w, H, W, stride, above, before } = layer;
  const made = kernels.layer({
    ...{ taps, outputs, top, inputs: from.wide },
    weight: (tap, input, output) => (input < inputs ? weights[(tap * inputs + input) * outputs + output] : 0),
    bias: (output) => bias[output],
    shift: (output) => shift[output],
  });
  const isRaw = !to || skipped;
  const convolve = () =>
    kernels.calls.transposed(
      ...[from.address, w, made.weights, made.bias, made.factor, made.pairs, made.outputs, top, isRaw ? 0 : to.address],
      ...[H, W, stride, above, before, isRaw ? sums : 0],
    );
  if (!skipped) return () => convolve;
  return () => {
    const [own, added, out] = [kernels.view(Int32Array, sums, H * W * to.wide), skipped.numbers(), to.numbers()];
    return () => {
      convolve();
      addSkipped(layer, own, added, out, to);
    };
  };
}

/** Passes on what a layer's sums are with what it skips, from one map to another. */
function addSkipped({ skip, shift, channels, top, H, W }, sums, added, out, map) {
  for (let y = 0, from = 0; y < H; y++) {
    for (let x = 0, at = map.at(y, 0); x < W; x++, from += map.wide, at += map.wide) {
      for (let k = 0; k < channels; k++) {
        const sum = (sums[from + k] + skip[k] * added[at + k]) >> shift[k];
        out[at + k] = Math.min(Math.max(sum, 0), top);
      }
    }
  }
}
