"""`top`: a table of the queues that stays live."""

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from darner_core.ctl import names
from darner_core.ctl.client import QueueFigures
from darner_core.ctl.context import DURATION, Context
from darner_core.ctl.errors import CtlError
from darner_core.ctl.output import Column, Output, count, duration, table_of
from darner_core.ctl.queues import SORTED_BY, STATES, remark
from darner_core.ctl.rates import Rates, Sampler

COLUMNS: Final = (
    *STATES,
    Column("IN/s"),
    Column("OUT/s"),
    Column("", is_number=False),
)

# What a key sorts by.
KEYS: Final = {
    "n": "name", "w": "waiting", "o": "open", "d": "delayed", "b": "buried", "f": "failures", "a": "age", "p": "put",
}  # fmt: skip
QUIT: Final = ("q", "\x1b", "\x04")
HEAD_LINES: Final = 5  # above and below the rows


@click.command()
@click.option("--sort", type=click.Choice([*SORTED_BY]), default="waiting", show_default=True, help="At the start.")
@click.option("--every", type=DURATION, default="1s", show_default=True, metavar="TIME", help="How often to look.")
@click.option("--prefix", default="", metavar="TEXT", help="Only queues whose names begin so.")
@click.pass_obj
def top(ctl: Context, sort: str, every: int, prefix: str) -> None:
    """Show the queues, and what comes and goes, until q is pressed."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or ctl.out.as_json:
        raise CtlError("top needs a terminal; darner ctl queues gives the same figures once")
    sampler = Sampler()
    with (
        ctl.connect() as client,
        _single_keys(),
        Live(console=ctl.out.console, screen=True, auto_refresh=False) as live,
    ):
        while True:
            until = time.monotonic() + max(every, 100) / 1000
            found = [one for one in client.queues() if names.write(one.name).startswith(prefix)]
            rates = sampler.look(time.monotonic(), found)
            head = f"{ctl.address}  {client.status()}  {time.strftime('%H:%M:%S')}"
            while True:
                live.update(screen(head, found, rates, sort, ctl.out), refresh=True)
                key = _key(until)
                if key in QUIT:
                    return
                if not key:
                    break
                sort = KEYS.get(key, sort)


def screen(head: str, found: list[QueueFigures], rates: dict[bytes, Rates], sort: str, out: Output) -> Group:
    """What fits of the table, under a line about all queues."""
    found = sorted(found, key=SORTED_BY[sort])
    rows = max(1, out.console.height - HEAD_LINES)
    waiting, opened = sum(one.waiting for one in found), sum(one.open for one in found)
    more = f", the first {rows} are shown" if len(found) > rows else ""
    all_of_them = f"{count(len(found))} queues{more}: {count(waiting)} items wait, {count(opened)} are open"
    keys = "  ".join(f"{key} {word}" for key, word in KEYS.items())
    return Group(
        Text(head, style="bold"),
        Text(all_of_them),
        table_of(COLUMNS, (_row(one, rates.get(one.name)) for one in found[:rows])),
        Text(f"q quits; sorted by {sort}: {keys}", style="dim"),
    )


def _row(one: QueueFigures, rate: Rates | None) -> list[str]:
    return [
        names.write(one.name), count(one.waiting), count(one.open), count(one.delayed), count(one.buried),
        count(one.failures), duration(one.age_ms) if one.age_ms else "-",
        "-" if rate is None else f"{rate.come:,.1f}", "-" if rate is None else f"{rate.leave:,.1f}", remark(one),
    ]  # fmt: skip


@contextmanager
def _single_keys() -> Iterator[None]:
    """Keys come without Enter, and are not shown."""
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _key(until: float) -> str:
    """The next key; "": none was pressed until then."""
    if not select.select([sys.stdin], [], [], max(0.0, until - time.monotonic()))[0]:
        return ""
    return os.read(sys.stdin.fileno(), 16)[:1].decode("latin-1") or "q"  # the terminal is gone


COMMANDS: Final = (top,)
