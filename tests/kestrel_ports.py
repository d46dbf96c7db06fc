"""Darner with two listeners more: the first speaks Kestrel's text protocol, the second is its thrift service."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from darner_core import main, reception
from darner_core.listeners import Listener

open_listeners = reception.open_listeners


def open_more(*arguments: object) -> list[Listener]:
    listeners = open_listeners(*arguments)  # type: ignore[arg-type]
    for dialect in ("text", "thrift"):
        (more,) = open_listeners(["127.0.0.1"], 0, "0600")
        more.dialect = dialect
        listeners.append(more)
    return listeners


reception.open_listeners = open_more
main.command()
