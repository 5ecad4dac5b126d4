import { PRECISION, TOTAL, find } from "./ans.js";

/** A single image's payload: exact arithmetic coding, with integers of any size. */

/** Reads a payload as `AnsDecoder` reads a stream. */
export class ArithmeticDecoder {
  constructor(data) {
    this.position = BigInt(`0x0${Array.from(data, (byte) => byte.toString(16).padStart(2, "0")).join("")}`);
    this.width = 1n << BigInt(8 * data.length);
  }

  get slot() {
    return Number((this.position << 24n) / this.width);
  }

  take(start, frequency) {
    this.position = (this.position << 24n) - BigInt(start) * this.width;
    this.width *= BigInt(frequency);
  }

  takeEven(bits) {
    const each = TOTAL >> bits;
    const index = Math.floor(this.slot / each);
    this.take(index * each, each);
    return index;
  }

  takeFrom(sums, n) {
    const index = find(sums, 0, n, this.slot);
    this.take(sums[index], sums[index + 1] - sums[index]);
    return index;
  }
}

/** The shortest payload of what has these intervals: [sum of the frequencies below it, its own]. */
export function shortest(intervals) {
  let low = 0n;
  let width = 1n; // the interval [low, low + width) / 2**scale
  for (const [start, frequency] of intervals) {
    low = (low << 24n) + width * BigInt(start);
    width *= BigInt(frequency);
  }
  const scale = PRECISION * intervals.length;
  // The first multiple of 2**-8n in the interval, for the smallest n for which there is one.
  const first = (n) => (low + (1n << BigInt(scale - 8 * n)) - 1n) >> BigInt(scale - 8 * n);
  const isInside = (n) => first(n) << BigInt(scale - 8 * n) < low + width;
  let n = 0;
  for (let enough = scale / 8; n < enough; ) {
    const middle = (n + enough) >> 1;
    if (isInside(middle)) enough = middle;
    else n = middle + 1;
  }
  return bigEndian(first(n), n);
}

/** The interval of a byte of an escape. */
export const ofByte = (byte) => [byte * (TOTAL / 256), TOTAL / 256];

function bigEndian(value, n) {
  const digits = n ? value.toString(16).padStart(2 * n, "0") : "";
  return Uint8Array.from({ length: n }, (_, i) => parseInt(digits.slice(2 * i, 2 * i + 2), 16));
}
