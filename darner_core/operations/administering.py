"""Looking after the server and its queues: the commands that neither put nor take. See `client` for what a command is.

No call here switches greenlets, except through the Client's wait_... calls.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Any, NoReturn, TypeVar

from darner_core import NAME, VERSION
from darner_core.access.rights import ADMIN, ADMIN_ALL
from darner_core.config.options import Config
from darner_core.config.values import show_bytes
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.registry import Registry
from darner_core.engines.local.routing import Delivery
from darner_core.engines.local.sweeper import Sweeper
from darner_core.errors import DamagedError, ServerError, StorageError, Unsupported
from darner_core.nearest import did_you_mean
from darner_core.operations.client import Client, HangUp, Reply
from darner_core.operations.session import Session
from darner_core.operations.stats import Stats, Totals, of_alias
from darner_core.protocols.memcache import replies
from darner_core.protocols.memcache.reader import Command, Request, show
from darner_core.protocols.memcache.replies import END, NONE
from darner_core.repeated import BY_TEXT
from darner_core.shared_memory import PipelineMemory

log = logging.getLogger(NAME)

# What needs the right `admin` and changes nothing.
_LOOKS = frozenset((b"watch", b"dump_config"))

# How many queues one turn goes through in `stats` and `flush_all`: 100 are 1 to 2 ms.
QUEUES_A_TURN = 100

# A reply of up to so many bytes goes out in one piece: npm's memcached loses the first of two.
ONE_PIECE_BYTES = 64 << 10
SCARCE_PIECE_BYTES = 4 << 10  # the same while pipeline_memory_bytes are exceeded

# What tools of memcached's ask for with a word behind `stats`, and a queue has nothing of: no figures are an answer
# that they know from an empty memcached. Source: memcached's doc/protocol.txt, munin's plug-in, memcached-tool.
NO_FIGURES = (b"items", b"slabs", b"sizes", b"cachedump", b"conns", b"detail", b"extstore")

# Queues of which one turn adds up the figures: 1 ms.
SUMMED_A_TURN = 1000

_Each = TypeVar("_Each", bytes, MessageQueue)


def slices(queues: Iterable[_Each], most: int = QUEUES_A_TURN) -> Iterator[list[_Each]]:
    """`queues`, or their names, as they are now, so many at a time as one turn can deal with."""
    fixed = list(queues)  # pointers alone: 100,000 in 1 ms
    for start in range(0, len(fixed), most):
        yield fixed[start : start + most]


class Pieces:
    """A long reply that is sent in as few pieces as its bytes allow."""

    def __init__(self, client: Client, memory: PipelineMemory) -> None:
        self._client = client
        self._memory = memory
        self._gathered: list[bytes] = []
        self._bytes = 0

    def wait_add(self, data: bytes) -> None:
        """Switches greenlets if what there is must be sent first."""
        most_bytes = SCARCE_PIECE_BYTES if self._memory.scarce else ONE_PIECE_BYTES
        if self._gathered and self._bytes + len(data) > most_bytes:
            self._client.wait_sent(self.take())
        self._gathered.append(data)
        self._bytes += len(data)

    def take(self) -> bytes:
        """What has not been sent."""
        gathered, self._gathered, self._bytes = self._gathered, [], 0
        return b"".join(gathered)


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

    def __init__(
        self,
        registry: Registry,
        delivery: Delivery,
        stats: Stats,
        sweeper: Sweeper,
        config: Config,
        pipeline_memory: PipelineMemory,
    ) -> None:
        self._config = config
        self._pipeline_memory = pipeline_memory
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
        before = self._wait_totals(client).expired_items
        self._sweeper.wait_sweep()
        return replies.count(max(0, self._wait_totals(client).expired_items - before))  # some may have been deleted

    def _wait_totals(self, client: Client) -> Totals:
        """The sums over all queues, taken in slices if there are many."""
        registry = self._registry
        totals = Totals(registry.total_items_of_deleted)
        for number, queues in enumerate(slices(chain(self._queues.values(), registry.hidden.values()), SUMMED_A_TURN)):
            if number:
                client.wait_turn()
            totals.add(queues)
        return totals

    def flush_all_with(self, reply: bytes) -> Callable[[Request, None, Session], Reply]:
        """The command that empties all queues, and says so in these words."""

        def wait_flushed(request: Request, client: Client) -> bytes:
            try:
                self.wait_flush_all(client)
            except (ServerError, StorageError) as error:
                if not request.noreply:
                    raise
                log.error("flush_all: %s", error, extra=BY_TEXT)
            return NONE if request.noreply else reply

        def flush_all(request: Request, body: None, session: Session) -> Reply:
            if request.expiry:  # the delay
                raise Unsupported("flush_all empties the queues at once: a delay must be 0")
            return partial(wait_flushed, request)

        return flush_all

    def wait_flush_all(self, client: Client) -> None:
        """Raises DamagedError when all others have been flushed; ServerError or StorageError in the middle of it if the
        disk refuses. Switches greenlets."""
        damaged: list[MessageQueue] = []
        for names in slices(self._queues):
            for name in names:
                queue = self._queues.get(name)
                if queue is not None and queue.unreadable:
                    damaged.append(queue)
                elif queue is not None:
                    queue.flush()
            client.wait_turn()
        if damaged:
            first = min(damaged, key=lambda queue: queue.name)
            raise DamagedError(f"all queues were flushed but one: {first.damage}")

    def stats(self, request: Request, body: None, session: Session) -> Reply:
        if not request.key:
            return self._stats_lines
        if request.key == b"settings":
            return (
                replies.stat(b"maxconns", self._config.max_connections)
                + replies.stat(b"item_size_max", self._config.max_item_bytes)
                + END
            )
        if request.key in NO_FIGURES:
            return END
        if request.key == b"reset":
            raise Unsupported("the statistics cannot be reset: they count from the start of the server")
        known = [word.decode() for word in (*NO_FIGURES, b"settings")]
        near = did_you_mean(show(request.key), known, f"nothing, or one of {', '.join(known)}")
        raise Unsupported(f'unknown statistics "{show(request.key)}": {near}')

    def _stats_lines(self, client: Client) -> bytes:
        pieces = Pieces(client, self._pipeline_memory)
        totals = self._wait_totals(client)
        pieces.wait_add(b"".join(self._stats.server_lines(self._registry, totals)))
        for names in slices(self._queues):
            for name in names:
                if name in self._queues and client.may_see(name):
                    pieces.wait_add(self._stats.queue_lines(self._queues[name], client.may_see))
            client.wait_turn()
        for name in list(self._delivery.alias_counts):
            if name in self._delivery.alias_counts and client.may_see(name):
                pieces.wait_add(self._alias_lines(name, client))
        return pieces.take() + END

    def _alias_lines(self, name: bytes, client: Client) -> bytes:
        figures = of_alias(self._delivery.alias_counts[name], self._delivery.aliases[name], client.may_see)
        return b"".join(replies.stat(b"queue_%b_%b" % (name, figure), value) for figure, value in figures)

    def help_with(self, usage: Iterable[str]) -> Callable[[Request, None, Session], bytes]:
        """The command that lists the commands."""
        reply = b"".join(map(replies.line, usage)) + END

        def say_usage(request: Request, body: None, session: Session) -> bytes:
            return reply

        return say_usage

    def refuse_of_memcached(self, request: Request, body: None, session: Session) -> NoReturn:
        raise Unsupported(f"there is no {request.verb.decode()} in a queue server: help lists the commands")

    def version(self, request: Request, body: None, session: Session) -> bytes:
        return replies.version(VERSION)

    def quit(self, request: Request, body: None, session: Session) -> NoReturn:
        raise HangUp
