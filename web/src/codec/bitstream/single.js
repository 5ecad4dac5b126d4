import { bytesOf, concat, crc32c, equal, packU32, u16, u32 } from "../bytes.js";
import { DISTRIBUTIONS, SYMBOLS, meter, require } from "../budget.js";
import * as streams from "../coding/streams.js";
import { FormatError, ModelMismatchError } from "../errors.js";
import { BASED, CRC_SIZE, MAX_ERROR, SIZE_ROOM, VERSION, checkVersion, unpackSize } from "./records.js";

/** A single image's file (docs/FORMAT.md, "Single image"). */

const HEADER = 8;
const REFINED_HEADER = 7;

const isRefined = (data) => data[1] === 0x77;

/** Whether it is of another size than the model's own. */
const isSized = (data) => data[1] === 0x78;

/** Whether bytes start as a single image's file does. */
export const isSingle = (data) => data[0] === 0x89 && (data[1] === 0x76 || isRefined(data) || isSized(data));

/** Bytes before the payload. */
const headerOf = (data) => HEADER + isRefined(data) * REFINED_HEADER + isSized(data) * SIZE_ROOM;

/** What a file says of itself: {short, step, maxError, size}; short: 3 bytes that name its model. */
export function head(data) {
  if (!isSingle(data) || data.length < headerOf(data) + CRC_SIZE) {
    throw new FormatError(`no cvae image, or a truncated one: ${data.length} bytes`);
  }
  checkVersion(data[2]);
  const step = u16(data, 6);
  if (!step) throw new FormatError("an impossible step of the quantiser: 0");
  const size = isSized(data) ? unpackSize(data.subarray(HEADER)) : null;
  return { short: data.subarray(3, 6), step, maxError: isRefined(data) ? data[11] : null, size };
}

const checkOf = (content, symbols, ...levels) =>
  [bytesOf(symbols), ...levels].reduce((crc, part) => crc32c(part, crc), crc32c(content));

/** One image's file, and the levels that it decodes to, by a model whose latents are a vector. */
export function encode(symbols, step, model) {
  const { tables } = model;
  const payload = streams.encodeOne({ symbols, component: [tables.cheapest(symbols, step)] }, tables, step);
  const start = Uint8Array.of(0x89, 0x76, VERSION, ...model.short, step, step >> 8);
  const content = concat(start, payload);
  const levels = model.levels(streams.unitsOf({ symbols }, 0, 1, tables, step), 1);
  return { bytes: concat(content, packU32(checkOf(content, symbols, levels))), levels };
}

/**
 * What a file holds: {symbols, component, step, levels, mode, bits}; model: of the image's size.
 *
 * Throws FormatError if it is damaged, or decodes to other pixels than when it was compressed.
 */
export function decode(data, model) {
  const { step } = head(data);
  const content = data.subarray(0, data.length - CRC_SIZE);
  const check = u32(data, content.length);
  const compare = (symbols, ...levels) => {
    if (checkOf(content, symbols, ...levels) !== check) {
      throw new FormatError("its check does not match: damaged, or decoded to other pixels");
    }
  };
  require(SYMBOLS, streams.work(1, model.tables), data.length);
  if (isRefined(data)) return decodeRefined(content, step, model, compare);
  const decoded = isSized(data) ? decodeStream : streams.decodeOne;
  const base = decodeBase(content.subarray(headerOf(data)), step, model, decoded);
  compare(base.symbols, base.levels);
  return { ...base, step, mode: "lossy" };
}

/** Reads a payload of another size: arithmetic coding would take the square of its time. */
const decodeStream = (payload, tables, step) => streams.decode(payload, 1, tables, step);

/** decoded: reads the payload. */
function decodeBase(payload, step, model, decoded) {
  const { tables } = model;
  const found = decoded(payload, tables, step);
  const levels = model.levels(streams.unitsOf(found, 0, 1, tables, step), 1);
  return { ...streams.oneOf(found, 0, tables, step), levels };
}

function decodeRefined(content, step, model, compare) {
  const [maxError, mode, size] = [content[11], content[12], u16(content, 13)];
  const start = HEADER + REFINED_HEADER;
  const payload = content.subarray(start, start + size);
  if (maxError > MAX_ERROR || mode > BASED || payload.length !== size || (size && mode !== BASED)) {
    throw new FormatError("a refined image with an impossible header");
  }
  const none = { ...streams.NONE, levels: new Uint8Array(0) };
  const base = mode === BASED ? decodeBase(payload, step, model, streams.decodeOne) : none;
  const { context } = model;
  if (!context || !equal(content.subarray(8, 11), context.digest.subarray(0, 3))) {
    throw new ModelMismatchError("refined with a context model that this page does not have");
  }
  const refinement = { maxError, modes: [mode], stream: content.subarray(start + size) };
  const spend = meter(DISTRIBUTIONS, content.length);
  const { images, bits } = context.refine(refinement, base.levels, spend);
  compare(base.symbols, base.levels, images);
  const named = ["raw", "alone", "based"][mode];
  return { ...base, step, levels: images, mode: named, bits: base.bits + bits[0] };
}

/** Bytes of a file by what they are for. */
export function ledger(data) {
  const headers = headerOf(data);
  const rest = data.length - headers - CRC_SIZE;
  const symbols = isRefined(data) ? Math.min(u16(data, 13), rest) : rest;
  return { headers, checks: CRC_SIZE, symbols, refinements: rest - symbols };
}
