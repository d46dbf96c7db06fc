// The clients that are connected.

import { get } from "./api.js";
import { Rows, h, setText } from "./dom.js";
import { ago, count, time, visible } from "./format.js";
import { cell, row, table } from "./table.js";

const IN_PAGE = 100;

export function connections(app, { signal }) {
  const pages = [""]; // what was `next` before each page up to this one
  let next = null;

  const made = table("Clients that are connected", ["Address", "User", "Dialect", "Listener", "State", "Open items", "Waits for", "Connected"]
    .map((title) => ({ title, className: title === "Open items" ? "number" : "" })), "clients");
  const rows = new Rows(made.body, (one) => `${one.id} ${one.connected_at_ms}`, makeRow);
  const many = h("p", { class: "soft", role: "status" });
  const back = h("button", { type: "button", click: () => {
    pages.pop();
    app.refresh();
  } }, "Previous");
  const on = h("button", { type: "button", click: () => {
    if (next !== null) pages.push(next);
    app.refresh();
  } }, "Next");
  const element = h("div", {}, h("h1", {}, "Connections"), many, made.table,
    h("nav", { class: "pages", "aria-label": "Pages of the table" }, back, on));

  function makeRow(first) {
    const [state, open, waits, since] = [cell("State"), cell("Open items", "number"), cell("Waits for"), cell("Connected")];
    since.title = time(first.connected_at_ms);
    return {
      row: row(cell("Address", "who", h("code", {}, first.address)), cell("User", "", visible(first.user ?? "–")),
        cell("Dialect", "", first.dialect), cell("Listener", "", first.listener), state, open, waits, since),
      update(one) {
        setText(state, one.state);
        setText(open, count(one.open_reads));
        setText(waits, one.waiting_for.map(visible).join(", ") || "–");
        setText(since, ago(one.connected_at_ms, app.now()));
      },
    };
  }

  async function refresh() {
    const after = pages.at(-1);
    const [found, server] = await Promise.all([
      get(`connections?limit=${IN_PAGE}${after && `&after=${after}`}`, signal), get("server", signal),
    ]);
    next = found.next;
    rows.show(found.connections);
    setText(many, `${count(server.figures.curr_connections)} clients are connected.`);
    back.disabled = pages.length === 1;
    on.disabled = next === null;
    back.hidden = on.hidden = pages.length === 1 && next === null;
  }

  return { title: "Connections", element, refresh };
}
