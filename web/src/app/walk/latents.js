/** A slider for each latent, over the curve of how often it takes which value. */
import { element } from "../parts/dom.js";

const STEPS = 400; // of a slider
const SVG = "http://www.w3.org/2000/svg";

/**
 * @param {HTMLElement} host
 * @param {number[]} used the latents that the model uses
 * @param {{low: Float32Array, high: Float32Array, density: Float32Array, bins: number}} laws
 * @param {function()} changed called when a person moves a slider
 */
export function createLatents(host, used, { low, high, density, bins }, changed) {
  const z = new Float32Array(low.length);
  const rows = used.map((k) => {
    const id = `latent-${k}`;
    const input = element("input", { type: "range", id, min: low[k], max: high[k] });
    input.step = (high[k] - low[k]) / STEPS || "any";
    const output = element("output", { for: id });
    const row = element(
      "div", { class: "latent" }, element("label", { for: id }, `z${k}`), output,
      curve(density.subarray(k * bins, (k + 1) * bins)), input,
    );
    input.addEventListener("input", () => {
      z[k] = input.valueAsNumber;
      output.value = z[k].toFixed(2);
      changed();
    });
    return { k, input, output, row };
  });
  host.replaceChildren(...rows.map(({ row }) => row));

  function set(values) {
    z.set(values);
    for (const { k, input, output } of rows) {
      input.value = z[k];
      output.value = z[k].toFixed(2);
    }
  }
  return { z: () => z.slice(), set };
}

function curve(density) {
  const most = Math.max(...density) || 1;
  const last = density.length - 1;
  const points = Array.from(density, (value, k) => `L${(100 * k) / last} ${24 - (23 * value) / most}`);
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 100 24");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", `M0 24${points.join("")}L100 24Z`);
  svg.append(path);
  return svg;
}
