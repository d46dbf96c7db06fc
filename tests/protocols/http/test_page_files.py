"""The files of the page."""

from pathlib import Path

from darner_core.protocols.http.contract import Asked
from darner_core.protocols.http.page_files import PageFiles


def test_each_file_has_its_path_and_kind(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<p>")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "a.js").write_text("1")
    (tmp_path / "notes.txt").write_text("not served")
    found = {one.path: one.run(Asked(None, {})) for one in PageFiles(tmp_path).endpoints()}
    assert {path: answer.kind for path, answer in found.items()} == {
        "/": "text/html; charset=utf-8",
        "/page/index.html": "text/html; charset=utf-8",
        "/page/parts/a.js": "text/javascript; charset=utf-8",
    }
    assert "default-src 'none'" in found["/"].headers["Content-Security-Policy"]


def test_a_file_that_a_browser_has_is_not_sent_again(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<p>")
    page = next(one for one in PageFiles(tmp_path).endpoints() if one.path == "/")
    tag = page.run(Asked(None, {})).headers["ETag"]
    again = page.run(Asked(None, {"HTTP_IF_NONE_MATCH": tag}))
    assert (again.status, again.body) == (304, None)
