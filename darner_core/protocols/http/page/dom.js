// Makes elements. Whatever is shown goes in as text: no value is ever read as markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element. An attribute that is a function listens to the event of its name; false and null leave one out. */
export function h(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** An element of a drawing. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Change a text only if it is another, so that a selection and a screen reader are left in peace. */
export function setText(element, text) {
  const wanted = String(text);
  if (element.textContent !== wanted) element.textContent = wanted;
}

export function setAttribute(element, name, value) {
  if (value === null || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, String(value));
}

/** Give a place these children; nothing is touched if they are the ones that are there. */
export function setChildren(place, children) {
  const wanted = children.filter(Boolean);
  const isSame = place.childNodes.length === wanted.length && wanted.every((one, at) => place.childNodes[at] === one);
  if (!isSame) place.replaceChildren(...wanted);
}

/**
 * The rows of a table, by a key, so that a row stays the same element while its figures change: the focus stays in it.
 * `make(item)` returns {row, update(item)}.
 */
export class Rows {
  constructor(body, keyOf, make) {
    this.body = body;
    this.keyOf = keyOf;
    this.make = make;
    this.byKey = new Map();
  }

  show(items) {
    const before = this.byKey;
    this.byKey = new Map();
    let place = this.body.firstChild;
    for (const item of items) {
      const key = this.keyOf(item);
      if (this.byKey.has(key)) continue;
      const made = before.get(key) ?? this.make(item);
      this.byKey.set(key, made);
      before.delete(key);
      made.update(item);
      if (made.row === place) place = place.nextSibling;
      else this.body.insertBefore(made.row, place);
    }
    for (const gone of before.values()) {
      const next = gone.row.nextElementSibling ?? gone.row.previousElementSibling;
      const hadFocus = gone.row.contains(document.activeElement);
      gone.row.remove();
      if (hadFocus) keepFocus(next, this.body);
    }
  }
}

/** The focus was in what has gone: it goes to what is nearest, and not to the beginning of the page. */
function keepFocus(next, body) {
  const near = next?.querySelector("a, button") ?? body.closest("section, main");
  if (near && !near.matches("a, button")) near.tabIndex = -1;
  near?.focus({ preventScroll: true });
}
