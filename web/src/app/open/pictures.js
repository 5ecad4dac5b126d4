/** The images of an open file, fetched in blocks and kept while there is room. */
import { Withdrawn } from "../client.js";

export const BLOCK = 32; // images that are decoded together
const KEPT = 24 * 2 ** 20; // bytes of pixels

/**
 * @param {{ask: function}} codec
 * @param {object} file the worker's `open`
 * @param {function(number, number)} arrived called with the first and the count of images that came
 * @param {function(Error)} failed called for what could not be fetched
 */
export function createPictures(codec, file, arrived, failed) {
  const [height, width, channels] = file.shape;
  const size = height * width * channels;
  const most = Math.max(16, Math.floor(KEPT / (BLOCK * size)));
  const blocks = new Map(); // number -> {pixels, intact, names, labels}, the longest unused first
  const asked = new Map(); // number -> requests under way
  const broken = new Set();

  async function fetch(number) {
    const first = number * BLOCK;
    const count = Math.min(BLOCK, file.count - first);
    const range = { file: file.file, first, count };
    const requests = [codec.ask("images", range)];
    if (file.named || file.labelled) requests.push(codec.ask("labels", range));
    asked.set(number, requests);
    try {
      const [images, texts] = await Promise.all(requests);
      blocks.set(number, { ...images, names: texts?.names, labels: texts?.labels });
      for (const old of blocks.keys()) {
        if (blocks.size <= most) break;
        blocks.delete(old);
      }
      arrived(first, count);
      if (images.faults?.length) failed(new Error(images.faults.join("; ")));
    } catch (error) {
      if (!(error instanceof Withdrawn)) {
        broken.add(number);
        failed(error);
      }
    } finally {
      asked.delete(number);
    }
  }

  return {
    /** Asks for these images, and for no others any more. */
    want(first, last) {
      const from = Math.floor(first / BLOCK);
      const to = Math.floor(last / BLOCK);
      for (const [number, requests] of asked) {
        if (number < from || number > to) requests.forEach((request) => request.withdraw());
      }
      for (let number = from; number <= to; number++) {
        if (!blocks.has(number) && !asked.has(number) && !broken.has(number)) fetch(number);
      }
    },
    /** An image that is there: `{pixels, intact, name, label}`; else null. */
    get(image) {
      const number = Math.floor(image / BLOCK);
      const block = blocks.get(number);
      if (!block) return null;
      blocks.delete(number);
      blocks.set(number, block);
      const k = image % BLOCK;
      return {
        pixels: block.pixels.subarray(k * size, (k + 1) * size),
        intact: Boolean(block.intact[k]),
        name: block.names?.[k] ?? null,
        label: block.labels?.[k] ?? null,
      };
    },
  };
}
