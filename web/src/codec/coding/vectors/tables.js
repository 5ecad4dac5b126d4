import { crc32c, f32, f64, u16, u32 } from "../../bytes.js";
import { FormatError } from "../../errors.js";
import { PRECISION, TOTAL, scaled } from "../integers/ans.js";
import { escapeBytes } from "../integers/escapes.js";
import { Packed } from "../integers/packing.js";

const SUBUNIT = 256; // widths are in this fraction of a unit
export const REACH = 128; // points of the curve on each side of its centre
const MAX_ROW = 1 << 20; // symbols
const MAX_MADE = 1 << 16; // symbols of a row that is built
const KEPT = 1 << 21; // entries of all built rows that are kept
const WORTH = 8; // entries that are built in about the time of finding one symbol without
const HEADER = 23; // bytes
const MOST = 1 << 24; // largest mean or width

const all = (numbers, low, high) => numbers.every((x) => x >= low && x <= high);

/** The distribution of a model's latents (docs/FORMAT.md, "Coding tables"). */
export class Tables {
  /** spend: as for `Packed`.  Throws FormatError for bytes that are no tables, or unusable ones. */
  constructor(data, spend) {
    const magic = String.fromCharCode(...data.subarray(0, 4));
    if (data.length < HEADER || magic !== "CVTB" || u16(data, 4) !== 2) {
      throw new FormatError("coding tables: none, or of another version");
    }
    const components = u16(data, 6);
    const latents = u32(data, 8);
    this.slope = f64(data, 12);
    const shift = data[20];
    const colours = u16(data, 21);
    const start = HEADER + 4 * latents;
    if (!components || !latents || shift > 24 || !colours || data.length < start) {
      throw new FormatError(
        `coding tables: ${data.length} bytes for ${components} components of ${latents} dimensions`,
      );
    }
    this.components = components;
    this.latents = latents;
    this.unitsCheck = crc32c(data.subarray(HEADER, start));
    this.units = Float32Array.from({ length: latents }, (_, d) => f32(data, HEADER + 4 * d));
    const packed = new Packed(data, start, spend);
    this.weights = packed.take(components);
    this.means = packed.take(components * latents);
    const palette = packed.take(colours);
    const index = packed.take(components * latents);
    const steps = packed.take(2 * REACH);
    packed.end();
    for (const [fault, right] of [
      ["a unit is not positive and finite", this.units.every((x) => x > 0 && x < Infinity)],
      ["the slope is not positive and finite", this.slope > 0 && this.slope < Infinity],
      ["a component's weight is out of range", all(this.weights, 1, TOTAL)],
      ["weights do not add up", this.weights.reduce((sum, x) => sum + x, 0) === TOTAL],
      ["a mean is out of range", all(this.means, -MOST / 2 ** shift, MOST / 2 ** shift)],
      ["a width is out of range", all(palette, 1, MOST)],
      ["a width's number is out of range", all(index, 0, colours - 1)],
      ["the curve is not increasing", all(steps, 1, 1 << 30)],
      ["the curve's total is too large", steps.reduce((sum, x) => sum + x, 0) <= 1 << 30],
    ]) {
      if (!right) throw new FormatError(`coding tables: ${fault}`);
    }
    this.means = Int32Array.from(this.means, (x) => x * 2 ** shift);
    this.widths = Int32Array.from(index, (i) => palette[i]);
    this.curve = runningSums(steps);
    this.weightSums = runningSums(this.weights);
  }

  /** The frequencies of a step; those of the last one asked for are kept. */
  book(step) {
    if (this._book?.step !== step) this._book = new Book(this, step);
    return this._book;
  }

  row(component, dimension) {
    return component * this.latents + dimension;
  }

  /** Bits that a perfect coder spends on an image of a component. */
  bits(component, symbols, step) {
    const book = this.book(step);
    const bits = PRECISION - Math.log2(this.weights[component]);
    return symbols.reduce((sum, symbol, dimension) => sum + book.bits(this.row(component, dimension), symbol), bits);
  }

  /** The component in which an image takes the fewest bits. */
  cheapest(symbols, step) {
    let best = 0;
    let fewest = Infinity;
    for (let component = 0; component < this.components; component++) {
      const bits = this.bits(component, symbols, step);
      if (bits < fewest) [best, fewest] = [component, bits];
    }
    return best;
  }
}

