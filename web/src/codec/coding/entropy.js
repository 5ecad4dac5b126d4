import { FormatError } from "../errors.js";
import { AnsDecoder, PRECISION, TOTAL } from "./ans.js";
import { escapeBytes, readEscape } from "./tables.js";

/** Symbols of images: many in one ANS stream, one by arithmetic coding (docs/FORMAT.md). */

/**
 * The symbols of n images, Int32Array [n * D], and their components, Uint16Array [n].
 *
 * Throws FormatError if the stream is not one that these tables can produce.
 */
export function decode(stream, n, book) {
  const { tables } = book;
  const { components, latents } = tables;
  const coder = new AnsDecoder(stream, "a stream");
  const component = new Uint16Array(n);
  if (components > 1) {
    for (let i = 0; i < n; i++) component[i] = coder.takeFrom(tables.weightSums, components);
  }
  const { order, groups } = grouped(component, components);
  const symbols = new Int32Array(n * latents);
  const escaped = [];
  for (let dimension = 0; dimension < latents; dimension++) {
    for (const { of, start, size } of groups) {
      const row = book.row(of, dimension);
      const first = book.first[row];
      const count = book.count[row];
      book.takeMany(coder, row, size, (i, index) => {
        const at = order[start + i] * latents + dimension;
        symbols[at] = first + index;
        if (index === count) escaped.push([at, row]);
      });
    }
    // Each takes at least 3 bytes.
    if (2 * escaped.length > stream.length) {
      throw new FormatError("more escapes than the stream has room for");
    }
  }
  for (const [at, row] of escaped) {
    symbols[at] = readEscape(book.first[row], book.count[row], () => coder.takeEven(8));
  }
  if (!coder.isEmpty) throw new FormatError("a stream with something left over");
  return { symbols, component };
}

/** The order of images by component, and where each component's are in it. */
function grouped(component, components) {
  const counts = new Uint32Array(components);
  for (const of of component) counts[of]++;
  const groups = [];
  const next = new Uint32Array(components);
  let start = 0;
  counts.forEach((size, of) => {
    next[of] = start;
    if (size) groups.push({ of, start, size });
    start += size;
  });
  const order = new Uint32Array(component.length);
  component.forEach((of, i) => (order[next[of]++] = i));
  return { order, groups };
}

/** Where an index is: the sum of the frequencies below it, and its own. */
const interval = (book, row, index) => {
  const start = book.sum(row, index);
  return [start, book.sum(row, index + 1) - start];
};

/** The shortest encoding of one image's symbols in a component. */
export function encodeOne(symbols, component, book) {
  const { weights, weightSums } = book.tables;
  const intervals = [[weightSums[component], weights[component]]];
  const escaped = [];
  symbols.forEach((symbol, dimension) => {
    const row = book.row(component, dimension);
    const index = book.index(row, symbol);
    intervals.push(interval(book, row, index));
    if (index === book.count[row]) {
      escaped.push(...escapeBytes(symbol, book.first[row], index));
    }
  });
  for (const byte of escaped) intervals.push([byte * (TOTAL / 256), TOTAL / 256]);
  let low = 0n;
  let width = 1n; // the interval [low, low + width) / 2**scale
  for (const [start, frequency] of intervals) {
    low = (low << 24n) + width * BigInt(start);
    width *= BigInt(frequency);
  }
  const scale = PRECISION * intervals.length;
  // The first multiple of 2**-8n in the interval, for the smallest n for which there is one.
  for (let n = 0; ; n++) {
    const rest = BigInt(scale - 8 * n);
    const value = (low + (1n << rest) - 1n) >> rest;
    if (value << rest < low + width) return bigEndian(value, n);
  }
}

function bigEndian(value, n) {
  const out = new Uint8Array(n);
  for (let i = n - 1; i >= 0; i--, value >>= 8n) out[i] = Number(value & 255n);
  return out;
}

/** Reads a single image's payload as `AnsDecoder` reads a stream. */
class ArithmeticDecoder {
  constructor(data) {
    this.position = data.reduce((value, byte) => (value << 8n) | BigInt(byte), 0n);
    this.width = 1n << BigInt(8 * data.length);
  }

  get slot() {
    return Number((this.position << 24n) / this.width);
  }

  take(start, frequency) {
    this.position = (this.position << 24n) - BigInt(start) * this.width;
    this.width *= BigInt(frequency);
  }
}

/**
 * The symbols of one image, Int32Array [D], and its component.
 *
 * Throws FormatError if the bytes are not ones that an encoder writes.
 */
export function decodeOne(data, book) {
  const { components, latents, weightSums } = book.tables;
  if (data.length > 8 * (latents + 1)) {
    throw new FormatError(`a payload of ${data.length} bytes for ${latents} symbols`);
  }
  const coder = new ArithmeticDecoder(data);
  let component = 0;
  const slot = coder.slot;
  while (component < components - 1 && weightSums[component + 1] <= slot) component++;
  coder.take(weightSums[component], book.tables.weights[component]);
  const symbols = new Int32Array(latents);
  const escaped = [];
  for (let dimension = 0; dimension < latents; dimension++) {
    const row = book.row(component, dimension);
    const index = book.take(coder, row);
    symbols[dimension] = book.first[row] + index;
    if (index === book.count[row]) escaped.push(dimension);
  }
  const nextByte = () => {
    const byte = coder.slot >> 16;
    coder.take(byte * 65536, 65536);
    return byte;
  };
  for (const dimension of escaped) {
    const row = book.row(component, dimension);
    symbols[dimension] = readEscape(book.first[row], book.count[row], nextByte);
  }
  const again = encodeOne(symbols, component, book);
  if (again.length !== data.length || again.some((byte, i) => byte !== data[i])) {
    throw new FormatError("a payload that no encoder writes");
  }
  return { symbols, component };
}
