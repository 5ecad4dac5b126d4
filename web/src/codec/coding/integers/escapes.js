import { FormatError } from "../../errors.js";

/** Escapes: symbols outside their row, coded as their distance from it, as LEB128. */

/** The bytes of an escape from a row of `count` symbols from `first`. */
export function escapeBytes(symbol, first, count) {
  const above = symbol - first - count;
  let value = above >= 0 ? 2 * above : 2 * (first - 1 - symbol) + 1;
  const out = [];
  for (; value >= 128; value = Math.floor(value / 128)) out.push((value % 128) | 128);
  out.push(value);
  return out;
}

/** The symbol that an escape stands for; its bytes are taken from a coder. */
export function readEscape(first, count, coder) {
  let value = 0;
  for (let scale = 1; ; scale *= 128) {
    if (scale === 2 ** 35) throw new FormatError("an escape of more than 5 bytes");
    const byte = coder.takeEven(8);
    value += (byte & 127) * scale;
    if (byte < 128) break;
  }
  const distance = Math.floor(value / 2);
  const symbol = value % 2 ? first - 1 - distance : first + count + distance;
  if (symbol < -(2 ** 31) || symbol >= 2 ** 31) throw new FormatError("a symbol beyond 32 bits");
  return symbol;
}
