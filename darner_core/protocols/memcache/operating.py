"""The commands for looking after queues and the server, and how their replies are written: flush, delete, stats, status
and others. A command is what `contract` says.
"""

import json
import logging
from binascii import b2a_base64
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from darner_core import NAME, VERSION
from darner_core.config.options import Config
from darner_core.errors import ClientError, ConfigError, ServerError, StorageError, Unsupported
from darner_core.nearest import did_you_mean
from darner_core.operations.client import Client, HangUp, Pieces
from darner_core.operations.operations import Operations
from darner_core.operations.session import Session
from darner_core.operations.stats import QUEUES_A_TURN, Figures
from darner_core.operations.status import status_of
from darner_core.operations.watching import Told
from darner_core.protocols.contract import Reply
from darner_core.protocols.grammar import excerpt
from darner_core.protocols.memcache import replies
from darner_core.protocols.memcache.reader import LineRequest
from darner_core.protocols.memcache.replies import END, NONE, ONE_PIECE_BYTES
from darner_core.repeated import BY_TEXT
from darner_core.showing import show
from darner_core.slicing import slices

if TYPE_CHECKING:
    from darner_core.engines.contract import Event

log = logging.getLogger(NAME)

# How many queues' options one turn of `dump_config` tells.
DESCRIBED_A_TURN = 25

# Words that memcached's tools put behind `stats`, and that mean nothing here. They are answered with no figures, as by
# an empty memcached. Source: memcached's doc/protocol.txt, munin's plug-in, memcached-tool.
NO_FIGURES = (b"items", b"slabs", b"sizes", b"cachedump", b"conns", b"detail", b"extstore")

_Run = Callable[[LineRequest, None, Session], Reply]


