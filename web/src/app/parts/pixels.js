/** Images between the model (levels `[h, w, c]`) and the screen (RGBA). */

/** Sizes a canvas for images of this shape. */
export function shaped(canvas, [height, width]) {
  canvas.width = width;
  canvas.height = height;
  canvas.style.aspectRatio = `${width} / ${height}`;
  return canvas;
}

/**
 * Puts an image into one that may be wider, `left` pixels from its left.
 *
 * @param {ImageData} image of the same height
 * @param {Uint8Array} pixels `[h * w * c]`, c being 1 (grey) or 3 (RGB); of more, the first is shown.
 */
export function place(image, left, pixels, [height, width, channels]) {
  const { data } = image;
  const [green, blue] = channels === 3 ? [1, 2] : [0, 0];
  for (let y = 0, from = 0; y < height; y++) {
    let to = 4 * (y * image.width + left);
    for (let x = 0; x < width; x++, from += channels, to += 4) {
      data[to] = pixels[from];
      data[to + 1] = pixels[from + green];
      data[to + 2] = pixels[from + blue];
      data[to + 3] = 255;
    }
  }
}

/** Shows an image in a canvas that has its shape. */
export function show(canvas, pixels, shape) {
  const image = new ImageData(shape[1], shape[0]);
  place(image, 0, pixels, shape);
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** A canvas's image as levels `[h * w * c]`: grey is the mean of red, green and blue. */
export function fromRgba(rgba, channels) {
  const count = rgba.length / 4;
  const pixels = new Uint8Array(count * channels);
  for (let k = 0; k < count; k++) {
    if (channels === 3) {
      pixels.set(rgba.subarray(4 * k, 4 * k + 3), 3 * k);
    } else {
      const sum = rgba[4 * k] + rgba[4 * k + 1] + rgba[4 * k + 2];
      pixels.fill(Math.round(sum / 3), k * channels, (k + 1) * channels);
    }
  }
  return pixels;
}

/** Mean squared error of two images, levels in [0, 1]. */
export function meanSquaredError(one, other) {
  let sum = 0;
  for (let k = 0; k < one.length; k++) sum += (one[k] - other[k]) ** 2;
  return sum / one.length / 255 ** 2;
}

/** For people: "20.4 dB", "exact". */
export function psnr(error) {
  return error === 0 ? "exact" : `${(-10 * Math.log10(error)).toFixed(1)} dB`;
}

/** A canvas as an encoded image; null where the browser has no encoder of this type. */
export async function encoded(canvas, type, quality) {
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, type, quality));
  return blob && blob.type === type ? blob : null;
}
