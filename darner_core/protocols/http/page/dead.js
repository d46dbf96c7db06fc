// The dead letters of a queue: what became of each, and the buttons to put them back or remove them.

import { Refused, change, get } from "./api.js";
import { ask, attempt } from "./ask.js";
import { Rows, h, setText } from "./dom.js";
import { ago, asHex, asText, count, fromBase64, size, visible } from "./format.js";
import { choice, unlessClosed } from "./items.js";

const AT_FIRST = 10;
const MOST = 200;

export function deadLetters(app, base, signal, may) {
  let limit = AT_FIRST;
  let isHex = false;
  let mayPutBack = false;

  const list = h("ol", { class: "items" });
  const rows = new Rows(list, (one) => one.id, makeLetter);
  const none = h("p", { class: "none" }, "There are none.");
  const all = h("button", { type: "button", hidden: true, click: () => askAll() }, "Put all back…");
  const more = h("button", { type: "button", class: "more", hidden: true, click: () => {
    limit = Math.min(MOST, limit * 2);
    app.refresh();
  } }, "Show more");
  const forms = choice("How dead letters are shown", "dead-form", [["text", "Text"], ["hex", "Hex"]], "text", (value) => {
    isHex = value === "hex";
    for (const { draw } of rows.byKey.values()) draw();
  });
  const element = h("section", { "aria-labelledby": "dead-title" },
    h("div", { class: "section-head" }, h("h2", { id: "dead-title" }, "Dead letters"), all, forms), list, none, more);

  function makeLetter({ id }) {
    let body = new Uint8Array();
    let told = null;
    const about = h("p", { class: "about" });
    const became = h("p", { class: "became" });
    const pre = h("pre", { tabindex: "0", "aria-label": `Body of dead letter ${id}` });
    const cut = h("span", { class: "soft" });
    const back = h("button", { type: "button", class: "small", "aria-label": `Put back: dead letter ${id}`, click: () => askBack() }, "Put back…");
    const remove = h("button", { type: "button", class: "link bad", "aria-label": `Remove: dead letter ${id}`, click: () => askRemove() }, "Remove…");

    function draw() {
      setText(pre, isHex ? asHex(body) : asText(body));
      pre.classList.toggle("hex", isHex);
    }

    async function askBack() {
      const confirmed = await ask({
        title: `Put dead letter ${id} back?`,
        text: "It goes back into the queue, and is handed out again. Its failures are forgotten.",
        confirm: "Put it back",
      });
      if (confirmed && (await attempt(() => change("POST", `${base}/dead/${id}/put-back`), `Dead letter ${id} is back in the queue.`))) app.refresh();
    }

    async function askRemove() {
      const confirmed = await ask({
        title: `Remove dead letter ${id}?`,
        text: "It cannot be brought back.",
        confirm: "Remove the dead letter",
        isDanger: true,
      });
      if (confirmed && (await attempt(() => change("DELETE", `${base}/dead/${id}`), `Dead letter ${id} was removed.`))) app.refresh();
    }

    return {
      draw,
      row: h("li", {}, h("div", { class: "item-head" }, about, h("div", { class: "item-actions" }, back, remove)), became, pre, cut),
      update(one) {
        setText(about, `Item ${one.id} · ${size(one.size)} · dead since ${ago(one.put_at_ms, app.now())}`);
        setText(became, one.history ? historyOf(one.history, app.now()) : failuresOf(one.failures));
        back.hidden = !mayPutBack;
        if (told === one.preview_base64) return;
        told = one.preview_base64;
        body = fromBase64(told);
        setText(cut, body.length < one.size ? `The first ${size(body.length)} of ${size(one.size)}.` : "");
        draw();
      },
    };
  }

  async function askAll() {
    const confirmed = await ask({
      title: "Put all dead letters back?",
      text: "All that are there now go back into the queue, the oldest first, and are handed out again.",
      confirm: "Put all back",
    });
    if (confirmed && (await attempt(() => change("POST", `${base}/dead/put-back`), (found) => `${count(found.done)} dead letters are back in the queue.`))) app.refresh();
  }

  const shown = { element, path: "", refresh };
  async function refresh() {
    let found = null;
    try {
      if (may().includes("get")) found = await unlessClosed(() => get(`${base}/dead?limit=${limit}`, signal));
    } catch (error) {
      if (!(error instanceof Refused) || error.status !== 403) throw error;
    }
    element.hidden = found === null;
    if (found === null) return;
    shown.path = found.path;
    mayPutBack = may().includes("put");
    rows.show(found.items);
    none.hidden = found.items.length > 0;
    const unseen = found.next === null ? "There are none." : "None so far: others' dead letters lie before them.";
    setText(none, found.why ?? unseen);
    all.hidden = !mayPutBack || found.items.length < 2;
    forms.hidden = found.items.length === 0;
    more.hidden = found.next === null || limit >= MOST;
  }

  return shown;
}

const REASONS = { nack: "a client gave it back", timeout: "its time was over", loss: "its client went away", reject: "a client rejected it" };

function historyOf(history, now) {
  const why = REASONS[history.reason] ?? visible(history.reason);
  const failed = history.failures ? `${failuresOf(history.failures)}; the last time ${why}` : `Not failed before: ${why}`;
  return `${failed} (${visible(history.client)}). First put ${ago(history.put_at_ms, now)}.`;
}

function failuresOf(failures) {
  return failures ? `Failed ${failures === 1 ? "once" : `${count(failures)} times`}` : "Buried by a client, without a failure";
}
