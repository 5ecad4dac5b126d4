/** Two drawings, and what the model sees between them. */
import { newestOnly } from "../client.js";
import { exampleStrokes } from "../draw/examples.js";
import { createPad } from "../draw/pad.js";
import { rasterise } from "../draw/raster.js";
import { byId, complain, element } from "../parts/dom.js";
import { shaped, show } from "../parts/pixels.js";

const STATIONS = 11; // pictures of the strip

/**
 * @param {{ask: function}} codec
 * @param {object} model the worker's `hello`
 */
export function createMorph(codec, model) {
  const { shape, latentDim } = model;
  const size = shape[0] * shape[1] * shape[2];
  const way = byId("way");
  const picture = shaped(byId("morphed"), shape);
  const strip = Array.from({ length: STATIONS }, () => shaped(element("canvas", { class: "tile" }), shape));
  byId("strip").replaceChildren(...strip);
  const ends = [createEnd("a", "First drawing", 2), createEnd("b", "Second drawing", 8)];

  function createEnd(letter, label, example) {
    const end = { z: null };
    const encode = newestOnly(async () => {
      try {
        const pixels = rasterise(end.pad.strokes(), shape, shape[2] === 1);
        end.z = (await codec.ask("latents", { pixels })).zMean;
        if (ends.every(({ z }) => z)) await Promise.all([drawStrip(), drawPicture()]);
      } catch (error) {
        complain(error);
      }
    });
    end.pad = createPad(byId(`pad-${letter}`), label, () => end.started && encode());
    end.pad.showExample(exampleStrokes(example));
    byId(`clear-${letter}`).addEventListener("click", () => end.pad.clear());
    byId(`example-${letter}`).addEventListener("click", () => {
      example += 1;
      end.pad.showExample(exampleStrokes(example));
    });
    end.start = () => {
      end.started = true;
      encode();
    };
    return end;
  }

  function between(share) {
    const [from, to] = ends.map(({ z }) => z);
    return from.map((value, k) => value + share * (to[k] - value));
  }

  const drawPicture = newestOnly(async () => {
    const { pixels } = await codec.ask("decode", { z: between(way.value / 100) });
    show(picture, pixels, shape);
  });

  const drawStrip = newestOnly(async () => {
    const z = new Float32Array(STATIONS * latentDim);
    for (let k = 0; k < STATIONS; k++) z.set(between(k / (STATIONS - 1)), k * latentDim);
    const { pixels } = await codec.ask("decode", { z });
    strip.forEach((canvas, k) => show(canvas, pixels.subarray(k * size, (k + 1) * size), shape));
  });

  way.addEventListener("input", () => {
    byId("way-value").value = `${way.value} %`;
    if (ends.every(({ z }) => z)) drawPicture().catch(complain);
  });
  return { start: () => ends.forEach((end) => end.start()) };
}
