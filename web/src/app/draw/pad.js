/** A canvas to draw on, by pointer or by keyboard. */
import { PEN, trace } from "./raster.js";

const STEP = 0.025; // of the side: one press of an arrow key; with Shift, four

/**
 * Makes a canvas a pad.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {string} label what it is, for a screen reader
 * @param {function()} changed called after each change of the strokes
 */
export function createPad(canvas, label, changed) {
  const context = canvas.getContext("2d");
  let strokes = [];
  let isExample = false; // the first stroke of one's own takes its place
  let colour = "#ffffff";
  let pointer = null; // that draws
  let pen = null; // where the keyboard's is, and whether it is down

  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-roledescription", "drawing pad");
  canvas.setAttribute("aria-label", label);
  canvas.setAttribute("aria-describedby", "pad-help");

  function paint() {
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.scale(canvas.width, canvas.height);
    for (const stroke of strokes) trace(context, stroke);
    if (pen) {
      context.lineWidth = 0.008;
      context.strokeStyle = pen.down ? "#4fd1c5" : "#9aa5ad";
      context.beginPath();
      context.arc(pen.x, pen.y, PEN * 0.75, 0, 7);
      context.stroke();
    }
  }

  let painting = false;
  function repaint() {
    if (painting) return;
    painting = true;
    requestAnimationFrame(() => {
      painting = false;
      paint();
    });
  }

  function set(others, example = false) {
    strokes = others;
    isExample = example;
    repaint();
    changed();
  }

  function begin(point) {
    const stroke = { points: [point], colour };
    set(isExample ? [stroke] : [...strokes, stroke]);
  }

  function extend(point) {
    strokes[strokes.length - 1].points.push(point);
    repaint();
    changed();
  }

  function place(event) {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (pointer !== null || event.button !== 0) return;
    pointer = event.pointerId;
    canvas.setPointerCapture(pointer);
    pen = null;
    begin(place(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerId !== pointer) return;
    for (const one of event.getCoalescedEvents?.() ?? []) extend(place(one));
    extend(place(event));
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, (event) => {
      if (event.pointerId === pointer) pointer = null;
    });
  }

  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const far = event.shiftKey ? 4 * STEP : STEP;
    const way = { ArrowLeft: [-far, 0], ArrowRight: [far, 0], ArrowUp: [0, -far], ArrowDown: [0, far] };
    pen ??= { x: 0.5, y: 0.5, down: false };
    if (event.key === " ") {
      pen.down = !pen.down;
      if (pen.down) begin([pen.x, pen.y]);
    } else if (way[event.key]) {
      pen.x = Math.min(1, Math.max(0, pen.x + way[event.key][0]));
      pen.y = Math.min(1, Math.max(0, pen.y + way[event.key][1]));
      if (pen.down) extend([pen.x, pen.y]);
    } else {
      return;
    }
    event.preventDefault();
    repaint();
  });
  canvas.addEventListener("blur", () => {
    pen = null;
    repaint();
  });

  paint();
  return {
    strokes: () => strokes,
    clear() {
      if (pen) pen.down = false;
      set([]);
    },
    undo() {
      if (pen) pen.down = false;
      set(strokes.slice(0, -1));
    },
    showExample(example) {
      if (pen) pen.down = false;
      set(example, true);
    },
    set ink(value) {
      colour = value;
    },
  };
}
