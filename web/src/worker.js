// Made by cvae_jax/page.
import { carried } from "./carried.js";
import { load } from "./codec/load.js";

/**
 * The worker: answers one request after the other (`Session`).
 *
 * `cancel {id}` drops a request that has not begun; it is answered, too, so that nobody waits.
 * A `check` waits until there is nothing else to do.
 */

const waiting = [];
const { port1: turn, port2: next } = new MessageChannel();
const session = load(carried);

/** What can be handed over instead of copied. */
const buffers = (answer) =>
  Object.values(answer).flatMap((value) => (ArrayBuffer.isView(value) ? [value.buffer] : []));

function answer(id, content) {
  self.postMessage({ id, ...content }, [...new Set(buffers(content))]);
}

self.onmessage = ({ data: request }) => {
  if (request.op !== "cancel") {
    waiting.push(request);
    next.postMessage(null);
    return;
  }
  const at = waiting.findIndex(({ id }) => id === request.id);
  if (at >= 0) {
    waiting.splice(at, 1);
    answer(request.id, { ok: false, error: "cancelled", cancelled: true });
  }
};

// Between two requests the messages that came meanwhile are read: one of them may cancel the next.
turn.onmessage = () => {
  const urgent = waiting.findIndex(({ op }) => op !== "check");
  const [request] = waiting.splice(Math.max(urgent, 0), 1);
  if (request) answer(request.id, session.answer(request));
};
