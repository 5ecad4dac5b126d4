/** Starts the page: the worker, the three views, and an archive that the page may carry. */
import { startWorker } from "./client.js";
import { createDraw } from "./draw/view.js";
import { createOpen } from "./open/view.js";
import { byId, complain } from "./parts/dom.js";
import { createTabs } from "./parts/tabs.js";
import { createWalk } from "./walk/view.js";

const ONLY_OPENS = "; this page only opens them, as its model’s latents form a map";
const PIECE = 2 ** 18; // letters that are decoded at once; a multiple of four

async function start() {
  const codec = startWorker();
  const views = {};
  const select = createTabs(document.querySelector('[role="tablist"]'), (id) => {
    scrollTo(0, 0);
    if (id === "walk") views.walk?.start().catch(complain);
  });
  const { model } = await codec.ask("hello");
  const walkFrom = (pixels) => {
    select("walk");
    views.walk.from(pixels).catch(complain);
  };
  views.open = createOpen(codec, model, { toOpen: () => select("open"), toWalk: walkFrom });
  if (model.canWalk) views.walk = createWalk(codec, model, () => views.draw.pixels());
  await pause();
  if (model.canEncode) views.draw = createDraw(codec, model);
  if (!byId("walk").hidden) views.walk?.start().catch(complain);

  byId("tab-draw").hidden = !model.canEncode;
  byId("tab-walk").hidden = !model.canWalk;
  if (!model.canEncode) byId("also-makes").textContent = model.canWalk ? "" : ONLY_OPENS;
  const archive = byId("archive");
  if (archive) {
    await views.open.open(archive.dataset.name, () => fromBase64(archive.textContent.trim()));
  } else if (!model.canEncode) {
    select("open");
  }
}

/** Lets the page do what else there is to do. */
function pause() {
  return new Promise((resolve) => setTimeout(resolve));
}

/** The bytes that a text stands for, in pieces between which the page can do other things. */
async function fromBase64(text) {
  const pieces = [];
  for (let at = 0; at < text.length; at += PIECE) {
    const letters = atob(text.slice(at, at + PIECE));
    const bytes = new Uint8Array(letters.length);
    for (let k = 0; k < letters.length; k++) bytes[k] = letters.charCodeAt(k);
    pieces.push(bytes);
    await pause();
  }
  return new Blob(pieces).arrayBuffer();
}

start().catch(complain);
