// Makes elements, and changes those that are shown into others. Text gets in as text alone.

const SVG = "http://www.w3.org/2000/svg";
const NEVER = /^(on|style$|src|href$|xlink|formaction$)/i;

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (NEVER.test(name)) {
      throw new Error(`no element of this page has the attribute ${name}`);
    }
    if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) {
      element.append(child); // a text becomes a text node
    }
  }
  return element;
}

export function h(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

// Show these children in `place`. What is the same stays: also what has the focus or is selected.
export function show(place, ...children) {
  const wanted = place.cloneNode(false);
  fill(wanted, {}, children);
  morphChildren(place, wanted);
}

function keyOf(node) {
  return node.nodeType === Node.ELEMENT_NODE ? node.getAttribute("data-key") : null;
}

function morph(old, wanted) {
  if (old.isEqualNode(wanted)) {
    return;
  }
  if (old.nodeType === Node.TEXT_NODE) {
    old.data = wanted.data;
    return;
  }
  if (old.hasAttribute("data-keep")) {
    return;
  }
  for (const { name } of [...old.attributes]) {
    // People open and close details themselves.
    if (!wanted.hasAttribute(name) && name !== "open") {
      old.removeAttribute(name);
    }
  }
  for (const { name, value } of [...wanted.attributes]) {
    if (old.getAttribute(name) !== value && name !== "open") {
      old.setAttribute(name, value);
    }
  }
  morphChildren(old, wanted);
}

function fits(old, wanted) {
  return (
    old !== null &&
    old.nodeType === wanted.nodeType &&
    old.nodeName === wanted.nodeName &&
    keyOf(old) === keyOf(wanted)
  );
}

function morphChildren(old, wanted) {
  const keyed = new Map();
  for (const child of old.childNodes) {
    if (keyOf(child) !== null) {
      keyed.set(keyOf(child), child);
    }
  }
  let here = old.firstChild;
  for (const child of [...wanted.childNodes]) {
    const key = keyOf(child);
    const known = key === null ? here : (keyed.get(key) ?? null);
    if (!fits(known, child)) {
      old.insertBefore(child, here);
      continue;
    }
    if (known === here) {
      here = here.nextSibling;
    } else {
      old.insertBefore(known, here);
    }
    keyed.delete(key);
    morph(known, child);
  }
  while (here !== null) {
    const next = here.nextSibling;
    here.remove();
    here = next;
  }
}
