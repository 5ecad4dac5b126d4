import { FormatError } from "../errors.js";

/** The shape of an integer decoder: which layers there are, and of what sizes (docs/FORMAT.md). */

const KERNEL = 3;
const STRIDE = 2;
const MAX_SIDE = 1 << 13;
const MAX_STAGES = 8;
const MAX_BLOCKS = 8;

/** Throws FormatError for dimensions that no decoder has. */
export function checkArchitecture({ shape, atPlace, filters, blocks }) {
  const isPossible =
    filters.length >= 1 &&
    filters.length <= MAX_STAGES &&
    blocks <= MAX_BLOCKS &&
    [...shape, atPlace, ...filters].every((n) => n >= 1 && n <= MAX_SIDE);
  if (!isPossible) throw new FormatError("an integer decoder of impossible dimensions");
}

/** Height and width of what goes into each transposed convolution, smallest first; and of the image. */
export function sizesOf([height, width], stages) {
  const sizes = [[height, width]];
  for (let stage = 0; stage < stages; stage++) {
    sizes.unshift(sizes[0].map((side) => Math.ceil(side / STRIDE)));
  }
  return sizes;
}

/** Height and width of what decodes to images of a size: the same, or the next that stages halve evenly. */
export function evenSize({ shape, filters, isMap }, size) {
  const scale = STRIDE ** filters.length;
  if (!isMap || shape[0] % scale || shape[1] % scale) {
    throw new FormatError(`images of ${size.join("x")}, but its model has ${shape[0]}x${shape[1]} alone`);
  }
  return size.map((side) => Math.ceil(side / scale) * scale);
}

/**
 * The layers, in order: {inputs, channels, taps, outputs, pixels, skips, last}; of a convolution also
 * its place.
 *
 * used: how many latents of a place go into the first; outputs: sums with weights of their own;
 * pixels: that go in; skips: whether what went into the layer before is added to its sums.
 */
export function layersOf({ shape, filters, blocks, isMap }, used) {
  const sizes = sizesOf(shape, filters.length);
  const [[h, w]] = sizes;
  const smallest = filters.at(-1);
  const convolution = (inputs, channels, from, to, stride, more = {}) => ({
    ...{ inputs, channels, outputs: channels, taps: KERNEL ** 2, pixels: from[0] * from[1], skips: false, last: false },
    ...placed(...from, ...to, stride),
    ...more,
  });
  const small = (inputs, more) => convolution(inputs, smallest, [h, w], [h, w], 1, more);
  const dense = {
    ...{ inputs: used, channels: smallest, outputs: h * w * smallest, taps: 1, pixels: 1, skips: false, last: false },
  };
  const layers = [isMap ? small(used) : dense];
  for (let block = 0; block < blocks; block++) layers.push(small(smallest), small(smallest, { skips: true }));
  filters.toReversed().forEach((channels, k) => {
    layers.push(convolution(layers.at(-1).channels, channels, sizes[k], sizes[k + 1], STRIDE));
  });
  layers.push(convolution(filters[0], shape[2], sizes.at(-1), sizes.at(-1), 1, { last: true }));
  return layers;
}

/** A transposed convolution from [h, w, inputs] to [H, W, outputs]: input (y, x) adds to (stride y + i - above, ..). */
const placed = (h, w, H, W, stride) => ({
  ...{ h, w, H, W, stride },
  above: Math.max((h - 1) * stride + KERNEL - H, 0) >> 1,
  before: Math.max((w - 1) * stride + KERNEL - W, 0) >> 1,
});
