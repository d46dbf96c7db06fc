"""The page in Debian's chromium, as an operator uses it. The console must stay empty: a breach of the policy, or a
script that has failed, would stand there."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import CHROMIUM, Browser, browser_on
from tests.support.harness import RunningServer
from tests.support.http import HTTP, Http, http_port
from tests.support.identities import write_users

pytestmark = [pytest.mark.long, pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed")]

expect: Any = pytest.importorskip("playwright.sync_api").expect
expect.set_options(timeout=20_000)

PHONE = {"width": 390, "height": 844}
EVIL = "<img src=x onerror=alert(1)>\"'&amp;"
EVIL_PATH = "%3Cimg%20src=x%20onerror=alert%281%29%3E%22%27%26amp%3B"


@pytest.fixture
def server(start_server: Callable[..., RunningServer]) -> RunningServer:
    return start_server(*HTTP)


@pytest.fixture
def api(server: RunningServer) -> Iterator[Http]:
    client = Http(http_port(server))
    yield client
    client.close()


@pytest.fixture
def browser(server: RunningServer) -> Iterator[Browser]:
    with browser_on(server) as opened:
        yield opened
        assert opened.complaints == []


def test_the_way_of_a_newcomer(start_server: Callable[..., RunningServer], tmp_path: Path) -> None:
    """A put is seen, a worker fails until the item is a dead letter, and a button puts it back."""
    conf = tmp_path / "conf.toml"
    conf.write_text('[queues.mail]\nmax_deliveries = 2\ndead_letter_queue = "mail.dead"\n')
    server = start_server(*HTTP, "-c", str(conf))
    worker = Http(http_port(server))
    with browser_on(server) as browser:
        page = browser.page
        browser.open()
        expect(browser.row("mail").get_by_role("cell").nth(1)).to_have_text("0")
        worker.put("mail", b"hello, world")
        expect(browser.row("mail").get_by_role("cell").nth(1)).to_have_text("1")
        page.get_by_role("link", name="mail", exact=True).click()
        expect(page.get_by_role("heading", level=1)).to_have_text("mail")
        expect(page.locator("pre").first).to_have_text("hello, world")
        for _ in range(2):
            taken = worker.take("mail")
            assert taken.body == b"hello, world"
            worker.post(f"queues/mail/items/{taken.headers['x-darner-id']}/release")
        dead = page.get_by_role("region", name="Dead letters")
        expect(dead.locator("pre")).to_have_text("hello, world")
        expect(dead).to_contain_text("Failed 2 times; the last time a client gave it back")
        dead.get_by_role("button", name="Put back").click()
        browser.confirm("Put it back")
        expect(dead).to_contain_text("There are none.")
        expect(page.get_by_role("status").filter(has_text="is back in the queue")).to_be_visible()
        assert worker.take("mail").body == b"hello, world"
        assert browser.complaints == []
    worker.close()


def test_queues_are_sorted_and_filtered(browser: Browser, api: Http) -> None:
    for name, many in (("a", 1), ("b", 3), ("ab", 2)):
        for _ in range(many):
            api.put(name, b"x")
    page = browser.page
    browser.open()
    expect(page.locator("td .name")).to_have_text(["a", "ab", "b"])
    browser.button("Waiting").click()
    expect(page.locator("td .name")).to_have_text(["b", "ab", "a"])
    expect(page.get_by_role("columnheader", name="Waiting")).to_have_attribute("aria-sort", "descending")
    browser.button("Waiting").click()
    expect(page.locator("td .name")).to_have_text(["a", "ab", "b"])
    page.get_by_role("searchbox", name="Filter by name").fill("b")
    expect(page.locator("td .name")).to_have_text(["ab", "b"])
    page.reload()  # what was asked for stands in the address
    expect(page.locator("td .name")).to_have_text(["ab", "b"])
    page.get_by_role("searchbox", name="Filter by name").fill("zzz")
    expect(page.get_by_text("No queue has this in its name.")).to_be_visible()


def test_ten_thousand_queues_are_a_page_of_rows(start_server: Callable[..., RunningServer]) -> None:
    server = start_server(*HTTP, "--max-column-families", "16")
    client = server.client()
    for first in range(0, 10_000, 500):
        client.send(b"".join(b"set q%05d 0 0 1\r\nx\r\n" % at for at in range(first, first + 500)))
        client.expect(b"STORED\r\n" * 500)
    with browser_on(server) as browser:
        browser.open()
        page = browser.page
        expect(page.get_by_text("1 to 50 of 10,000")).to_be_visible()
        assert page.locator("tbody tr").count() == 50
        browser.button("Next").click()
        expect(page.get_by_text("51 to 100 of 10,000")).to_be_visible()
        assert browser.names()[0] == "q00050"
        page.get_by_role("searchbox").fill("q0999")
        expect(page.get_by_text("1 to 10 of 10")).to_be_visible()
        assert page.locator("body *").count() < 1500
        assert browser.complaints == []


def test_each_change_asks_first(browser: Browser, api: Http) -> None:
    for _ in range(3):
        api.put("mail", b"x")
    page = browser.page
    browser.open("queue/mail")
    tiles = page.locator("dl.tiles")
    for button, yes in (("Pause…", "Pause the queue"), ("Flush…", "Flush the queue"), ("Delete…", "Delete the queue")):
        browser.button(button).click()
        dialog = page.get_by_role("alertdialog")
        expect(dialog.get_by_role("button", name=yes)).to_be_visible()
        assert browser.focused() == "Cancel"
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        assert browser.focused() == button
    assert api.get("queues/mail").json["items"] == 3
    browser.button("Pause…").click()
    page.get_by_label("What it does meanwhile").select_option("all")
    browser.confirm("Pause the queue")
    expect(browser.button("Resume…")).to_be_visible()
    assert api.get("queues/mail").json["paused"] == "all"
    browser.button("Resume…").click()
    browser.confirm("Resume")
    expect(browser.button("Pause…")).to_be_visible()
    browser.button("Flush…").click()
    browser.confirm("Flush the queue")
    expect(tiles.locator("dd").first).to_have_text("0")
    browser.button("Delete…").click()
    browser.confirm("Delete the queue")
    expect(page.get_by_role("heading", level=1)).to_have_text("Queues")
    assert api.get("queues/mail").status == 404


def test_items_are_looked_at_and_removed(browser: Browser, api: Http) -> None:
    api.put("mail", b"\x00\xffA" + b"b" * 300)
    item = api.put("mail", b"later", "?delay=100000")
    page = browser.page
    browser.open("queue/mail")
    expect(page.locator(".items pre")).to_have_text("\\x00\\xffA" + "b" * 253)
    page.get_by_role("button", name="Show all of it").click()
    expect(page.locator(".items pre")).to_have_text("\\x00\\xffA" + "b" * 300)
    page.get_by_role("group", name="How bodies are shown").get_by_role("radio", name="Hex").check()
    expect(page.locator(".items pre")).to_contain_text("000000  00 ff 41 62")
    page.get_by_role("group", name="Which items").get_by_role("radio", name="Delayed").check()
    expect(page.locator(".items .about")).to_contain_text(f"Item {item}")
    page.get_by_role("button", name=f"Kick: item {item}").click()
    browser.confirm("Make it ready")
    expect(page.get_by_text("Nothing is delayed.")).to_be_visible()
    page.get_by_role("group", name="Which items").get_by_role("radio", name="Head").check()
    page.get_by_role("button", name=f"Remove: item {item}").click()
    browser.confirm("Remove the item")
    expect(page.locator(".items .about")).to_have_count(1)
    assert api.get("queues/mail").json["items"] == 1


def test_a_status_that_lets_nobody_read_is_told(browser: Browser, api: Http) -> None:
    api.put("mail", b"hello")
    browser.open("queue/mail")
    page = browser.page
    expect(page.locator(".items pre")).to_have_text("hello")
    assert api.post("server/status", {"status": "quiescent"}).status == 200
    expect(page.locator(".items pre")).to_have_count(0)
    expect(page.get_by_text("They are not shown now").first).to_be_visible()
    expect(page.get_by_role("alert")).to_be_hidden()
    expect(page.locator("#state")).to_have_text("quiescent")
    assert all("503" in one for one in browser.complaints)
    browser.complaints.clear()


def test_nobody_sees_what_he_may_not_do(start_server: Callable[..., RunningServer], tmp_path: Path) -> None:
    users = write_users(tmp_path / "users", alice="secret", boss="secret")
    conf = tmp_path / "conf.toml"
    conf.write_text(
        f'auth_file = "{users}"\n[default]\nmax_deliveries = 1\n[users.alice]\nget = ["mail"]\n'
        '[users.boss]\nput = ["*"]\nget = ["*"]\nadmin = ["*"]\n'
    )
    server = start_server(*HTTP, "-c", str(conf))
    boss = Http(http_port(server), "boss", "secret")
    boss.put("mail", b"hello")
    boss.put("news", b"hello")
    boss.post(f"queues/mail/items/{boss.take('mail').headers['x-darner-id']}/release")
    with browser_on(server, http_credentials={"username": "alice", "password": "secret"}) as browser:
        page = browser.page
        browser.open()
        expect(page.locator("td .name")).to_have_text(["mail"])
        expect(page.locator("#who")).to_have_text("alice")
        page.get_by_role("link", name="mail", exact=True).click()
        dead = page.get_by_role("region", name="Dead letters")
        expect(dead.locator("pre")).to_have_text("hello")
        expect(dead.get_by_role("button", name="Remove")).to_be_visible()
        expect(dead.get_by_role("button", name="Put back")).to_be_hidden()
        for button in ("Pause…", "Flush…", "Delete…"):
            expect(browser.button(button)).to_be_hidden()
        for link in ("Connections", "Options", "Log"):
            expect(page.get_by_role("link", name=link, exact=True)).to_be_hidden()
        assert browser.complaints == []
    with browser_on(server, http_credentials={"username": "boss", "password": "secret"}) as browser:
        browser.open("queue/mail")
        expect(browser.button("Delete…")).to_be_visible()
        expect(browser.page.get_by_role("link", name="Log", exact=True)).to_be_visible()
    boss.close()


def test_names_and_bodies_are_text(browser: Browser, api: Http) -> None:
    api.put(EVIL_PATH, EVIL.encode() + "\u202e<script>alert(2)</script>".encode())
    api.put("%ff%E2%80%AEcafe", b"x")
    page = browser.page
    browser.open()
    expect(page.locator("td .name")).to_have_text([EVIL, "\\xff\\u202ecafe"])
    page.locator("td .name").first.click()
    expect(page.locator(".items pre")).to_have_text(EVIL + "\\u202e<script>alert(2)</script>")
    assert page.locator("main img, main script").count() == 0
    browser.button("Delete…").click()
    browser.confirm("Delete the queue")
    expect(page.locator("td .name")).to_have_text(["\\xff\\u202ecafe"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_legibly_without_scrolling_sideways(server: RunningServer, api: Http, scheme: str) -> None:
    api.put("a" * 200, b"x" * 300)
    with browser_on(server, viewport=PHONE, color_scheme=scheme) as browser:
        for view in ("queues", f"queue/{'a' * 200}", "connections", "options", "log"):
            browser.open(view)
            browser.page.wait_for_function("document.querySelector('#version').textContent !== ''")
            browser.page.wait_for_timeout(300)
            assert browser.width() <= PHONE["width"], view
            assert browser.faint() == [], view
        assert browser.complaints == []


def test_the_keyboard_reaches_everything(browser: Browser, api: Http) -> None:
    api.put("mail", b"x")
    page = browser.page
    browser.open()
    expect(page.locator("td .name")).to_have_count(1)
    page.keyboard.press("Tab")
    assert browser.focused() == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "filter"
    page.keyboard.press("Tab")
    assert browser.focused() == "Queue"
    page.keyboard.press("Enter")
    expect(page.get_by_role("columnheader", name="Queue")).to_have_attribute("aria-sort", "descending")
    for _ in range(9):
        page.keyboard.press("Tab")
    assert browser.focused() == "mail"
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    while browser.focused() != "Pause…":
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement !== document.body"), "past the last control"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    assert browser.focused() == "Pause…"


def test_everything_has_a_name_and_a_place(browser: Browser, api: Http) -> None:
    api.put("mail", b"x" * 300)
    for view in ("queues", "queue/mail", "connections", "options", "log"):
        browser.open(view)
        page = browser.page
        page.wait_for_function("document.querySelector('#version').textContent !== ''")
        page.wait_for_timeout(300)
        assert browser.unnamed() == [], view
        assert page.locator("h1").count() == 1
        assert page.locator("table:not(:has(caption))").count() == 0
        assert page.locator("main, header, footer, nav[aria-label=Main]").count() == 4
        assert page.evaluate("new Set([...document.querySelectorAll('[id]')].map((one) => one.id)).size") == (
            page.locator("[id]").count()
        )
        assert "Darner" in page.title()


def test_the_server_shows_its_clients_options_and_log(browser: Browser, server: RunningServer) -> None:
    client = server.client()
    client.ask(b"version\r\n", b"VERSION")
    page = browser.page
    browser.open("connections")
    expect(page.get_by_role("row").filter(has_text="http").first).to_be_visible()
    page.get_by_role("link", name="Options", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Options")
    page.get_by_label("Only those that were set").check()
    expect(page.get_by_role("row").filter(has_text="command line").first).to_be_visible()
    page.get_by_role("link", name="Log", exact=True).click()
    expect(page.locator("ol.log li").first).to_be_visible()


def test_numbers_times_and_bytes_are_written_for_people(browser: Browser) -> None:
    browser.open()
    told = browser.page.evaluate("""async () => {
      const form = await import("/page/format.js");
      return [
        [0, 999, 61_000, 90_061_000, 36_000_000].map(form.duration), [5, 1536, 5 * 2 ** 30].map(form.size),
        [0, 9999, 12_345, 7e6, null].map(form.short), [0, 0.25, 1234.5].map(form.rate),
        form.asText(Uint8Array.of(0x61, 0xc3, 0xa4, 0xc3, 0xff, 0x0a, 0x1b)), form.asHex(Uint8Array.of(0x61, 0, 0xff)),
      ];
    }""")
    assert told == [
        ["0 ms", "999 ms", "1 min 1 s", "1 d 1 h", "10 h"], ["5 B", "1.5 KiB", "5 GiB"],
        ["0", "9,999", "12.3 k", "7 M", "–"], ["0", "0.3", "1,235"],
        "aä\\xc3\\xff\n\\x1b", "000000  61 00 ff" + " " * 41 + "a··",
    ]  # fmt: skip


def test_a_breach_of_the_policy_would_be_noticed(server: RunningServer) -> None:
    with browser_on(server) as browser:
        browser.open()
        assert browser.complaints == []
        browser.page.evaluate("document.body.setAttribute('style', 'color: red')")
        browser.page.wait_for_timeout(200)
        assert "Content Security Policy" in browser.complaints[0]


def test_whoever_gives_a_wrong_password_is_told_so(start_server: Callable[..., RunningServer], tmp_path: Path) -> None:
    conf = tmp_path / "conf.toml"
    conf.write_text(f'auth_file = "{write_users(tmp_path / "users", alice="secret")}"\n')
    wrong = {"username": "alice", "password": "wrong"}
    with browser_on(start_server(*HTTP, "-c", str(conf)), http_credentials=wrong) as browser:
        browser.open()
        expect(browser.page.get_by_role("alert")).to_contain_text("A name and a password are needed")


def test_colours_are_chosen_and_kept(server: RunningServer) -> None:
    with browser_on(server, color_scheme="light") as browser:
        browser.open()
        ground = "getComputedStyle(document.body).backgroundColor"
        light = browser.page.evaluate(ground)
        browser.page.get_by_label("Colours").select_option("dark")
        assert browser.page.evaluate(ground) != light
        browser.page.reload()
        assert browser.page.evaluate(ground) != light
        assert browser.complaints == []


def test_a_server_that_comes_back_is_asked_again(start_server: Callable[..., RunningServer]) -> None:
    server = start_server(*HTTP)
    port = http_port(server)
    with browser_on(server) as browser:
        browser.open()
        expect(browser.page.locator("#state")).to_have_text("up")
        server.stop()
        expect(browser.page.get_by_role("alert")).to_contain_text("The server does not answer.")
        server.options = ("--http", f"127.0.0.1:{port}")
        server.start()
        expect(browser.page.get_by_role("alert")).to_be_hidden()
