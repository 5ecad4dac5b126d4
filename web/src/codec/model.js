import { ACTIVATIONS, MULTIPLY_ADDS, NUMBERS, PIXELS, meter, require } from "./budget.js";
import { concat, equal, hex, sha256, u32 } from "./bytes.js";
import { Kernels } from "./coding/integers/kernels.js";
import { readTables } from "./coding/streams.js";
import { FormatError } from "./errors.js";
import { IntegerDecoder } from "./exact/decoder.js";
import { typedLevels } from "./exact/typed.js";
import { canDecode, wasmLevels } from "./exact/wasm.js";
import { ContextModel } from "./refinement/context.js";

const LAID_OUT = 512; // multiply-adds in the time that a weight takes before the first image

/** What files are read with: tables, integer decoder, and a context model where there is one. */
export class FileModel {
  /**
   * data: the body of a `MODL` section; trusted: it did not come with the file that is read;
   * kernels: WebAssembly.Module of kernels.wasm, null where it is to be computed without.
   *
   * Throws FormatError if it is no model, one that could overflow, or one of too many numbers.
   */
  constructor(data, { trusted = false, kernels = null } = {}) {
    this.trusted = trusted;
    this.kernels = kernels;
    const parts = [];
    for (let at = 0; at < data.length; ) {
      if (parts.length === 3 || data.length < at + 4) throw new FormatError("an embedded model of other parts");
      const size = u32(data, at);
      parts.push(data.subarray(at + 4, at + 4 + size));
      at += 4 + size;
      if (at > data.length) throw new FormatError("the embedded model is truncated");
    }
    if (parts.length < 2) throw new FormatError("the embedded model is truncated");
    const spend = meter(NUMBERS, 0);
    this.tables = readTables(parts[0], spend, kernels);
    this.decoder = new IntegerDecoder(parts[1], spend);
    this.context = parts.length === 3 ? new ContextModel(parts[2], spend, kernels) : null;
    if (this.tables.latents !== this.decoder.latents) {
      throw new FormatError("coding tables and an integer decoder of different models");
    }
    if (this.tables.unitsCheck !== this.decoder.unitsCheck) {
      throw new FormatError("an integer decoder that counts in other units than the coding tables");
    }
    this.shape = this.decoder.shape;
    if (this.context?.shape.some((n, i) => n !== this.shape[i])) {
      throw new FormatError("an integer decoder and a context model of different images");
    }
    this.pixels = this.shape.reduce((a, b) => a * b);
    this.latents = this.tables.latents;
    const [tables, model] = parts.slice(0, 2).map((part) => sha256(part).subarray(0, 16));
    this.identity = { model, tables };
    this.short = sha256(concat(model, tables)).subarray(0, 3);
    this.digest = hex(model);
  }

  /** Whether there are images of a size, [height, width]. */
  has(size) {
    try {
      return Boolean(this._resized(size));
    } catch (error) {
      if (error instanceof FormatError) return false;
      throw error;
    }
  }

  /** What decodes images of another size than its own.  Throws FormatError if there is nothing. */
  _resized(size) {
    if (size.every((side, i) => side === this.shape[i])) throw new FormatError("it names the model's own size");
    return this.decoder.resized(size);
  }

  /**
   * The same for images of a size, [height, width], which a file names; null: its own.  Throws
   * FormatError if there are none.  Of several sizes, the last one asked for is kept.
   */
  of(size) {
    if (!size) return this;
    if (this._sized?.key !== size.join()) {
      const decoder = this._resized(size);
      const tables = this.tables.resized(decoder.grid);
      const shape = [...size, this.shape[2]];
      const pixels = shape.reduce((a, b) => a * b);
      // It is the file that says how large, so that no model is trusted with that.
      const changed = { decoder, tables, shape, pixels, latents: tables.latents, trusted: false, key: size.join() };
      this._sized = Object.assign(Object.create(FileModel.prototype), this, { ...changed, _levels: null });
    }
    return this._sized;
  }

  /** Uint8Array [n * H * W * C], of n images' latents in units, [n * D]. */
  levels(units, n) {
    this._levels ??= this._quickest();
    return cropped(this._levels(units, n), n, this.decoder.shape, this.shape);
  }

  _quickest() {
    const { kernels, decoder } = this;
    return kernels && canDecode(decoder) ? wasmLevels(decoder, new Kernels(kernels)) : typedLevels(decoder);
  }

  /** Throws CostError unless a file of so many bytes may cost decoding so many images. */
  requireAffordable(images, bytes) {
    require(PIXELS, images * this.pixels, bytes);
    this.spendWork(images, meter(MULTIPLY_ADDS, bytes));
  }

  /** Spends, of MULTIPLY_ADDS, what decoding them costs in time, however few are decoded at once. */
  spendWork(images, spend) {
    if (this.trusted) return;
    const numbers = this.decoder.layers.reduce((sum, { weights }) => sum + weights.length, 0);
    spend(images * this.decoder.multiplyAdds + (this._levels ? 0 : LAID_OUT * numbers));
    require(ACTIVATIONS, this.decoder.memory, 0);
  }

  /** Whether a header is that of this model's archives; throws FormatError if it contradicts it. */
  made({ identity, shape, latents }) {
    const same = (part) => equal(identity[part], this.identity[part]);
    if (!same("model") || !same("tables")) return false;
    if (latents !== this.latents || shape.some((n, i) => n !== this.shape[i])) {
      throw new FormatError("the archive's header contradicts the model that it names");
    }
    return true;
  }
}

/** The first rows and columns of n images. */
function cropped(levels, n, [height, width, channels], [h, w]) {
  if (h === height && w === width) return levels;
  const out = new Uint8Array(n * h * w * channels);
  copyRows(levels, [height, width, channels], out, [h, w, channels], n);
  return out;
}

/** Copies n images from an array into another, of images of another shape: what both have room for. */
export function copyRows(from, [h, w, channels], to, [H, W], n, first = 0) {
  const row = Math.min(w, W) * channels;
  for (let image = 0; image < n; image++) {
    for (let y = 0; y < Math.min(h, H); y++) {
      const at = (image * h + y) * w * channels;
      to.set(from.subarray(at, at + row), ((first + image) * H + y) * W * channels);
    }
  }
}
