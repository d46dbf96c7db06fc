"""`queues` and `show`: what the server counts of its queues, and how these are set."""

from collections.abc import Callable
from typing import Any, Final

import click

from darner_core.ctl import names
from darner_core.ctl.client import Client, Option, QueueFigures
from darner_core.ctl.context import QUEUE, Context, figures_of
from darner_core.ctl.errors import NothingThere, Refused
from darner_core.ctl.output import Column, count, duration, size

STATES: Final = (
    Column("QUEUE", is_number=False, style="bold"),
    Column("WAITING"),
    Column("OPEN"),
    Column("DELAYED"),
    Column("BURIED"),
    Column("FAILURES"),
    Column("AGE"),
)
COLUMNS: Final = (
    *STATES,
    Column("BYTES"),
    Column("WAITERS"),
    Column("PUT"),
    Column("", is_number=False),
)

# The word behind --sort, and what it sorts by. All but the name: the largest first.
SORTED_BY: Final[dict[str, Callable[[QueueFigures], Any]]] = {
    "name": lambda one: one.name,
    "waiting": lambda one: -one.waiting,
    "open": lambda one: -one.open,
    "delayed": lambda one: -one.delayed,
    "buried": lambda one: -one.buried,
    "failures": lambda one: -one.failures,
    "age": lambda one: -one.age_ms,
    "bytes": lambda one: -one.bytes,
    "put": lambda one: -one.put_total,
}


def row(one: QueueFigures) -> list[str]:
    return [
        names.write(one.name), count(one.waiting), count(one.open), count(one.delayed), count(one.buried),
        count(one.failures), duration(one.age_ms) if one.age_ms else "-", size(one.bytes), count(one.waiters),
        count(one.put_total), remark(one),
    ]  # fmt: skip


def remark(one: QueueFigures) -> str:
    """What is out of the ordinary."""
    said = ["DAMAGED"] if one.damaged else []
    if one.paused != "none":
        said.append(f"paused: {one.paused}")
    if one.is_alias:
        said.append(f"alias of {one.all.get('children', '')}")
    return ", ".join(said)


def queue_json(one: QueueFigures) -> dict[str, Any]:
    return {
        "name": names.write(one.name),
        "waiting": one.waiting,
        "open": one.open,
        "delayed": one.delayed,
        "buried": one.buried,
        "failures": one.failures,
        "dead_lettered": one.dead_lettered,
        "age_ms": one.age_ms,
        "bytes": one.bytes,
        "waiters": one.waiters,
        "put_total": one.put_total,
        "paused": one.paused,
        "damaged": one.damaged,
        "is_alias": one.is_alias,
    }


@click.command()
@click.option(
    "--sort", type=click.Choice([*SORTED_BY]), default="name", show_default=True, help="By what they are sorted."
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Show only the first N.")
@click.option("--prefix", default="", metavar="TEXT", help="Only queues whose names begin so.")
@click.option("--contains", default="", metavar="TEXT", help="Only queues that have this in their names.")
@click.pass_obj
def queues(ctl: Context, sort: str, limit: int | None, prefix: str, contains: str) -> None:
    """List the queues with their figures."""
    with ctl.connect() as client:
        found = client.queues()
    found = [one for one in found if names.write(one.name).startswith(prefix) and contains in names.write(one.name)]
    found.sort(key=SORTED_BY[sort])
    found = found[:limit]
    if ctl.out.as_json:
        for one in found:
            ctl.out.json(queue_json(one))
    elif found:
        ctl.out.table(COLUMNS, map(row, found))
    else:
        ctl.out.note("there are no such queues" if prefix or contains else "there are no queues yet")


@click.command()
@click.argument("queue", type=QUEUE)
@click.pass_obj
def show(ctl: Context, queue: bytes) -> None:
    """Show all that is known of a queue, its options among it."""
    with ctl.connect() as client:
        one = figures_of(client, queue)
        options = _options(client, queue, ctl)
    if ctl.out.as_json:
        settings = [{"name": name, "value": value, "source": source} for name, value, source in options]
        ctl.out.json({**queue_json(one), "figures": one.all, "options": settings})
        return
    ctl.out.table(COLUMNS, [row(one)])
    ctl.out.say("")
    ctl.out.pairs(one.all)
    if options:
        ctl.out.say("")
        columns = (Column("OPTION", False, "bold"), Column("VALUE", False), Column("SET IN", False, "dim"))
        ctl.out.table(columns, options)


def _options(client: Client, queue: bytes, ctl: Context) -> list[Option]:
    """None if the user may not see them."""
    try:
        return client.options(queue)
    except (Refused, NothingThere) as error:
        ctl.out.note(f"the options are not shown: {error}")
        return []


COMMANDS: Final = (queues, show)
