"""What belongs to all clients goes on if one of them fails: that client is hung up on. No call here switches greenlets.

gevent would stop a watcher whose callback raises something, and drop what the same call still had to do for others.
"""

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol

from darner_core import NAME

log = logging.getLogger(NAME)

Arguments = ParamSpec("Arguments")
Callback = Callable[Concatenate[Any, Arguments], None]


class Client(Protocol):
    def hang_up(self) -> None: ...


def careful(callback: Callback[Arguments]) -> Callback[Arguments]:
    """For methods of a client that the loop calls: if one raises something, that client is cut off."""

    @wraps(callback)
    def call(client: Any, /, *arguments: Arguments.args, **more: Arguments.kwargs) -> None:
        try:
            callback(client, *arguments, **more)
        except Exception:
            log.exception("a client could not be served")
            cut_off(client)

    return call


def cut_off(client: Client) -> None:
    """Hang up on `client`. Raises nothing."""
    try:
        client.hang_up()
    except Exception:
        log.exception("a client could not be hung up on")
