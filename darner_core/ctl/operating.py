"""Commands that look after queues and the server: flush, delete, pause, kick, status, reload."""

from typing import Final

import click

from darner_core.ctl import names
from darner_core.ctl.context import DURATION, QUEUE, Context, figures_of
from darner_core.ctl.output import count

STATUSES: Final = ("up", "writeavoid", "readonly", "quiescent")

YES = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


@click.command()
@click.argument("queue", type=QUEUE)
@YES
@click.pass_obj
def flush(ctl: Context, queue: bytes, yes: bool) -> None:
    """Drop all items of a queue that wait. What is open stays."""
    with ctl.connect() as client:
        one = figures_of(client, queue)
        waiting = one.waiting + one.delayed + one.buried
        ctl.sure(f"Drop the {count(waiting)} items of queue {names.write(queue)}?", yes)
    with ctl.connect() as client:  # the answer may have come late
        client.flush(queue)
    if ctl.out.as_json:
        ctl.out.json({"queue": names.write(queue), "flushed": waiting})
    else:
        ctl.out.say(f"{names.write(queue)} is empty: {count(waiting)} items dropped")


@click.command()
@click.argument("queue", type=QUEUE)
@YES
@click.pass_obj
def delete(ctl: Context, queue: bytes, yes: bool) -> None:
    """Remove a queue, and all its items, the open ones too."""
    with ctl.connect() as client:
        one = figures_of(client, queue)
        ctl.sure(f"Delete queue {names.write(queue)} with {count(one.held)} items?", yes)
    with ctl.connect() as client:
        client.delete(queue)
    if ctl.out.as_json:
        ctl.out.json({"queue": names.write(queue), "deleted": True, "items": one.held})
    else:
        ctl.out.say(f"{names.write(queue)} is deleted, with {count(one.held)} items")


@click.command()
@click.argument("queue", type=QUEUE)
@click.argument("what", type=click.Choice(["in", "out", "all", "none"]), default="all")
@click.option("--for", "lasts_ms", type=DURATION, metavar="TIME", help="How long; without it, until it is ended.")
@click.pass_obj
def pause(ctl: Context, queue: bytes, what: str, lasts_ms: int | None) -> None:
    """Let a queue take nothing (in), hand nothing out (out), or neither (all). none ends the pause."""
    if lasts_ms is not None and (what == "none" or lasts_ms < 1000):
        raise click.UsageError("a pause lasts at least a second" if what != "none" else "none ends the pause at once")
    with ctl.connect() as client:
        client.pause(queue, what, None if lasts_ms is None else lasts_ms // 1000)
    if ctl.out.as_json:
        ctl.out.json({"queue": names.write(queue), "paused": what})
        return
    said = {"in": "takes nothing", "out": "hands nothing out", "all": "takes nothing and hands nothing out"}
    ctl.out.say(f"{names.write(queue)} {said.get(what, 'is not paused')}")


@click.command()
@click.argument("queue", type=QUEUE)
@click.option(
    "--count", "-n", "most", type=click.IntRange(1, 2**31 - 1), metavar="N", help="How many; without it, all."
)
@click.pass_obj
def kick(ctl: Context, queue: bytes, most: int | None) -> None:
    """Make buried items ready; if none is buried, delayed ones."""
    with ctl.connect() as client:
        one = figures_of(client, queue)
        wanted = most or one.buried or one.delayed
        kicked = client.kick(queue, wanted) if wanted else 0
    if ctl.out.as_json:
        ctl.out.json({"queue": names.write(queue), "kicked": kicked})
    else:
        ctl.out.say(f"{names.write(queue)}: {count(kicked)} items are ready now")


@click.command()
@click.argument("word", metavar="[STATUS]", type=click.Choice(STATUSES), required=False)
@click.pass_obj
def status(ctl: Context, word: str | None) -> None:
    """Show the server's status and figures, or set the status: up, writeavoid, readonly or quiescent."""
    with ctl.connect() as client:
        if word is not None:
            client.set_status(word)
        shown, version, figures = client.status(), client.version(), client.figures() if word is None else {}
    figures = {name: value for name, value in figures.items() if not name.startswith("queue_") or name in _OF_SERVER}
    if ctl.out.as_json:
        ctl.out.json({"status": shown, "version": version, "server": str(ctl.address), "figures": figures})
    else:
        ctl.out.pairs({"status": shown, "server": str(ctl.address), "version": version, **figures})


_OF_SERVER: Final = ("queue_creates", "queue_deletes", "queue_expires")


@click.command()
@click.pass_obj
def reload(ctl: Context) -> None:
    """Let the server read its options again."""
    with ctl.connect() as client:
        client.reload()
    if ctl.out.as_json:
        ctl.out.json({"reloaded": True})
    else:
        ctl.out.say("the options are read again; the server's log says which of them need a restart")


COMMANDS: Final = (flush, delete, pause, kick, status, reload)
