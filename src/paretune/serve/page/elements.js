// Making nodes. Every text goes in as text, never as markup, so that a comment can hold anything.

const SVG = "http://www.w3.org/2000/svg";

function add(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : String(child));
  }
  return node;
}

function decorate(node, properties) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  return node;
}

// el("p", { class: "note" }, "text", otherNode)
export function el(tag, properties = {}, ...children) {
  return add(decorate(document.createElement(tag), properties), children);
}

export function svg(tag, properties = {}, ...children) {
  return add(decorate(document.createElementNS(SVG, tag), properties), children);
}

export function byId(id) {
  const node = document.getElementById(id);
  if (!node) throw new Error(`the page has no #${id}`);
  return node;
}

// A bar of a share between 0 and 1; the number stands beside it as text, so that the bar itself is silent.
export function bar(share, kind = "", mark = null) {
  const fill = el("span", { class: "fill" });
  fill.style.width = `${Math.min(1, Math.max(0, share || 0)) * 100}%`;
  const track = el("span", { class: `track ${kind}`, "aria-hidden": "true" }, fill);
  if (mark !== null) {
    const line = el("span", { class: "mark" });
    line.style.left = `${Math.min(1, Math.max(0, mark)) * 100}%`;
    track.append(line);
  }
  return track;
}

// The text of a live region, changed even where the new text equals the old, so that it is read out again.
export function announce(region, text) {
  region.textContent = "";
  setTimeout(() => {
    region.textContent = text;
  }, 60);
}

export function saveFile(name, blob) {
  const address = URL.createObjectURL(blob);
  const link = el("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
