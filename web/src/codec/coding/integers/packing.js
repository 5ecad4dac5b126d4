import { i32, u16, u32 } from "../../bytes.js";
import { FormatError } from "../../errors.js";
import { AnsDecoder, TOTAL, find, scaled } from "./ans.js";

const HEADER = 11; // bytes
const MAX_ENTRIES = 1 << 15;
const MAX_PLAIN = 16;
const ALWAYS = 1 << 19; // how many integers data may hold
const PER_BYTE = 8;

/** Reads consecutive arrays of integers (docs/FORMAT.md, "Packed integers"). */
export class Packed {
  /** spend: told the number of each array's integers before there is memory for them. */
  constructor(data, at, spend) {
    Object.assign(this, { data, at, spend, room: ALWAYS + PER_BYTE * data.length });
  }

  /**
   * The next array of so many integers: Int32Array, or Float64Array where they may be larger.
   *
   * Throws FormatError if it is damaged or too large.
   */
  take(count) {
    this.room -= count;
    if (this.room < 0) {
      throw new FormatError(`packed integers: ${count} of them in ${this.data.length} bytes`);
    }
    this.spend(count);
    const { data, at } = this;
    if (data.length < at + HEADER) throw new FormatError("packed integers: shorter than their header");
    const low = i32(data, at);
    const entries = u16(data, at + 4);
    const plain = data[at + 6];
    const start = at + HEADER;
    const end = start + entries + 4 * u32(data, at + 7);
    if (end > data.length || !entries || entries > MAX_ENTRIES || plain > MAX_PLAIN) {
      throw new FormatError("packed integers: sizes that contradict each other");
    }
    const coder = new AnsDecoder(data.subarray(start + entries, end), "packed integers: a stream");
    const narrow = low > -(2 ** 31) && low + entries * 2 ** plain <= 2 ** 31;
    const values = narrow ? new Int32Array(count) : new Float64Array(count);
    if (entries > 1) {
      const sums = cumulative(data.subarray(start, start + entries));
      const first = firstOfSlots(sums, entries);
      for (let i = 0; i < count; i++) {
        const slot = coder.slot;
        const block = slot >> SLOT_SHIFT;
        const index = find(sums, first[block], first[block + 1] + 1, slot);
        coder.take(sums[index], sums[index + 1] - sums[index]);
        values[i] = index;
      }
    }
    for (let i = 0; plain && i < count; i++) {
      values[i] = values[i] * 2 ** plain + coder.takeEven(plain);
    }
    if (!coder.isEmpty) throw new FormatError("packed integers: a stream with something left over");
    for (let i = 0; i < count; i++) values[i] += low;
    this.at = end;
    return values;
  }

  /** As `take`, but of differences: the running sums, in doubles. */
  takeSums(count) {
    let sum = 0;
    return Float64Array.from(this.take(count), (step) => (sum += step));
  }

  /** Throws FormatError if any bytes are left. */
  end() {
    if (this.at !== this.data.length) {
      throw new FormatError("packed integers: followed by something else");
    }
  }
}

const SLOT_SHIFT = 12;

/** For each 4096 slots, the index of the first of them, and the last index: few are left to find. */
function firstOfSlots(sums, entries) {
  const first = new Uint16Array((TOTAL >> SLOT_SHIFT) + 1);
  let index = 0;
  for (let k = 0; k < first.length; k++) {
    while (index < entries - 1 && sums[index + 1] <= k * (1 << SLOT_SHIFT)) index++;
    first[k] = index;
  }
  return first;
}

/** The weight that a byte of the histogram stands for. */
const weight = (byte) => (byte < 8 ? byte + 1 : ((byte & 7) + 9) * 2 ** ((byte >> 3) - 1));

function cumulative(codes) {
  const n = codes.length;
  const total = codes.reduce((sum, byte) => sum + weight(byte), 0);
  const sums = new Int32Array(n + 1);
  let sum = 0;
  for (let i = 0; i <= n; i++) {
    sums[i] = exactShare(sum, TOTAL - n, total) + i;
    if (i < n) sum += weight(codes[i]);
  }
  return sums;
}

/** `sum * room // total`: the sums may take 49 bits, which `scaled` does not hold. */
const exactShare = (sum, room, total) =>
  total <= 2 ** 29 ? scaled(sum, room, total) : Number((BigInt(sum) * BigInt(room)) / BigInt(total));
