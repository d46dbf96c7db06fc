// All queues as a table. The server filters, sorts and cuts the list into pages, so ten thousand of them are no more
// work for the page than fifty.

import { get } from "./api.js";
import { Spark } from "./chart.js";
import { Rows, h, setAttribute, setText } from "./dom.js";
import { count, duration, rate, short, size, visible } from "./format.js";
import { cell, row, table } from "./table.js";

const IN_PAGE = 50;
const TYPING_MS = 200;

// What the server sorts by, the title, what of a queue is shown, and how.
const FIGURES = [
  ["waiting", "Waiting", "waiting", count],
  ["open", "Open", "open", count],
  ["delayed", "Delayed", "delayed", count],
  ["buried", "Buried", "buried", count],
  ["failures", "Failures", "failures", count],
  ["age", "Age of head", "age_ms", (ms) => (ms ? duration(ms) : "–")],
  ["rate_in", "In /s", "rate_in", rate],
  ["rate_out", "Out /s", "rate_out", rate],
];
const SORTS = ["name", ...FIGURES.map(([sort]) => sort)];

export function queues(app, { query, signal }) {
  let asked = readQuery(query);
  let typing = 0;
  let total = 0;
  let before = null;

  // -- what it is made of

  const tiles = tilesOf(["Items", "In queues", "Put /s", "Taken /s", "Clients", "Waiting for items"]);
  const filter = h("input", { type: "search", id: "filter", placeholder: "Filter by name", autocomplete: "off",
    spellcheck: "false", "aria-keyshortcuts": "/", input: () => {
      clearTimeout(typing);
      typing = setTimeout(() => go({ contains: filter.value, offset: 0 }), TYPING_MS);
    } });
  filter.value = asked.contains;
  const sortBy = h("select", { id: "sort", change: () => {
    const [sort, order] = sortBy.value.split(" ");
    go({ sort, order, offset: 0 });
  } },
  h("option", { value: "name asc" }, "Name"),
  FIGURES.map(([sort, title]) => h("option", { value: `${sort} desc` }, `${title}, most first`)));

  const buttons = new Map();
  function head(sort, title) {
    const button = h("button", { type: "button", class: "sort", click: () => sorted(sort) }, title,
      h("span", { class: "arrow", "aria-hidden": "true" }));
    buttons.set(sort, button);
    return button;
  }
  const made = table("Queues, and what is in them", [
    { title: head("name", "Queue") },
    ...FIGURES.map(([sort, title]) => ({ title: head(sort, title), className: "number" })),
    { title: "Last hour", className: "sparks" },
  ], "queues");
  const rows = new Rows(made.body, (one) => one.path, makeRow);
  const empty = h("div", { class: "empty", hidden: true });
  const range = h("span", { class: "range", role: "status" });
  const previous = h("button", { type: "button", click: () => go({ offset: Math.max(0, asked.offset - IN_PAGE) }) }, "Previous");
  const next = h("button", { type: "button", click: () => go({ offset: asked.offset + IN_PAGE }) }, "Next");

  const element = h("div", {},
    h("h1", {}, "Queues"),
    tiles.element,
    h("div", { class: "tools" },
      h("label", { class: "search", for: "filter" }, h("span", { class: "sr" }, "Filter by name"), filter),
      h("label", { class: "narrow-only", for: "sort" }, "Sort by ", sortBy)),
    made.table, empty,
    h("nav", { class: "pages", "aria-label": "Pages of the table" }, range, previous, next));

  // -- what is asked for

  function sorted(sort) {
    const first = sort === "name" ? "asc" : "desc";
    const other = first === "asc" ? "desc" : "asc";
    go({ sort, order: asked.sort === sort && asked.order === first ? other : first, offset: 0 });
  }

  function go(change) {
    asked = { ...asked, ...change };
    history.replaceState(null, "", `#/queues${writeQuery(asked)}`);
    showSort();
    app.refresh();
  }

  function showSort() {
    [["name"], ...FIGURES].forEach(([sort], at) => {
      const isIt = asked.sort === sort;
      setAttribute(made.heads[at], "aria-sort", isIt ? (asked.order === "asc" ? "ascending" : "descending") : null);
    });
    sortBy.value = `${asked.sort} ${asked.sort === "name" ? "asc" : "desc"}`;
  }
  showSort();

  // -- the answer

  async function refresh() {
    const mine = asked;
    const told = new URLSearchParams({ sort: mine.sort, order: mine.order, limit: IN_PAGE, offset: mine.offset });
    if (mine.contains) told.set("contains", mine.contains);
    const [found, server] = await Promise.all([get(`queues?${told}`, signal), get("server", signal)]);
    if (mine !== asked) return;
    total = found.total;
    if (mine.offset && mine.offset >= total) {
      go({ offset: Math.max(0, Math.floor((total - 1) / IN_PAGE) * IN_PAGE) });
      return;
    }
    rows.show(found.queues);
    showEmpty(total === 0);
    made.table.hidden = total === 0;
    const last = Math.min(total, mine.offset + IN_PAGE);
    setText(range, total ? `${count(mine.offset + 1)} to ${count(last)} of ${count(total)}` : "");
    previous.disabled = mine.offset === 0;
    next.disabled = last >= total;
    previous.hidden = next.hidden = total <= IN_PAGE;
    showFigures(server.figures);
  }

  function showFigures(figures) {
    const at = performance.now();
    const per = (name) => (before ? rate(Math.max(0, figures[name] - before.figures[name]) / ((at - before.at) / 1000)) : "–");
    tiles.show([
      short(figures.curr_items), size(figures.bytes), per("cmd_set"), per("get_hits"),
      count(figures.curr_connections), count(figures.queues_awaited),
    ]);
    if (!before || at - before.at >= 1000) before = { at, figures };
  }

  function showEmpty(isEmpty) {
    if (empty.hidden !== isEmpty) return;
    empty.hidden = !isEmpty;
    if (!isEmpty) empty.replaceChildren();
    else if (asked.contains) empty.replaceChildren(h("p", {}, "No queue has this in its name."));
    else {
      empty.replaceChildren(
        h("h2", {}, "There is no queue yet"),
        h("p", {}, "A queue is there as soon as something is put into it. From a terminal:"),
        h("pre", { tabindex: "0", "aria-label": "A command" }, `curl --data-binary 'hello' ${location.origin}/api/v1/queues/mail/items`));
    }
  }

  return {
    title: "Queues",
    element,
    refresh,
    queried(now) {
      asked = readQuery(now);
      filter.value = asked.contains;
      showSort();
      app.refresh();
    },
  };
}

