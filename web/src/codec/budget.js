import { CostError } from "./errors.js";

/**
 * What reading one file may cost in a page, where somebody waits: the only place that says so.
 *
 * Each cost is known before memory or time is spent on it, and then has to be within its limit: an
 * absolute, and as much again for each byte of the file (without a model that it carries).  A large
 * archive is read a part at a time, and each request has these limits anew.
 */
const limit = (what, always, perByte) => ({ what, always, perByte });

export const PIXELS = limit("pixel values at once", 2 ** 24, 512);
export const SYMBOLS = limit("symbols at once", 2 ** 21, 64);
// Each is coded in a number that holds all of them.
export const SINGLE = limit("symbols of a single image", 2 ** 14, 0);
export const TEXT = limit("bytes of names or labels", 2 ** 22, 16);
// About 2 to 4 µs each: what is always allowed takes some half a second.  Of all that they may spend,
// refined archives of digits spend 4 to 26 %.
export const DISTRIBUTIONS = limit("distributions of pixels", 2 ** 17, 64);
// Only of a model that came with the file, or of images whose size the file names.
export const MULTIPLY_ADDS = limit("multiply-adds of its model", 2 ** 33, 2 ** 16);
export const ACTIVATIONS = limit("bytes of memory to compute its model", 2 ** 28, 0);
export const NUMBERS = limit("numbers of its model", 2 ** 22, 0);
export const MAX_IMAGES = 2 ** 24; // of an archive

const allowedOf = (limit, bytes) => limit.always + limit.perByte * bytes;

/** Whether a file of so many bytes may cost so much. */
export const isWithin = (limit, wanted, bytes) => wanted <= allowedOf(limit, bytes);

/** Throws CostError unless it may. */
export function require(limit, wanted, bytes) {
  if (!isWithin(limit, wanted, bytes)) {
    throw new CostError(
      `reading ${bytes} bytes would take ${wanted} ${limit.what}, and ${allowedOf(limit, bytes)} is the limit here: ` +
        "open fewer images at once, or use cvae decompress",
    );
  }
}

/** A function that adds up what is spent of a limit (`spent`), and throws CostError when it is too much. */
export function meter(limit, bytes) {
  const spend = (cost) => require(limit, (spend.spent += cost), bytes);
  spend.spent = 0;
  return spend;
}
