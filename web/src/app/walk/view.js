/** The view "Walk": from latents to images, and from drawing to drawing. */
import { newestOnly } from "../client.js";
import { byId, complain, save } from "../parts/dom.js";
import { encoded, shaped, show } from "../parts/pixels.js";
import { createLatents } from "./latents.js";
import { createMorph } from "./morph.js";

/**
 * @param {{ask: function}} codec
 * @param {object} model the worker's `hello`
 * @param {function(): Uint8Array} drawn what is on the pad of the view "Draw"
 * @returns {{start: function(): Promise, from: function(Uint8Array): Promise}} `start` asks the
 *   worker for what the view needs, once; `from` goes to an image's latents.
 */
export function createWalk(codec, model, drawn) {
  const { shape } = model;
  const canvas = shaped(byId("walked"), shape);
  byId("from-drawing").hidden = !model.canEncode;
  byId("morph").hidden = !model.canEncode;
  let latents = null;
  let started = null;
  let seed = 0;

  const decode = newestOnly(async () => {
    try {
      const { pixels } = await codec.ask("decode", { z: latents.z() });
      show(canvas, pixels, shape);
    } catch (error) {
      complain(error);
    }
  });

  function move(z) {
    latents.set(z);
    return decode();
  }

  function start() {
    started ??= codec.ask("distributions").then((laws) => {
      latents = createLatents(byId("latents"), model.usedLatents, laws, decode);
      if (model.canEncode) createMorph(codec, model).start();
      return sample();
    });
    return started;
  }

  async function sample() {
    const { z } = await codec.ask("prior", { count: 1, seed: ++seed });
    return move(z);
  }

  async function from(pixels) {
    await start();
    return move((await codec.ask("latents", { pixels })).zMean);
  }

  byId("sample").addEventListener("click", () => sample().catch(complain));
  byId("zero").addEventListener("click", () => move(new Float32Array(model.latentDim)));
  byId("from-drawing").addEventListener("click", () => from(drawn()).catch(complain));
  byId("walk-png").addEventListener("click", async () => {
    const blob = await encoded(canvas, "image/png");
    if (blob) save(blob, "walk.png");
    else complain(new Error("this browser could not write the PNG"));
  });
  return { start, from };
}
