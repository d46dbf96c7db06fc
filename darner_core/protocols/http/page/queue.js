// A queue's own page: its figures, its last hour, what is in it, who waits, its dead letters, and what can be done to it.

import { Refused, change, get } from "./api.js";
import { ask, attempt } from "./ask.js";
import { Chart, tableOf } from "./chart.js";
import { deadLetters } from "./dead.js";
import { h, setChildren, setText } from "./dom.js";
import { count, duration, rate, size, visible } from "./format.js";
import { itemsOf } from "./items.js";
import { optionsTable } from "./options.js";
import { showNotes, tilesOf } from "./queues.js";

const SLOW_MS = 10_000; // how often the last hour and the options are asked for
const NAMES = ["Waiting", "Open", "Delayed", "Buried", "Failures", "Age of head", "In /s", "Out /s", "Size"];

export function queue(app, { argument: path, signal }) {
  const base = `queues/${path}`;
  let shown = null;
  let slowAt = 0;
  const name = nameOf(path);

  // -- what it is made of

  const title = h("h1", {}, h("bdi", {}, name));
  const notes = h("span", { class: "notes" });
  const pause = h("button", { type: "button", click: () => askPause() }, "Pause…");
  const kick = h("button", { type: "button", click: () => askKick(), hidden: true }, "Kick buried…");
  const flush = h("button", { type: "button", click: () => askFlush() }, "Flush…");
  const remove = h("button", { type: "button", class: "danger-quiet", click: () => askDelete() }, "Delete…");
  const actions = h("div", { class: "actions", role: "group", "aria-label": "What can be done to this queue", hidden: true },
    pause, kick, flush, remove);
  const tiles = tilesOf(NAMES);
  const past = pastOf();
  const items = itemsOf(app, base, signal, () => shown?.may ?? []);
  const dead = deadLetters(app, base, signal, () => shown?.may ?? []);
  const waiters = h("div");
  const relations = h("dl", { class: "relations" });
  const options = optionsTable("Options of this queue", false);
  const gone = h("p", { class: "empty", hidden: true }, "There is no queue of this name. It comes back when something is put into it.");

  const there = h("div", {},
    tiles.element,
    past.element,
    items.element,
    dead.element,
    h("div", { class: "pair" },
      section("Who waits", waiters),
      section("Related queues", relations)),
    section("Options", options.element));
  const element = h("div", {},
    h("nav", { class: "crumbs", "aria-label": "Where this is" }, h("a", { href: "#/queues" }, "All queues")),
    h("div", { class: "head" }, h("div", { class: "title" }, title, notes), actions),
    gone, there);

  // -- the answers

  async function refresh() {
    try {
      shown = await get(base, signal);
    } catch (error) {
      if (!(error instanceof Refused) || error.status !== 404) throw error;
      shown = null;
    }
    gone.hidden = shown !== null;
    there.hidden = shown === null;
    if (!shown) {
      actions.hidden = true;
      notes.replaceChildren();
      delete notes.dataset.told;
      return;
    }
    showFigures();
    const isSlow = performance.now() - slowAt >= SLOW_MS || slowAt === 0;
    if (isSlow) slowAt = performance.now();
    await Promise.all([
      isSlow ? get(`${base}/history?minutes=60`, signal).then(past.show).then((isKnown) => (slowAt = isKnown ? slowAt : 0)) : null,
      items.refresh(shown),
      dead.refresh(shown),
    ]);
    showRelations(relations, shown, dead.path);
    if (isSlow) options.show(shown.options);
  }

  function showFigures() {
    const one = shown;
    const may = one.may ?? [];
    setText(title.firstChild, visible(one.name));
    showNotes(notes, { ...one, waiters: 0 });
    actions.hidden = !may.includes("admin");
    setText(pause, one.paused === "none" ? "Pause…" : "Resume…");
    kick.hidden = !one.buried && !one.delayed;
    setText(kick, one.buried ? "Kick buried…" : "Kick delayed…");
    tiles.show([
      count(one.waiting), count(one.open), count(one.delayed), count(one.buried), count(one.failures),
      one.age_ms ? duration(one.age_ms) : "–", rate(one.rate_in), rate(one.rate_out), size(one.bytes),
    ]);
    showWaiters(waiters, one);
  }

  // -- what can be done

  async function act(run, done) {
    if (await attempt(run, done)) app.refresh();
  }

  async function askFlush() {
    const confirmed = await ask({
      title: `Flush ${called()}?`,
      text: `${count(shown.waiting + shown.delayed)} items that wait or are delayed are removed. They cannot be brought back.`,
      confirm: "Flush the queue",
      isDanger: true,
    });
    if (confirmed) await act(() => change("POST", `${base}/flush`), (found) => `${count(found.removed)} items were removed.`);
  }

  async function askDelete() {
    const confirmed = await ask({
      title: `Delete ${called()}?`,
      text: `The queue goes, with ${count(shown.items)} items in it, and whoever has an item open loses it. They cannot be brought back.`,
      confirm: "Delete the queue",
      isDanger: true,
    });
    if (confirmed && (await attempt(() => change("DELETE", base), `The queue ${called()} was deleted.`))) location.hash = "#/queues";
  }

  async function askKick() {
    const which = shown.buried ? "buried" : "delayed";
    const many = shown[which];
    const confirmed = await ask({
      title: `Kick the ${which} items of ${called()}?`,
      text: `${count(many)} ${which} items are handed out again, as if they had just become ready.`,
      confirm: `Kick ${count(many)}`,
    });
    if (confirmed) await act(() => change("POST", `${base}/kick?n=${many}`), (found) => `${count(found.kicked)} items are ready.`);
  }

  async function askPause() {
    if (shown.paused !== "none") {
      const confirmed = await ask({
        title: `Resume ${called()}?`,
        text: "The queue takes puts and hands items out again.",
        confirm: "Resume",
      });
      if (confirmed) await act(() => change("POST", `${base}/pause`, { state: "none" }), "The queue goes on.");
      return;
    }
    const how = h("select", { id: "pause-state" },
      h("option", { value: "out" }, "Hand nothing out"),
      h("option", { value: "in" }, "Take no puts"),
      h("option", { value: "all" }, "Neither take nor hand out"));
    const long = h("select", { id: "pause-seconds" },
      h("option", { value: "0" }, "until it is resumed"),
      [[60, "for a minute"], [600, "for ten minutes"], [3600, "for an hour"]].map(([seconds, text]) => h("option", { value: seconds }, text)));
    const wanted = await ask({
      title: `Pause ${called()}?`,
      text: "What is in the queue stays there.",
      confirm: "Pause the queue",
      more: [h("div", { class: "fields" },
        h("label", { for: "pause-state" }, "What it does meanwhile"), how,
        h("label", { for: "pause-seconds" }, "How long"), long)],
      read: () => ({ state: how.value, seconds: Number(long.value) }),
    });
    if (wanted) await act(() => change("POST", `${base}/pause`, wanted), "The queue is paused.");
  }

  function called() {
    const text = visible(shown?.name ?? name);
    return text.length > 60 ? `${text.slice(0, 59)}…` : text;
  }

  return { title: name, element, refresh };
}

