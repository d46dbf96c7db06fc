// Tables that a phone shows as cards: the roles are named, because a browser forgets them when the layout is another.

import { h } from "./dom.js";

/** `columns`: [{title, className}], a title may be an element. Returns {table, body, heads}. */
export function table(caption, columns, className = "") {
  const heads = columns.map(({ title, className: of = "" }) => h("th", { scope: "col", role: "columnheader", class: of }, title));
  const body = h("tbody", { role: "rowgroup" });
  const element = h("table", { role: "table", class: `cards ${className}` },
    h("caption", { class: "sr" }, caption),
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, heads)),
    body);
  return { table: element, body, heads };
}

/** A cell, which says on a phone what it is. */
export function cell(label, className = "", ...children) {
  return h("td", { role: "cell", "data-label": label, class: className }, ...children);
}

export function row(...cells) {
  return h("tr", { role: "row" }, ...cells);
}
