/** The bytes of a file in hexadecimal, each part in a colour of its own. */
import { element, part } from "./dom.js";

const HEAD = [["mark", 2], ["version", 1], ["model", 3], ["step", 2]];
const REFINED = [["context model", 3], ["largest error", 1], ["mode", 1], ["length", 2]];
const CHECK = 4;
const MOST = 4096; // bytes that are shown

/** The parts of a single image's file: `[name, bytes]`, in order (docs/FORMAT.md). */
export function partsOf(bytes) {
  if (bytes[0] !== 0x89 || bytes[1] < 0x76 || bytes[1] > 0x78) return [["file", bytes.length]];
  const parts = [...HEAD];
  if (bytes[1] === 0x78) parts.push(["size", 4]);
  if (bytes[1] === 0x77) {
    const length = bytes[13] + 256 * bytes[14];
    parts.push(...REFINED);
    if (length) parts.push(["latents", length]);
  }
  const known = parts.reduce((sum, [, size]) => sum + size, CHECK);
  parts.push([bytes[1] === 0x77 ? "differences" : "latents", bytes.length - known], ["check", CHECK]);
  return parts.every(([, size]) => size >= 0) ? parts : [["file", bytes.length]];
}

/**
 * Fills `host` with the bytes, and `legend`, if there is one, with the names of the parts.
 */
export function showBytes(host, bytes, legend = null) {
  const parts = partsOf(bytes);
  let at = 0;
  const spans = parts.map(([name, size], number) => {
    const shown = bytes.subarray(at, Math.min(at + size, MOST));
    at += size;
    return element("span", { style: part(number), title: name }, hexadecimal(shown));
  });
  host.replaceChildren(...spans.flatMap((span) => [span, " "]));
  if (bytes.length > MOST) host.append(`… and ${bytes.length - MOST} more`);
  legend?.replaceChildren(
    ...parts.map(([name, size], number) =>
      element("li", { style: part(number) }, element("b", {}, String(size)), ` ${name}`)),
  );
}

export function hexadecimal(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
}
