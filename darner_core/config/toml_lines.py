"""Where in a TOML file each key stands, for messages: tomllib keeps no positions.

A scanner that follows headers, dotted and quoted keys, strings of all kinds, arrays and inline tables. It takes a text
that tomllib has read, and checks nothing itself. What it has found is compared with what tomllib has: if the two have
not the same keys, no line is known, since none is better than a wrong one.

A path is the way from the top: keys, and numbers for places in arrays.
"""

import tomllib
from collections.abc import Iterator
from typing import Any

Path = tuple[str | int, ...]

_BARE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
_BLANK = " \t"
_SPACE = " \t\r\n"


class Lines:
    """The lines of one file's keys, from 1."""

    def __init__(self, text: str, values: dict[str, Any]) -> None:
        """`values`: what tomllib has made of `text`."""
        try:
            lines = _Scanner(text).scan()
        except (IndexError, ValueError, RecursionError):  # not understood
            lines = {}
        self._lines = lines if lines.keys() == set(_paths(values)) else {}

    def of(self, path: Path) -> int:
        """The line of what `path` leads to, or of the nearest thing above it that the file has; 0: not known."""
        while path:
            if path in self._lines:
                return self._lines[path]
            path = path[:-1]
        return 0


def _paths(value: Any, path: Path = ()) -> Iterator[Path]:
    """The paths of all that is in `value`."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, below in items:
        yield (*path, key)
        yield from _paths(below, (*path, key))


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text.replace("\r\n", "\n") + "\n"  # as tomllib does
        self._at = 0
        self._counted_to = 0
        self._line = 1
        self._lines: dict[Path, int] = {}
        self._tables: dict[Path, int] = {}  # arrays of tables: how many they have so far

    def scan(self) -> dict[Path, int]:
        table: Path = ()
        while self._skip(_SPACE, comments=True):
            if self._takes("["):
                many = self._takes("[")
                table = self._header(many)
                self._expect("]]" if many else "]")
            else:
                self._pair(table)
        return self._lines

    # -- what a file consists of

    def _header(self, many: bool) -> Path:
        """A table's header behind its brackets; the table's path."""
        line = self._line_here()
        path: Path = ()
        keys = self._keys()
        for number, key in enumerate(keys, 1):
            path += (key,)
            is_last = number == len(keys)
            if is_last and not many:
                self._lines[path] = line  # a header of its own is better than one below it that came first
            else:
                self._lines.setdefault(path, line)
            if is_last and many:
                self._tables[path] = self._tables.get(path, 0) + 1
            if path in self._tables:  # what follows belongs to the last of them
                path += (self._tables[path] - 1,)
                self._lines.setdefault(path, line)
        return path

    def _pair(self, table: Path) -> None:
        """key = value"""
        line = self._line_here()
        path = table
        for key in self._keys():
            path += (key,)
            self._lines.setdefault(path, line)
        self._expect("=")
        self._value(path)

    def _keys(self) -> list[str]:
        """A key, dots and all."""
        keys = []
        while True:
            self._skip(_BLANK)
            start = self._at
            if self._text[start] in "\"'":
                self._string()
                keys.append(str(tomllib.loads(f"key = {self._text[start : self._at]}")["key"]))
            else:
                while self._text[self._at] in _BARE:
                    self._at += 1
                if self._at == start:
                    raise ValueError("a key was expected")
                keys.append(self._text[start : self._at])
            self._skip(_BLANK)
            if not self._takes("."):
                return keys

    def _value(self, path: Path) -> None:
        self._skip(_BLANK)
        first = self._text[self._at]
        if first in "\"'":
            self._string()
        elif first == "[":
            self._array(path)
        elif first == "{":
            self._inline_table(path)
        else:  # numbers, dates, true and false
            start = self._at
            while self._text[self._at] not in ",]}#\n":
                self._at += 1
            if self._at == start:
                raise ValueError("a value was expected")

    def _array(self, path: Path) -> None:
        self._expect("[")
        place = 0
        while self._skip(_SPACE, comments=True) and not self._takes("]"):
            self._lines[(*path, place)] = self._line_here()
            self._value((*path, place))
            place += 1
            self._skip(_SPACE, comments=True)
            self._takes(",")

    def _inline_table(self, path: Path) -> None:
        self._expect("{")
        while self._skip(_SPACE, comments=True) and not self._takes("}"):
            self._pair(path)
            self._skip(_SPACE, comments=True)
            self._takes(",")

    def _string(self) -> None:
        text, quote = self._text, self._text[self._at]
        end = quote * 3 if text.startswith(quote * 3, self._at) else quote
        self._at += len(end)
        while not text.startswith(end, self._at):
            self._at += 2 if text[self._at] == "\\" and quote == '"' else 1
        self._at += len(end)
        if len(end) == 3:  # up to two quotes more belong to the string
            while self._takes(quote):
                pass

    # -- letters

    def _skip(self, letters: str, comments: bool = False) -> bool:
        """Go over these letters, and comments; False at the end of the text."""
        while self._at < len(self._text):
            if comments and self._text[self._at] == "#":
                self._at = self._text.index("\n", self._at)
            elif self._text[self._at] not in letters:
                return True
            else:
                self._at += 1
        return False

    def _takes(self, letters: str) -> bool:
        if not self._text.startswith(letters, self._at):
            return False
        self._at += len(letters)
        return True

    def _expect(self, letters: str) -> None:
        if not self._takes(letters):
            raise ValueError(f"{letters} was expected")

    def _line_here(self) -> int:
        self._line += self._text.count("\n", self._counted_to, self._at)
        self._counted_to = self._at
        return self._line
