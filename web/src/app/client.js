/** The worker as functions that give promises: one request, one answer (docs of worker.js). */

/** A request that was withdrawn before the worker began with it. */
export class Withdrawn extends Error {}

/**
 * Starts the worker whose source is part of the page.
 *
 * @returns {{ask: function(string, object=, Transferable[]=): Promise & {withdraw: function()}}}
 *   `ask` rejects with an Error whose message is one line for people.
 */
export function startWorker() {
  const source = new Blob([document.getElementById("worker").textContent], {
    type: "text/javascript",
  });
  const worker = new Worker(URL.createObjectURL(source));
  const waiting = new Map();
  let last = 0;

  worker.onmessage = ({ data }) => {
    const request = waiting.get(data.id);
    if (!request) return; // withdrawn
    waiting.delete(data.id);
    if (data.ok) request.resolve(data);
    else request.reject(new Error(data.error));
  };
  worker.onerror = (event) => {
    event.preventDefault();
    for (const request of waiting.values()) {
      request.reject(new Error("the codec has stopped, perhaps for want of memory: load the page again"));
    }
    waiting.clear();
  };

  function ask(op, fields = {}, transfer = []) {
    const id = ++last;
    const answer = new Promise((resolve, reject) => {
      waiting.set(id, { resolve, reject });
      worker.postMessage({ ...fields, id, op }, transfer);
    });
    answer.withdraw = () => {
      const request = waiting.get(id);
      if (!request) return;
      waiting.delete(id);
      worker.postMessage({ id, op: "cancel" });
      request.reject(new Withdrawn());
    };
    return answer;
  }
  return { ask };
}

/**
 * Runs `work` for the newest of what it is called with, one at a time: while one runs, all but the
 * last of the calls that come in are forgotten.
 */
export function newestOnly(work) {
  let running = false;
  let next = null;
  return async function call(...args) {
    next = args;
    if (running) return;
    running = true;
    try {
      while (next) {
        const current = next;
        next = null;
        await work(...current);
      }
    } finally {
      running = false;
    }
  };
}
