/** A grid of very many images, of which only the rows on screen exist. */
import { element } from "../parts/dom.js";
import { shaped, show } from "../parts/pixels.js";

const TILE = 56; // CSS pixels that an image takes at least, about
const GAP = 4;
const CAPTION = 18; // CSS pixels under images with names or labels
const NAMED = 88; // CSS pixels of a tile with a name under it
const AROUND = 2; // rows that exist above and below those on screen

/**
 * @param {HTMLElement} host
 * @param {{first: number, count: number, shape: number[], named: boolean, labelled: boolean}} images
 *   those to show, by their numbers in the file
 * @param {{want: function, get: function}} pictures
 * @param {function(number)} opened called with the image that was chosen
 */
export function createGrid(host, images, pictures, opened) {
  const [height, width] = images.shape;
  const captioned = images.named || images.labelled;
  const scale = Math.max(1, Math.round(TILE / Math.max(height, width)));
  const narrowest = Math.max(width * scale, images.named ? NAMED : 0) + GAP;
  const cellHeight = height * scale + GAP + (captioned ? CAPTION : 0);
  const rows = new Map(); // number -> element
  const listening = new AbortController();
  let columns = 0;
  let cellWidth = narrowest; // the columns share what is left of the grid's width
  let active = 0; // the cell that the keyboard is at
  let planned = false;

  function lastRow() {
    return Math.ceil(images.count / columns) - 1;
  }

  function measure() {
    const fitting = Math.max(1, Math.floor(host.clientWidth / narrowest));
    const shared = Math.floor(host.clientWidth / fitting);
    if (fitting !== columns || shared !== cellWidth) {
      columns = fitting;
      cellWidth = shared;
      rows.forEach((row) => row.remove());
      rows.clear();
      host.style.height = `${(lastRow() + 1) * cellHeight}px`;
      host.setAttribute("aria-rowcount", lastRow() + 1);
      host.setAttribute("aria-colcount", columns);
    }
  }

  function plan() {
    if (planned) return;
    planned = true;
    requestAnimationFrame(() => {
      planned = false;
      update();
    });
  }

  function update() {
    if (!host.offsetParent) return; // another view is shown
    measure();
    const top = -host.getBoundingClientRect().top;
    const first = clamp(Math.floor(top / cellHeight) - AROUND, 0, lastRow());
    const last = clamp(Math.ceil((top + innerHeight) / cellHeight) + AROUND, 0, lastRow());
    const focused = host.contains(document.activeElement) ? rowOf(active) : -1;
    for (const [number, row] of rows) {
      if ((number < first || number > last) && number !== focused) {
        row.remove();
        rows.delete(number);
      }
    }
    for (let number = first; number <= last; number++) {
      if (!rows.has(number)) rows.set(number, createRow(number));
    }
    const end = Math.min((last + 1) * columns, images.count) - 1;
    pictures.want(images.first + first * columns, images.first + end);
    setTabStop(rows.has(rowOf(active)) ? active : first * columns);
  }

  function createRow(number) {
    const row = element("div", { role: "row", class: "grid-row", "aria-rowindex": number + 1 });
    row.style.transform = `translateY(${number * cellHeight}px)`;
    row.style.height = `${cellHeight}px`;
    const end = Math.min((number + 1) * columns, images.count);
    for (let k = number * columns; k < end; k++) row.append(createCell(k));
    const later = [...rows.keys()].filter((other) => other > number);
    host.insertBefore(row, later.length ? rows.get(Math.min(...later)) : null);
    return row;
  }

  function createCell(k) {
    const cell = element("div", { role: "gridcell", class: "cell", tabindex: -1 });
    cell.setAttribute("aria-colindex", (k % columns) + 1);
    cell.dataset.number = k;
    cell.style.width = `${cellWidth}px`;
    const canvas = shaped(element("canvas", { "aria-hidden": "true" }), images.shape);
    canvas.style.width = `${width * scale}px`;
    cell.append(canvas);
    if (captioned) cell.append(element("span", { class: "caption", "aria-hidden": "true" }));
    fill(cell, k);
    return cell;
  }

  function fill(cell, k) {
    const image = pictures.get(images.first + k);
    cell.setAttribute("aria-label", described(images.first + k, image));
    if (!image) return;
    cell.classList.toggle("lost", !image.intact);
    if (image.intact) show(cell.firstChild, image.pixels, images.shape);
    if (!captioned) return;
    const label = image.label === null ? [] : [element("b", {}, String(image.label)), " "];
    cell.lastChild.replaceChildren(...label, image.name ?? "");
    if (image.name) cell.title = image.name;
  }

  function cellOf(k) {
    return rows.get(rowOf(k))?.children[k % columns];
  }

  function rowOf(k) {
    return Math.floor(k / columns);
  }

  function setTabStop(k) {
    for (const cell of host.querySelectorAll('[tabindex="0"]')) cell.tabIndex = -1;
    const cell = cellOf(k);
    if (cell) cell.tabIndex = 0;
  }

  /** Moves the focus, and the page where that is off screen. */
  function go(k) {
    measure();
    active = clamp(k, 0, images.count - 1);
    const box = host.getBoundingClientRect();
    const top = box.top + rowOf(active) * cellHeight;
    if (top < 0) scrollBy(0, top - GAP);
    else if (top + cellHeight > innerHeight) scrollBy(0, top + cellHeight - innerHeight + GAP);
    update();
    setTabStop(active);
    cellOf(active)?.focus({ preventScroll: true });
  }

  host.addEventListener("keydown", (event) => {
    const cell = event.target.closest(".cell");
    if (!cell || event.ctrlKey || event.metaKey || event.altKey) return;
    const at = Number(cell.dataset.number);
    const page = Math.max(1, Math.floor(innerHeight / cellHeight) - 1) * columns;
    const to = {
      ArrowLeft: at - 1, ArrowRight: at + 1, ArrowUp: at - columns, ArrowDown: at + columns,
      PageUp: at - page, PageDown: at + page, Home: 0, End: images.count - 1,
    }[event.key];
    if (to !== undefined) go(to);
    else if (event.key === "Enter" || event.key === " ") opened(images.first + at);
    else return;
    event.preventDefault();
  }, listening);
  host.addEventListener("click", (event) => {
    const cell = event.target.closest(".cell");
    if (!cell) return;
    active = Number(cell.dataset.number);
    setTabStop(active);
    opened(images.first + active);
  }, listening);
  addEventListener("scroll", plan, { passive: true, signal: listening.signal });
  const sizes = new ResizeObserver(plan);
  sizes.observe(host);
  plan();

  return {
    /** Shows the images that have come. */
    refresh(first, count) {
      for (let k = first - images.first; k < first - images.first + count; k++) {
        const cell = cellOf(k);
        if (cell) fill(cell, k);
      }
    },
    go: (image) => go(image - images.first),
    close() {
      listening.abort();
      sizes.disconnect();
      host.replaceChildren();
      host.style.height = "";
    },
  };
}

function described(number, image) {
  const parts = [`Image ${number}`];
  if (!image) parts.push("not decoded yet");
  else if (!image.intact) parts.push("lost");
  if (image && image.label !== null) parts.push(`label ${image.label}`);
  if (image?.name) parts.push(image.name);
  return parts.join(", ");
}

function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}