function makeRow({ path }) {
  const link = h("a", { href: `#/queue/${path}`, class: "name" });
  const notes = h("span", { class: "notes" });
  const cells = FIGURES.map(([, title]) => cell(title, "number"));
  const spark = new Spark();
  const sparks = cell("Last hour", "sparks", spark.element);
  return {
    row: row(cell("Queue", "who", link, notes), ...cells, sparks),
    update(one) {
      setText(link, visible(one.name));
      showNotes(notes, one);
      FIGURES.forEach(([, , field, form], at) => {
        setText(cells[at], form(one[field]));
        cells[at].classList.toggle("zero", !one[field]);
      });
      cells[3].classList.toggle("bad", one.buried > 0);
      spark.show(one.spark);
      const known = (one.spark ?? []).filter((value) => value !== null);
      sparks.classList.toggle("unknown", known.length < 2);
    },
  };
}

const PAUSED = { in: "takes no puts", out: "hands nothing out", all: "paused" };

/** What there is to say of a queue beside its figures. */
export function showNotes(place, one) {
  const notes = [];
  if (one.damaged) notes.push(["damaged", "bad"]);
  if (one.paused && one.paused !== "none") notes.push([PAUSED[one.paused], "warn"]);
  if (one.waiters) notes.push([`${count(one.waiters)} waiting for items`, "calm"]);
  const told = JSON.stringify(notes);
  if (place.dataset.told === told) return;
  place.dataset.told = told;
  place.replaceChildren(...notes.map(([text, kind]) => h("span", { class: `note ${kind}` }, text)));
}

/** Figures with their names, as a list of definitions. */
export function tilesOf(names) {
  const values = names.map(() => h("dd", {}, "–"));
  return {
    element: h("dl", { class: `tiles of-${names.length}` }, names.map((name, at) => h("div", {}, h("dt", {}, name), values[at]))),
    show(texts) {
      texts.forEach((text, at) => setText(values[at], text));
    },
  };
}

function readQuery(query) {
  const offset = Number(query.get("offset"));
  const sort = query.get("sort");
  return {
    contains: query.get("contains") ?? "",
    sort: SORTS.includes(sort) ? sort : "name",
    order: query.get("order") === "desc" ? "desc" : "asc",
    offset: Number.isInteger(offset) && offset > 0 ? Math.floor(offset / IN_PAGE) * IN_PAGE : 0,
  };
}

function writeQuery(asked) {
  const told = new URLSearchParams();
  if (asked.contains) told.set("contains", asked.contains);
  if (asked.sort !== "name" || asked.order !== "asc") {
    told.set("sort", asked.sort);
    told.set("order", asked.order);
  }
  if (asked.offset) told.set("offset", asked.offset);
  return told.size ? `?${told}` : "";
}
