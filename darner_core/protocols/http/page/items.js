// What is in a queue, without taking it: the first items of a state, as text or in hexadecimal.

import { Refused, bytes, change, get } from "./api.js";
import { ask, attempt } from "./ask.js";
import { Rows, h, setText } from "./dom.js";
import { ago, asHex, asText, count, fromBase64, size } from "./format.js";

const AT_FIRST = 10;
const MOST = 200;
const WHOLE_BYTES = 64 * 1024;
const SHOWN_ONCE = 256; // what a list tells of a body

const STATES = [["ready", "Head"], ["open", "Open"], ["delayed", "Delayed"], ["buried", "Buried"]];
const NONE_OF = {
  ready: "Nothing waits.",
  open: "Nobody has an item open.",
  delayed: "Nothing is delayed.",
  buried: "Nothing is buried.",
};

export function itemsOf(app, base, signal, may) {
  let state = "ready";
  let isHex = false;
  let limit = AT_FIRST;

  const list = h("ol", { class: "items" });
  const rows = new Rows(list, (one) => one.id, makeItem);
  const none = h("p", { class: "none", hidden: true });
  const more = h("button", { type: "button", class: "more", hidden: true, click: () => {
    limit = Math.min(MOST, limit * 2);
    app.refresh();
  } }, "Show more");
  const counts = new Map();
  const states = choice("Which items", "items-state", STATES.map(([value, title]) => {
    const many = h("span", { class: "many" });
    counts.set(value, many);
    return [value, title, many];
  }), state, (value) => {
    state = value;
    limit = AT_FIRST;
    app.refresh();
  });
  const forms = choice("How bodies are shown", "items-form", [["text", "Text"], ["hex", "Hex"]], "text", (value) => {
    isHex = value === "hex";
    for (const { draw } of rows.byKey.values()) draw();
  });
  const element = h("section", {},
    h("div", { class: "section-head" }, h("h2", {}, "Items"), states, forms), list, none, more);

  function makeItem({ id }) {
    let body = new Uint8Array();
    let isWhole = false;
    let all = 0;
    let told = "";
    let last = null;
    const about = h("p", { class: "about" });
    const pre = h("pre", { tabindex: "0", "aria-label": `Body of item ${id}` });
    const whole = h("button", { type: "button", class: "link", click: () => showWhole() }, "Show all of it");
    const load = h("a", { href: `/api/v1/${base}/items/${id}`, download: `${id}.bin` }, "Download");
    const kick = h("button", { type: "button", class: "link", click: () => askKick() }, "Kick");
    const remove = h("button", { type: "button", class: "link bad", click: () => askRemove() }, "Remove…");
    const cut = h("span", { class: "soft" });
    for (const one of [whole, load, kick, remove]) one.setAttribute("aria-label", `${one.textContent.replace("…", "")}: item ${id}`);

    function draw() {
      setText(pre, isHex ? asHex(body) : asText(body));
      pre.classList.toggle("hex", isHex);
      whole.hidden = isWhole || all <= body.length;
      setText(cut, body.length < all ? `The first ${size(body.length)} of ${size(all)}.` : "");
    }

    async function showWhole() {
      await attempt(async () => {
        body = await bytes(`${base}/items/${id}`, WHOLE_BYTES, signal);
        isWhole = true;
        draw();
        pre.focus();
      }, () => (body.length < all ? `The first ${size(WHOLE_BYTES)} of item ${id} are shown.` : `All of item ${id} is shown.`));
    }

    async function askRemove() {
      const confirmed = await ask({
        title: `Remove item ${id}?`,
        text: last?.state === "open"
          ? "A client has this item open, and may be at work on it. It cannot be brought back."
          : "Nobody will get this item. It cannot be brought back.",
        confirm: "Remove the item",
        isDanger: true,
      });
      if (confirmed && (await attempt(() => change("DELETE", `${base}/items/${id}`), `Item ${id} was removed.`))) app.refresh();
    }

    async function askKick() {
      const confirmed = await ask({
        title: `Make item ${id} ready?`,
        text: "It is handed out again, as if it had just become ready.",
        confirm: "Make it ready",
      });
      if (confirmed && (await attempt(() => change("POST", `${base}/items/${id}/kick`), `Item ${id} is ready.`))) app.refresh();
    }

    return {
      draw,
      row: h("li", {}, h("div", { class: "item-head" }, about, h("div", { class: "item-actions" }, whole, load, kick, remove)), pre, cut),
      update(one) {
        last = one;
        all = one.size;
        setText(about, aboutItem(one, app.now()));
        kick.hidden = !(may().includes("get") && (one.state === "buried" || one.state === "delayed"));
        remove.hidden = !may().includes("get");
        if (told === one.preview_base64 || isWhole) return;
        told = one.preview_base64;
        body = fromBase64(told).subarray(0, SHOWN_ONCE);
        draw();
      },
    };
  }

  async function refresh(queue) {
    element.hidden = !may().includes("get");
    if (element.hidden) return;
    const many = { ready: queue.waiting, open: queue.open, delayed: queue.delayed, buried: queue.buried };
    for (const [value] of STATES) setText(counts.get(value), count(many[value]));
    const asked = state;
    const found = await unlessClosed(() => get(`${base}/items?state=${asked}&limit=${limit}`, signal));
    if (asked !== state) return;
    rows.show(found.items);
    none.hidden = found.items.length > 0;
    setText(none, found.why ?? NONE_OF[asked]);
    more.hidden = found.next === null || limit >= MOST;
  }

  return { element, refresh };
}

/** A list of items; an empty one that says why, if the server's status lets nobody see them. The rest of the page goes
 * on. */
export async function unlessClosed(run) {
  try {
    return await run();
  } catch (error) {
    if (!(error instanceof Refused) || error.status !== 503) throw error;
    return { items: [], next: null, path: "", why: `They are not shown now: ${error.message}.` };
  }
}

function aboutItem(one, now) {
  const told = [`Item ${one.id}`, size(one.size), `put ${ago(one.put_at_ms, now)}`];
  if (one.failures) told.push(`failed ${one.failures === 1 ? "once" : `${count(one.failures)} times`}`);
  if (one.pri !== 1024) told.push(`priority ${one.pri}`);
  if (one.due_at_ms && one.state === "delayed") told.push(`ready ${ago(one.due_at_ms, now)}`);
  if (one.expires_at_ms) told.push(`expires ${ago(one.expires_at_ms, now)}`);
  return told.join(" · ");
}

/** A few values of which one is chosen: buttons for the eye, radio buttons for the keyboard. */
export function choice(legend, name, values, chosen, change) {
  return h("fieldset", { class: "choice" }, h("legend", { class: "sr" }, legend), values.map(([value, title, ...more]) => {
    const input = h("input", { type: "radio", name, value, change: () => change(value) });
    input.checked = value === chosen;
    return h("label", {}, input, h("span", {}, title, ...more.flatMap((one) => [" ", one])));
  }));
}
