"""The files of the page, as the server gives them: without a browser. `test_page_in_a_browser.py` drives the page."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from darner_core.protocols import http as package
from tests.support.http import Http

FOLDER = Path(package.__file__).parent / "page"
FILES = sorted(path.name for path in FOLDER.iterdir())
SCRIPTS = [name for name in FILES if name.endswith(".js")]
KINDS = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}

# What turns text into markup or into a program.
DANGEROUS = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|DOMParser|srcdoc|javascript:"


class Markup(HTMLParser):
    """What index.html has in it that matters here."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.attributes: set[str] = set()
        self.scripts_with_text: list[str] = []
        self._in = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in = tag
        self.attributes |= {name for name, _ in attrs}
        wanted = {"script": "src", "link": "href", "img": "src"}.get(tag)
        self.loaded += [value or "" for name, value in attrs if name == wanted]

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in in ("script", "style") and data.strip():
            self.scripts_with_text.append(data)


@pytest.fixture(scope="module")
def markup() -> Markup:
    found = Markup()
    found.feed((FOLDER / "index.html").read_text())
    return found


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_served(http: Http, name: str) -> None:
    said = http.get(f"/page/{name}")
    assert said.status == 200
    assert said.headers["content-type"].partition(";")[0] == KINDS[Path(name).suffix]
    assert said.headers["x-content-type-options"] == "nosniff"
    assert said.body == (FOLDER / name).read_bytes()


def test_the_policy_lets_in_nothing_but_our_own_files(http: Http) -> None:
    said = http.get("/")
    assert said.body == (FOLDER / "index.html").read_bytes()
    policy = dict(part.strip().split(" ", 1) for part in said.headers["content-security-policy"].split(";"))
    assert policy["default-src"] in ("'self'", "'none'")
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert "unsafe" not in said.headers["content-security-policy"]


def test_all_that_is_loaded_is_ours(markup: Markup) -> None:
    assert markup.loaded
    assert all(path.removeprefix("/page/") in FILES for path in markup.loaded)
    for name in SCRIPTS:
        imported = re.findall(r'from "(.*?)"', (FOLDER / name).read_text())
        assert all(path.removeprefix("./") in FILES for path in imported), name


def test_no_file_names_another_site() -> None:
    namespace = "http://www.w3.org/2000/svg"
    for name in FILES:
        text = (FOLDER / name).read_text().replace(namespace, "")
        assert not re.search(r"https?://|url\(|@import", text), name


def test_no_script_or_style_stands_in_the_markup(markup: Markup) -> None:
    assert not markup.scripts_with_text
    assert not {name for name in markup.attributes if name.startswith("on") or name == "style"}


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_is_shown_is_never_read_as_markup(name: str) -> None:
    assert not re.search(DANGEROUS, (FOLDER / name).read_text())
