// The options in effect, and where each was set.

import { get } from "./api.js";
import { Rows, h, setText } from "./dom.js";
import { visible } from "./format.js";
import { cell, row, table } from "./table.js";

export function options(app, { signal }) {
  const shown = optionsTable("Options of the server", true);
  const listeners = h("ul", { class: "list" });
  const element = h("div", {}, h("h1", {}, "Options"), shown.element,
    h("section", {}, h("h2", {}, "Listeners"), listeners));
  const rows = new Rows(listeners, (one) => `${one.address} ${one.dialect}`, (one) => ({
    row: h("li", {}, h("code", {}, one.address), h("span", { class: "soft" }, ` ${one.dialect}`)),
    update() {},
  }));

  async function refresh() {
    const [found, server] = await Promise.all([get("server/options", signal), get("server", signal)]);
    shown.show(found);
    rows.show(server.listeners);
  }

  return { title: "Options", element, refresh };
}

/** A table of options that can be cut down to a word, or to those that somebody has set. */
export function optionsTable(caption, isOfServer) {
  let all = [];
  const own = isOfServer ? "server" : "queue";
  const filter = h("input", { type: "search", id: `filter-${own}`, placeholder: "Filter options", autocomplete: "off", spellcheck: "false",
    input: () => draw() });
  const onlySet = h("input", { type: "checkbox", id: `set-${own}`, change: () => draw() });
  onlySet.checked = !isOfServer;
  const made = table(caption, [{ title: "Option" }, { title: "Value" }, { title: "Set by" },
    ...(isOfServer ? [{ title: "A change takes effect" }] : [])], "options");
  const rows = new Rows(made.body, (one) => one.name, makeRow);
  const none = h("p", { class: "none", hidden: true }, "");
  const element = h("div", {},
    h("div", { class: "tools" },
      h("label", { class: "search", for: filter.id }, h("span", { class: "sr" }, "Filter options"), filter),
      h("label", { class: "check", for: onlySet.id }, onlySet, " Only those that were set")),
    made.table, none);

  function makeRow({ name }) {
    const [value, source, effect] = [cell("Value", "value"), cell("Set by"), cell("A change takes effect")];
    return {
      row: row(cell("Option", "who", h("code", {}, name)), value, source, ...(isOfServer ? [effect] : [])),
      update(one) {
        setText(value, valueOf(one.value));
        setText(source, isSet(one) ? visible(one.source) : "default");
        source.classList.toggle("soft", !isSet(one));
        value.classList.toggle("set", isSet(one));
        if (isOfServer) setText(effect, one.changed_takes_effect === "reload" ? "on reload" : "on restart");
      },
    };
  }

  function draw() {
    const word = filter.value.trim().toLowerCase();
    const found = all.filter((one) => one.name.toLowerCase().includes(word) && (!onlySet.checked || isSet(one)));
    rows.show(found);
    none.hidden = found.length > 0;
    setText(none, word ? "No such option." : "None is set: all have the values that are built in.");
    made.table.hidden = found.length === 0;
  }

  return {
    element,
    show(found) {
      all = found;
      draw();
    },
  };
}

function isSet(one) {
  return one.source !== "default" && one.source !== "built in";
}

function valueOf(value) {
  if (value === null || value === "") return "–";
  if (Array.isArray(value)) return value.map((one) => valueOf(one)).join(", ") || "–";
  if (typeof value === "boolean") return value ? "yes" : "no";
  return visible(typeof value === "object" ? JSON.stringify(value) : String(value));
}
