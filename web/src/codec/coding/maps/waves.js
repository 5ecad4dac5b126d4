/** Waves: the places of a map that are coded together, as they do not depend on each other. */

const DELAY = 3; // columns by which a row is coded behind the one above

/** The places of each wave, [row, column], in order; grid: [h, w]. */
export function wavesOf([h, w]) {
  const waves = Array.from({ length: w + DELAY * (h - 1) }, () => []);
  for (let row = 0; row < h; row++) {
    for (let column = 0; column < w; column++) waves[column + DELAY * row].push([row, column]);
  }
  return waves.filter((places) => places.length);
}

/** How many waves there are, and how many places the largest has. */
export const countOf = ([h, w]) => Math.min(h * w, w + DELAY * (h - 1));

export const mostPlaces = ([h, w]) => Math.min(h, Math.ceil(w / DELAY));
