import * as budget from "./budget.js";
import { ledger as archiveLedger, openArchive } from "./bitstream/archive.js";
import * as single from "./bitstream/single.js";
import { equal } from "./bytes.js";
import { Collection } from "./collection.js";
import { CodecError, FormatError, ModelMismatchError } from "./errors.js";
import * as latents from "./latents.js";
import { FileModel } from "./model.js";

const OPERATIONS = ["hello", "open", "close", "images", "labels", "check", "details", "encode", "latents", "decode", "prior", "distributions"];

/** What a page does with files: its models, the files that are open, and an answer to each request. */
export class Session {
  /**
   * name: of the model; model: bytes of its model file; encoder: `Encoder`, or null if the page has
   * none; kernels: as for `FileModel`.
   */
  constructor({ name, model, encoder = null, kernels = null }) {
    this.name = name;
    this.encoder = encoder;
    this.kernels = kernels;
    const [body] = openArchive(model).models;
    this.model = new FileModel(body, { trusted: true, kernels });
    this.models = [this.model];
    this.files = new Map();
    this.opened = 0;
  }

  /** The answer to a request, {ok, ...}; never throws what a file or a request can cause. */
  answer({ op, ...request }) {
    try {
      if (!OPERATIONS.includes(op)) throw new FormatError(`no such request: ${op}`);
      return { ok: true, ...this[op](request) };
    } catch (error) {
      if (error instanceof CodecError) return { ok: false, error: error.message };
      // Memory that the browser does not give, or a fault of this program: the page goes on.
      return { ok: false, error: `this could not be done (${error.message})` };
    }
  }

  hello() {
    const { model } = this;
    return {
      model: {
        name: this.name,
        shape: model.shape,
        latentDim: model.latents,
        usedLatents: Array.from(model.decoder.used),
        canEncode: this.encoder !== null,
        canWalk: !model.decoder.isMap,
        hasContext: model.context !== null,
        digest: model.digest,
      },
      limits: { pixels: budget.PIXELS.always, images: budget.MAX_IMAGES },
    };
  }

  open({ bytes }) {
    const data = new Uint8Array(bytes);
    const opened = single.isSingle(data) ? this._openSingle(data) : this._openArchive(data);
    const file = ++this.opened;
    this.files.set(file, opened.entry);
    return { file, bytes: data.length, ...opened.answer };
  }

  _openSingle(data) {
    const { short, step, maxError, size } = single.head(data);
    const known = this.models.find((one) => equal(one.short, short));
    if (!known) throw new ModelMismatchError("made with a model that this page does not have: open its model file first");
    const model = known.of(size);
    model.requireAffordable(1, data.length);
    const image = single.decode(data, model);
    const entry = new SingleImage(image, model);
    const answer = {
      ...{ kind: "single", count: 1, shape: model.shape, isMixed: false, qualities: [qualityOf(step)], maxError },
      ...{ spotCheck: false, bytesByUse: single.ledger(data), named: false, labelled: false, faults: [], lost: [] },
    };
    return { entry, answer };
  }

  _openArchive(data) {
    const archive = openArchive(data);
    const { header, chunks, faults, lost, images } = archive;
    const model = this._modelOf(archive);
    const kind = images || !archive.models.length ? "archive" : "model";
    if (kind === "model" && !this.models.some((one) => one.digest === model.digest)) this.models.push(model);
    const distinct = (values) => [...new Set(values)];
    const errors = chunks.flatMap(({ refinement }) => (refinement ? [refinement.maxError] : []));
    const steps = distinct(chunks.filter((chunk) => chunk.based).map((chunk) => chunk.step));
    const foreign = archive.models.reduce((sum, body) => sum + body.length, 0);
    const entry = new Collection(archive, data.length - foreign, model);
    const answer = {
      ...{ kind, count: images, shape: entry.shape, isMixed: entry.isMixed, qualities: steps.map(qualityOf) },
      ...{ faults, lost },
      maxError: errors.length ? Math.max(...errors) : null,
      spotCheck: chunks.some((chunk) => chunk.spot),
      bytesByUse: archiveLedger(data, archive),
      named: chunks.some((chunk) => chunk.names),
      labelled: chunks.some((chunk) => chunk.labels),
    };
    return { entry, answer };
  }