class Operating:
    """The commands, bound to the operations."""

    def __init__(self, operations: Operations, config: Config) -> None:
        self._queues = operations.queues
        self._host = operations.host
        self._pipeline_memory = operations.pipeline_memory
        self._administering = operations.administering
        self._statistics = operations.statistics
        self._in_effect = operations.in_effect
        self._watching = operations.watching
        self._config = config

    # -- queues

    def delete_with(self, reply: bytes) -> _Run:
        """The command that deletes, and answers in these words."""

        def delete(request: LineRequest, body: None, session: Session) -> bytes:
            self._administering.delete(request.queue, request.cursor)
            return NONE if request.noreply else reply

        return delete

    def flush(self, request: LineRequest, body: None, session: Session) -> bytes:
        self._administering.flush(request.queue, request.cursor)
        return NONE if request.noreply else END

    def flush_expired(self, request: LineRequest, body: None, session: Session) -> Reply:
        return lambda client: replies.count(self._administering.wait_flush_expired(request.queue))

    def flush_all_expired(self, request: LineRequest, body: None, session: Session) -> Reply:
        return lambda client: replies.count(self._administering.wait_flush_all_expired(client))

    def flush_all_with(self, reply: bytes) -> _Run:
        """The command that empties all queues, and answers in these words."""

        def wait_flushed(request: LineRequest, client: Client) -> bytes:
            try:
                self._administering.wait_flush_all(client)
            except (ServerError, StorageError) as error:
                if not request.noreply:
                    raise
                log.error("flush_all: %s", error, extra=BY_TEXT)
            return NONE if request.noreply else reply

        def flush_all(request: LineRequest, body: None, session: Session) -> Reply:
            if request.expiry:  # the delay
                raise Unsupported("flush_all empties the queues at once: a delay must be 0")
            return partial(wait_flushed, request)

        return flush_all

    def watch(self, request: LineRequest, body: None, session: Session) -> Reply:
        return partial(self._wait_watch, request.queue)

    def _wait_watch(self, queue: bytes, client: Client) -> bytes:
        self._watching.wait_watch(client, queue, events_lines)
        return END

    def _pieces(self, client: Client) -> Pieces:
        return Pieces(client, self._pipeline_memory, ONE_PIECE_BYTES)

    # -- statistics

    def stats(self, request: LineRequest, body: None, session: Session) -> Reply:
        if not request.key:
            return self._wait_stats
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
        near = did_you_mean(excerpt(request.key), known, f"nothing, or one of {', '.join(known)}")
        raise Unsupported(f'unknown statistics "{excerpt(request.key)}": {near}')

    def _wait_stats(self, client: Client) -> bytes:
        pieces, statistics, may_see = self._pieces(client), self._statistics, client.may_see
        totals = statistics.wait_totals(client)
        pieces.wait_add(_stat_lines(b"", statistics.of_server(totals)))
        for names in slices(self._queues, QUEUES_A_TURN):
            for name in names:
                figures = statistics.of_queue(name, may_see) if may_see(name) else None
                if figures is not None:
                    cursors = (_stat_lines(b"queue_%b_" % cursor, of) for cursor, of in statistics.of_cursors(name))
                    pieces.wait_add(b"".join((_stat_lines(b"queue_%b_" % name, figures), *cursors)))
            client.wait_turn()
        for name in list(statistics.aliases):
            figures = statistics.of_alias(name, may_see) if may_see(name) else None
            if figures is not None:
                pieces.wait_add(_stat_lines(b"queue_%b_" % name, figures))
        return pieces.take() + END

    def dump_stats(self, request: LineRequest, body: None, session: Session) -> Reply:
        return partial(self._wait_dump_stats, request.targets)

    def _wait_dump_stats(self, asked_for: tuple[bytes, ...], client: Client) -> bytes:
        """Tell the figures of these queues and aliases; of all, if none is named."""
        pieces = self._pieces(client)
        for names in slices(asked_for or dict.fromkeys((*self._queues, *self._statistics.aliases)), QUEUES_A_TURN):
            for name in names:
                frames = self._frames_of(name, client) if client.may_see(name) else b""
                if frames:
                    pieces.wait_add(frames)
                elif asked_for:
                    pieces.wait_add(_frame(b"queue '%b'" % name, ()))
            client.wait_turn()
        return pieces.take() + END

    def _frames_of(self, name: bytes, client: Client) -> bytes:
        """The figures of the queue of that name, and of the alias; b"": there is neither."""
        both = self._statistics.of_queue(name, client.may_see), self._statistics.of_alias(name, client.may_see)
        return b"".join(
            _frame(b"queue '%b'" % name, (b"%b=%b" % (figure, _shown(value)) for figure, value in figures))
            for figures in both
            if figures is not None
        )

    # -- the configuration

    def dump_config(self, request: LineRequest, body: None, session: Session) -> Reply:
        if request.queue:
            return self._describe(request.queue, request.parent) + END
        return self._wait_dump_config

    def _wait_dump_config(self, client: Client) -> bytes:
        pieces, in_effect = self._pieces(client), self._in_effect
        pieces.wait_add(_options_frame(b"server", in_effect.of_server()))
        for names in slices((*in_effect.aliases, *self._queues), DESCRIBED_A_TURN):
            for name in names:
                if name in in_effect.aliases or name in self._queues:
                    pieces.wait_add(self._describe(name))
            client.wait_turn()
        return pieces.take() + END

    def _describe(self, name: bytes, parent: bytes = b"") -> bytes:
        aliases = self._in_effect.aliases
        if name in aliases:
            return _options_frame(b"alias '%b'" % name, [("queues", aliases[name], "[aliases]")])
        return _options_frame(b"queue '%b'" % name, self._in_effect.of_queue(name, parent))

    # -- the server

    def status(self, request: LineRequest, body: None, session: Session) -> Any:
        status = self._host.status
        if not request.key:
            return replies.line(status.shown.word)
        try:
            new = status_of(request.key.decode("latin-1"))
        except ValueError as allowed:
            raise ClientError(f'unknown status "{excerpt(request.key)}": {allowed}') from None
        return status.change_then(new, END)

    def reload(self, request: LineRequest, body: None, session: Session) -> Reply:
        return self._wait_reload

    def _wait_reload(self, client: Client) -> bytes:
        try:
            self._host.wait_reload()
        except (ConfigError, StorageError) as error:
            raise ServerError(f"not reloaded: {error}") from None
        return replies.RELOADED

    def backup(self, request: LineRequest, body: None, session: Session) -> Reply:
        name = request.key.decode("latin-1")

        def wait_save(client: Client) -> bytes:
            return replies.line("BACKUP {} {} {}".format(name, *self._host.wait_backup(name)))

        return wait_save

    def shutdown(self, request: LineRequest, body: None, session: Session) -> NoReturn:
        self._host.request_stop()
        raise HangUp


