/** A grid of very many images, of which only the rows on screen exist. */
import { createRow, divided } from "./row.js";

const TILE = 56; // CSS pixels that an image takes at least, about
const GAP = 4;
const CAPTION = 18; // CSS pixels under images with names or labels
const NAMED = 88; // CSS pixels of a tile with a name under it
const AROUND = 2; // rows that exist above and below those on screen
// What a frame does at most; the rest comes in the next one. The browser's own work comes on top.
const FRAME_ROWS = 6; // moved or drawn
const FRAME = 6; // ms, after which no other row is begun

/**
 * @param {HTMLElement} host
 * @param {{first: number, count: number, shape: number[], named: boolean, labelled: boolean}} images
 *   those to show, by their numbers in the file
 * @param {{divide: function, want: function, get: function}} pictures
 * @param {function(number)} opened called with the image that was chosen
 */
export function createGrid(host, images, pictures, opened) {
  const captioned = images.named || images.labelled;
  const rows = new Map(); // number -> row
  const spare = []; // rows that were on screen
  const listening = new AbortController();
  let width = 0; // of the host; 0 while another view is shown
  let layout = null;
  let scratch = null; // that rows draw in
  let active = 0; // the cell that the keyboard is at
  let stop = null; // the cell that Tab goes to
  let planned = false;

  function lastRow() {
    return Math.ceil(images.count / layout.columns) - 1;
  }

  function rowOf(k) {
    return Math.floor(k / layout.columns);
  }

  function cellOf(k) {
    return rows.get(rowOf(k))?.cells[k % layout.columns];
  }

  function divide() {
    const caption = captioned ? CAPTION : 0;
    const sizes = { tile: TILE, narrowest: images.named ? NAMED : 0, gap: GAP, caption, width };
    const next = divided(images.shape, sizes);
    if (layout && next.columns === layout.columns && next.pitch === layout.pitch) return;
    if (next.columns !== layout?.columns) pictures.divide(next.columns);
    layout = next;
    const [height, wide] = images.shape;
    const { columns, pitch, left, scale, rowHeight } = layout;
    scratch = new ImageData(columns * pitch, height);
    rows.clear();
    spare.length = 0;
    host.replaceChildren();
    host.style.height = `${(lastRow() + 1) * rowHeight}px`;
    host.setAttribute("aria-rowcount", lastRow() + 1);
    host.setAttribute("aria-colcount", columns);
    const inCss = { "--cell": pitch, "--tile-left": left, "--tile-width": wide, "--tile-height": height };
    for (const [name, size] of Object.entries(inCss)) host.style.setProperty(name, `${size * scale}px`);
  }

  function plan() {
    if (planned) return;
    planned = true;
    requestAnimationFrame(() => {
      planned = false;
      if (width && !listening.signal.aborted) update();
    });
  }

  /** Brings what is on screen up to date, as much of it as a frame has time for. */
  function update() {
    // All that is read of the page's layout, before anything is written.
    const top = -host.getBoundingClientRect().top;
    const bottom = top + innerHeight;
    divide();
    const { columns, rowHeight } = layout;
    const first = clamp(Math.floor(top / rowHeight) - AROUND, 0, lastRow());
    const last = clamp(Math.ceil(bottom / rowHeight) + AROUND, 0, lastRow());
    pictures.want(first, last);
    const focused = host.contains(document.activeElement) ? rowOf(active) : -1;
    for (const [number, row] of rows) {
      if ((number < first || number > last) && number !== focused) {
        row.element.remove();
        rows.delete(number);
        spare.push(row);
      }
    }
    const end = performance.now() + FRAME;
    let done = 0;
    for (let number = first; number <= last; number++) {
      const row = rows.get(number);
      const picture = pictures.get(number);
      if (row && row.picture === picture) continue;
      if (done === FRAME_ROWS || performance.now() > end) {
        plan();
        break;
      }
      (row ?? addRow(number)).show(picture);
      done++;
    }
    setTabStop(rows.has(rowOf(active)) ? active : first * columns);
  }

  function addRow(number) {
    const row = spare.pop() ?? createRow(images.shape, layout, scratch, captioned);
    const first = number * layout.columns;
    row.move(number, first, images.first + first, Math.min(layout.columns, images.count - first));
    let next = null; // those on screen stay in order, for who reads them one after the other
    for (const other of rows.values()) {
      if (other.number > number && !(next?.number < other.number)) next = other;
    }
    host.insertBefore(row.element, next?.element ?? null);
    rows.set(number, row);
    return row;
  }

  function setTabStop(k) {
    const cell = cellOf(k);
    if (!cell || cell === stop) return;
    if (stop) stop.tabIndex = -1;
    cell.tabIndex = 0;
    stop = cell;
  }

  /** Moves the focus, and the page where that is off screen. */
  function go(k) {
    width ||= host.clientWidth;
    divide();
    active = clamp(k, 0, images.count - 1);
    const { rowHeight } = layout;
    const top = host.getBoundingClientRect().top + rowOf(active) * rowHeight;
    if (top < 0) scrollBy(0, top - GAP);
    else if (top + rowHeight > innerHeight) scrollBy(0, top + rowHeight - innerHeight + GAP);
    if (!rows.has(rowOf(active))) addRow(rowOf(active)).show(null);
    setTabStop(active);
    cellOf(active).focus({ preventScroll: true });
    plan();
  }

  host.addEventListener("keydown", (event) => {
    const cell = event.target.closest(".cell");
    if (!cell || event.ctrlKey || event.metaKey || event.altKey) return;
    const at = Number(cell.dataset.number);
    const { columns, rowHeight } = layout;
    const page = Math.max(1, Math.floor(innerHeight / rowHeight) - 1) * columns;
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
  const sizes = new ResizeObserver(([{ contentRect }]) => {
    width = Math.floor(contentRect.width);
    plan();
  });
  sizes.observe(host);

  return {
    /** Shows the images that have come, in the next frame. */
    refresh: plan,
    go: (image) => go(image - images.first),
    close() {
      listening.abort();
      sizes.disconnect();
      host.replaceChildren();
      host.style.height = "";
    },
  };
}

function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}
