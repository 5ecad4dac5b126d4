/** Starts the page: the worker, the three views, and an archive that the page may carry. */
import { startWorker } from "./client.js";
import { createDraw } from "./draw/view.js";
import { createOpen } from "./open/view.js";
import { byId, complain } from "./parts/dom.js";
import { createTabs } from "./parts/tabs.js";
import { createWalk } from "./walk/view.js";

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
  if (model.canEncode) views.draw = createDraw(codec, model);
  views.open = createOpen(codec, model, { toOpen: () => select("open"), toWalk: walkFrom });
  views.walk = createWalk(codec, model, () => views.draw.pixels());
  if (!byId("walk").hidden) views.walk.start().catch(complain);

  byId("tab-draw").hidden = !model.canEncode;
  const archive = byId("archive");
  if (archive) {
    const bytes = Uint8Array.from(atob(archive.textContent.trim()), (letter) => letter.charCodeAt(0));
    await views.open.open(archive.dataset.name, bytes.buffer);
  } else if (!model.canEncode) {
    select("open");
  }
}

start().catch(complain);
