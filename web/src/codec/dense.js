/** Bytes of the text that `cvae_jax/page/dense.py` makes of them: 13 bits in two characters. */

const CODES = new Uint8Array(128);
for (let code = 33, value = 0; code < 127; code++) {
  if (!'<"\\'.includes(String.fromCharCode(code))) CODES[code] = value++;
}

/** size: how many bytes there are. */
export function fromText(text, size) {
  const out = new Uint8Array(size);
  let held = 0;
  let bits = 0;
  for (let at = 0, to = 0; to < size; at += 2) {
    held |= (CODES[text.charCodeAt(at)] + 91 * CODES[text.charCodeAt(at + 1)]) << bits;
    for (bits += 13; bits >= 8 && to < size; bits -= 8, held >>>= 8) out[to++] = held;
  }
  return out;
}
