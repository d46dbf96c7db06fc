"""What a command prints: tables and words for a person at a terminal, JSON for a program."""

import base64
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from darner_core.showing import show

PIPE_WIDTH: Final = 10_000
SHOWN_BYTES: Final = 200  # of a body, on a terminal


class Column(NamedTuple):
    title: str
    is_number: bool = True
    style: str = ""


class Output:
    """`as_json`: one JSON value a line on standard output, and nothing else there. What is said beside the result goes
    to standard error, so that it is not in the way of a program that reads the result."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        # A table that is not on a terminal is as wide as it has to be.
        self.console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
        self.errors = Console(stderr=True, highlight=False, soft_wrap=True)

    def json(self, value: Any) -> None:
        sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def say(self, text: str) -> None:
        """A line of the result for a person. Text as it is: no markup."""
        self.console.print(Text(text), soft_wrap=True)

    def note(self, text: str) -> None:
        """Something beside the result, for a person."""
        self.errors.print(Text(text))

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[str | Text]]) -> None:
        self.console.print(table_of(columns, rows))

    def pairs(self, values: Mapping[str, str]) -> None:
        """Names and values, a line each."""
        width = max(map(len, values), default=0)
        for name, value in values.items():
            self.console.print(Text.assemble((f"{name:<{width}}  ", "bold"), value), soft_wrap=True)

    @contextmanager
    def progress(self, what: str, total: int | None) -> Iterator["Bar"]:
        """A bar on standard error while something goes on that takes long, if that is a terminal."""
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        )  # fmt: skip
        with Progress(*columns, console=self.errors, transient=True, disable=not self.errors.is_terminal) as shown:
            yield Bar(shown, what, total)


class Bar:
    def __init__(self, progress: Progress, what: str, total: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task(what, total=total)

    def add(self, more: int = 1) -> None:
        self._progress.advance(self._task, more)

    def at(self, done: int, what: str | None = None) -> None:
        self._progress.update(self._task, completed=done, description=what)


def table_of(columns: Sequence[Column], rows: Iterable[Sequence[str | Text]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, is_number, style in columns:
        if is_number:
            table.add_column(title, justify="right", style=style, no_wrap=True)
        else:
            table.add_column(title, style=style, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    return table


def body_json(body: bytes) -> dict[str, str]:
    """A body in JSON, as the HTTP API has it: text if it is UTF-8, else base64."""
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode()}


def printable(body: bytes, most: int = SHOWN_BYTES) -> str:
    """The beginning of a body on one line."""
    return show(body[:most]) + ("…" if len(body) > most else "")


def count(number: int) -> str:
    return f"{number:,}"


def items(number: int) -> str:
    return "1 item" if number == 1 else f"{number:,} items"


def size(number: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:,.1f} TiB"


def duration(ms: float) -> str:
    """`0.3s`, `52s`, `9m 7s`, `2h 31m`, `3d 4h`."""
    seconds = ms / 1000
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    for large, small, letters in ((86_400, 3600, "dh"), (3600, 60, "hm"), (60, 1, "ms")):
        if whole >= large:
            rest = whole % large // small
            return f"{whole // large}{letters[0]} {rest}{letters[1]}" if rest else f"{whole // large}{letters[0]}"
    return f"{whole}s"
