import { fromText } from "./dense.js";
import { Encoder } from "./encoder.js";
import { Session } from "./session.js";

/** The session of what a page carries: its name, and [size, text] of each of its parts. */
export function load({ name, model, encoder }) {
  const bytes = ([size, text]) => fromText(text, size);
  return new Session({ name, model: bytes(model), encoder: encoder ? new Encoder(bytes(encoder)) : null });
}