/** The part of a row's distribution below x units, of `curve[256]`; x may be any number. */
export function below({ means, widths, curve }, row, x) {
  const width = widths[row];
  const place = (x - means[row]) * SUBUNIT;
  const cell = Math.floor(place / width);
  if (cell < -REACH) return 0;
  if (cell >= REACH) return curve[2 * REACH];
  const at = cell + REACH;
  return curve[at] + scaled(curve[at + 1] - curve[at], place - cell * width, width);
}

export function runningSums(numbers) {
  const sums = new Int32Array(numbers.length + 1);
  numbers.forEach((x, i) => (sums[i + 1] = sums[i] + x));
  return sums;
}

/** The frequencies at one step: of each row the symbols `first .. first + count - 1` and then the escape. */
export class Book {
  /** rows: {means, widths, curve}: of each row, in units, where the curve's centre is, and its width. */
  constructor(rows, step) {
    if (!(step >= 1)) throw new FormatError(`a quantiser step of ${step} units; expected 1 to 65535`);
    Object.assign(this, { rows, step, low: step >> 1, total: rows.curve[2 * REACH] });
    const { means, widths } = rows;
    this.first = new Int32Array(means.length);
    this.count = new Int32Array(means.length);
    means.forEach((mean, row) => {
      const reach = Math.ceil((REACH * widths[row]) / SUBUNIT);
      this.first[row] = Math.floor((mean - reach + this.low) / step);
      this.count[row] = Math.floor((mean + reach + this.low) / step) - this.first[row] + 1;
      if (this.count[row] > MAX_ROW) {
        throw new FormatError(`a quantiser step of ${step} units is too fine for these tables`);
      }
    });
    this._made = new Map();
    this._held = 0;
    this._asked = new Float64Array(means.length); // how many indices of each row were taken
  }

  /** The sum of the frequencies below an index, from 0 to count + 1, of a row. */
  sum(row, index) {
    const lower = (this.first[row] + index) * this.step - this.low;
    return scaled(below(this.rows, row, lower), TOTAL - 1 - this.count[row], this.total) + index;
  }

  /** Where an index is: the sum of the frequencies below it, and its own. */
  interval(row, index) {
    const start = this.sum(row, index);
    return [start, this.sum(row, index + 1) - start];
  }

  /** Takes the index of the slot that a coder is at, from a row. */
  take(coder, row) {
    const slot = coder.slot;
    let index = 0;
    let start = 0;
    let stop = TOTAL;
    for (let beyond = this.count[row] + 1; beyond - index > 1; ) {
      const middle = (index + beyond) >> 1;
      const sum = this.sum(row, middle);
      if (sum <= slot) [index, start] = [middle, sum];
      else [beyond, stop] = [middle, sum];
    }
    coder.take(start, stop - start);
    return index;
  }

  /** Takes n indices, one after the other, from a row; `to`: what gets the place and the index. */
  takeMany(coder, row, n, to) {
    const sums = this._sums(row, n);
    const entries = this.count[row] + 1;
    for (let i = 0; i < n; i++) to(i, sums ? coder.takeFrom(sums, entries) : this.take(coder, row));
  }

  /** The index of a symbol in a row: that of the escape, which is `count`, if it is outside. */
  index(row, symbol) {
    const index = symbol - this.first[row];
    return index < 0 || index >= this.count[row] ? this.count[row] : index;
  }

  /** Bits that a perfect coder spends on a symbol in a row. */
  bits(row, symbol) {
    const index = this.index(row, symbol);
    const bits = PRECISION - Math.log2(this.interval(row, index)[1]);
    return index < this.count[row] ? bits : bits + 8 * escapeBytes(symbol, this.first[row], index).length;
  }

  /** The sums of a whole row, from which n indices are taken; null where it is not worth making. */
  _sums(row, n) {
    const made = this._made.get(row);
    if (made) return made;
    this._asked[row] += n;
    const entries = this.count[row] + 2;
    const isKept = this._held + entries <= KEPT;
    if (entries > Math.min(WORTH * (isKept ? this._asked[row] : n), MAX_MADE)) return null;
    const sums = Int32Array.from({ length: entries }, (_, index) => this.sum(row, index));
    if (isKept) {
      this._held += entries;
      this._made.set(row, sums);
    }
    return sums;
  }
}