/** What a path says of the name, until the server has told it. */
function nameOf(path) {
  try {
    return visible(decodeURIComponent(path));
  } catch {
    return path;
  }
}

export function section(title, ...children) {
  return h("section", {}, h("h2", {}, title), ...children);
}

// -- the last hour

function pastOf() {
  const items = new Chart("Items", [{ name: "Items", kind: "first" }]);
  const rates = new Chart("Per second", [{ name: "In", kind: "first" }, { name: "Out", kind: "second" }]);
  const numbers = h("div", { class: "wide" });
  const known = h("div", {}, h("div", { class: "charts" }, items.element, rates.element),
    h("details", {}, h("summary", {}, "The same in numbers"), numbers));
  const unknown = h("p", { class: "none", hidden: true }, "Nothing is known of it yet: the server looks every few seconds.");
  return {
    element: section("Last hour", known, unknown),
    show(found) {
      const isKnown = Boolean(found?.items.some((value) => value !== null));
      known.hidden = !isKnown;
      unknown.hidden = isKnown;
      if (!isKnown) return false;
      const step = found.step_s;
      const times = found.items.map((_, at) => found.from_ms + at * step * 1000);
      const per = (values) => values.map((value) => (value === null ? null : value / step));
      const [into, out] = [per(found.in), per(found.out)];
      items.show([found.items], times);
      rates.show([into, out], times);
      tableOf(numbers, [
        { name: "Items", values: found.items }, { name: "In /s", values: into }, { name: "Out /s", values: out },
        { name: "Open", values: found.open }, { name: "Failures", values: found.failures },
      ], times, Math.max(1, Math.round(300 / step)));
      return true;
    },
  };
}

// -- who waits, and what belongs together

function showWaiters(place, one) {
  const told = JSON.stringify([one.waiters, one.waiting_clients]);
  if (place.dataset.told === told) return;
  place.dataset.told = told;
  const clients = one.waiting_clients ?? [];
  const more = one.waiters - clients.length;
  setChildren(place, [
    clients.length > 0 && h("ol", { class: "list" }, clients.map(({ address, user }) => h("li", {},
      h("code", {}, address), user && h("span", { class: "soft" }, ` ${visible(user)}`)))),
    more > 0 && h("p", { class: "soft" }, clients.length ? `and ${count(more)} more` : `${count(more)} clients wait.`),
    !one.waiters && h("p", { class: "none" }, "Nobody waits for an item of this queue."),
  ]);
}

function showRelations(place, one, deadPath) {
  const told = JSON.stringify([one.children, one.cursors, one.dead_letter_queue, deadPath]);
  if (place.dataset.told === told) return;
  place.dataset.told = told;
  const found = [];
  const dead = one.dead_letter_queue;
  found.push(h("dt", {}, "Dead letters go to"), h("dd", {}, dead
    ? (deadPath ? h("a", { href: `#/queue/${deadPath}` }, visible(dead)) : visible(dead))
    : "nowhere: they are buried here"));
  if (one.children?.length) {
    found.push(h("dt", {}, "Gets copies of each item"),
      ...one.children.map((child) => h("dd", {}, h("a", { href: `#/queue/${child.path}` }, visible(child.name)))));
  }
  if (one.cursors?.length) found.push(h("dt", {}, "Cursors"), ...one.cursors.map((cursor) => h("dd", {}, visible(cursor))));
  setChildren(place, found);
}
