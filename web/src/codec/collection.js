import * as budget from "./budget.js";
import { bytesOf, crc32c, equal } from "./bytes.js";
import { BASED, labelsOf, namesOf } from "./bitstream/records.js";
import { PixelChecks, requireSame } from "./checks.js";
import * as streams from "./coding/streams.js";
import { CodecError, CostError, FormatError, ModelMismatchError, VersionError } from "./errors.js";
import { copyRows } from "./model.js";

const KEPT = 2 ** 26; // bytes of decoded symbols, images and names
const SLICE = 4; // ms that `check` works at a time: what is to be seen waits no longer
const PIECE = 2 ** 23; // multiply-adds, about, of the images that it decodes between two looks at the clock
const MODES = ["raw", "alone", "based"];

/** The images of an archive, decoded as they are asked for. */
export class Collection {
  /** archive: of `openArchive`; size: bytes of the file; model: that made it. */
  constructor(archive, size, model) {
    Object.assign(this, { chunks: archive.chunks, size, model, count: archive.images });
    this._kept = new Map(); // by key, the one asked for last comes last
    this._keptSize = 0;
    this._faults = new Map(); // by key: what cannot be made is not tried again
    this._checks = new PixelChecks();
    // That all images have room in, of whatever size they are, if they can be decoded at all.
    const sizes = archive.chunks.filter((chunk) => this._isPossible(chunk)).map((chunk) => chunk.size ?? model.shape);
    const most = (side) => sizes.reduce((largest, size) => Math.max(largest, size[side]), 1);
    this.shape = sizes.length ? [most(0), most(1), model.shape[2]] : model.shape;
    this.isMixed = sizes.some(([h, w]) => h !== this.shape[0] || w !== this.shape[1]);
  }

  _isPossible({ size }) {
    if (!size) return true;
    const pixels = size[0] * size[1] * this.model.shape[2];
    return this.model.has(size) && budget.isWithin(budget.PIXELS, pixels, this.size);
  }

  /**
   * The images from `first` on: {pixels, intact, faults, lost}; of a lost one, intact is 0.  Pixels are
   * of `shape`, black where an image is smaller.
   *
   * faults: why those are lost; lost: ranges, [first, last], of chunks found damaged.
   *
   * Throws CostError if they are more than may be decoded at once.
   */
  images(first, count) {
    this._requireRange(first, count);
    const size = this.shape.reduce((a, b) => a * b);
    budget.require(budget.PIXELS, count * size, this.size);
    const spendWork = budget.meter(budget.MULTIPLY_ADDS, this.size);
    const spendSymbols = budget.meter(budget.SYMBOLS, this.size);
    const spendPixels = budget.meter(budget.DISTRIBUTIONS, this.size);
    const pixels = new Uint8Array(count * size);
    const intact = new Uint8Array(count);
    const found = { faults: [], lost: [] };
    for (const [chunk, start, stop] of this._overlapping(first, first + count)) {
      try {
        const model = this.model.of(chunk.size);
        budget.require(budget.PIXELS, (stop - start) * model.pixels, this.size);
        model.spendWork(stop - start, spendWork);
        const levels = chunk.refinement
          ? this._refined(chunk, spendSymbols, spendPixels).images.subarray(start * model.pixels, stop * model.pixels)
          : this._levels(chunk, start, stop, spendSymbols);
        const at = chunk.first + start - first;
        copyRows(levels, model.shape, pixels, this.shape, stop - start, at);
        intact.fill(1, at, at + stop - start);
      } catch (error) {
        note(found, chunk, error);
      }
    }
    return { pixels, intact, ...found };
  }

  /**
   * Goes on for a moment with the checks of chunks of which only a part was decoded: {faults, lost,
   * isDone}, of what is damaged as `images` says it.
   */
  check() {
    const found = { faults: [], lost: [] };
    const spend = budget.meter(budget.SYMBOLS, this.size);
    const end = performance.now() + SLICE;
    let next = this._checks.next();
    for (; next && performance.now() < end; next = this._checks.next()) {
      const [chunk, start, whole] = next;
      try {
        const model = this.model.of(chunk.size);
        model.spendWork(whole, budget.meter(budget.MULTIPLY_ADDS, this.size));
        const piece = Math.max(Math.floor(PIECE / model.decoder.multiplyAdds), 1);
        this._levels(chunk, start, Math.min(start + piece, whole), spend);
      } catch (error) {
        // What is too much to check may yet be shown.
        if (error instanceof CostError) this._checks.skip(chunk);
        else {
          note(found, chunk, error);
          this._checks.fail(chunk, error);
        }
      }
    }
    return { ...found, isDone: !next };
  }

  /** Names and labels of the images from `first` on, null where there are none. */
  labels(first, count) {
    this._requireRange(first, count);
    const names = Array(count).fill(null);
    const labels = Array(count).fill(null);
    const spend = budget.meter(budget.TEXT, this.size);
    const copy = (from, to, chunk, start, stop) => {
      for (let i = start; from && i < stop; i++) to[chunk.first + i - first] = from[i];
    };
    for (const [chunk, start, stop] of this._overlapping(first, first + count)) {
      const found = this._keep(`names ${chunk.first}`, [spend], () => {
        const ofChunk = { names: optional(() => namesOf(chunk, spend)), labels: optional(() => labelsOf(chunk)) };
        return [ofChunk, 128 * chunk.count + 2 * (ofChunk.names ?? []).join("").length];
      });
      copy(found.names, names, chunk, start, stop);
      copy(found.labels, labels, chunk, start, stop);
    }
    return { names, labels };
  }

