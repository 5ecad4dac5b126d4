import { bytesOf, crc32c, f32, f64, u16 } from "../../bytes.js";
import { FormatError } from "../../errors.js";
import { largestSums, requireExact, takeLayer } from "../integers/layers.js";
import { Packed } from "../integers/packing.js";
import { Book, REACH, runningSums } from "../vectors/tables.js";
import { Network } from "./network.js";
import { mostPlaces } from "./waves.js";

/** The distribution of a map model's latents (docs/FORMAT.md, "Prior of a map"). */

const NEIGHBOURS = 12; // places that the context is made of
const WIDTHS = 104;
const OCTAVE = [1024, 1117, 1218, 1328, 1448, 1579, 1722, 1878];
const WIDTH = Int32Array.from({ length: WIDTHS }, (_, n) => (OCTAVE[n % 8] << (n >> 3)) >> 4);
const MEANS = new Int32Array(WIDTHS);
const MAX_SIDE = 1 << 13;
const MAX_LATENTS = 1 << 22;
const MAX_CHANNELS = 1 << 10;
const MAX_GROUPS = 64;
const MAX_HIDDEN = 1 << 10;
const MAX_LIMIT = 1 << 12;
const ABOVE_LOG = 256; // 16 times the binary logarithm of any step
const HEADER = 32; // bytes
const WHAT = "a map's prior";

export class MapPrior {
  /** spend: as for `Packed`.  Throws FormatError for bytes that are no prior, or could overflow. */
  constructor(data, spend, kernels) {
    if (data.length < HEADER || data[4] !== 1) throw new FormatError(`${WHAT}: none, or of a newer version`);
    this.kernels = kernels;
    this.grid = [5, 7, 9].map((at) => u16(data, at));
    const [h, w, c] = this.grid;
    const groups = data[11];
    this.inputShift = data[12];
    const [h0, h1, h2] = [13, 15, 17].map((at) => u16(data, at));
    const [slope, unit, bits] = [f64(data, 19), f32(data, 27), data[31]];
    const isPossible =
      [h, w, c, groups, h0, h1, h2].every((n) => n >= 1) &&
      fits(this.grid) &&
      c <= MAX_CHANNELS &&
      groups <= MAX_GROUPS &&
      c % groups === 0 &&
      this.inputShift <= 16 &&
      Math.max(h0, h1, h2) <= MAX_HIDDEN;
    if (!isPossible) throw new FormatError(`${WHAT} of impossible dimensions`);
    check(slope > 0 && slope < Infinity && unit > 0 && unit < Infinity);
    this.each = c / groups; // channels of a group
    this.unitsCheck = checkOfUnits(unit, this.latents);

    const packed = new Packed(data, HEADER, spend);
    const steps = packed.take(2 * REACH);
    this.limits = packed.take(c);
    const bitsOf = packed.take(2 * groups);
    check(steps.every((x) => x >= 1) && steps.reduce((sum, x) => sum + x, 0) <= 1 << 30);
    check(this.limits.every((x) => x >= 0 && x <= MAX_LIMIT));
    check([bits, ...bitsOf].every((b) => b >= 1 && b <= 16));
    const layer = (inputs, outputs, bits) => takeLayer(packed, { inputs, outputs, bits }, WHAT);
    this.context = layer(NEIGHBOURS * c + 1, h0, bits);
    this.groups = Array.from({ length: groups }, (_, k) => [
      layer(h0 + k * this.each, h1, bitsOf[2 * k]),
      layer(h1, h2, bitsOf[2 * k + 1]),
      layer(h2, 2 * this.each),
    ]);
    packed.end();
    this._proveExact();
    this.layers = [this.context, ...this.groups.flat()];
    this._rows = { means: MEANS, widths: WIDTH, curve: runningSums(steps) };
  }

  get latents() {
    return this.grid.reduce((a, b) => a * b);
  }

  /** Of one image. */
  get multiplyAdds() {
    return this.grid[0] * this.grid[1] * this.layers.reduce((sum, { weights }) => sum + weights.length, 0);
  }

  /** The same for maps of so many rows and columns.  Throws FormatError if they are too many. */
  resized([h, w]) {
    const grid = [h, w, this.grid[2]];
    if (!fits(grid)) throw new FormatError(`a map of ${grid.join("x")} latents, too many for one`);
    return Object.assign(Object.create(MapPrior.prototype), this, { grid, _network: null });
  }

  /** Throws FormatError unless all sums stay below 2**24. */
  _proveExact() {
    const { context, groups, limits } = this;
    const prove = (layer, most) => requireExact(largestSums(layer, most), WHAT);
    prove(context, (i) => (i < NEIGHBOURS * limits.length ? limits[i % limits.length] : ABOVE_LOG));
    for (const [first, second, output] of groups) {
      prove(first, (i) => (i < context.outputs ? context.top : limits[i - context.outputs]));
      prove(second, () => first.top);
      prove(output, () => second.top);
    }
  }

  /** The frequencies of a step, a row for each width; those of the last one asked for are kept. */
  book(step) {
    if (this._book?.step !== step) this._book = new Book(this._rows, step);
    return this._book;
  }

  /** What computes the prior for n images at a step. */
  network(n, step) {
    if (!(this._network?.images >= n)) this._network = new Network(this, n, mostPlaces(this.grid));
    this._network.use(step);
    return this._network;
  }
}

const fits = ([h, w, c]) => Math.max(h, w) <= MAX_SIDE && h * w * c <= MAX_LATENTS;

function check(right) {
  if (!right) throw new FormatError(`${WHAT} of impossible numbers`);
}

/** CRC-32C of so many of the same float32. */
function checkOfUnits(unit, latents) {
  const some = new Float32Array(Math.min(latents, 4096)).fill(unit);
  let check = 0;
  for (let left = latents; left > 0; left -= some.length) check = crc32c(bytesOf(some.subarray(0, left)), check);
  return check;
}
