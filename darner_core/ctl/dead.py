"""`dead`: the dead letters of a queue, shown, put back or dropped."""

import base64
from typing import Any, Final

import click
from rich.text import Text

from darner_core.ctl import names
from darner_core.ctl.client import Client
from darner_core.ctl.context import QUEUE, Context, figures_of
from darner_core.ctl.errors import NothingThere
from darner_core.ctl.operating import YES
from darner_core.ctl.output import Column, body_json, duration, items, printable

MOST: Final = 2**31 - 1  # of the protocol, in one request
SHOWN: Final = 100

COLUMNS: Final = (
    Column("ID"), Column("FAILURES"), Column("LAST", is_number=False), Column("CLIENT", is_number=False),
    Column("DEAD FOR"), Column("BYTES"), Column("BODY", is_number=False),
)  # fmt: skip


@click.command()
@click.argument("queue", type=QUEUE)
@click.option("--put-back", is_flag=True, help="Put them back into the queue, the oldest first.")
@click.option("--drop", is_flag=True, help="Drop them.")
@click.option("--id", "item_id", type=click.IntRange(1, 2**53 - 1), metavar="ID", help="The one with this id.")
@click.option(
    "-n", "--count", type=click.IntRange(1, MOST), metavar="N",
    help=f"The oldest N. Without it, {SHOWN} are shown, and all are put back or dropped.",
)  # fmt: skip
@YES
@click.pass_obj
def dead(
    ctl: Context, queue: bytes, put_back: bool, drop: bool, item_id: int | None, count: int | None, yes: bool
) -> None:
    """Show the dead letters of a queue: what its dead letter queue has of it, or what is buried in it if it has none.
    --put-back and --drop change that."""
    if put_back and drop:
        raise click.UsageError("--put-back or --drop, and not both")
    if item_id is not None and not (put_back or drop):
        raise click.UsageError("--id says which one to --put-back or to --drop")
    if item_id is not None and count is not None:
        raise click.UsageError("--id or --count, and not both")
    if put_back:
        _put_back(ctl, queue, item_id, count)
    elif drop:
        _drop(ctl, queue, item_id, count, yes)
    else:
        _show(ctl, queue, count or SHOWN)


def _show(ctl: Context, queue: bytes, most: int) -> None:
    with ctl.connect() as client:
        rows, told = [], 0
        for one in client.dead(queue, most):
            told += 1
            if ctl.out.as_json:
                ctl.out.json(_as_json(one))
            else:
                rows.append(_row(one))
        if not told:
            figures_of(client, queue)
    if rows:
        ctl.out.table(COLUMNS, rows)
    elif not told and not ctl.out.as_json:
        ctl.out.say(f"{names.write(queue)} has no dead letters")
    if told == most:
        ctl.out.note(f"there may be more: the oldest {items(most)} are shown, --count shows others")


def _begin(one: dict[str, Any]) -> bytes | None:
    """The first bytes of the body; None: the user may not see them."""
    return base64.b64decode(one["first_bytes"]) if "first_bytes" in one else None


def _as_json(one: dict[str, Any]) -> dict[str, Any]:
    begin, told = _begin(one), {name: value for name, value in one.items() if name != "first_bytes"}
    if begin is None:
        return told
    if len(begin) == one["bytes"]:
        return {**told, **body_json(begin)}
    return {**told, "first_bytes": one["first_bytes"]}


def _row(one: dict[str, Any]) -> tuple[str | Text, ...]:
    import time

    history, begin = one["history"] or {}, _begin(one)
    shown = "" if begin is None else printable(begin) + ("…" if len(begin) < one["bytes"] else "")
    dead_for = duration(max(0, time.time() * 1000 - one["put_at_ms"])) if history else ""
    return (
        str(one["id"]), str(history.get("failures", one["failures"])), history.get("reason", one["state"]),
        printable(history.get("client", "").encode()), dead_for, f"{one['bytes']:,}", shown,
    )  # fmt: skip


def _put_back(ctl: Context, queue: bytes, item_id: int | None, count: int | None) -> None:
    with ctl.connect() as client:
        done = _done(client, client.put_back(queue, item_id, count or MOST), queue, item_id)
    if ctl.out.as_json:
        ctl.out.json({"queue": names.write(queue), "put_back": done})
    else:
        ctl.out.say(f"{names.write(queue)}: {items(done)} put back")


def _drop(ctl: Context, queue: bytes, item_id: int | None, count: int | None, yes: bool) -> None:
    shown = names.write(queue)
    ctl.sure(f"Drop {_which(item_id, count)} of queue {shown}?", yes)
    with ctl.connect() as client:
        done = _done(client, client.drop_dead(queue, item_id, count or MOST), queue, item_id)
    if ctl.out.as_json:
        ctl.out.json({"queue": shown, "dropped": done})
    else:
        ctl.out.say(f"{shown}: {items(done)} dropped")


def _which(item_id: int | None, count: int | None) -> str:
    if item_id is not None:
        return f"dead letter {item_id}"
    if count is not None:
        return "the oldest dead letter" if count == 1 else f"the oldest {count:,} dead letters"
    return "all dead letters"


def _done(client: Client, done: int | None, queue: bytes, item_id: int | None) -> int:
    if not done:
        figures_of(client, queue)
    if done is None:
        shown = names.write(queue)
        raise NothingThere(f"{shown} has no dead letter {item_id}, or somebody has it open: darner ctl dead {shown}")
    return done


COMMANDS: Final = (dead,)