  /** One image, with all that its file says of it. */
  details(number) {
    this._requireRange(number, 1);
    const { size } = this;
    const [found] = this._overlapping(number, number + 1);
    if (!found) throw new FormatError(`image ${number} is lost`);
    const [chunk, at] = found;
    const model = this.model.of(chunk.size);
    const { names, labels } = this.labels(number, 1);
    const spend = budget.meter(budget.SYMBOLS, size);
    const modes = chunk.refinement?.modes;
    const place = modes ? modes.subarray(0, at).reduce((n, mode) => n + (mode === BASED), 0) : at;
    const based = !modes || modes[at] === BASED;
    let { symbols, component, bits } = based
      ? streams.oneOf(this._symbols(chunk, spend), place, model.tables, chunk.step)
      : streams.NONE;
    let pixels;
    if (modes) {
      const refined = this._refined(chunk, spend, budget.meter(budget.DISTRIBUTIONS, size));
      pixels = refined.images.slice(at * model.pixels, (at + 1) * model.pixels);
      bits += refined.bits[at];
    } else {
      model.requireAffordable(1, size);
      pixels = this._levels(chunk, at, at + 1, spend);
    }
    const mode = modes ? MODES[modes[at]] : "lossy";
    return { name: names[0], label: labels[0], shape: model.shape, pixels, symbols, component, step: chunk.step, bits, mode };
  }

  _requireRange(first, count) {
    const whole = Number.isInteger(first) && Number.isInteger(count);
    if (!whole || first < 0 || count < 0 || first + count > this.count) {
      throw new FormatError(`images ${first} to ${first + count - 1} of ${this.count}`);
    }
  }

  /** The chunks of a range of images: each with the first and the last + 1 of its own in there. */
  *_overlapping(first, end) {
    let low = 0;
    for (let high = this.chunks.length; low < high; ) {
      const middle = (low + high) >> 1;
      const chunk = this.chunks[middle];
      if (chunk.first + chunk.count <= first) low = middle + 1;
      else high = middle;
    }
    for (; low < this.chunks.length && this.chunks[low].first < end; low++) {
      const chunk = this.chunks[low];
      yield [chunk, Math.max(first - chunk.first, 0), Math.min(end - chunk.first, chunk.count)];
    }
  }

  /** What the symbols of a chunk that is not refined decode to, of images start to stop - 1. */
  _levels(chunk, start, stop, spend) {
    const model = this.model.of(chunk.size);
    this._checks.require(chunk);
    const units = streams.unitsOf(this._symbols(chunk, spend), start, stop, model.tables, chunk.step);
    const levels = model.levels(units, stop - start);
    this._checks.take(chunk, levels, start, stop, model.pixels);
    return levels;
  }

  /** What the stream of a chunk decodes to, of those of its images that have symbols. */
  _symbols(chunk, spend) {
    return this._keep(`symbols ${chunk.first}`, [spend], () => {
      const { tables } = this.model.of(chunk.size);
      spend(streams.work(chunk.based, tables));
      const found = streams.decode(chunk.stream, chunk.based, tables, chunk.step);
      if (crc32c(bytesOf(found.symbols)) !== chunk.symbolCrc) {
        throw new FormatError("its symbols are not those that were compressed");
      }
      return [found, (found.units ? 13 : 4) * found.symbols.length];
    });
  }

  /** All images of a refined chunk, and the bits that each one's refinement takes. */
  _refined(chunk, spendSymbols, spendPixels) {
    return this._keep(`images ${chunk.first}`, [spendSymbols, spendPixels], () => {
      const { model, size } = this;
      const { context } = model;
      const { refinement } = chunk;
      if (!context || !equal(refinement.model, context.digest.subarray(0, 16))) {
        throw new ModelMismatchError("refined with a context model that this page does not have");
      }
      model.requireAffordable(chunk.count, size);
      const found = this._symbols(chunk, spendSymbols);
      const units = streams.unitsOf(found, 0, chunk.based, model.tables, chunk.step);
      const base = model.levels(units, chunk.based);
      requireSame(chunk, base, model.pixels);
      const refined = context.refine(refinement, base, spendPixels);
      if (crc32c(refined.images) !== refinement.pixelCrc) {
        throw new FormatError("its images decode to other pixels than when they were compressed");
      }
      return [refined, refined.images.length];
    });
  }

  /** What `make` gives, with its bytes, kept until others take its room; meters: that it spends of. */
  _keep(key, meters, make) {
    if (this._faults.has(key)) throw this._faults.get(key);
    let kept = this._kept.get(key);
    this._kept.delete(key);
    if (!kept) {
      const [value, bytes] = this._made(key, meters, make);
      kept = { value, bytes };
      this._keptSize += bytes;
    }
    this._kept.set(key, kept);
    for (const [oldest, { bytes }] of this._kept) {
      if (this._keptSize <= KEPT || oldest === key) break;
      this._kept.delete(oldest);
      this._keptSize -= bytes;
    }
    return kept.value;
  }

  /** What `make` gives; an error that it would always throw is kept. */
  _made(key, meters, make) {
    const isAlone = meters.every(({ spent }) => spent === 0); // else it may be affordable another time
    try {
      return make();
    } catch (error) {
      const isFinal = error instanceof FormatError && (isAlone || !(error instanceof CostError));
      if (isFinal) this._faults.set(key, error);
      throw error;
    }
  }
}

/** Adds what is wrong with a chunk to {faults, lost}; throws what no file can cause. */
function note({ faults, lost }, { first, count, where }, error) {
  if (!(error instanceof CodecError)) throw error;
  faults.push(`${where}: ${error.message}`);
  const isDamage = error instanceof FormatError && !(error instanceof CostError || error instanceof VersionError);
  if (isDamage) lost.push([first, first + count - 1]);
}

/** What is only said of images, and so lost without them. */
function optional(read) {
  try {
    return read();
  } catch (error) {
    if (error instanceof FormatError) return null;
    throw error;
  }
}
