"""How items and events are shown to a person, one line each, and to programs as JSON. Text only: no disk, no sockets.

Columns are as wide as the widest usual value, so that lines can be shown one by one. A wider value makes its line
longer: only bodies are ever cut.
"""

import base64
import codecs
import json
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

from darner_core.showing import show

START_BYTES = 40  # how much of a body is shown

WAITING = "waiting"  # or opened since the queue's state was written last
TAKEN = "open or returned"  # which of the two, only the server that had it open knows

_UNITS = ((86_400, "d"), (3600, "h"), (60, "m"), (1, "s"))

# Of items that are set aside.
READY = "ready"
DELAYED = "delayed"
BURIED = "buried"
DEAD_LETTER = "dead letter"  # a large one, on its way to where these go

ASIDE_ID_LETTERS = 16  # ids begin at 2 ** 51
NUMBER_LETTERS = 9  # of public numbers, which are shown if an item of the queue has one

ITEM_HEAD = "AGE        EXPIRES            FLAGS        SIZE  STATE             BODY"
ASIDE_HEAD = (
    "AGE        EXPIRES            FLAGS        SIZE  STATE                PRI        TTR  FAILURES  KEY       BODY"
)
EVENT_HEAD = "TIME          WHAT          ID        SIZE       FLAGS  BODY"


class ShownItem(NamedTuple):
    """What is shown of an item."""

    id: int
    flags: int
    expires_at_ms: int  # 0: never
    added_at_ms: int
    now_ms: int
    body_bytes: int
    state: str  # WAITING or TAKEN
    start: bytes  # of the body
    is_large: bool


class ShownJob(NamedTuple):
    """What is shown of an item beside it. Counts stop at 65,535."""

    due_ms: int  # 0: it is not delayed
    pri: int
    ttr_ms: int  # 0: its queue's
    key: bytes
    nacks: int
    timeouts: int
    losses: int
    buries: int
    kicks: int
    note: bytes  # a dead letter's history

    @property
    def failures(self) -> int:
        return self.nacks + self.timeouts + self.losses


def show_duration(ms: int) -> str:
    """A time in its largest unit and the next smaller one: 3d 4h, 3m 20s, 5s. Below 10 s with tenths."""
    if ms < 0:
        return f"-{show_duration(-ms)}"
    if ms < 10_000:
        return f"{ms // 100 / 10:g}s"
    seconds = ms // 1000
    for (unit_s, letter), (smaller_s, smaller) in pairwise(_UNITS):
        if seconds >= unit_s:
            rest = seconds % unit_s // smaller_s
            return f"{seconds // unit_s}{letter}" + (f" {rest}{smaller}" if rest else "")
    return f"{seconds}s"


def show_expiry(expires_at_ms: int, now_ms: int) -> str:
    if not expires_at_ms:
        return "-"
    if expires_at_ms > now_ms:
        return f"in {show_duration(expires_at_ms - now_ms)}"
    return f"{show_duration(now_ms - expires_at_ms)} ago"


def show_start(start: bytes, body_bytes: int) -> str:
    """The start of a body on one line, in printable letters. Other bytes are written with \\; ... says that the body is
    longer."""
    cut = len(start) < body_bytes
    # A letter that is cut in two where the body is cut is left out.
    text, _ = codecs.utf_8_decode(start.replace(b"\\", b"\\\\"), "backslashreplace", not cut)
    return show(text) + ("..." if cut else "")


def item_head(id_letters: int, with_numbers: bool = False) -> str:
    return f"{'ID':>{id_letters}}  {_number_head(with_numbers)}{ITEM_HEAD}"


def _number_head(with_numbers: bool) -> str:
    return f"{'NUMBER':>{NUMBER_LETTERS}}  " if with_numbers else ""


def _number(number: int | None) -> str:
    return "" if number is None else f"{number or '-':>{NUMBER_LETTERS}}  "


