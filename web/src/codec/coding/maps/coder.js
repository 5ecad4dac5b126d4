import { FormatError } from "../../errors.js";
import { AnsDecoder } from "../integers/ans.js";
import { ArithmeticDecoder, ofByte, shortest } from "../integers/arithmetic.js";
import { escapeBytes, readEscape } from "../integers/escapes.js";

/** Symbols of maps: place by place, group by group, all images in step (docs/FORMAT.md, "Prior of a map"). */

const WIDTHS = 104;
const TURN = 32; // what a turn takes, in symbols
const MULTIPLY_ADDS = 1 << 11; // of the network, in a symbol
const OF_CANVAS = 4; // numbers of a canvas that take the memory of a symbol

/** What decoding n images takes, in symbols. */
export function work({ grid, groups, latents, multiplyAdds }, n) {
  const [h, w, c] = grid;
  const canvas = ((h + 2) * (w + 4) * c) / OF_CANVAS;
  return Math.ceil(n * (Math.max(latents, canvas) + multiplyAdds / MULTIPLY_ADDS) + TURN * h * w * groups.length);
}

/**
 * The symbols of n images, Int32Array [n * D], the latents that they stand for, in units, Float64Array,
 * and the numbers of their widths, Uint8Array.
 *
 * Throws FormatError if the stream is not one that this prior can produce.
 */
export function decode(stream, n, prior, step) {
  const coder = new AnsDecoder(stream, "a stream");
  const found = taken(coder, n, prior, step, stream.length);
  if (!coder.isEmpty) throw new FormatError("a stream with something left over");
  return found;
}

/** The same of a single image. */
export const decodeOne = (data, prior, step) => taken(new ArithmeticDecoder(data), 1, prior, step, Infinity);

/** size: bytes that escapes may be in, each of which takes at least 3. */
function taken(coder, n, prior, step, size) {
  const { latents, each, groups } = prior;
  const [h, w, c] = prior.grid;
  const network = prior.network(n, step);
  const book = prior.book(step);
  const symbols = new Int32Array(n * latents);
  const units = new Float64Array(n * latents);
  const rows = new Uint8Array(n * latents);
  const order = new Uint32Array(n * each); // of a turn's symbols
  const ends = new Uint32Array(WIDTHS + 1); // in `order`, of those of each width
  let escapes = 0;
  for (let place = 0; place < h * w; place++) {
    network.go(n, Math.floor(place / w), place % w);
    for (let k = 0; k < groups.length; k++) {
      network.expect(n, k);
      const start = place * c + k * each;
      sort(start);
      take();
      put(start, k);
    }
  }
  return { symbols, units, rows };

  /** Orders a turn's symbols by the numbers of their widths. */
  function sort(start) {
    ends.fill(0);
    for (let image = 0; image < n; image++) {
      for (let j = 0, at = image * latents + start; j < each; j++, at++) {
        rows[at] = network.width(image, j);
        ends[rows[at] + 1]++;
      }
    }
    for (let row = 1; row < WIDTHS; row++) ends[row] += ends[row - 1];
    for (let image = 0; image < n; image++) {
      for (let at = image * latents + start, end = at + each; at < end; at++) order[ends[rows[at]]++] = at;
    }
  }

  function take() {
    const escaped = [];
    for (let from = 0; from < order.length; ) {
      const row = rows[order[from]];
      const first = book.first[row];
      const count = book.count[row];
      const start = from;
      book.takeMany(coder, row, ends[row] - start, (i, index) => {
        symbols[order[start + i]] = first + index;
        if (index === count) escaped.push(order[start + i]);
      });
      from = ends[row];
    }
    escapes += escaped.length;
    if (2 * escapes > size) throw new FormatError("more escapes than the stream has room for");
    for (const at of escaped) symbols[at] = readEscape(book.first[rows[at]], book.count[rows[at]], coder);
  }

  /** Tells the network what a group of channels holds. */
  function put(start, k) {
    for (let image = 0; image < n; image++) {
      for (let j = 0, at = image * latents + start; j < each; j++, at++) {
        units[at] = network.mean(image, j) + symbols[at] * step;
        network.put(image, k * each + j, units[at]);
      }
    }
  }
}

/** The shortest encoding of one image's symbols, whose widths have these numbers. */
export function encodeOne(symbols, rows, { each }, book) {
  const intervals = [];
  for (let start = 0; start < symbols.length; start += each) {
    const turn = Array.from({ length: each }, (_, j) => start + j).sort((one, other) => rows[one] - rows[other]);
    const escaped = [];
    for (const at of turn) {
      const index = book.index(rows[at], symbols[at]);
      intervals.push(book.interval(rows[at], index));
      if (index === book.count[rows[at]]) escaped.push(...escapeBytes(symbols[at], book.first[rows[at]], index));
    }
    intervals.push(...escaped.map(ofByte));
  }
  return shortest(intervals);
}

/** Bits that a perfect coder spends on an image. */
export const bits = (symbols, rows, book) => symbols.reduce((sum, symbol, at) => sum + book.bits(rows[at], symbol), 0);
