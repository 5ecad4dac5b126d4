import { u32, u64 } from "../bytes.js";
import { MAX_IMAGES } from "../budget.js";
import { FormatError } from "../errors.js";
import * as records from "./records.js";
import { CRC_SIZE, FOOTER_SIZE, HEADER_SIZE, SECTION_ROOM } from "./records.js";

/** The sections of an archive: of an intact one by its index, of a damaged one whatever is left. */

const ENTRY = 16; // bytes of the index for each chunk

/**
 * An archive, every section's check compared: {header, models, chunks, images, faults, lost}.
 *
 * models: the bodies of its MODL sections, of which a damaged file may have several.
 * Throws FormatError if nothing is left.
 */
export function openArchive(data) {
  try {
    return intact(data);
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    return salvage(data, error.message);
  }
}

function intact(data) {
  const header = records.unpackHeader(data.subarray(0, HEADER_SIZE));
  const index = readIndex(data);
  const modelSize = header.hasModel ? u32(data, HEADER_SIZE + 4) + SECTION_ROOM : 0;
  const models = header.hasModel
    ? [records.unpackSection(data.subarray(HEADER_SIZE, HEADER_SIZE + modelSize), "MODL")]
    : [];
  let at = HEADER_SIZE + modelSize;
  let first = 0;
  const chunks = index.entries.map(({ offset, length, count }, k) => {
    const section = data.subarray(offset, offset + length);
    if (offset !== at) throw new FormatError(`index: chunk ${k} cannot be where it says`);
    at += length;
    const chunk = records.unpackChunk(records.unpackSection(section, "CHNK"));
    if (chunk.first !== first || chunk.count !== count) {
      throw new FormatError(`chunk ${k}: it is another chunk than the index says`);
    }
    first += count;
    return chunk;
  });
  if (at !== index.offset || first !== index.images) {
    throw new FormatError("index: it does not add up to the file");
  }
  if (first > MAX_IMAGES) throw new FormatError(`${first} images; a page shows at most ${MAX_IMAGES}`);
  return { header, models, chunks, images: first, faults: [], lost: [] };
}

function readIndex(data) {
  const end = data.length - FOOTER_SIZE;
  const offset = records.unpackFooter(data.subarray(Math.max(end, 0)));
  if (offset < HEADER_SIZE || offset > end) throw new FormatError("index: not where it should be");
  const body = records.unpackSection(data.subarray(offset, end), "INDX");
  for (let i = 0; i < HEADER_SIZE; i++) {
    if (body[i] !== data[i]) throw new FormatError("index: it belongs to another header");
  }
  return { offset, ...entriesOf(body) };
}

function entriesOf(body) {
  const fixed = HEADER_SIZE + 8;
  if (body.length < fixed || (body.length - fixed) % ENTRY) throw new FormatError("index: of an impossible size");
  const entries = [];
  for (let at = fixed; at < body.length; at += ENTRY) {
    entries.push({ offset: u64(body, at), length: u32(body, at + 8), count: u32(body, at + 12) });
  }
  return { images: u64(body, HEADER_SIZE), entries };
}

/** What a damaged archive still holds; fault: what is wrong with it. */
function salvage(data, fault) {
  const faults = [fault];
  let header = null;
  try {
    header = records.unpackHeader(data.subarray(0, HEADER_SIZE));
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
  }
  const models = [];
  const found = [];
  let images = null;
  let hasModel = header?.hasModel ?? false;
  const sections = [...intactSections(data)];
  for (const { tag, body, start } of sections) {
    try {
      if (tag === "MODL") models.push(body);
      else if (tag === "CHNK") found.push(records.unpackChunk(body));
      else if (images === null) {
        const copy = records.unpackHeader(body.subarray(0, HEADER_SIZE));
        const index = entriesOf(body);
        header ??= copy;
        hasModel ||= copy.hasModel;
        if (index.images !== index.entries.reduce((sum, entry) => sum + entry.count, 0)) {
          throw new FormatError(`it claims ${index.images} images`);
        }
        images = index.images;
      }
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      faults.push(`${tag} section at byte ${start}: ${error.message}`);
    }
  }
  if (!header) throw new FormatError(`${fault}; and no intact index to recover it from`);
  if (hasModel && !models.length) faults.push("the embedded model is damaged");
  if (images === null) faults.push("the index is damaged: images may be missing at the end");
  const chunks = apart(found, faults);
  faults.push(...between(data, sections));
  if (!chunks.length && !models.length) throw new FormatError(`${fault}; no image is left`);
  const end = chunks.length ? chunks.at(-1).first + chunks.at(-1).count : 0;
  images = Math.min(Math.max(images ?? 0, end), MAX_IMAGES);
  return { header, models, chunks, images, faults, lost: gaps(chunks, images) };
}