def item_line(id_letters: int, item: ShownItem, number: int | None = None) -> str:
    """`number`: its public number, 0 if it has none; None: no column for it."""
    age, expiry = show_duration(item.now_ms - item.added_at_ms), show_expiry(item.expires_at_ms, item.now_ms)
    return (
        f"{item.id:>{id_letters}}  {_number(number)}"
        f"{age:<9}  {expiry:<12}  {item.flags:>10}  {item.body_bytes:>10}  {item.state:<16}  "
        f"{show_start(item.start, item.body_bytes)}"
    ).rstrip()


def aside_head(with_numbers: bool = False) -> str:
    return f"{'ID':>{ASIDE_ID_LETTERS}}  {_number_head(with_numbers)}{ASIDE_HEAD}"


def aside_lines(item: ShownItem, job: ShownJob, number: int | None = None) -> Iterator[str]:
    """A line for an item that is set aside, and one for its history if it has one."""
    age, expiry = show_duration(item.now_ms - item.added_at_ms), show_expiry(item.expires_at_ms, item.now_ms)
    state = f"due {show_expiry(job.due_ms, item.now_ms)}" if item.state == DELAYED else item.state
    ttr = show_duration(job.ttr_ms) if job.ttr_ms else "-"
    yield (
        f"{item.id:>{ASIDE_ID_LETTERS}}  {_number(number)}"
        f"{age:<9}  {expiry:<12}  {item.flags:>10}  {item.body_bytes:>10}  {state:<14}  "
        f"{job.pri:>10}  {ttr:>9}  {job.failures:>8}  {show(job.key) or '-':<8}  "
        f"{show_start(item.start, item.body_bytes)}"
    ).rstrip()
    if job.note:
        yield f"{'':{ASIDE_ID_LETTERS}}  {show(job.note)}"


def item_json(item: ShownItem, number: int = 0, job: ShownJob | None = None) -> str:
    """`number`: its public number, 0 if it has none. `job`: None for an item of the line that has not failed."""
    about_job = (
        {}
        if job is None
        else {
            "due_ms": job.due_ms or None,
            "priority": job.pri,
            "ttr_ms": job.ttr_ms or None,
            "key": show(job.key) or None,
            "failures": job.failures,
            "aborted": job.nacks,
            "timed_out": job.timeouts,
            "connections_lost": job.losses,
            "buried": job.buries,
            "kicked": job.kicks,
            "history": show(job.note) or None,
        }
    )
    return json.dumps(
        {
            "id": item.id,
            "number": number or None,
            "age_ms": item.now_ms - item.added_at_ms,
            "added_at_ms": item.added_at_ms,
            "expires_at_ms": item.expires_at_ms or None,
            "flags": item.flags,
            "bytes": item.body_bytes,
            "state": item.state,
            "large": item.is_large,
            "first_bytes": base64.b64encode(item.start).decode(),
            "text": show_start(item.start, item.body_bytes),
            **about_job,
        }
    )


def event_line(event: dict[str, Any]) -> str:
    """A line for a person about an event of the server's `watch`."""
    what = event["what"]
    if what == "not shown":
        return f"... {event['events']} events not shown"
    seconds, ms = divmod(event["time_ms"], 1000)
    clock = f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{ms:03}"
    shown = f"{event['items']} items" if "items" in event else _start_of(event)
    item_id, size, flags = (event.get(name, "") for name in ("id", "bytes", "flags"))
    return f"{clock}  {what:<6}  {item_id:>8}  {size:>10}  {flags:>10}  {shown}".rstrip()


def event_json(event: dict[str, Any]) -> str:
    """A line for a program about an event of the server's `watch`, to which the start of the body is added as text."""
    if "first_bytes" in event:
        event = {**event, "text": _start_of(event)}
    return json.dumps(event)


def _start_of(event: dict[str, Any]) -> str:
    start = base64.b64decode(event.get("first_bytes", ""))
    return show_start(start, event["bytes"]) if "first_bytes" in event else ""
