/** The view "Draw": strokes to a file's bytes and back, at every move of the pen. */
import { newestOnly } from "../client.js";
import { byId, complain, save } from "../parts/dom.js";
import { showBytes } from "../parts/hex.js";
import { meanSquaredError, psnr, shaped, show } from "../parts/pixels.js";
import { exampleStrokes } from "./examples.js";
import { createPad } from "./pad.js";
import { rasterise } from "./raster.js";
import { createRivals } from "./rivals.js";

const REST = 120; // ms without a change, after which the other encoders are asked
const FIRST = 3; // the example that is there at first

/**
 * @param {{ask: function}} codec
 * @param {object} model the worker's `hello`
 * @returns {{pixels: function(): Uint8Array}} what is drawn, `[h * w * c]`
 */
export function createDraw(codec, model) {
  const { shape } = model;
  const canvases = [byId("seen"), byId("back")].map((canvas) => shaped(canvas, shape));
  const fillRivals = newestOnly(createRivals(byId("rivals").tBodies[0], shape));
  const centred = byId("centred");
  const quality = byId("quality");
  centred.checked = shape[2] === 1; // digits and glyphs; pictures in colour fill their frame
  byId("ink-choice").hidden = shape[2] !== 3;
  let file = null;
  let turn = 0; // of the drawings: what is under way for one does not come over the next
  let resting = 0;
  let example = FIRST;

  const encode = newestOnly(async () => {
    const mine = turn;
    const pixels = drawn();
    const asked = quality.valueAsNumber;
    try {
      const made = await codec.ask("encode", { pixels, quality: asked });
      if (mine !== turn) return;
      file = made.bytes;
      show(canvases[0], pixels, shape);
      show(canvases[1], made.pixels, shape);
      byId("count").textContent = file.length.toLocaleString("en");
      showBytes(byId("hex"), file, byId("hex-legend"));
      byId("download").disabled = false;
      clearTimeout(resting);
      resting = setTimeout(() => settled(mine, pixels, made, asked), REST);
    } catch (error) {
      if (mine === turn) complain(error);
    }
  });

  function settled(mine, pixels, made, asked) {
    const error = psnr(meanSquaredError(pixels, made.pixels));
    byId("draw-status").textContent = `${made.bytes.length} bytes, ${error}`;
    const isCurrent = () => mine === turn;
    fillRivals(pixels, made.pixels, made.bytes.length, asked, isCurrent).catch(complain);
  }

  /** Puts another drawing, or none, in the place of this one. */
  function replace(change) {
    turn++;
    clearTimeout(resting);
    change();
  }

  function drawn() {
    return rasterise(pad.strokes(), shape, centred.checked);
  }

  const pad = createPad(byId("pad"), "Drawing pad", encode);
  pad.showExample(exampleStrokes(example));
  centred.addEventListener("change", encode);
  quality.addEventListener("input", () => {
    byId("quality-value").value = quality.value;
    encode();
  });
  byId("undo").addEventListener("click", () => replace(pad.undo));
  byId("clear").addEventListener("click", () => replace(pad.clear));
  byId("example").addEventListener("click", () => {
    replace(() => pad.showExample(exampleStrokes(++example)));
  });
  byId("ink").addEventListener("input", (event) => {
    pad.ink = event.target.value;
  });
  byId("download").addEventListener("click", () => {
    save(new Blob([file], { type: "application/octet-stream" }), "drawing.cvae");
  });
  return { pixels: drawn };
}