def help_with(usage: Iterable[str]) -> _Run:
    """The command that lists the commands."""
    reply = b"".join(map(replies.line, usage)) + END

    def say_usage(request: LineRequest, body: None, session: Session) -> bytes:
        return reply

    return say_usage


def refuse_of_memcached(request: LineRequest, body: None, session: Session) -> NoReturn:
    raise Unsupported(f"there is no {request.verb.decode()} in a queue server: help lists the commands")


def version(request: LineRequest, body: None, session: Session) -> bytes:
    return replies.version(VERSION)


def quit_(request: LineRequest, body: None, session: Session) -> NoReturn:
    raise HangUp


def events_lines(told: bool | Told) -> bytes:
    """What `watch` sends: first whether there is such a queue, then what has happened to it.

    {"what": "watch", "exists": true}
    {"time_ms": 1795281482123, "what": "put", "id": 12, "bytes": 5, "flags": 0, "first_bytes": "aGVsbG8="}
    {"time_ms": 1795281482130, "what": "close", "id": 11, "bytes": 5}
    {"what": "not shown", "events": 123}
    """
    if isinstance(told, bool):
        return b'{"what": "watch", "exists": %b}\r\n' % (b"true" if told else b"false")
    lines = [_event_line(event, told.with_bodies) for event in told.events]
    if told.missed:
        lines.append(b'{"what": "not shown", "events": %d}\r\n' % told.missed)
    return b"".join(lines)


def _event_line(event: "Event", with_body: bool) -> bytes:
    # Put together by hand: json.dumps takes three times as long.
    line = b'{"time_ms": %d, "what": "%b"' % (event.time_ms, event.what)
    if event.id:
        line += b', "id": %d' % event.id
    if event.body_bytes >= 0:
        line += b', "bytes": %d' % event.body_bytes
    if event.flags >= 0:
        line += b', "flags": %d' % event.flags
    if with_body and event.start is not None:
        line += b', "first_bytes": "%b"' % b2a_base64(event.start, newline=False)
    if event.items >= 0:
        line += b', "items": %d' % event.items
    return line + b"}\r\n"


def _stat_lines(prefix: bytes, figures: Figures) -> bytes:
    return b"".join(replies.stat(prefix + name, value) for name, value in figures)


def _shown(value: int | bytes) -> bytes:
    return value if isinstance(value, bytes) else b"%d" % value


def _frame(title: bytes, lines: Iterable[bytes]) -> bytes:
    """Source: Kestrel's dump_stats."""
    return b"".join((title, b" {\r\n", *(b"  %b\r\n" % line for line in lines), b"}\r\n"))


def _options_frame(title: bytes, options: Iterable[tuple[str, Any, str]]) -> bytes:
    lines = (f"{name}={_written(value)} ({show(level)})" for name, value, level in options)
    return _frame(title, (line.encode("utf-8", "surrogateescape") for line in lines))


def _written(value: Any) -> str:
    """`value` as the file has it."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_written, value))}]"
    return json.dumps(value, ensure_ascii=False)
