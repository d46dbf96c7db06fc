"""Darner with two listeners more: the first speaks Kestrel's text protocol, the second is its thrift service. On a disk
that fails as `failing_disk` has it, if $FAILING is set. Run as darner.py is."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from darner_core import main, reception, server
from darner_core.listeners import Listener
from tests.failing_disk import FailingStorage

open_listeners = reception.open_listeners


def open_more(*arguments: object) -> list[Listener]:
    listeners = open_listeners(*arguments)  # type: ignore[arg-type]
    for dialect in ("text", "thrift"):
        (more,) = open_listeners(["127.0.0.1"], 0, "0600")
        more.dialect = dialect
        listeners.append(more)
    return listeners


if __name__ == "__main__":
    reception.open_listeners = open_more
    if "FAILING" in os.environ:
        main.Storage = FailingStorage  # type: ignore[misc]
        server.TICK_S = 0.1
    main.command()
