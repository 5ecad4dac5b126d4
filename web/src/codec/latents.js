import { below } from "./coding/vectors/tables.js";

/** Latents as a page shows them: rounded to symbols, drawn from the prior, and how they spread. */

const COARSEST = 4096; // units, at quality 0
const QUALITIES_PER_HALVING = 18;
const UNITS_PER_SIGMA = 256;
const BINS = 48;
const OUTSIDE = 0.001; // share of the images that may lie beyond either end of a distribution

/** The nearest whole number, of two the even one. */
function rint(x) {
  const below = Math.floor(x);
  const part = x - below;
  return part > 0.5 || (part === 0.5 && below % 2) ? below + 1 : below;
}

/** The quantiser's step of a quality, 0 to 100. */
export const stepOf = (quality) => rint(COARSEST * 2 ** (-quality / QUALITIES_PER_HALVING));

export const qualityOf = (step) => QUALITIES_PER_HALVING * Math.log2(COARSEST / step);

/** The nearest symbols, Int32Array, of latents [n * D]. */
export const quantize = (z, units, step) =>
  Int32Array.from(z, (x, i) => {
    const symbol = rint(x / (units[i % units.length] * step));
    return Math.min(Math.max(symbol, -(2 ** 31)), 2 ** 31 - 1);
  });

/** The mean posterior standard deviation of each latent. */
export const sigmas = ({ units }) => units.map((unit) => unit * UNITS_PER_SIGMA);

/** n independent normal numbers; the seed, a whole number, decides which (mulberry32). */
export function prior(n, seed) {
  let state = seed | 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) | 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return (((x ^ (x >>> 14)) >>> 0) + 0.5) / 2 ** 32;
  };
  return Float32Array.from({ length: n }, () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()));
}

/** How each latent is distributed over the images that the tables were fitted to: shares of bins. */
export function distributions(tables) {
  const { components, latents, weights, units, means, widths, curve } = tables;
  const low = new Float32Array(latents);
  const high = new Float32Array(latents);
  const density = new Float32Array(latents * BINS);
  const total = curve.at(-1);
  for (let d = 0; d < latents; d++) {
    const shareBelow = (x) => {
      let share = 0;
      for (let k = 0; k < components; k++) share += weights[k] * below(tables, k * latents + d, x);
      return share / total / 2 ** 24;
    };
    const quantile = (share, from, to) => {
      while (to - from > 1) {
        const middle = Math.floor((from + to) / 2);
        if (shareBelow(middle) < share) from = middle;
        else to = middle;
      }
      return to;
    };
    let [from, to] = [Infinity, -Infinity];
    for (let row = d; row < means.length; row += latents) {
      from = Math.min(from, Math.floor(means[row] - widths[row] / 2) - 1);
      to = Math.max(to, Math.ceil(means[row] + widths[row] / 2) + 1);
    }
    [from, to] = [quantile(OUTSIDE, from, to), quantile(1 - OUTSIDE, from, to)];
    const edges = Float64Array.from({ length: BINS + 1 }, (_, i) => shareBelow(from + ((to - from) * i) / BINS));
    for (let i = 0; i < BINS; i++) density[d * BINS + i] = edges[i + 1] - edges[i];
    low[d] = from * units[d];
    high[d] = to * units[d];
  }
  return { low, high, density, bins: BINS };
}
