import { crc32c, u16, u32, u64 } from "../bytes.js";
import { FormatError, VersionError } from "../errors.js";
import { inflate } from "../inflate.js";

/** The records of the format, unpacked and checked: header, sections, chunks (docs/FORMAT.md). */

export const VERSION = 2;
export const HEADER_SIZE = 60;
export const FOOTER_SIZE = 16;
export const SECTION_ROOM = 12; // of a section around its body
export const CRC_SIZE = 4;
export const SIZE_ROOM = 4; // of the size of images
const MAGIC = "\x89CVAE\r\n\x1a";
const MAX_CHUNK = 8192; // images
const MAX_NAME = 1024; // bytes
export const MAX_ERROR = 63;
export const SPOT = 64; // images whose pixels a spot check is of
export const RAW = 0; // how an image of a refined chunk is coded
export const ALONE = 1;
export const BASED = 2;
const CHUNK_HEADER = 31;
const REFINEMENT_HEADER = 29;

export const text = (data, at, size) => String.fromCharCode(...data.subarray(at, at + size));

const isArchive = (data) => text(data, 0, 8) === MAGIC;

export function checkVersion(version) {
  if (version > VERSION) {
    throw new VersionError(`format version ${version}, this page reads ${VERSION}: a newer page is needed`);
  }
  if (version < VERSION) {
    throw new FormatError(`format version ${version}, this page reads ${VERSION}: compress the images again`);
  }
}

/** The header that an archive starts with: shape, latents, the digests of its model, hasModel. */
export function unpackHeader(data) {
  if (data.length < HEADER_SIZE) throw new FormatError(`truncated: a header of ${data.length} bytes`);
  if (!isArchive(data)) throw new FormatError("no cvae file");
  checkVersion(data[8]);
  if (crc32c(data.subarray(0, 56)) !== u32(data, 56)) throw new FormatError("header: damaged");
  if (data[9] & ~1 || u32(data, 20)) {
    throw new VersionError("header: it uses features that this page does not know");
  }
  return {
    shape: [10, 12, 14].map((at) => u16(data, at)),
    latents: u32(data, 16),
    identity: { model: data.slice(24, 40), tables: data.slice(40, 56) },
    hasModel: Boolean(data[9]),
  };
}

/** The body of a section, its check, tag and length verified. */
export function unpackSection(data, tag) {
  if (data.length < SECTION_ROOM) throw new FormatError(`${tag} section: too short`);
  const end = data.length - CRC_SIZE;
  if (crc32c(data.subarray(0, end)) !== u32(data, end)) throw new FormatError(`${tag} section: damaged`);
  if (text(data, 0, 4) !== tag || u32(data, 4) !== data.length - SECTION_ROOM) {
    throw new FormatError(`${tag} section: not where it should be`);
  }
  return data.subarray(8, end);
}

/** The offset of the index, which an archive ends with. */
export function unpackFooter(data) {
  const intact =
    data.length === FOOTER_SIZE &&
    text(data, 12, 4) === "CVAZ" &&
    crc32c(data.subarray(0, 8)) === u32(data, 8);
  if (!intact) throw new FormatError("truncated or damaged: its last bytes are not an archive's end");
  return u64(data, 0);
}

/** A chunk as it is stored, nothing of it decoded but the modes. */
export function unpackChunk(body) {
  if (body.length < CHUNK_HEADER) throw new FormatError("a chunk shorter than its header");
  const [first, count, step, flags] = [u64(body, 0), u32(body, 8), u16(body, 12), body[14]];
  const [namesSize, labelsSize] = [u32(body, 23), u32(body, 27)];
  const labelsAt = CHUNK_HEADER + namesSize;
  const restAt = labelsAt + labelsSize;
  if (flags & ~31) throw new VersionError("a chunk with features that this page does not know");
  if (count < 1 || count > MAX_CHUNK || !step || restAt > body.length || first > 2 ** 52) {
    throw new FormatError("a chunk with an impossible header");
  }
  if ((namesSize && !(flags & 1)) || (labelsSize && !(flags & 2))) {
    throw new FormatError("a chunk with an impossible header");
  }
  const chunk = {
    first,
    count,
    step,
    symbolCrc: u32(body, 15),
    pixelCrc: u32(body, 19),
    names: flags & 1 ? body.subarray(CHUNK_HEADER, labelsAt) : null,
    labels: flags & 2 ? body.subarray(labelsAt, restAt) : null,
    stream: body.subarray(restAt),
    refinement: null,
    size: null, // of its images, [height, width], where it is not the header's
    spot: Boolean(flags & 8),
    based: count, // how many of its images have symbols
    where: `images ${first} to ${first + count - 1}`,
  };
  if (flags & 16) {
    if (flags & 4) throw new FormatError("refined images of another size than the header's");
    chunk.size = unpackSize(chunk.stream);
    chunk.stream = chunk.stream.subarray(SIZE_ROOM);
  }
  if (flags & 4) unpackRefinement(chunk);
  return chunk;
}

/** The size, [height, width], that bytes start with. */
export function unpackSize(data) {
  if (data.length < SIZE_ROOM) throw new FormatError("shorter than the size of its images");
  const [h, w] = [u16(data, 0), u16(data, 2)];
  if (!h || !w) throw new FormatError(`images of ${h}x${w}`);
  return [h, w];
}

/** Takes a chunk's refinement from the start of its stream. */
function unpackRefinement(chunk) {
  const { stream, count } = chunk;
  if (stream.length < REFINEMENT_HEADER) throw new FormatError("a refinement shorter than its header");
  const streamAt = REFINEMENT_HEADER + u32(stream, 21);
  const end = streamAt + u32(stream, 25);
  if (stream[0] > MAX_ERROR || end > stream.length) {
    throw new FormatError("a refinement with an impossible header");
  }
  const modes = inflate(stream.subarray(REFINEMENT_HEADER, streamAt), count, "modes");
  if (modes.length !== count || modes.some((mode) => mode > BASED)) {
    throw new FormatError(`a refinement that does not say how ${count} images are coded`);
  }
  chunk.refinement = {
    maxError: stream[0],
    model: stream.slice(1, 17),
    pixelCrc: u32(stream, 17),
    modes,
    stream: stream.subarray(streamAt, end),
  };
  chunk.stream = stream.subarray(end);
  chunk.based = modes.reduce((n, mode) => n + (mode === BASED), 0);
}

/** The names of a chunk's images, null where it was stored without; spend: of budget.TEXT. */
export function namesOf({ names, count }, spend) {
  if (!names) return null;
  spend(64 * count);
  const joined = inflate(names, count * (MAX_NAME + 1), "names");
  spend(2 * joined.length);
  let found;
  try {
    found = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(joined).split("\0");
  } catch {
    throw new FormatError("names: not UTF-8");
  }
  if (found.length !== count || found.includes("")) {
    throw new FormatError(`names: not ${count} of them, or an empty one`);
  }
  return found;
}

/** The labels of a chunk's images, null where it was stored without. */
export function labelsOf({ labels, count }) {
  if (!labels) return null;
  const data = inflate(labels, 4 * count, "labels");
  if (data.length !== 4 * count) throw new FormatError(`labels: not ${count} of them`);
  return Array.from({ length: count }, (_, i) => u32(data, 4 * i));
}
