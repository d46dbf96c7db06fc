"""Looking after the server and its queues: the commands that neither put nor take. See `client` for what a command is.

No call here switches greenlets, except through the Client's wait_... calls.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NoReturn

from darner_core import NAME, VERSION, replies
from darner_core.client import Client, HangUp, Reply
from darner_core.delivery import Delivery
from darner_core.errors import DamagedError
from darner_core.message_queue import DamagedQueue
from darner_core.option_values import show_bytes
from darner_core.protocol import Command, Request
from darner_core.registry import Registry
from darner_core.replies import END, NONE
from darner_core.rights import ADMIN, ADMIN_ALL
from darner_core.session import Session
from darner_core.stats import Stats, of_alias
from darner_core.sweeper import Sweeper

log = logging.getLogger(NAME)

# What needs the right `admin` and changes nothing.
_LOOKS = frozenset((b"watch", b"dump_config"))

# How many queues one turn goes through in `stats` and `flush_all`: 100 are 1 to 2 ms.
QUEUES_A_TURN = 100


def slices(names: Iterable[bytes], most: int = QUEUES_A_TURN) -> Iterator[list[bytes]]:
    """`names` as they are now, so many at a time as one turn can deal with."""
    fixed = list(names)
    for start in range(0, len(fixed), most):
        yield fixed[start : start + most]


def is_admin(command: Command) -> bool:
    """Whether this is an operator's command, which admin_from is about."""
    return command.right in (ADMIN, ADMIN_ALL)


def require_admin(request: Request, session: Session) -> None:
    """Before an operator's command is carried out: raises ClientError if it is not taken from where the client is.
    The log says who has had what changed."""
    if request.free:
        return
    session.origin.require_admin(request.verb)
    if request.verb not in _LOOKS:
        what = show_bytes(b" ".join((request.verb, request.key)).strip())
        log.info("admin: %s: %s", session.origin, what)


def as_admin(command: Command) -> Command:
    """`command` as it stands in a table: with this asked and logged, if it is an operator's."""
    if not is_admin(command):
        return command
    run = command.run

    def run_if_admin(request: Request, body: Any, session: Session) -> Any:
        require_admin(request, session)
        return run(request, body, session)

    return command._replace(run=run_if_admin)


class Administering:
    """These commands, bound to what they work on."""

    def __init__(self, registry: Registry, delivery: Delivery, stats: Stats, sweeper: Sweeper) -> None:
        self._delivery = delivery
        self._sweeper = sweeper
        self._registry = registry
        self._queues = registry.queues
        self._stats = stats

    def delete_with(self, reply: bytes) -> Callable[[Request, None, Session], bytes]:
        """The command that deletes, and says so in these words."""

        def delete(request: Request, body: None, session: Session) -> bytes:
            if request.cursor:
                self._registry.cursors.delete(request.queue, request.cursor)
            else:
                self._registry.delete(request.queue)
            return NONE if request.noreply else reply

        return delete

    def flush(self, request: Request, body: None, session: Session) -> bytes:
        if request.cursor:
            self._registry.cursors.flush(request.queue, request.cursor)
        else:
            self._registry.flush(request.queue)
        return NONE if request.noreply else END

    def flush_expired(self, request: Request, body: None, session: Session) -> Reply:
        return partial(self._flush_expired, request)

    def _flush_expired(self, request: Request, client: Client) -> bytes:
        queue = self._queues.get(request.queue)
        if queue is None:
            return replies.count(0)
        before = queue.expired_items
        self._sweeper.wait_sweep(queue)
        return replies.count(queue.expired_items - before)

    def flush_all_expired(self, request: Request, body: None, session: Session) -> Reply:
        return self._flush_all_expired

    def _flush_all_expired(self, client: Client) -> bytes:
        before = self._expired()
        self._sweeper.wait_sweep()
        return replies.count(self._expired() - before)

    def _expired(self) -> int:
        return sum(queue.expired_items for queue in self._registry)

    def flush_all(self, request: Request, body: None, session: Session) -> Reply:
        return partial(self._flush_all, request)

    def _flush_all(self, request: Request, client: Client) -> bytes:
        self.wait_flush_all(client)
        return NONE if request.noreply else replies.FLUSHED_ALL

    def wait_flush_all(self, client: Client) -> None:
        """Raises DamagedError when all others have been flushed. Switches greenlets."""
        damaged = {name: queue for name, queue in self._queues.items() if isinstance(queue, DamagedQueue)}
        for names in slices(self._queues):
            for name in names:
                if name not in damaged:
                    self._registry.flush(name)
            client.wait_turn()
        if damaged:
            raise DamagedError(f"all queues were flushed but one: {damaged[min(damaged)].damage}")

    def stats(self, request: Request, body: None, session: Session) -> Reply:
        return self._stats_lines

    def _stats_lines(self, client: Client) -> bytes:
        client.wait_sent(b"".join(self._stats.server_lines(self._registry)))
        for names in slices(self._queues):
            seen = [name for name in names if name in self._queues and client.may_see(name)]
            lines = [self._stats.queue_lines(self._queues[name], client.may_see) for name in seen]
            client.wait_sent(b"".join(lines))
            client.wait_turn()
        seen_aliases = [name for name in self._delivery.alias_counts if client.may_see(name)]
        return b"".join(self._alias_lines(name, client) for name in seen_aliases) + END

    def _alias_lines(self, name: bytes, client: Client) -> bytes:
        figures = of_alias(self._delivery.alias_counts[name], self._delivery.aliases[name], client.may_see)
        return b"".join(replies.stat(b"queue_%b_%b" % (name, figure), value) for figure, value in figures)

    def version(self, request: Request, body: None, session: Session) -> bytes:
        return replies.version(VERSION)

    def quit(self, request: Request, body: None, session: Session) -> NoReturn:
        raise HangUp
