"""The page in a real browser: Debian's chromium, driven by playwright. What the page complains of fails the test."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.harness import RunningServer
from tests.support.http import http_port

CHROMIUM = shutil.which("chromium") or ""

# A browser on a loaded machine. What it waits for comes with the page's next question, after two seconds.
WAIT_MS = 20_000

# For the eye and the pointer alone: what has a name for a screen reader, and what the keyboard reaches.
UNNAMED = """() => [...document.querySelectorAll("a, button, input, select, [role=img], dialog, [tabindex='0']")]
  .filter((one) => one.checkVisibility() && !(
    (one.getAttribute("aria-label") || "").trim() ||
    (one.labels && [...one.labels].some((l) => l.textContent.trim())) ||
    (one.getAttribute("aria-labelledby") && document.getElementById(one.getAttribute("aria-labelledby"))) ||
    (one.matches("a, button") && one.textContent.trim())))
  .map((one) => one.outerHTML.slice(0, 120))"""

# Text that is too faint on what is behind it: WCAG 2 asks for a ratio of 4.5.
FAINT = """() => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = channels(color).map((v) => v / 255)
      .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (one) => {
    for (; one; one = one.parentElement) {
      const color = getComputedStyle(one).backgroundColor;
      if ((channels(color)[3] ?? 1) > 0.9) return color;
    }
    return "rgb(255, 255, 255)";
  };
  return [...document.querySelectorAll("body *")]
    .filter((one) => one.checkVisibility() && !one.matches(":disabled, option"))
    .filter((one) => [...one.childNodes].some((child) => child.nodeType === 3 && child.data.trim()))
    .filter((one) => {
      const [a, b] = [light(getComputedStyle(one).color), light(behind(one))].sort((x, y) => x - y);
      return (b + 0.05) / (a + 0.05) < 4.5;
    })
    .map((one) => one.outerHTML.slice(0, 120));
}"""


class Browser:
    """One window on one server's page."""

    def __init__(self, page: Any, port: int, complaints: list[str]) -> None:
        self.page = page
        self.complaints = complaints
        self._port = port

    def open(self, view: str = "queues") -> None:
        self.page.goto(f"http://127.0.0.1:{self._port}/#/{view}")
        self.page.wait_for_selector("h1")

    def button(self, name: str, exact: bool = True) -> Any:
        return self.page.get_by_role("button", name=name, exact=exact)

    def confirm(self, name: str) -> None:
        """What the dialog asks."""
        dialog = self.page.get_by_role("alertdialog")
        dialog.get_by_role("button", name=name, exact=True).click()
        dialog.wait_for(state="hidden")

    def row(self, queue: str) -> Any:
        """A queue's row in the table."""
        return self.page.get_by_role("row").filter(has=self.page.get_by_role("link", name=queue, exact=True))

    def names(self) -> list[str]:
        """The queues in the table, from above."""
        return [str(name) for name in self.page.locator("td .name").all_inner_texts()]

    def focused(self) -> str:
        """The name or text of what has the focus."""
        script = "() => document.activeElement.getAttribute('aria-label') || document.activeElement.textContent.trim()"
        return str(self.page.evaluate(script))

    def unnamed(self) -> list[str]:
        """Controls that a screen reader has no name for."""
        return [str(one) for one in self.page.evaluate(UNNAMED)]

    def faint(self) -> list[str]:
        """Texts that are hard to read."""
        return [str(one) for one in self.page.evaluate(FAINT)]

    def width(self) -> int:
        return int(self.page.evaluate("document.documentElement.scrollWidth"))


def _dismiss_into(complaints: list[str]) -> Any:
    def dismiss(asked: Any) -> None:
        complaints.append(f"a dialog of the browser: {asked.message}")
        asked.dismiss()

    return dismiss


@contextmanager
def browser_on(server: RunningServer, **options: Any) -> Iterator[Browser]:
    """A window on this server's page. `options` are playwright's of a context: viewport, color_scheme, ..."""
    from playwright.sync_api import sync_playwright

    complaints: list[str] = []
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = chromium.new_context(**options)
        context.set_default_timeout(WAIT_MS)
        page = context.new_page()
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", _dismiss_into(complaints))
        try:
            yield Browser(page, http_port(server), complaints)
        finally:
            chromium.close()
