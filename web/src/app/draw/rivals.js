/** The same drawing from the browser's own encoders, beside ours. */
import { element } from "../parts/dom.js";
import { encoded, fromRgba, meanSquaredError, psnr, shaped, show } from "../parts/pixels.js";

const QUALITIES = [0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1]; // that are tried, upwards
const TYPES = { PNG: "image/png", WebP: "image/webp", JPEG: "image/jpeg" };

const scratch = document.createElement("canvas");

/**
 * A table with a row for each format, empty until it is filled: nothing moves when figures come.
 *
 * @returns {function(Uint8Array, Uint8Array, number, number, function(): boolean): Promise} fills it
 *   for a drawing, what our bytes decode to, their number and their quality, as long as the last
 *   says that it is the drawing still.
 */
export function createRivals(body, shape) {
  const ours = createRow(body, "cvae", shape);
  ours.row.className = "ours";
  const others = Object.keys(TYPES).map((name) => createRow(body, name, shape));

  return async function fill(pixels, decoded, bytes, quality, isCurrent) {
    const bound = meanSquaredError(pixels, decoded);
    const results = [];
    for (const type of Object.values(TYPES)) {
      results.push(await closest(pixels, shape, type, bound));
      if (!isCurrent()) return;
    }
    const largest = Math.max(bytes, ...results.map((result) => result?.bytes ?? 0));
    ours.fill({ bytes, pixels: decoded, error: bound, note: `quality ${quality}` }, largest);
    others.forEach((row, k) => row.fill(results[k], largest));
  };
}

function createRow(body, name, shape) {
  const note = element("small", {}, "\u00a0");
  const picture = shaped(element("canvas", { class: "tile", "aria-hidden": "true" }), shape);
  const bytes = element("td", { class: "number" }, "–");
  const error = element("td", { class: "number" }, "–");
  const bar = element("span", { class: "bar", style: "width: 0" });
  const row = element(
    "tr", {}, element("th", { scope: "row" }, name, note), element("td", {}, picture), bytes, error,
    element("td", {}, bar),
  );
  body.append(row);
  return {
    row,
    fill(result, largest) {
      bytes.textContent = result ? result.bytes.toLocaleString("en") : "–";
      error.textContent = result ? psnr(result.error) : "–";
      note.textContent = result ? result.note : "not in this browser";
      bar.style.width = result ? `${(100 * result.bytes) / largest}%` : "0";
      if (result) show(picture, result.pixels, shape);
    },
  };
}

/** The smallest of a format that is at least as close; null where the browser cannot write it. */
async function closest(pixels, shape, type, bound) {
  let best = null;
  const qualities = type === TYPES.PNG ? [undefined] : QUALITIES;
  for (const quality of qualities) {
    show(shaped(scratch, shape), pixels, shape);
    const blob = await encoded(scratch, type, quality);
    if (!blob) return null;
    const decoded = await decode(blob, shape);
    const error = meanSquaredError(pixels, decoded);
    const note = quality === undefined ? "lossless" : `quality ${100 * quality}`;
    best = { bytes: blob.size, pixels: decoded, error, note };
    if (error <= bound) break;
  }
  return best;
}

async function decode(blob, [height, width, channels]) {
  const bitmap = await createImageBitmap(blob);
  const canvas = shaped(document.createElement("canvas"), [height, width]);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return fromRgba(context.getImageData(0, 0, width, height).data, channels);
}
