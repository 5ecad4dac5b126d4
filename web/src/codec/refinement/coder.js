import { ALONE, BASED, RAW } from "../bitstream/records.js";
import { AnsDecoder, PRECISION, TOTAL } from "../coding/integers/ans.js";
import { FormatError } from "../errors.js";
import { Canvas } from "./canvas.js";
import { Network } from "./network.js";

/** Decodes refinements, all images of a chunk in step (docs/FORMAT.md, "Refinement"). */

const LEVELS = 256;
const FRACTIONS = [
  ...[32768, 31379, 30048, 28774, 27554, 26386, 25268, 24196],
  ...[23170, 22188, 21247, 20347, 19484, 18658, 17867, 17109],
];
const POWERS = Int32Array.from({ length: 257 }, (_, d) => (d < 256 ? FRACTIONS[d % 16] >> (d >> 4) : 0));
const weight = (d) => POWERS[Math.min(Math.max(d, 0), 256)];

// In distributions of UNIT multiply-adds, about 4 µs each.
const PLACE = 1;
const IMAGE = 1 / 32; // at a place, also of one that is silent
const UNIT = 1 << 16;
const SLOWER = 10; // without WebAssembly

/** The frequency of the expected level, by its logit. */
const hitFrequency = (x) => 1 + Math.floor((weight(-x) * (TOTAL - 2)) / (weight(-x) + weight(x)));

/** The cells of levels that are within a largest error of one another. */
class Grid {
  constructor(error) {
    this.error = error;
    this.pitch = 2 * error + 1;
    this.cells = Math.floor((LEVELS - 1 + 2 * error) / this.pitch) + 1;
  }

  /** The cell of the expected level. */
  of(expected) {
    return Math.floor((expected + this.error) / this.pitch);
  }

  /** The level that stands for a cell, where a level is expected. */
  level(expected, cell) {
    const level = expected + this.pitch * (cell - this.of(expected));
    return Math.min(Math.max(level, 0), LEVELS - 1);
  }
}

/** The weights of all levels but the expected one, of a pixel's logits; its own is 0. */
function levelWeights(logits, expected, out) {
  let most = -Infinity;
  for (let level = 0; level < LEVELS; level++) {
    const logit = logits[level] + logits[LEVELS + ((level - expected) & 255)];
    out[level] = logit;
    if (level !== expected && logit > most) most = logit;
  }
  for (let level = 0; level < LEVELS; level++) out[level] = POWERS[Math.min(most - out[level], 256)] | 0;
  out[expected] = 0;
}

/** The distributions of the pixels of a place: columns 0 and 1 are of silent images. */
class Views {
  constructor(network, grid, n) {
    Object.assign(this, { network, grid });
    this.hits = new Int32Array(n + 2);
    this._levels = new Int32Array(LEVELS);
    // The running sums of the weights of cells: with an error of all columns, else of the last asked.
    this._sums = new Int32Array((grid.error ? n + 2 : 1) * (grid.cells + 1));
  }

  /** Computes the columns; expected: the level that each expects, by a function. */
  compute(columns, expected) {
    for (let column = 0; column < columns; column++) {
      let hit = hitFrequency(this.network.hit(column));
      if (this.grid.error) hit = this._cells(column, expected(column), hit, column * (this.grid.cells + 1));
      this.hits[column] = hit;
    }
  }

  /** Puts the running sums of the cells' weights at `to`, and returns the frequency of the hit. */
  _cells(column, expected, hit, to) {
    const { grid, _levels: levels, _sums: sums } = this;
    levelWeights(this.network.levels(column), expected, levels);
    const own = grid.of(expected);
    const lowest = expected - grid.pitch * own;
    let total = 0;
    let ofOwn = 0;
    for (let cell = 0; cell < grid.cells; cell++) {
      const from = Math.max(lowest + grid.pitch * cell - grid.error, 0);
      const end = Math.min(lowest + grid.pitch * cell + grid.error + 1, LEVELS);
      let sum = 0;
      for (let level = from; level < end; level++) sum += levels[level];
      if (cell === own) ofOwn = sum;
      else total += sum;
      sums[to + cell + 1] = total;
    }
    const rest = total;
    if (!rest) for (let cell = 0; cell <= grid.cells; cell++) sums[to + cell] = cell;
    return hit + Math.floor((ofOwn * (TOTAL - 1 - hit)) / (rest + ofOwn));
  }

