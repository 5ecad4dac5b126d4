/**
 * The sums of layers in typed arrays: the reference, and for models whose numbers take more than 16
 * bits.  `wasm.js` computes the same.
 */

/** Sums of one layer without taps, of one vector of inputs: Int32Array [outputs]. */
export function product({ weights, bias, inputs, outputs }, x, sums) {
  sums.set(bias);
  for (let input = 0, at = 0; input < inputs; input++, at += outputs) {
    const value = x[input];
    if (value) for (let j = 0; j < outputs; j++) sums[j] += value * weights[at + j];
  }
}

/** Sums of a transposed convolution: [h, w, inputs] -> Int32Array [H, W, outputs]. */
export function transposed(layer, x, sums) {
  const { h, w, H, W, stride, above, before, inputs, outputs, weights, bias } = layer;
  for (let at = 0; at < H * W * outputs; at += outputs) sums.set(bias, at);
  for (let y = 0; y < h; y++) {
    for (let z = 0; z < w; z++) {
      for (let input = 0; input < inputs; input++) {
        const value = x[(y * w + z) * inputs + input];
        if (!value) continue;
        for (let i = 0; i < 3; i++) {
          const row = stride * y + i - above;
          if (row < 0 || row >= H) continue;
          for (let j = 0; j < 3; j++) {
            const column = stride * z + j - before;
            if (column < 0 || column >= W) continue;
            const to = (row * W + column) * outputs;
            const from = ((i * 3 + j) * inputs + input) * outputs;
            for (let k = 0; k < outputs; k++) sums[to + k] += value * weights[from + k];
          }
        }
      }
    }
  }
}

/** Adds what a layer skips to its sums; before: what went into the layer before it. */
function addSkipped({ skip, channels }, before, sums) {
  for (let at = 0; at < sums.length; at += channels) {
    for (let k = 0; k < channels; k++) sums[at + k] += skip[k] * before[at + k];
  }
}

/** What a layer passes on: sums shifted, and cut to what is from 0 to `top`; in place. */
function passOn({ channels, shift, top }, sums) {
  for (let at = 0; at < sums.length; at += channels) {
    for (let k = 0; k < channels; k++) {
      sums[at + k] = Math.min(Math.max(sums[at + k] >> shift[k], 0), top);
    }
  }
}

/** `levels(units, n)`: latents in units, [n * D] -> Uint8Array [n * H * W * C], by a decoder. */
export function typedLevels(decoder) {
  const { layers, used } = decoder;
  const size = decoder.shape.reduce((a, b) => a * b);
  const { lowest, table } = decoder.levelTable();
  return (units, n) => {
    const inputs = new Int32Array(decoder.places * used.length);
    const buffers = layers.map(({ H, W, outputs }) => new Int32Array(H ? H * W * outputs : outputs));
    const out = new Uint8Array(n * size);
    for (let image = 0; image < n; image++) {
      decoder.inputsOf(units, image * decoder.latents, inputs, (place) => place * used.length);
      layers.forEach((layer, k) => {
        const sums = buffers[k];
        (layer.H ? transposed : product)(layer, k ? buffers[k - 1] : inputs, sums);
        if (layer.skip) addSkipped(layer, buffers[k - 2], sums);
        if (!layer.last) passOn(layer, sums);
      });
      const { channels, shift } = layers.at(-1);
      const sums = buffers.at(-1);
      for (let i = 0; i < size; i++) {
        const place = Math.max((sums[i] >> shift[i % channels]) - lowest, 0);
        out[image * size + i] = table[Math.min(place, table.length - 1)];
      }
    }
    return out;
  };
}
