// The page's frame: which view is shown, who asks, and when the view asks the server again.

import { Refused, Unreachable, get, session } from "./api.js";
import { dismiss } from "./ask.js";
import { setAttribute, setText } from "./dom.js";
import { connections } from "./connections.js";
import { log } from "./log.js";
import { options } from "./options.js";
import { queue } from "./queue.js";
import { queues } from "./queues.js";

// How often a view asks again. A server that takes long to answer is asked less often: a twentieth of the time at most.
const EVERY_MS = 2000;
const SHARE = 20;
const AWAY_MS = 5000;

const VIEWS = [
  [/^queues$/, queues],
  [/^queue\/([^/]+)$/, queue],
  [/^connections$/, connections],
  [/^options$/, options],
  [/^log$/, log],
];

const main = document.getElementById("main");
const trouble = document.getElementById("trouble");
const live = document.getElementById("live");
const theme = document.getElementById("theme");

const app = {
  session: null,
  isLive: true,
  now: () => Date.now() + app.skew,
  skew: 0,
  refresh: () => tick(),
};

let view = null;
let leaving = new AbortController();
let timer = 0;
let running = null;
let isStopped = false; // the browser would ask for a name and a password again and again

// -- what is shown

function route() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  for (const [pattern, make] of VIEWS) {
    const found = pattern.exec(path);
    if (found) return { make, key: path, argument: found[1], query: new URLSearchParams(query) };
  }
  return { make: queues, key: "queues", query: new URLSearchParams() };
}

async function open() {
  const { make, key, argument, query } = route();
  if (view?.key === key) {
    view.queried?.(query);
    return;
  }
  const isFirst = view === null;
  leaving.abort();
  leaving = new AbortController();
  dismiss();
  view = make(app, { argument, query, signal: leaving.signal });
  view.key = key;
  main.replaceChildren(view.element);
  document.title = `${view.title} · Darner`;
  for (const link of document.querySelectorAll("#nav a")) {
    const isHere = link.getAttribute("href") === `#/${key.split("/")[0].replace(/^queue$/, "queues")}`;
    setAttribute(link, "aria-current", isHere && "page");
  }
  if (!isFirst) {
    scrollTo(0, 0);
    const title = view.element.querySelector("h1");
    title.tabIndex = -1;
    title.focus({ preventScroll: true });
  }
  await tick();
}

// -- asking again

/** Ask now, and again after a while. What is asked for while an answer is awaited is asked when it has come. */
async function tick() {
  clearTimeout(timer);
  if (isStopped) return;
  if (running) {
    running.again = true;
    return;
  }
  const mine = (running = { again: false });
  const began = performance.now();
  let wait = EVERY_MS;
  try {
    if (!app.session) await begin();
    await view.refresh();
    healthy();
  } catch (error) {
    if (error.name !== "AbortError") {
      failed(error);
      wait = AWAY_MS;
    }
  }
  running = null;
  if (mine.again) {
    await tick();
  } else if (app.isLive && !isStopped && !document.hidden) {
    timer = setTimeout(tick, Math.max(wait, SHARE * (performance.now() - began)));
  }
}

function healthy() {
  if (!trouble.hidden) {
    trouble.hidden = true;
    setText(trouble, "");
  }
}

function failed(error) {
  if (error instanceof Unreachable) {
    app.session = null; // it may be another server when it is there again
    setText(trouble, "The server does not answer. The page asks again every few seconds; what it shows is old.");
  } else if (error instanceof Refused && error.status === 401) {
    isStopped = true;
    setText(trouble, "A name and a password are needed. Load the page again to give them.");
  } else if (error instanceof Refused) {
    setText(trouble, error.message);
  } else {
    setText(trouble, `The page has failed: ${error.message}`);
  }
  trouble.hidden = false;
}

// -- who asks, and of whom

async function begin() {
  const found = (app.session = await session());
  app.skew = found.now_ms - Date.now();
  for (const link of document.querySelectorAll("[data-admin]")) link.hidden = !found.may_admin;
  setText(document.getElementById("version"), `Darner ${found.version}`);
  const who = document.getElementById("who");
  who.hidden = !found.user;
  setText(who, found.user ?? "");
  showState(found);
}

function showState(found) {
  const state = document.getElementById("state");
  const isUp = found.status === "UP" && !found.readonly;
  state.hidden = false;
  state.className = `state ${isUp ? "good" : "warn"}`;
  setText(state, found.readonly && found.status === "UP" ? "read-only" : found.status.toLowerCase());
}

setInterval(async () => {
  if (!app.isLive || isStopped || document.hidden || !app.session) return;
  try {
    showState(await get("session"));
  } catch {
    // The view's own question tells of it.
  }
}, 10_000);

// -- controls of the frame

live.addEventListener("click", () => {
  app.isLive = !app.isLive;
  live.setAttribute("aria-pressed", String(app.isLive));
  if (app.isLive) tick();
  else clearTimeout(timer);
});

document.getElementById("skip").addEventListener("click", () => main.focus());

theme.value = document.documentElement.dataset.theme ?? "";
theme.addEventListener("change", () => {
  if (theme.value) document.documentElement.dataset.theme = theme.value;
  else delete document.documentElement.dataset.theme;
  try {
    if (theme.value) localStorage.setItem("darner-theme", theme.value);
    else localStorage.removeItem("darner-theme");
  } catch {
    // The browser keeps nothing for this page.
  }
});

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest?.("input, select, textarea, dialog");
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || isTyping) return;
  const filter = main.querySelector("input[type=search]");
  if (!filter) return;
  event.preventDefault();
  filter.focus();
});

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && app.isLive) tick();
});
addEventListener("hashchange", open);
open();

