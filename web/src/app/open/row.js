/** A row of the grid: one canvas under cells that say what it shows. */
import { element } from "../parts/dom.js";
import { place } from "../parts/pixels.js";

/**
 * How a grid of this width is divided. An image's pixel is `scale` CSS pixels wide, and a cell a
 * whole number of them: so that one canvas holds a row, pixel for pixel.
 *
 * @param {number[]} shape of an image
 * @param {{tile: number, narrowest: number, gap: number, caption: number, width: number}} sizes in
 *   CSS pixels: what an image takes at least, about; the least of a cell; between two images; under
 *   them; of the grid
 */
export function divided([height, width], { tile, narrowest, gap, caption, width: whole }) {
  const scale = Math.max(1, Math.round(tile / Math.max(height, width)));
  const least = Math.ceil((Math.max(width * scale, narrowest) + gap) / scale);
  const columns = Math.max(1, Math.floor(whole / (least * scale)));
  const pitch = Math.max(width, Math.floor(whole / columns / scale)); // of cells, in an image's pixels
  return { scale, columns, pitch, left: (pitch - width) >> 1, rowHeight: height * scale + gap + caption };
}

/**
 * Makes a row, which is used again and again, for whatever number the grid needs.
 *
 * @param {number[]} shape of an image
 * @param {{scale: number, columns: number, pitch: number, left: number, rowHeight: number}} layout
 * @param {ImageData} scratch of the canvas's size, for all rows to draw in
 * @param {boolean} captioned whether there are names or labels
 */
export function createRow(shape, layout, scratch, captioned) {
  const [height, width, channels] = shape;
  const { scale, columns, pitch, left, rowHeight } = layout;
  const canvas = element("canvas", { "aria-hidden": "true", width: columns * pitch, height });
  canvas.style.width = `${columns * pitch * scale}px`;
  canvas.style.height = `${height * scale}px`;
  const context = canvas.getContext("2d");
  const cells = Array.from({ length: columns }, (_, k) => {
    const cell = element("div", { role: "gridcell", class: "cell", tabindex: -1, "aria-colindex": k + 1 });
    if (captioned) cell.append(element("span", { class: "caption", "aria-hidden": "true" }));
    return cell;
  });
  const row = element("div", { role: "row", class: "grid-row" }, canvas, ...cells);
  row.style.height = `${rowHeight}px`;
  let isBlank = true;
  let firstInFile = 0;

  const made = {
    element: row,
    cells,
    number: -1,
    picture: undefined, // what it shows; undefined: what it showed elsewhere
    /** Moves it; first: its first image, by its number in the grid; inFile: in the file. */
    move(number, first, inFile, count) {
      Object.assign(made, { number, picture: undefined });
      firstInFile = inFile;
      row.style.transform = `translateY(${number * rowHeight}px)`;
      row.setAttribute("aria-rowindex", number + 1);
      cells.forEach((cell, k) => {
        cell.hidden = k >= count;
        cell.dataset.number = first + k;
      });
    },
    /** Shows what `pictures` has of its images; null: nothing yet. */
    show(picture) {
      made.picture = picture;
      if (picture) {
        scratch.data.fill(0);
        picture.intact.forEach((isIntact, k) => {
          const size = height * width * channels;
          if (isIntact) place(scratch, k * pitch + left, picture.pixels.subarray(k * size, (k + 1) * size), shape);
        });
        context.putImageData(scratch, 0, 0);
      } else if (!isBlank) {
        context.clearRect(0, 0, canvas.width, canvas.height);
      }
      isBlank = !picture;
      cells.forEach((cell, k) => {
        if (!cell.hidden) describe(cell, firstInFile + k, picture && imageOf(picture, k));
      });
    },
  };
  return made;
}

function imageOf({ intact, names, labels }, k) {
  return { isIntact: Boolean(intact[k]), name: names?.[k] ?? null, label: labels?.[k] ?? null };
}

function describe(cell, number, image) {
  const parts = [`Image ${number}`];
  if (!image) parts.push("not decoded yet");
  else if (!image.isIntact) parts.push("lost");
  const label = image?.label ?? null;
  const name = image?.name ?? null;
  if (label !== null) parts.push(`label ${label}`);
  if (name) parts.push(name);
  cell.setAttribute("aria-label", parts.join(", "));
  cell.className = !image ? "cell pending" : image.isIntact ? "cell" : "cell lost";
  const caption = cell.firstChild;
  if (!caption) return;
  caption.replaceChildren(...(label === null ? [] : [element("b", {}, String(label)), " "]), name ?? "");
  if (name) cell.title = name;
  else cell.removeAttribute("title");
}
