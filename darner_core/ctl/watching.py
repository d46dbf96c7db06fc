"""`watch`: what happens to a queue, as it happens."""

from typing import Final

import click

from darner_core.ctl import names
from darner_core.ctl.context import QUEUE, Context
from darner_core.ctl.errors import NoServer
from darner_core.tools.formatting import EVENT_HEAD, event_json, event_line


@click.command()
@click.argument("queue", type=QUEUE)
@click.pass_obj
def watch(ctl: Context, queue: bytes) -> None:
    """Show puts, gets and all else that happens to a queue, until Ctrl-C."""
    with ctl.connect() as client:
        events = client.watch(queue)
        exists = next(events).get("exists")
        shown = names.write(queue)
        ctl.out.note(f"watching {shown} at {ctl.address}{'' if exists else '; it does not exist yet'}")
        if not ctl.out.as_json:
            print(EVENT_HEAD, flush=True)
        for event in events:
            print(event_json(event) if ctl.out.as_json else event_line(event), flush=True)
    raise NoServer(f"the server at {ctl.address} has ended")


COMMANDS: Final = (watch,)
