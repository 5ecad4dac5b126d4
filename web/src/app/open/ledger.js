/** What the bytes of a file are spent on, as a bar. */
import { element, part } from "../parts/dom.js";

/**
 * @param {HTMLElement} host
 * @param {{bytesByUse: Object<string, number>, bytes: number, count: number}} file
 */
export function showLedger(host, { bytesByUse, bytes, count }) {
  const uses = Object.entries(bytesByUse).filter(([, size]) => size > 0);
  const bar = element("div", { class: "ledger", "aria-hidden": "true" });
  const legend = element("ul", { class: "legend", "aria-label": "What the bytes are for" });
  uses.forEach(([use, size], number) => {
    const piece = element("span", { style: part(number), title: `${use}: ${size} bytes` });
    piece.style.flexGrow = size / bytes;
    bar.append(piece);
    const each = count > 1 ? ` (${(size / count).toFixed(3)} per image)` : "";
    const share = element("span", { class: "ledger-each" }, each);
    const figure = element("b", {}, size.toLocaleString("en"));
    legend.append(element("li", { style: part(number) }, `${use} `, figure, share));
  });
  host.replaceChildren(bar, legend);
}
