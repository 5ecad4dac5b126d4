import { fromText } from "./dense.js";
import { Encoder } from "./encoder.js";
import { Session } from "./session.js";

/** The session of what a page carries: its name, and [size, text] of each of its parts. */
export function load({ name, model, encoder, kernels }) {
  const bytes = ([size, text]) => fromText(text, size);
  return new Session({
    name,
    model: bytes(model),
    encoder: encoder ? new Encoder(bytes(encoder)) : null,
    kernels: compiled(bytes(kernels)),
  });
}

/** null where the browser has no WebAssembly with vectors, or does not allow it. */
function compiled(bytes) {
  try {
    return new WebAssembly.Module(bytes);
  } catch {
    return null;
  }
}
