/** One image, large, with what is known of its bytes and its symbols. */
import { newestOnly } from "../client.js";
import { byId, complain, element, save } from "../parts/dom.js";
import { showBytes } from "../parts/hex.js";
import { encoded, shaped, show } from "../parts/pixels.js";

const MODES = {
  lossy: "what its symbols decode to",
  based: "what its symbols decode to, and the difference",
  alone: "pixel by pixel, without symbols",
  raw: "stored as they are",
};
const LISTED = 2048; // symbols that are shown

/**
 * @param {{ask: function}} codec
 * @param {object} model the worker's `hello`
 * @param {function(Uint8Array)} walk takes an image's pixels to the view "Walk"
 */
export function createLarge(codec, model, walk) {
  const dialog = byId("large");
  const canvas = byId("large-picture");
  let file = null;
  let number = 0;
  let details = null;

  const load = newestOnly(async (image) => {
    const of = file;
    details = null;
    try {
      const answer = await codec.ask("details", { file: of.file, number: image });
      if (of !== file) return; // another file is open now
      details = answer;
      canvas.classList.remove("lost");
      show(shaped(canvas, details.shape), details.pixels, details.shape);
      describe(details);
    } catch (error) {
      if (of !== file) return;
      canvas.classList.add("lost");
      canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
      byId("large-facts").replaceChildren(...fact("Lost", error.message));
      byId("large-symbols").replaceChildren();
    }
    const usable = details !== null;
    byId("large-save").disabled = !usable;
    byId("large-walk").disabled = !usable || !model.canEncode || !sameShape(details.shape, model.shape);
  });

  function describe({ name, label, shape, bits, mode, step, component, symbols }) {
    const facts = [];
    if (name !== null) facts.push(...fact("Name", name));
    if (label !== null) facts.push(...fact("Label", String(label)));
    const bytes = (bits / 8).toFixed(2);
    if (file.kind === "single") facts.push(...fact("File", `${file.bytes} bytes`));
    if (file.isMixed) facts.push(...fact("Size", `${shape[1]}×${shape[0]}`));
    facts.push(...fact("Bytes", `${bytes} (${bits.toFixed(1)} bits) by the model’s account`));
    facts.push(...fact("Pixels", MODES[mode]));
    if (symbols.length) facts.push(...fact("Step", String(step)));
    if (component >= 0) facts.push(...fact("Component", String(component)));
    byId("large-facts").replaceChildren(...facts);
    const isOwn = model.canWalk && symbols.length === model.latentDim;
    const numbers = isOwn ? model.usedLatents : [...symbols.keys()];
    const more = numbers.length > LISTED ? [element("li", {}, `and ${numbers.length - LISTED} more`)] : [];
    byId("large-symbols").replaceChildren(
      ...numbers.slice(0, LISTED).map((k) =>
        element("li", symbols[k] ? {} : { class: "zero" }, element("small", {}, `z${k}`), String(symbols[k]))),
      ...more,
    );
  }

  function open(image) {
    number = image;
    byId("large-title").textContent = `Image ${image}`;
    byId("large-before").disabled = image === 0;
    byId("large-after").disabled = image === file.count - 1;
    if (!dialog.open) dialog.showModal();
    load(image);
  }

  function step(by) {
    if (number + by >= 0 && number + by < file.count) open(number + by);
  }

  byId("large-close").addEventListener("click", () => dialog.close());
  byId("large-before").addEventListener("click", () => step(-1));
  byId("large-after").addEventListener("click", () => step(1));
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog && outside(dialog, event)) dialog.close();
  });
  byId("large-save").addEventListener("click", async () => {
    const name = pictureName(details.name, number);
    const blob = await encoded(canvas, "image/png");
    if (blob) save(blob, name);
    else complain(new Error("this browser could not write the PNG"));
  });
  byId("large-walk").addEventListener("click", () => {
    dialog.close();
    walk(details.pixels);
  });

  return {
    /** Takes a file's images. */
    use(opened, bytes) {
      dialog.close(); // it shows an image of the file before
      file = opened;
      shaped(canvas, file.shape);
      const isSingle = file.kind === "single";
      byId("large-hex").hidden = !isSingle;
      if (isSingle) showBytes(byId("large-hex"), bytes);
    },
    open,
  };
}

/** The name that a picture is saved by: the last part of the image's own, without what files refuse. */
export function pictureName(name, number) {
  const own = (name ?? "").split("/").pop().replace(/\.[A-Za-z0-9]{1,5}$/, "");
  const safe = own.replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069<>:"/\\|?*]/g, "_");
  return `${safe.slice(0, 100) || `image_${number}`}.png`;
}

function fact(term, text) {
  return [element("dt", {}, term), element("dd", {}, element("bdi", {}, text))];
}

function outside(dialog, { clientX, clientY }) {
  const box = dialog.getBoundingClientRect();
  return clientX < box.left || clientX > box.right || clientY < box.top || clientY > box.bottom;
}

function sameShape(one, other) {
  return one.length === other.length && one.every((size, k) => size === other[k]);
}
