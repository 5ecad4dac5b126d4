import { FormatError } from "../../errors.js";

export const PRECISION = 24;
export const TOTAL = 1 << PRECISION; // every table's frequencies add up to this

/** Reads a stream of many symbols from its end (docs/FORMAT.md, "Streams of an archive: ANS"). */
export class AnsDecoder {
  /** what: for messages.  Throws FormatError for bytes that no encoder ends so. */
  constructor(stream, what) {
    if (stream.length % 4) {
      throw new FormatError(`${what} of ${stream.length} bytes; expected a multiple of 4`);
    }
    this.words = new Uint32Array(stream.slice().buffer);
    this.left = this.words.length;
    if (this.left && !this.words[this.left - 1]) throw new FormatError(`${what} that ends in zeros`);
    // The state, of 64 bits.
    this.high = 0;
    this.low = 0;
    for (let i = 0; i < 2; i++) this._refill();
  }

  /** The place of the next index among TOTAL. */
  get slot() {
    return this.low & (TOTAL - 1);
  }

  /** Takes the index that has the slots from `start` on, `frequency` of them. */
  take(start, frequency) {
    // (state >> 24) * frequency + slot - start, in parts of fewer than 53 bits each.
    const rest = this.high * 256 + (this.low >>> 24);
    const upper = Math.floor(rest / 2 ** 20);
    const product = upper * frequency;
    const above = Math.floor(product / 4096);
    const below =
      (product - above * 4096) * 2 ** 20 +
      (rest - upper * 2 ** 20) * frequency +
      (this.slot - start);
    const carry = Math.floor(below / 2 ** 32);
    this.low = below - carry * 2 ** 32;
    this.high = above + carry;
    if (!this.high) this._refill();
  }

  /** An index of `2 ** bits` that are all as frequent. */
  takeEven(bits) {
    const index = this.slot >> (PRECISION - bits);
    this.take(index << (PRECISION - bits), TOTAL >> bits);
    return index;
  }

  /** The index with `sums[index] <= slot < sums[index + 1]`, of n. */
  takeFrom(sums, n) {
    const index = find(sums, 0, n, this.slot);
    this.take(sums[index], sums[index + 1] - sums[index]);
    return index;
  }

  get isEmpty() {
    return !this.left && !this.high && !this.low;
  }

  _refill() {
    if (!this.left || this.high) return;
    this.high = this.low;
    this.low = this.words[--this.left];
  }
}

/** The index from `first` to below `beyond` with `sums[index] <= slot < sums[index + 1]`. */
export function find(sums, first, beyond, slot) {
  let index = first;
  while (beyond - index > 1) {
    const middle = (index + beyond) >> 1;
    if (sums[middle] <= slot) index = middle;
    else beyond = middle;
  }
  return index;
}

/** `a * b // c`, exact: a < 2**30, b and c at most 2**30 and their product with less than 72 bits. */
export function scaled(a, b, c) {
  const product = a * b;
  if (product < 2 ** 53) return Math.floor(product / c);
  const upper = Math.floor(b / 4096);
  const quotient = Math.floor((a * upper) / c);
  const rest = a * upper - quotient * c;
  return quotient * 4096 + Math.floor((rest * 4096 + a * (b - upper * 4096)) / c);
}
