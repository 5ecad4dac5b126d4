import { FormatError } from "../../errors.js";
import { AnsDecoder } from "../integers/ans.js";
import { ArithmeticDecoder, ofByte, shortest } from "../integers/arithmetic.js";
import { escapeBytes, readEscape } from "../integers/escapes.js";

/** Symbols of images: many in one ANS stream, one by arithmetic coding (docs/FORMAT.md). */

/**
 * The symbols of n images, Int32Array [n * D], and their components, Uint16Array [n].
 *
 * Throws FormatError if the stream is not one that these tables can produce.
 */
export function decode(stream, n, tables, step) {
  const { components, latents } = tables;
  const book = tables.book(step);
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
      const row = tables.row(of, dimension);
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
    symbols[at] = readEscape(book.first[row], book.count[row], coder);
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

/** The shortest encoding of one image's symbols in a component. */
export function encodeOne(symbols, component, tables, step) {
  const { weights, weightSums } = tables;
  const book = tables.book(step);
  const intervals = [[weightSums[component], weights[component]]];
  const escaped = [];
  symbols.forEach((symbol, dimension) => {
    const row = tables.row(component, dimension);
    const index = book.index(row, symbol);
    intervals.push(book.interval(row, index));
    if (index === book.count[row]) escaped.push(...escapeBytes(symbol, book.first[row], index));
  });
  return shortest([...intervals, ...escaped.map(ofByte)]);
}

/** As `decode`, of one image. */
export function decodeOne(data, tables, step) {
  const { components, latents, weightSums } = tables;
  const book = tables.book(step);
  const coder = new ArithmeticDecoder(data);
  const component = coder.takeFrom(weightSums, components);
  const symbols = new Int32Array(latents);
  const escaped = [];
  for (let dimension = 0; dimension < latents; dimension++) {
    const row = tables.row(component, dimension);
    const index = book.take(coder, row);
    symbols[dimension] = book.first[row] + index;
    if (index === book.count[row]) escaped.push([dimension, row]);
  }
  for (const [dimension, row] of escaped) symbols[dimension] = readEscape(book.first[row], book.count[row], coder);
  return { symbols, component: [component] };
}
