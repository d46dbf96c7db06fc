// Asks before something is changed, and says what came of it.

import { Refused } from "./api.js";
import { h, setText } from "./dom.js";

const dialog = document.getElementById("dialog");
const said = document.getElementById("said");

let forget = 0;

/** Say something in passing; a screen reader reads it when it is free to. */
export function say(text, isBad = false) {
  clearTimeout(forget);
  setText(said, text);
  said.classList.toggle("bad", isBad);
  forget = setTimeout(() => setText(said, ""), isBad ? 12_000 : 6000);
}

/**
 * Ask. Resolves to true, or to what `read()` returns, if it is confirmed, and to null if it is not. The focus goes to
 * Cancel, so that a key that was pressed too often does nothing, and comes back to where it was.
 */
export function ask({ title, text, confirm, isDanger = false, more = [], read = () => true }) {
  const before = document.activeElement;
  return new Promise((resolve) => {
    let answer = null;
    const cancel = h("button", { type: "button", click: () => dialog.close() }, "Cancel");
    const yes = h("button", {
      type: "button",
      class: isDanger ? "danger" : "primary",
      click: () => {
        answer = read();
        dialog.close();
      },
    }, confirm);
    dialog.replaceChildren(
      h("h2", { id: "dialog-title" }, title),
      ...(text ? [h("p", { id: "dialog-text" }, text)] : []),
      ...more,
      h("div", { class: "answers" }, cancel, yes),
    );
    dialog.setAttribute("role", "alertdialog");
    if (text) dialog.setAttribute("aria-describedby", "dialog-text");
    else dialog.removeAttribute("aria-describedby");
    dialog.addEventListener("close", () => {
      if (before?.isConnected) before.focus({ preventScroll: true });
      resolve(answer);
    }, { once: true });
    dialog.showModal();
    cancel.focus();
  });
}

/** Close what is asked: the page that asked has gone. */
export function dismiss() {
  if (dialog.open) dialog.close();
}

/** Do something, and say what came of it. False: it was refused, and has been said. */
export async function attempt(run, done) {
  try {
    const found = await run();
    say(typeof done === "function" ? done(found) : done);
    return true;
  } catch (error) {
    const text = error instanceof Refused ? `Refused: ${error.message}` : error.message;
    say(text, true);
    return false;
  }
}