  /** Takes the cell of a pixel that is not in the expected one; returns it and its frequency. */
  take(coder, column, expected) {
    const { cells, error } = this.grid;
    const at = error ? column * (cells + 1) : 0;
    if (!error) this._cells(column, expected, 1, 0);
    const sums = this._sums;
    const total = sums[at + cells];
    const cumulative = (i) => Math.floor((sums[at + i] * (TOTAL - cells)) / total) + i;
    const { slot } = coder;
    let cell = 0;
    for (let beyond = cells; beyond - cell > 1; ) {
      const middle = (cell + beyond) >> 1;
      if (cumulative(middle) <= slot) cell = middle;
      else beyond = middle;
    }
    const start = cumulative(cell);
    const frequency = cumulative(cell + 1) - start;
    coder.take(start, frequency);
    return [cell, frequency];
  }
}

/** As `ContextModel.refine`. */
export function refine(model, { maxError, modes, stream }, base, spend) {
  const coder = new AnsDecoder(stream, "a refinement");
  const grid = new Grid(maxError);
  const [h, w, channels] = model.shape;
  const size = h * w * channels;
  const images = new Uint8Array(modes.length * size);
  const bits = new Float64Array(modes.length);
  const numbers = (of) => Array.from(modes.keys()).filter((i) => of(modes[i]));
  const modelled = numbers((mode) => mode === ALONE || mode === BASED);
  const raw = numbers((mode) => mode === RAW);
  const based = Uint8Array.from(modelled, (i) => Number(modes[i] === BASED));
  const n = modelled.length;
  const network = (model._network ??= new Network(model));
  network.reserve(n + 2);
  const canvas = new Canvas(model.shape, based, base, maxError);
  const views = new Views(network, grid, n);
  const evenSums = Int32Array.from({ length: grid.cells + 1 }, (_, i) => Math.floor((i * TOTAL) / grid.cells));
  const each = Math.ceil(model.pixelWork / UNIT) * (network.isQuick ? 1 : SLOWER);
  const price = (frequency) => PRECISION - Math.log2(frequency);
  const columns = new Int32Array(n);

  for (let channel = 0; channel < channels; channel++) {
    for (let row = 0; row < h; row++) {
      for (let column = 0; column < w; column++) {
        if (n) decodeModelled(channel, row, column);
        for (const image of raw) {
          const cell = coder.takeFrom(evenSums, grid.cells);
          bits[image] += price(evenSums[cell + 1] - evenSums[cell]);
          images[image * size + (row * w + column) * channels + channel] = grid.level(0, cell);
        }
      }
    }
  }
  if (!coder.isEmpty) throw new FormatError("a refinement with something left over");
  modelled.forEach((image, i) => canvas.copy(i, images, image * size));
  return { images, bits };

  function decodeModelled(channel, row, column) {
    const telling = canvas.go(channel, row, column);
    const count = telling.length + 2;
    spend(PLACE + Math.ceil(n * IMAGE) + count * each * (maxError ? 2 : 1));
    canvas.silent(false, network.inputs, 0);
    canvas.silent(true, network.inputs, network.stride);
    columns.set(based);
    telling.forEach((image, k) => {
      canvas.inputs(image, network.inputs, (k + 2) * network.stride);
      columns[image] = k + 2;
    });
    network.compute(count, channel, row, column);
    // Of a silent image, 0 is expected.
    views.compute(count, (of) => (of < 2 ? 0 : canvas.expected[telling[of - 2]]));
    const missed = [];
    for (let i = 0; i < n; i++) {
      const hit = views.hits[columns[i]];
      if (coder.slot < hit) {
        coder.take(0, hit);
        bits[modelled[i]] += price(hit);
        canvas.put(i, grid.level(canvas.expected[i], grid.of(canvas.expected[i])));
      } else {
        coder.take(hit, TOTAL - hit);
        bits[modelled[i]] += price(TOTAL - hit);
        missed.push(i);
      }
    }
    spend(missed.length * each);
    for (const i of missed) {
      const expected = canvas.expected[i];
      const [cell, frequency] = views.take(coder, columns[i], expected);
      bits[modelled[i]] += price(frequency);
      canvas.put(i, grid.level(expected, cell));
    }
  }
}
