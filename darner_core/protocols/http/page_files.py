"""The page: its files, read once, when the server starts. They hold nothing secret, so everybody may ask for them; what
they show comes from the API, which asks who wants to know.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

from darner_core.protocols.http.contract import Answer, Asked, Endpoint

_FOLDER: Final = Path(__file__).parent / "page"
_KINDS: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".ico": "image/x-icon",
    ".png": "image/png",
    ".webmanifest": "application/manifest+json",
}
_INDEX: Final = "index.html"

# Nothing but our own files is loaded, no script stands in a page, and no other page may frame ours.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class _File(NamedTuple):
    body: bytes
    kind: str
    tag: str


class PageFiles:
    def __init__(self, folder: Path = _FOLDER) -> None:
        self._files = {
            path.relative_to(folder).as_posix(): _read(path)
            for path in sorted(folder.rglob("*"))
            if path.suffix in _KINDS and path.is_file()
        }

    def endpoints(self) -> Sequence[Endpoint]:
        found = [
            Endpoint("GET", f"/page/{name}", self._giver(file), "A file of the page.", looks=True)
            for name, file in self._files.items()
        ]
        if _INDEX in self._files:
            found.append(Endpoint("GET", "/", self._giver(self._files[_INDEX]), "The page.", looks=True))
        return found

    @staticmethod
    def _giver(file: _File) -> "Give":
        return Give(file)


class Give:
    """Answers with a file, or that the client has it already."""

    def __init__(self, file: _File) -> None:
        self._file = file
        self._headers = {**_HEADERS, "ETag": file.tag}

    def __call__(self, asked: Asked) -> Answer:
        if asked.env.get("HTTP_IF_NONE_MATCH") == self._file.tag:
            return Answer(status=304, headers=self._headers)
        return Answer(self._file.body, kind=self._file.kind, headers=self._headers)


def _read(path: Path) -> _File:
    body = path.read_bytes()
    return _File(body, _KINDS[path.suffix], f'"{sha256(body).hexdigest()[:32]}"')
