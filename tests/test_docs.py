"""The pages themselves: links that lead somewhere, lines that fit a window."""

import re
from pathlib import Path

import pytest

from tests.support.harness import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
WIDTH = 120

FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
# Written by loadtest/compare.
MEASURED = re.compile(r"<!-- (compare|jobs|protocols): begin -->.*?<!-- \1: end -->", re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return FENCED.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_relative_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@each_page
def test_lines_of_prose_fit(page: Path) -> None:
    """Tables and code may be wider: they cannot be wrapped."""
    lines = MEASURED.sub("", prose(page)).splitlines()
    assert [line for line in lines if len(line) > WIDTH and not line.startswith(("|", "    "))] == []


def test_links_are_really_seen() -> None:
    assert {"docs/production.md", "LICENSE"} <= set(LINK.findall(prose(ROOT / "README.md")))
    assert "client-libraries" in anchors(ROOT / "docs" / "protocol.md")
