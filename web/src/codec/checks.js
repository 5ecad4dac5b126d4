import { crc32c } from "./bytes.js";
import { SPOT } from "./bitstream/records.js";
import { FormatError } from "./errors.js";

/** How many images of a chunk its check of pixels is of, the first ones. */
const compared = ({ based, spot }) => (spot ? Math.min(based, SPOT) : based);

function compare(chunk, crc) {
  if (crc !== chunk.pixelCrc) {
    throw new FormatError("its images decode to other pixels than when they were compressed");
  }
}

/** Throws FormatError unless the levels of all of a chunk's images are what its check says. */
export function requireSame(chunk, levels, pixels) {
  compare(chunk, crc32c(levels.subarray(0, compared(chunk) * pixels)));
}

/** The checks of pixels of chunks that are decoded a part at a time: their sums go on from part to part. */
export class PixelChecks {
  constructor() {
    this._states = new Map(); // by chunk, of those that a part of was decoded
  }

  /** Throws what was found to be wrong with a chunk. */
  require(chunk) {
    const fault = this._states.get(chunk)?.fault;
    if (fault) throw fault;
  }

  /**
   * Takes the levels of images start to stop - 1 of a chunk, as far as they follow on those taken;
   * pixels: values of an image.
   *
   * Throws FormatError if they were the last that the check is of, and it does not match.
   */
  take(chunk, levels, start, stop, pixels) {
    if (!this._states.has(chunk)) {
      this._states.set(chunk, { done: 0, crc: 0, whole: compared(chunk), fault: null });
    }
    const state = this._states.get(chunk);
    const end = Math.min(stop, state.whole);
    if (start > state.done || end <= state.done) return;
    const more = levels.subarray((state.done - start) * pixels, (end - start) * pixels);
    state.crc = crc32c(more, state.crc);
    state.done = end;
    if (end < state.whole) return;
    try {
      compare(chunk, state.crc);
    } catch (error) {
      this.fail(chunk, error);
      throw error;
    }
  }

  /** Keeps what is wrong with a chunk that some images were taken of. */
  fail(chunk, fault) {
    this._states.get(chunk).fault ??= fault;
  }

  /** Leaves a chunk without its check. */
  skip(chunk) {
    this._states.get(chunk).done = Infinity;
  }

  /** A chunk whose check is not through, and the next of its images: [chunk, start, whole]; or null. */
  next() {
    for (const [chunk, { done, whole, fault }] of this._states) {
      if (!fault && done < whole) return [chunk, done, whole];
    }
    return null;
  }
}
