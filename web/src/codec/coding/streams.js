import { SINGLE, require } from "../budget.js";
import { FormatError } from "../errors.js";
import * as maps from "./maps/coder.js";
import { MapPrior } from "./maps/prior.js";
import * as entropy from "./vectors/entropy.js";
import { Tables } from "./vectors/tables.js";

/**
 * A model's coding tables, of whichever kind its latents are, and what they do: the only place that
 * knows both kinds.
 *
 * What is decoded is {symbols, component, units, rows}: of a vector's images, their components; of a
 * map's, the latents in units, and the numbers of their widths.
 */

/** What an image without symbols has of them; as `oneOf`. */
export const NONE = { symbols: new Int32Array(0), component: -1, bits: 0 };

const isMap = (tables) => tables instanceof MapPrior;

/** Reads either kind; spend: as for `Packed`; kernels: as for `FileModel`. */
export function readTables(data, spend, kernels) {
  const magic = String.fromCharCode(...data.subarray(0, 4));
  return magic === "CVMP" ? new MapPrior(data, spend, kernels) : new Tables(data, spend);
}

/** What decoding n images takes, in symbols. */
export const work = (n, tables) => (isMap(tables) ? maps.work(tables, n) : n * tables.latents);

/** Of n images.  Throws FormatError if the stream is not one that these tables can produce. */
export function decode(stream, n, tables, step) {
  return (isMap(tables) ? maps : entropy).decode(stream, n, tables, step);
}

/** Of a single image, whose payload is the shortest.  Throws FormatError if the bytes are not ones that an encoder writes. */
export function decodeOne(data, tables, step) {
  const { latents } = tables;
  if (data.length > 8 * (latents + 1)) throw new FormatError(`a payload of ${data.length} bytes for ${latents} symbols`);
  require(SINGLE, latents, 0);
  const found = (isMap(tables) ? maps : entropy).decodeOne(data, tables, step);
  const again = encodeOne(found, tables, step);
  if (again.length !== data.length || again.some((byte, i) => byte !== data[i])) {
    throw new FormatError("a payload that no encoder writes");
  }
  return found;
}

/** The shortest encoding of a single image that was decoded. */
export function encodeOne({ symbols, component, rows }, tables, step) {
  if (isMap(tables)) return maps.encodeOne(symbols, rows, tables, tables.book(step));
  return entropy.encodeOne(symbols, component[0], tables, step);
}

/** The latents, in units, of images start to stop - 1 of those decoded. */
export function unitsOf({ symbols, units }, start, stop, { latents }, step) {
  const [from, to] = [start * latents, stop * latents];
  return units ? units.subarray(from, to) : Float64Array.from(symbols.subarray(from, to), (symbol) => symbol * step);
}

/** One of the images that were decoded: {symbols, component, bits}; component: -1 of a map. */
export function oneOf({ symbols, component, rows }, image, tables, step) {
  const part = (numbers) => numbers.slice(image * tables.latents, (image + 1) * tables.latents);
  const own = part(symbols);
  if (isMap(tables)) return { symbols: own, component: -1, bits: maps.bits(own, part(rows), tables.book(step)) };
  const of = component[image];
  return { symbols: own, component: of, bits: tables.bits(of, own, step) };
}