  /** The model that made an archive: one that is known, or the one that it carries. */
  _modelOf({ header, models }) {
    const known = this.models.find((one) => one.made(header));
    if (known) return known;
    let fault = new ModelMismatchError("made with a model that this page does not have: open its model file first");
    for (const body of models) {
      try {
        const own = new FileModel(body, { kernels: this.kernels });
        if (own.made(header)) return own;
        fault = new FormatError("the embedded model is not the one that the header names");
      } catch (error) {
        if (!(error instanceof CodecError)) throw error;
        fault = error;
      }
    }
    throw fault;
  }

  _file(file) {
    const entry = this.files.get(file);
    if (!entry) throw new FormatError(`file ${file} is not open`);
    return entry;
  }

  close({ file }) {
    this.files.delete(file);
    return {};
  }

  images({ file, first, count }) {
    return this._file(file).images(first, count);
  }

  labels({ file, first, count }) {
    return this._file(file).labels(first, count);
  }

  check({ file }) {
    return this._file(file).check();
  }

  details({ file, number }) {
    return this._file(file).details(number);
  }

  encode({ pixels, quality }) {
    if (!(quality >= 0 && quality <= 100)) throw new FormatError(`a quality of ${quality}; expected 0 to 100`);
    const { zMean } = this.latents({ pixels });
    const step = latents.stepOf(quality);
    const symbols = latents.quantize(zMean, this.model.tables.units, step);
    const { bytes, levels } = single.encode(symbols, step, this.model);
    return { bytes, pixels: levels, symbols, zMean };
  }

  latents({ pixels }) {
    const { model, encoder } = this;
    if (!encoder) throw new FormatError("this page has no encoder");
    if (pixels?.length !== model.pixels) throw new FormatError(`an image of ${pixels?.length} values; expected ${model.pixels}`);
    return { zMean: encoder.encode(pixels), sigma: latents.sigmas(model.tables) };
  }

  /** The model; throws FormatError where its latents are not the page's to choose. */
  _walked() {
    if (this.model.decoder.isMap) throw new FormatError("the latents of this page's model form a map: it only opens files");
    return this.model;
  }

  decode({ z }) {
    const model = this._walked();
    const n = z.length / model.latents;
    if (!Number.isInteger(n)) throw new FormatError(`${z.length} latents; expected a multiple of ${model.latents}`);
    budget.require(budget.PIXELS, n * model.pixels, 0);
    const symbols = latents.quantize(z, model.tables.units, 1);
    return { pixels: model.levels(Float64Array.from(symbols), n) };
  }

  prior({ count, seed }) {
    const n = count * this._walked().latents;
    budget.require(budget.SYMBOLS, n, 0);
    return { z: latents.prior(n, seed) };
  }

  distributions() {
    return latents.distributions(this._walked().tables);
  }
}

/** A single image's file, as a collection of one. */
class SingleImage {
  constructor(image, model) {
    Object.assign(this, { image, model });
  }

  images(first, count) {
    const some = first === 0 && count === 1;
    if (!some) throw new FormatError(`images ${first} to ${first + count - 1} of 1`);
    return { pixels: this.image.levels.slice(), intact: Uint8Array.of(1), faults: [], lost: [] };
  }

  check() {
    return { faults: [], lost: [], isDone: true }; // it was compared when it was opened
  }

  labels(first, count) {
    return { names: Array(count).fill(null), labels: Array(count).fill(null) };
  }

  details() {
    const { levels, symbols, component, step, bits, mode } = this.image;
    return { name: null, label: null, shape: this.model.shape, pixels: levels.slice(), symbols: symbols.slice(), component, step, bits, mode };
  }
}

const qualityOf = (step) => Math.round(latents.qualityOf(step) * 10) / 10;