/** The chunks in the order of their images, each image once. */
function apart(found, faults) {
  const chunks = [];
  let at = 0;
  for (const chunk of found.sort((a, b) => a.first - b.first)) {
    if (chunk.first < at) faults.push(`${chunk.where}: some of them are in another chunk: left out`);
    else if (chunk.first + chunk.count > MAX_IMAGES) faults.push(`${chunk.where}: too many to show`);
    else {
      chunks.push(chunk);
      at = chunk.first + chunk.count;
    }
  }
  return chunks;
}

/** The ranges of images, [first, last], that no chunk has. */
function gaps(chunks, images) {
  const lost = [];
  let at = 0;
  for (const { first, count } of [...chunks, { first: images, count: 0 }]) {
    if (first > at) lost.push([at, first - 1]);
    at = Math.max(at, first + count);
  }
  return lost;
}

/** A fault for each run of bytes that are neither of the header nor of an intact section. */
function* between(data, sections) {
  let at = HEADER_SIZE;
  for (const { start, end } of sections) {
    if (start > at) yield `bytes ${at} to ${start - 1} are no intact section`;
    at = end;
  }
  if (data.length - at !== FOOTER_SIZE) yield `from byte ${at} on: damaged, or no archive's end`;
}

/** Every section whose check matches. */
function* intactSections(data) {
  let end = 0;
  let room = 16 * data.length; // bytes to check: a hostile file must not cost its square
  for (let at = 0; at + SECTION_ROOM <= data.length; at++) {
    // M, C or I
    if (at < end || (data[at] !== 77 && data[at] !== 67 && data[at] !== 73)) continue;
    const tag = records.text(data, at, 4);
    if (tag !== "MODL" && tag !== "CHNK" && tag !== "INDX") continue;
    const length = u32(data, at + 4) + SECTION_ROOM;
    if (at + length > data.length || room < length) continue;
    room -= length;
    try {
      const body = records.unpackSection(data.subarray(at, at + length), tag);
      end = at + length;
      yield { tag, body, start: at, end };
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
    }
  }
}

/** Bytes of the file by what they are for; they add up to its size. */
export function ledger(data, { header, models, chunks }) {
  const size = (part) => part?.length ?? 0;
  const sum = (of) => chunks.reduce((total, chunk) => total + of(chunk), 0);
  const refined = sum((chunk) => Number(chunk.refinement !== null));
  const spent = {
    index: HEADER_SIZE + 8 + ENTRY * chunks.length + 8 + FOOTER_SIZE - 3 * CRC_SIZE,
    model: models.length ? size(models[0]) + SECTION_ROOM : 0,
    names: sum((chunk) => size(chunk.names)),
    labels: sum((chunk) => size(chunk.labels)),
    symbols: sum((chunk) => size(chunk.stream)),
    refinements: sum((chunk) => size(chunk.refinement?.stream)),
    checks: CRC_SIZE * (3 + chunks.length + 1 + 2 * chunks.length + refined),
  };
  const rest = data.length - Object.values(spent).reduce((a, b) => a + b);
  return { headers: Math.max(rest, 0), ...spent };
}
