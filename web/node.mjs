/**
 * The page's codec in Node, for tests and benchmarks:  node web/node.mjs MODEL ENCODER|- [--typed]
 *
 * MODEL: a model file; ENCODER: what cvae_jax/page/weights.py writes; --typed: without WebAssembly.
 * Each line of the standard input is a request as JSON, each line of the output its answer:
 *
 *   {op: "read", path, most}: what the file holds (`read`), of `most` images, or of all
 *   {op: "forget"}: the models that were opened
 *   {op: "encode", path, quality, out}: the file of an image, whose pixels are in `path`
 */
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";

import { Encoder } from "./src/codec/encoder.js";
import { Session } from "./src/codec/session.js";

const FIRST = 60; // images that a screen shows at once
const AT_ONCE = 500;

const bytes = (path) => Uint8Array.from(readFileSync(path));
const [model, encoder, typed] = process.argv.slice(2);
const kernels = new WebAssembly.Module(readFileSync(new URL("wasm/kernels.wasm", import.meta.url)));
const session = new Session({
  name: "model",
  model: bytes(model),
  encoder: encoder === "-" ? null : new Encoder(bytes(encoder)),
  kernels: typed ? null : kernels,
});

let slowest = 0; // seconds that any answer took, of what a line asks for

function ask(op, request) {
  const started = performance.now();
  const answer = session.answer({ op, ...request });
  slowest = Math.max(slowest, seconds(started));
  if (!answer.ok) throw new Error(answer.error);
  return answer;
}

const seconds = (since) => (performance.now() - since) / 1000;

/**
 * What `open` says of a file; runs of images that are intact, [first, count], and the SHA-256 of
 * their pixels; the first image's details; names and labels; how long it took to the first picture
 * and in all.
 */
function read({ path, most = Infinity }) {
  const data = bytes(path);
  const started = performance.now();
  const { file, ...opened } = ask("open", { bytes: data.buffer });
  const hash = createHash("sha256");
  const runs = [];
  const faults = [];
  let toFirst = null;
  const names = [];
  const labels = [];
  const end = Math.min(opened.count, most);
  for (let first = 0, count = Math.min(FIRST, end); count; ) {
    const some = ask("images", { file, first, count });
    toFirst ??= seconds(started);
    const size = some.pixels.length / count;
    some.intact.forEach((intact, i) => {
      if (!intact) return;
      hash.update(some.pixels.subarray(i * size, (i + 1) * size));
      const last = runs.at(-1);
      if (last && last[0] + last[1] === first + i) last[1]++;
      else runs.push([first + i, 1]);
    });
    faults.push(...some.faults);
    const said = ask("labels", { file, first, count });
    names.push(...said.names);
    labels.push(...said.labels);
    first += count;
    count = Math.min(AT_ONCE, end - first);
  }
  const spent = seconds(started);
  const { pixels, symbols, ...details } = runs.length ? ask("details", { file, number: runs[0][0] }) : {};
  ask("close", { file });
  return {
    ...{ ...opened, faults: [...opened.faults, ...faults], runs, sha256: hash.digest("hex"), toFirst, seconds: spent },
    ...{ details: { ...details, symbols: symbols && Array.from(symbols) }, names, labels },
  };
}

function encode({ path, quality, out }) {
  const pixels = bytes(path);
  const started = performance.now();
  const made = ask("encode", { pixels, quality });
  const spent = seconds(started);
  writeFileSync(out, made.bytes);
  const sha256 = createHash("sha256").update(made.pixels).digest("hex");
  return { sha256, zMean: Array.from(made.zMean), symbols: Array.from(made.symbols), seconds: spent };
}

function forget() {
  session.models.splice(1);
  return {};
}

const OPERATIONS = { read, forget, encode };

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  slowest = 0;
  let answer;
  try {
    answer = { ok: true, ...OPERATIONS[request.op](request) };
  } catch (error) {
    answer = { ok: false, error: error.message };
  }
  process.stdout.write(`${JSON.stringify({ ...answer, slowest })}\n`);
}
