/** Numbers in bytes, and the checks and digests of them. */

export const u16 = (data, at) => data[at] | (data[at + 1] << 8);

export const u32 = (data, at) => (u16(data, at) | (u16(data, at + 2) << 16)) >>> 0;

export const i32 = (data, at) => u32(data, at) | 0;

/** A double: exact up to 2**53. */
export const u64 = (data, at) => u32(data, at + 4) * 2 ** 32 + u32(data, at);

const view = (data) => new DataView(data.buffer, data.byteOffset, data.byteLength);

export const f32 = (data, at) => view(data).getFloat32(at, true);

export const f64 = (data, at) => view(data).getFloat64(at, true);

/** The bytes of a `u32`. */
export const packU32 = (value) => Uint8Array.of(value, value >>> 8, value >>> 16, value >>> 24);

/** One array of several Uint8Arrays. */
export function concat(...parts) {
  const out = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** The bytes of a typed array, as they are in memory: little-endian wherever there is a browser. */
export const bytesOf = (array) =>
  new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

export const hex = (data) => Array.from(data, (byte) => byte.toString(16).padStart(2, "0")).join("");

export const equal = (a, b) => a.length === b.length && a.every((byte, i) => byte === b[i]);

// CRC-32C, four bytes at a time.
const CRC = Array.from({ length: 4 }, () => new Uint32Array(256));
for (let byte = 0; byte < 256; byte++) {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  CRC[0][byte] = crc;
}
for (let k = 1; k < 4; k++) {
  CRC[k].forEach((_, byte) => {
    const before = CRC[k - 1][byte];
    CRC[k][byte] = (before >>> 8) ^ CRC[0][before & 255];
  });
}

/** CRC-32C of bytes; before: that of what comes before them. */
export function crc32c(data, before = 0) {
  const [t0, t1, t2, t3] = CRC;
  let crc = ~before;
  let at = 0;
  for (; at + 4 <= data.length; at += 4) {
    crc ^= data[at] | (data[at + 1] << 8) | (data[at + 2] << 16) | (data[at + 3] << 24);
    crc = t3[crc & 255] ^ t2[(crc >>> 8) & 255] ^ t1[(crc >>> 16) & 255] ^ t0[crc >>> 24];
  }
  for (; at < data.length; at++) crc = (crc >>> 8) ^ t0[(crc ^ data[at]) & 255];
  return ~crc >>> 0;
}

const primes = [];
for (let n = 2; primes.length < 64; n++) if (primes.every((p) => n % p)) primes.push(n);
const fraction = (root) => ((root - Math.floor(root)) * 2 ** 32) | 0;
const START = primes.slice(0, 8).map((p) => fraction(Math.sqrt(p)));
const ROUND = Int32Array.from(primes, (p) => fraction(Math.cbrt(p)));

/** SHA-256, at once: the browser's own gives it later, and not everywhere. */
export function sha256(data) {
  const padded = new Uint8Array(((data.length + 72) >> 6) << 6);
  padded.set(data);
  padded[data.length] = 0x80;
  view(padded).setUint32(padded.length - 8, Math.floor(data.length / 2 ** 29));
  view(padded).setUint32(padded.length - 4, data.length << 3);
  const words = view(padded);
  const state = Int32Array.from(START);
  const w = new Int32Array(64);
  const turn = (x, n) => (x >>> n) | (x << (32 - n));
  for (let block = 0; block < padded.length; block += 64) {
    for (let i = 0; i < 16; i++) w[i] = words.getInt32(block + 4 * i);
    for (let i = 16; i < 64; i++) {
      const s0 = turn(w[i - 15], 7) ^ turn(w[i - 15], 18) ^ (w[i - 15] >>> 3);
      const s1 = turn(w[i - 2], 17) ^ turn(w[i - 2], 19) ^ (w[i - 2] >>> 10);
      w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    let [a, b, c, d, e, f, g, h] = state;
    for (let i = 0; i < 64; i++) {
      const s1 = turn(e, 6) ^ turn(e, 11) ^ turn(e, 25);
      const t1 = (h + s1 + ((e & f) ^ (~e & g)) + ROUND[i] + w[i]) | 0;
      const s0 = turn(a, 2) ^ turn(a, 13) ^ turn(a, 22);
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      [h, g, f, e, d, c, b, a] = [g, f, e, (d + t1) | 0, c, b, a, (t1 + t2) | 0];
    }
    [a, b, c, d, e, f, g, h].forEach((x, i) => (state[i] += x));
  }
  const out = new Uint8Array(32);
  state.forEach((x, i) => view(out).setInt32(4 * i, x));
  return out;
}
