/** The view "Open": a file's images, what its bytes are for, and what of it is lost. */
import { byId, complain, counted, element } from "../parts/dom.js";
import { createChecks } from "./checks.js";
import { createGrid } from "./grid.js";
import { createLarge } from "./large.js";
import { showLedger } from "./ledger.js";
import { createPictures } from "./pictures.js";

const PAGE = 100000; // images in one grid: browsers bound an element's height
const LISTED = 20; // faults that are named one by one

/**
 * @param {{ask: function}} codec
 * @param {object} model the worker's `hello`
 * @param {{toOpen: function(), toWalk: function(Uint8Array)}} go to a view
 * @returns {{open: function(string, function(): Promise<ArrayBuffer>): Promise}}
 */
export function createOpen(codec, model, go) {
  const large = createLarge(codec, model, go.toWalk);
  const status = byId("open-status");
  let file = null;
  let shown = ""; // its name
  let grid = null;
  let pictures = null;
  let checks = null;
  let page = 0;
  let turn = 0; // of the files: one that is slow does not come over a later one

  /** read: gives the bytes, ArrayBuffer. */
  async function open(name, read) {
    const mine = ++turn;
    go.toOpen();
    say(`Reading ${name} …`);
    try {
      const bytes = await read();
      if (mine !== turn) return;
      const kept = bytes.byteLength <= 4096 ? new Uint8Array(bytes.slice(0)) : null;
      const opened = await codec.ask("open", { bytes }, [bytes]);
      if (mine !== turn || opened.kind === "model") codec.ask("close", { file: opened.file }).catch(complain);
      if (mine !== turn) return;
      if (opened.kind === "model") {
        say(withShown(`${name} is a model, for images of ${opened.shape.join("×")}: drop a file made with it.`));
        return;
      }
      if (file) codec.ask("close", { file: file.file }).catch(complain);
      file = opened;
      shown = name;
      say("");
      present(kept);
    } catch (error) {
      if (mine === turn) say(withShown(`${name}: ${error.message}`), true);
    }
  }

  function say(text, isError = false) {
    status.textContent = text;
    status.classList.toggle("error", isError);
  }

  /** A sentence about another file than that on screen, where there is one. */
  function withShown(text) {
    return file ? `${text.replace(/\.?$/, ".")} Still showing ${shown}.` : text;
  }

  function present(bytes) {
    byId("chooser").classList.add("small");
    byId("opened").hidden = false;
    byId("opened-name").textContent = shown;
    byId("opened-facts").textContent = facts(file);
    showDamage(file);
    showLedger(byId("ledger"), file);
    byId("opened-tools").hidden = file.count < 2;
    byId("go-to").max = file.count - 1;
    byId("go-to").value = "";
    large.use(file, bytes);
    checks?.close();
    checks = createChecks(codec, file.file, found, failed);
    turnTo(0);
    if (file.kind === "single") large.open(0);
  }

  function turnTo(number) {
    page = number;
    grid?.close();
    pictures?.close();
    grid = pictures = null;
    const first = page * PAGE;
    const count = Math.min(PAGE, file.count - first);
    const pages = Math.ceil(file.count / PAGE);
    byId("pages").hidden = pages < 2;
    byId("page-before").disabled = page === 0;
    byId("page-after").disabled = page >= pages - 1;
    byId("page-range").textContent = `Images ${first} to ${first + count - 1}`;
    byId("grid").hidden = !count;
    if (!count) return;
    const { shape, named, labelled } = file;
    pictures = createPictures(codec, file, { first, count }, { arrived, failed });
    grid = createGrid(byId("grid"), { first, count, shape, named, labelled }, pictures, large.open);
  }

  function arrived(answer) {
    grid.refresh();
    if (answer.lost.length) found(answer);
    else if (answer.faults.length) failed(new Error(answer.faults.join("; ")));
    checks.wake();
  }

  function failed(error) {
    say(error.message, true);
  }

  /** Names damage that came to light when images were decoded; what was shown of them is lost, too. */
  function found({ faults, lost }) {
    const isNew = ([first]) => !file.lost.some(([from, to]) => from <= first && first <= to);
    const ranges = lost.filter(isNew);
    if (!ranges.length && faults.every((fault) => file.faults.includes(fault))) return;
    file.faults = [...new Set([...file.faults, ...faults])];
    file.lost = [...file.lost, ...ranges].sort(([one], [other]) => one - other);
    showDamage(file);
    for (const [first, last] of ranges) pictures?.renew(first, last);
    grid?.refresh();
  }

  byId("page-before").addEventListener("click", () => turnTo(page - 1));
  byId("page-after").addEventListener("click", () => turnTo(page + 1));
  byId("go-to").addEventListener("change", (event) => {
    const image = event.target.valueAsNumber;
    if (!file || !Number.isInteger(image) || image < 0 || image >= file.count) return;
    if (Math.floor(image / PAGE) !== page) turnTo(Math.floor(image / PAGE));
    grid?.go(image);
  });
  takeFiles(open);
  return { open };
}

/** Files that are chosen or dropped anywhere on the page. */
function takeFiles(open) {
  function take(file) {
    if (file) open(file.name, () => read(file));
  }
  async function read(file) {
    try {
      return await file.arrayBuffer();
    } catch (error) {
      throw new Error(`could not be read (${error.message})`);
    }
  }
  byId("file").addEventListener("change", (event) => {
    take(event.target.files[0]);
    event.target.value = "";
  });
  addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("over");
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("over");
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("over");
    take(event.dataTransfer.files[0]);
  });
}

function facts({ count, shape, isMixed, bytes, qualities, maxError, spotCheck }) {
  const size = `${isMixed ? "up to " : ""}${shape[1]}×${shape[0]}`;
  const parts = [`${counted(count, "image")} of ${size}`, counted(bytes, "byte")];
  if (count > 1) parts.push(`${(bytes / count).toFixed(2)} bytes per image`);
  if (qualities.length) parts.push(`quality ${qualities.map((q) => Number(q.toPrecision(4))).join(", ")}`);
  if (maxError === 0) parts.push("lossless");
  else if (maxError !== null) parts.push(`no pixel off by more than ${counted(maxError, "level")}`);
  if (spotCheck) parts.push("pixels checked of some images");
  return parts.join(" · ");
}

function showDamage({ faults, lost }) {
  const damage = byId("damage");
  damage.hidden = !faults.length && !lost.length;
  const ranges = lost.slice(0, LISTED).map(([first, last]) => (first === last ? `${first}` : `${first} to ${last}`));
  const more = lost.length > LISTED ? ` and ${lost.length - LISTED} more ranges` : "";
  const sentence = lost.length
    ? `This file is damaged. Lost: images ${ranges.join(", ")}${more}. The rest is shown.`
    : "This file is damaged, but every image is there.";
  const list = element("ul", { "aria-label": "Faults" });
  for (const fault of faults.slice(0, LISTED)) list.append(element("li", {}, fault));
  if (faults.length > LISTED) list.append(element("li", {}, `and ${faults.length - LISTED} more`));
  damage.replaceChildren(element("p", {}, sentence), list);
}
