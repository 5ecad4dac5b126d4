import { f32, u16, u32 } from "./bytes.js";
import { Packed } from "./coding/integers/packing.js";
import { FormatError } from "./errors.js";

/** The encoder, in floating point: images to latents, the posterior's means. */

const KERNEL = 3;
const STRIDE = 2;
const HEADER = 20; // bytes

/** Reads what `cvae_jax/page/weights.py` writes. */
export class Encoder {
  constructor(data) {
    if (String.fromCharCode(...data.subarray(0, 4)) !== "CVEN" || data[4] !== 1) {
      throw new FormatError("an encoder: none, or of another version");
    }
    let [h, w, channels] = [5, 7, 9].map((at) => u16(data, at));
    const latents = u32(data, 11);
    const width = u32(data, 15);
    const packed = new Packed(data, HEADER, () => {});
    const layer = (inputs, outputs) => {
      const floats = () => {
        const start = packed.at;
        packed.at += 4 * outputs;
        return Float32Array.from({ length: outputs }, (_, j) => f32(data, start + 4 * j));
      };
      const [steps, bias] = [floats(), floats()];
      const weights = Float32Array.from(packed.take(inputs * outputs), (x, at) => x * steps[at % outputs]);
      return { weights, bias, inputs, outputs };
    };
    this.convolutions = Array.from(packed.take(data[19]), (filters) => {
      const size = { h, w, channels };
      [h, w] = [Math.ceil(h / STRIDE), Math.ceil(w / STRIDE)];
      channels = filters;
      return { ...size, toH: h, toW: w, ...layer(KERNEL * KERNEL * size.channels, filters) };
    });
    this.dense = layer(h * w * channels, width);
    this.mean = layer(width, latents);
    packed.end();
  }

  /** Uint8Array [H * W * C] -> Float32Array [D]. */
  encode(pixels) {
    let x = Float32Array.from(pixels, (level) => level / 255);
    for (const layer of this.convolutions) x = relu(convolved(layer, x));
    return product(this.mean, relu(product(this.dense, x)));
  }
}

function relu(x) {
  for (let i = 0; i < x.length; i++) if (x[i] < 0) x[i] = 0;
  return x;
}

function product({ weights, bias, inputs, outputs }, x) {
  const sums = bias.slice();
  for (let input = 0, at = 0; input < inputs; input++, at += outputs) {
    const value = x[input];
    if (value) for (let j = 0; j < outputs; j++) sums[j] += value * weights[at + j];
  }
  return sums;
}

/** A SAME convolution of stride 2: [h, w, channels] -> [toH, toW, outputs]. */
function convolved({ h, w, channels, toH, toW, weights, bias, outputs }, x) {
  const above = Math.max((toH - 1) * STRIDE + KERNEL - h, 0) >> 1;
  const before = Math.max((toW - 1) * STRIDE + KERNEL - w, 0) >> 1;
  const out = new Float32Array(toH * toW * outputs);
  for (let row = 0, to = 0; row < toH; row++) {
    for (let column = 0; column < toW; column++, to += outputs) {
      out.set(bias, to);
      for (let i = 0; i < KERNEL; i++) {
        const y = STRIDE * row + i - above;
        if (y < 0 || y >= h) continue;
        for (let j = 0; j < KERNEL; j++) {
          const z = STRIDE * column + j - before;
          if (z < 0 || z >= w) continue;
          for (let channel = 0; channel < channels; channel++) {
            const value = x[(y * w + z) * channels + channel];
            if (!value) continue;
            const from = ((i * KERNEL + j) * channels + channel) * outputs;
            for (let k = 0; k < outputs; k++) out[to + k] += value * weights[from + k];
          }
        }
      }
    }
  }
  return out;
}
