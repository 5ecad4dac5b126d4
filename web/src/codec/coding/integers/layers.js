import { FormatError } from "../../errors.js";

/** Layers of small integers, whose sums are exact: what context models and priors are made of. */

export const EXACT = 1 << 24; // sums stay below it
export const MAX_SHIFT = 23;

/**
 * The next layer of packed integers: its weights are [outputs, inputs]; sums are shifted right, and
 * what is passed on of them is from 0 to `top`.
 *
 * what: for messages.  Throws FormatError for numbers that no layer has.
 */
export function takeLayer(packed, { inputs, outputs, bits = 0 }, what) {
  const shift = packed.take(outputs);
  const [bias, weights] = [packed.take(outputs), packed.take(inputs * outputs)].map((x) => small(x, what));
  if (!shift.every((s) => s >= 0 && s <= MAX_SHIFT)) throw new FormatError(`${what} that shifts too far`);
  return { inputs, outputs, weights, bias, shift, top: (1 << bits) - 1 };
}

/** As an Int32Array, whose numbers are below 2**24 in size. */
export function small(numbers, what) {
  if (!numbers.every((x) => Math.abs(x) < EXACT)) throw new FormatError(`${what} of impossible numbers`);
  return Int32Array.from(numbers);
}

/**
 * The largest size that each sum of a layer, and any part of it, can have: Float64Array [outputs].
 *
 * most: of each input, by its number.
 */
export function largestSums({ weights, bias, inputs }, most) {
  return Float64Array.from(bias, (b, output) => {
    let sum = Math.abs(b);
    for (let i = 0, at = output * inputs; i < inputs; i++, at++) sum += Math.abs(weights[at]) * most(i);
    return sum;
  });
}

/** Throws FormatError unless sums of these sizes are exact. */
export function requireExact(sums, what) {
  if (!sums.every((sum) => sum < EXACT)) {
    throw new FormatError(`${what} with sums beyond 2**24, which would not be exact`);
  }
}
