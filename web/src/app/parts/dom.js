/** Elements, made without markup: whatever a file says becomes text. */

export function byId(id) {
  return document.getElementById(id);
}

/** An element with attributes and children; strings become text. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** The number of a part's colour (style.css), as a style. */
export function part(number) {
  return `--part: var(--part-${number % 8})`;
}

/** Says an error over the page for some seconds, and to a screen reader. */
export function complain(error) {
  const toast = byId("toast");
  toast.textContent = error.message;
  toast.hidden = false;
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => {
    toast.hidden = true;
  }, 8000);
}

/** Offers bytes as a download. */
export function save(blob, name) {
  const link = element("a", { download: name, href: URL.createObjectURL(blob) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

/** A count with its noun: "1 image", "10,000 images". */
export function counted(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}
