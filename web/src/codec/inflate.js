import { FormatError } from "./errors.js";

/** zlib streams (RFC 1950, 1951), at once and never past a limit. */

const ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
const LONGEST = 15; // bits of a code

/** A canonical code, as how many codes have each length, and their symbols in order. */
function code(lengths) {
  const count = new Uint16Array(LONGEST + 1);
  for (const length of lengths) count[length]++;
  let left = 1; // codes that are free
  for (let length = 1; length <= LONGEST; length++) {
    left = 2 * left - count[length];
    if (left < 0) throw new FormatError("a code with too many symbols");
  }
  const offset = new Uint16Array(LONGEST + 2);
  for (let length = 1; length <= LONGEST; length++) {
    offset[length + 1] = offset[length] + count[length];
  }
  const symbols = new Uint16Array(lengths.length);
  lengths.forEach((length, symbol) => {
    if (length) symbols[offset[length]++] = symbol;
  });
  const used = lengths.length - count[0];
  return { count, symbols, left, used };
}

const filled = (...runs) => runs.flatMap(([n, value]) => Array(n).fill(value));
const FIXED = [
  code(filled([144, 8], [112, 9], [24, 7], [8, 8])),
  code(filled([30, 5])),
];

class Bits {
  constructor(data, at, end) {
    Object.assign(this, { data, at, end, held: 0, count: 0 });
  }

  take(n) {
    while (this.count < n) {
      if (this.at >= this.end) throw new FormatError("it ends too early");
      this.held |= this.data[this.at++] << this.count;
      this.count += 8;
    }
    const value = this.held & ((1 << n) - 1);
    this.held >>>= n;
    this.count -= n;
    return value;
  }

  symbol({ count, symbols }) {
    let value = 0;
    let first = 0;
    let index = 0;
    for (let length = 1; length <= LONGEST; length++) {
      value |= this.take(1);
      if (value - first < count[length]) return symbols[index + value - first];
      index += count[length];
      first = (first + count[length]) << 1;
      value <<= 1;
    }
    throw new FormatError("a code that is none");
  }

  align() {
    this.held = 0;
    this.count = 0;
  }
}

function dynamicCodes(bits) {
  const literals = bits.take(5) + 257;
  const distances = bits.take(5) + 1;
  const used = bits.take(4) + 4;
  if (literals > 286 || distances > 30) throw new FormatError("too many codes");
  const lengths = new Array(19).fill(0);
  for (let i = 0; i < used; i++) lengths[ORDER[i]] = bits.take(3);
  const ofLengths = code(lengths);
  if (ofLengths.left) throw new FormatError("an incomplete code");
  const found = [];
  while (found.length < literals + distances) {
    const symbol = bits.symbol(ofLengths);
    if (symbol < 16) {
      found.push(symbol);
      continue;
    }
    if (symbol === 16 && !found.length) throw new FormatError("nothing to repeat");
    const value = symbol === 16 ? found[found.length - 1] : 0;
    const times = symbol === 16 ? 3 + bits.take(2) : symbol === 17 ? 3 + bits.take(3) : 11 + bits.take(7);
    for (let i = 0; i < times; i++) found.push(value);
  }
  if (found.length !== literals + distances || !found[256]) throw new FormatError("codes without an end");
  const codes = [code(found.slice(0, literals)), code(found.slice(literals))];
  // Only a single code, of one bit, may leave others unused.
  if (codes.some((one) => one.left && !(one.used <= 1 && one.count[1] === one.used))) {
    throw new FormatError("an incomplete code");
  }
  return codes;
}

/** The base and the plain bits of the lengths (257 to 284) or distances by their symbol. */
const spread = (n, perStep, first) => {
  const out = [];
  let base = first;
  for (let i = 0; i < n; i++) {
    const extra = Math.max(Math.floor(i / perStep) - 1, 0);
    out.push([base, extra]);
    base += 1 << extra;
  }
  return out;
};
const LENGTHS = [...spread(28, 4, 3), [258, 0]];
const DISTANCES = spread(30, 2, 1);

function adler32(data) {
  let a = 1;
  let b = 0;
  for (let at = 0; at < data.length; ) {
    const end = Math.min(at + 3800, data.length);
    for (; at < end; at++) b += a += data[at];
    a %= 65521;
    b %= 65521;
  }
  return b * 65536 + a;
}

/**
 * What a zlib stream holds, at most `limit` bytes.
 *
 * what: for messages.  Throws FormatError if it is damaged, longer, or followed by anything.
 */
export function inflate(data, limit, what) {
  try {
    return inflated(data, limit);
  } catch (error) {
    if (error instanceof FormatError) throw new FormatError(`${what}: damaged (${error.message})`);
    throw error;
  }
}

function inflated(data, limit) {
  if (data.length < 6 || (data[0] & 15) !== 8 || data[0] >> 4 > 7 || (data[0] * 256 + data[1]) % 31 || data[1] & 32) {
    throw new FormatError("no zlib stream");
  }
  const bits = new Bits(data, 2, data.length - 4);
  let out = new Uint8Array(Math.min(limit, 4 * data.length + 64));
  let size = 0;
  const reserve = (more) => {
    if (size + more > limit) throw new FormatError("longer than it can be");
    if (size + more > out.length) {
      const larger = new Uint8Array(Math.min(limit, Math.max(2 * out.length, size + more)));
      larger.set(out);
      out = larger;
    }
  };
  for (let last = 0; !last; ) {
    last = bits.take(1);
    const kind = bits.take(2);
    if (kind === 0) {
      bits.align();
      const length = bits.take(16);
      if ((length ^ bits.take(16)) !== 0xffff) throw new FormatError("a wrong length");
      if (bits.at + length > bits.end) throw new FormatError("it ends too early");
      reserve(length);
      out.set(data.subarray(bits.at, bits.at + length), size);
      size += length;
      bits.at += length;
      continue;
    }
    if (kind === 3) throw new FormatError("a block of no known kind");
    const [literals, distances] = kind === 1 ? FIXED : dynamicCodes(bits);
    for (let symbol; (symbol = bits.symbol(literals)) !== 256; ) {
      if (symbol < 256) {
        reserve(1);
        out[size++] = symbol;
        continue;
      }
      if (symbol > 285) throw new FormatError("a length of no known kind");
      const [base, extra] = LENGTHS[symbol - 257];
      const length = base + bits.take(extra);
      const [near, more] = DISTANCES[bits.symbol(distances)];
      const distance = near + bits.take(more);
      if (distance > size) throw new FormatError("a distance too far back");
      reserve(length);
      for (let i = 0; i < length; i++, size++) out[size] = out[size - distance];
    }
  }
  out = out.subarray(0, size);
  const check = data.subarray(bits.at);
  if (check.length !== 4) throw new FormatError("followed by something else");
  const found = check.reduce((value, byte) => value * 256 + byte, 0);
  if (found !== adler32(out)) throw new FormatError("its check does not match");
  return out;
}
