/** Strokes to the pixels of a model's images. */
import { fromRgba } from "../parts/pixels.js";

export const PEN = 0.075; // width, of the pad's side
const FINE = 8; // subpixels a side, averaged
const BOX = 20 / 28; // of the side: what MNIST's digits are scaled to
const WIDEST = 3 / 28; // of the side: a pen in that box, however small the drawing was
const MOST = 8; // times that a drawing is enlarged, so that a dot stays a dot

const scratch = document.createElement("canvas");

/**
 * The drawing as an image.
 *
 * Centred, as MNIST's digits were made: scaled into a box of 20 of 28 pixels, and moved by whole
 * pixels so that the centre of mass is at the centre. Else the pad is the whole image.
 *
 * @param {{points: number[][], colour: string}[]} strokes points in [0, 1], of the pad.
 * @returns {Uint8Array} `[h * w * c]`
 */
export function rasterise(strokes, [height, width, channels], centred) {
  scratch.width = width * FINE;
  scratch.height = height * FINE;
  const context = scratch.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#000";
  context.fillRect(0, 0, scratch.width, scratch.height);
  const side = Math.min(scratch.width, scratch.height);
  let pen = PEN;
  if (centred && strokes.length) {
    const [left, top, right, bottom] = extent(strokes);
    const reach = Math.max(right - left, bottom - top);
    let scale = BOX / (reach + PEN);
    if (scale * PEN > WIDEST) scale = Math.min((BOX - WIDEST) / reach, MOST);
    pen = Math.min(PEN, WIDEST / scale);
    context.translate(scratch.width / 2, scratch.height / 2);
    context.scale(scale * side, scale * side);
    context.translate(-(left + right) / 2, -(top + bottom) / 2);
  } else {
    context.scale(scratch.width, scratch.height);
  }
  for (const stroke of strokes) trace(context, stroke, pen);
  const rgba = averaged(context.getImageData(0, 0, scratch.width, scratch.height).data, height, width);
  const pixels = fromRgba(rgba, channels);
  return centred ? centredByMass(pixels, [height, width, channels]) : pixels;
}

/** Draws a stroke; the context's unit is the pad's side. */
export function trace(context, { points, colour }, pen = PEN) {
  context.strokeStyle = colour;
  context.lineWidth = pen;
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  context.moveTo(...points[0]);
  for (let k = 1; k < points.length - 1; k++) {
    const [x, y] = points[k];
    const [nextX, nextY] = points[k + 1];
    context.quadraticCurveTo(x, y, (x + nextX) / 2, (y + nextY) / 2);
  }
  context.lineTo(...points[points.length - 1]);
  context.stroke();
}

/** Left, top, right, bottom of the pen's middle. */
function extent(strokes) {
  const box = [Infinity, Infinity, -Infinity, -Infinity];
  for (const { points } of strokes) {
    for (const [x, y] of points) {
      box[0] = Math.min(box[0], x);
      box[1] = Math.min(box[1], y);
      box[2] = Math.max(box[2], x);
      box[3] = Math.max(box[3], y);
    }
  }
  return box;
}

/** RGBA `[h * 8 * w * 8]` to `[h * w]`, each pixel the mean of its subpixels. */
function averaged(fine, height, width) {
  const sums = new Uint32Array(height * width * 4);
  let from = 0;
  for (let y = 0; y < height * FINE; y++) {
    const row = Math.floor(y / FINE) * width * 4;
    for (let x = 0; x < width * FINE; x++, from += 4) {
      const to = row + Math.floor(x / FINE) * 4;
      sums[to] += fine[from];
      sums[to + 1] += fine[from + 1];
      sums[to + 2] += fine[from + 2];
    }
  }
  return Uint8ClampedArray.from(sums, (sum) => Math.round(sum / FINE ** 2));
}

function centredByMass(pixels, [height, width, channels]) {
  let mass = 0;
  let across = 0;
  let down = 0;
  for (let k = 0; k < pixels.length; k++) {
    const place = Math.floor(k / channels);
    mass += pixels[k];
    across += pixels[k] * (place % width);
    down += pixels[k] * Math.floor(place / width);
  }
  if (!mass) return pixels;
  const right = Math.round(width / 2 - across / mass - 0.5);
  const lower = Math.round(height / 2 - down / mass - 0.5);
  const moved = new Uint8Array(pixels.length);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const fromX = x - right;
      const fromY = y - lower;
      if (fromX < 0 || fromX >= width || fromY < 0 || fromY >= height) continue;
      const from = (fromY * width + fromX) * channels;
      moved.set(pixels.subarray(from, from + channels), (y * width + x) * channels);
    }
  }
  return moved;
}
