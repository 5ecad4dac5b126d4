/** The images of an open file, fetched row by row and kept while there is room. */
import { Withdrawn } from "../client.js";

const KEPT = 24 * 2 ** 20; // bytes of pixels

/**
 * @param {{ask: function}} codec
 * @param {object} file the worker's `open`
 * @param {{first: number, count: number}} images those of the file that the rows are of
 * @param {{arrived: function(object), failed: function(Error)}} on called with what the worker
 *   answered, its `faults` and `lost` among it; and with why there was no answer
 */
export function createPictures(codec, file, images, on) {
  const size = file.shape.reduce((a, b) => a * b);
  const rows = new Map(); // number -> {pixels, intact, names, labels}, the longest unused first
  const asked = new Map(); // number -> requests under way
  const broken = new Set();
  let columns = 1;
  let wanted = [0, -1]; // the first and the last row

  async function fetch(number) {
    const start = number * columns;
    const count = Math.min(columns, images.count - start);
    const range = { file: file.file, first: images.first + start, count };
    const requests = [codec.ask("images", range)];
    if (file.named || file.labelled) requests.push(codec.ask("labels", range));
    asked.set(number, requests);
    try {
      const [answer, texts] = await Promise.all(requests);
      if (asked.get(number) !== requests) return; // withdrawn
      asked.delete(number);
      rows.set(number, { ...answer, names: texts?.names, labels: texts?.labels });
      const most = Math.max(1 + wanted[1] - wanted[0], Math.floor(KEPT / (columns * size)));
      for (const old of rows.keys()) {
        if (rows.size <= most) break;
        rows.delete(old);
      }
      on.arrived(answer);
    } catch (error) {
      if (error instanceof Withdrawn || asked.get(number) !== requests) return;
      asked.delete(number);
      broken.add(number);
      on.failed(error);
    }
  }

  function withdraw(number) {
    const requests = asked.get(number);
    asked.delete(number);
    requests.forEach((request) => request.withdraw());
  }

  function ask() {
    const [first, last] = wanted;
    for (const number of [...asked.keys()]) {
      if (number < first || number > last) withdraw(number);
    }
    for (let number = first; number <= last; number++) {
      if (!rows.has(number) && !asked.has(number) && !broken.has(number)) fetch(number);
    }
  }

  function close() {
    wanted = [0, -1];
    ask();
  }

  return {
    /** Makes rows of so many images, and forgets those that were others. */
    divide(count) {
      close();
      rows.clear();
      broken.clear();
      columns = count;
    },
    /** Asks for these rows, and for no others any more. */
    want(first, last) {
      if (first === wanted[0] && last === wanted[1]) return;
      wanted = [first, last];
      ask();
    },
    /** A row that is there: `{pixels, intact, names, labels}`; else null. */
    get(number) {
      const row = rows.get(number);
      if (!row) return null;
      rows.delete(number);
      rows.set(number, row);
      return row;
    },
    /** Fetches again what there is of these images, by their numbers in the file. */
    renew(first, last) {
      for (const number of [...rows.keys()]) {
        const start = images.first + number * columns;
        if (start <= last && start + columns > first) rows.delete(number);
      }
      ask();
    },
    close,
  };
}
