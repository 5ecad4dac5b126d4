import { FormatError } from "../../errors.js";
import { AnsDecoder } from "../integers/ans.js";
import { ArithmeticDecoder, ofByte, shortest } from "../integers/arithmetic.js";
import { escapeBytes, readEscape } from "../integers/escapes.js";
import { countOf, wavesOf } from "./waves.js";

/** Symbols of maps: wave by wave, group by group, all images in step (docs/FORMAT.md, "Prior of a map"). */

const WIDTHS = 104;
const TURN = 32; // what a turn takes, in symbols
const MULTIPLY_ADDS = 1 << 11; // of the network, in a symbol
const OF_CANVAS = 4; // numbers of a canvas that take the memory of a symbol

/** What decoding n images takes, in symbols. */
export function work({ grid, groups, latents, multiplyAdds }, n) {
  const [h, w, c] = grid;
  const canvas = ((h + 2) * (w + 4) * c) / OF_CANVAS;
  return Math.ceil(n * (Math.max(latents, canvas) + multiplyAdds / MULTIPLY_ADDS) + TURN * countOf(grid) * groups.length);
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
  const network = prior.network(n, step);
  const book = prior.book(step);
  const symbols = new Int32Array(n * latents);
  const units = new Float64Array(n * latents);
  const rows = new Uint8Array(n * latents);
  const ends = new Uint32Array(WIDTHS + 1); // of a turn's symbols in their order, of those of each width
  let escapes = 0;
  for (const places of wavesOf(prior.grid)) {
    network.go(n, places);
    for (let k = 0; k < groups.length; k++) {
      network.expect(k);
      const turn = turnOf(prior, n, places, k);
      turn.forEach((at, i) => (rows[at] = network.width(Math.floor(i / each), i % each)));
      take(ordered(turn));
      turn.forEach((at, i) => {
        const vector = Math.floor(i / each);
        units[at] = network.mean(vector, i % each) + symbols[at] * step;
        network.put(vector, k * each + (i % each), units[at]);
      });
    }
  }
  return { symbols, units, rows };

  /** A turn's symbols by the numbers of their widths. */
  function ordered(turn) {
    ends.fill(0);
    for (const at of turn) ends[rows[at] + 1]++;
    for (let row = 1; row < WIDTHS; row++) ends[row] += ends[row - 1];
    const order = new Uint32Array(turn.length);
    for (const at of turn) order[ends[rows[at]]++] = at;
    return order;
  }

  function take(order) {
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
}

/** The symbols of a group of channels at some places of n images: Uint32Array, in order. */
function turnOf({ grid, latents, each }, n, places, k) {
  const [, w, c] = grid;
  const turn = new Uint32Array(n * places.length * each);
  for (let image = 0, to = 0; image < n; image++) {
    for (const [row, column] of places) {
      const start = image * latents + (row * w + column) * c + k * each;
      for (let j = 0; j < each; j++) turn[to++] = start + j;
    }
  }
  return turn;
}

/** The shortest encoding of one image's symbols, whose widths have these numbers. */
export function encodeOne(symbols, rows, prior, book) {
  const intervals = [];
  const turns = wavesOf(prior.grid).flatMap((places) => prior.groups.map((_, k) => turnOf(prior, 1, places, k)));
  for (const turn of turns) {
    const escaped = [];
    for (const at of turn.sort((one, other) => rows[one] - rows[other] || one - other)) {
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
