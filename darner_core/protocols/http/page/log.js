// The last lines of the log, the newest last; it follows them unless somebody has scrolled up.

import { get } from "./api.js";
import { h, setText } from "./dom.js";
import { time, visible } from "./format.js";
import { choice } from "./items.js";

const LINES = 500;
const LEVELS = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"];

export function log(app, { signal }) {
  let least = "DEBUG";
  let lines = [];
  let drawn = "";

  const list = h("ol", { class: "log", tabindex: "0", "aria-label": "Lines of the log, the newest last" });
  const filter = h("input", { type: "search", id: "filter-log", placeholder: "Filter lines", autocomplete: "off", spellcheck: "false", input: () => draw() });
  const none = h("p", { class: "none", hidden: true }, "There are no such lines.");
  const element = h("div", {}, h("h1", {}, "Log"),
    h("div", { class: "tools" },
      h("label", { class: "search", for: "filter-log" }, h("span", { class: "sr" }, "Filter lines"), filter),
      choice("Which lines", "log-level", [["DEBUG", "All"], ["WARNING", "Warnings"], ["ERROR", "Errors"]], least, (value) => {
        least = value;
        draw();
      })),
    list, none);

  function draw() {
    const word = filter.value.toLowerCase();
    const from = LEVELS.indexOf(least);
    const found = lines.filter((one) => LEVELS.indexOf(one.level) >= from && one.text.toLowerCase().includes(word));
    const told = found.length ? `${found.length} ${found[0].time_ms} ${found.at(-1).time_ms} ${found.at(-1).text} ${word} ${least}` : "";
    if (told === drawn && told) return;
    drawn = told;
    const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    list.replaceChildren(...found.map(lineOf));
    if (isAtEnd) list.scrollTop = list.scrollHeight;
    none.hidden = found.length > 0;
    list.hidden = found.length === 0;
  }

  async function refresh() {
    lines = await get(`server/log?lines=${LINES}`, signal);
    draw();
  }

  return { title: "Log", element, refresh };
}

function lineOf(one) {
  const level = h("span", { class: "level" });
  setText(level, one.level.toLowerCase());
  return h("li", { class: one.level.toLowerCase() }, h("time", {}, time(one.time_ms)), " ", level, " ", h("span", { class: "text" }, visible(one.text)));
}
