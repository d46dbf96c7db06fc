"""The dialects: what the clients of Kestrel, Siberite and Kyoto Tycoon mean by words that they share with ours.

A dialect says how a name is read, how many reads can be open, which verbs there are, and how a few replies read. The
rest of the server asks for these traits, never for the dialect's name. No sockets, no queues: pure.

Source: section "dialects" of docs/protocol.md; Kestrel 2.4's guide, Siberite 0.6.4, Kyoto Tycoon's queue plug-in.
"""

from collections.abc import Callable
from dataclasses import dataclass

from darner_core.config.listeners import DARNER, KESTREL, KYOTO_TYCOON, SIBERITE
from darner_core.errors import ClientError, MalformedRequest, RequestError
from darner_core.protocols.contract import Login, Request, Traits
from darner_core.protocols.grammar import read_child
from darner_core.protocols.memcache.login import read_login
from darner_core.protocols.memcache.replies import DELETED, END, FLUSHED_ALL, OK

# Below it a set's expiry is in seconds from now, else in seconds since 1970. Source: Kestrel's guide, "set".
KESTREL_RELATIVE_S = 1_000_000

# Kyoto Tycoon's limit for that; this number still counts from now. Source: its memcached plug-in.
KYOTO_TYCOON_RELATIVE_S = 1 << 24

LATEST_MS = 2**63


def kestrel_expiry(number: int, now_ms: int) -> int:
    """When an item expires, in ms since 1970, by the number in its set; 0 is never. Below zero it has expired."""
    if number == 0:
        return 0
    if number < KESTREL_RELATIVE_S:
        return max(1, now_ms + number * 1000)
    return min(number * 1000, LATEST_MS)


def kyoto_tycoon_expiry(number: int, now_ms: int) -> int:
    """When an item expires by Kyoto Tycoon's rules: a number below one is never."""
    if number < 1:
        return 0
    if number <= KYOTO_TYCOON_RELATIVE_S:
        return now_ms + number * 1000
    return min(number * 1000, LATEST_MS)


# Options that one get cannot have together.
EXCLUSIVE = (
    (b"abort", b"open"),
    (b"abort", b"close"),
    (b"peek", b"open"),
    (b"reject", b"open"),
    (b"reject", b"close"),
    (b"reject", b"abort"),
    (b"reject", b"peek"),
)


def _is_value(reply: bytes) -> bool:
    return reply.startswith(b"VALUE ")


def _plainly(request: Request) -> None:
    """The whole name is the queue's."""


@dataclass(frozen=True)
class Dialect(Traits):
    """How the words of one kind of clients are meant."""

    several_reads: bool = False  # open at a time, each known by its queue; else one on a connection
    read_name: Callable[[Request], None] = _plainly  # fills in what the name says beside the queue; raises RequestError
    gets_open: bool = False  # every get waits and opens, names several queues perhaps, and a delete acknowledges
    exclusive: tuple[tuple[bytes, bytes], ...] = EXCLUSIVE
    expires_at_ms: Callable[[int, int], int] = kestrel_expiry  # (the number in a set, now_ms); 0 is never
    lacks: frozenset[bytes] = frozenset()  # verbs that others have
    deleted: bytes = DELETED
    flushed_all: bytes = FLUSHED_ALL
    unknown: Callable[[str], RequestError] = MalformedRequest  # what an unknown verb is
    hands_over: Callable[[bytes], bool] = _is_value
    repeats_key: bool = False  # the reply to a get has the key that was asked for; else the queue's name
    read_login: Callable[[bytes], Login | None] = read_login
    receives_whole: bool = False


# What they change is nothing that a cursor has: it reads past a pause, and sees the queue's line only.
_OF_QUEUES_ALONE = (b"kick", b"pause", b"dead", b"put_back", b"drop")


def _with_cursors(request: Request) -> None:
    """`a.b.c` is b.c, a durable cursor on a; `set a+b` puts into a and b."""
    if request.verb in (b"set", b"add"):
        if b"." in request.queue:
            raise ClientError("a name with a dot is a cursor's, which only reads: put into the queue")
        names = tuple(dict.fromkeys(request.queue.split(b"+")))
        if not all(names) and b"+" in request.queue:
            raise MalformedRequest("a queue name is missing beside the +")
        if len(names) > 1:
            request.targets = names
        else:
            request.queue = names[0]  # perhaps named twice
        return
    queue, dot, cursor = request.queue.partition(b".")
    if dot and queue and cursor:
        if request.verb in _OF_QUEUES_ALONE:
            raise ClientError(f"{request.verb.decode()} of a cursor: it is done to its queue, so name that")
        request.queue, request.cursor = queue, cursor


def _siberite_unknown(message: str) -> RequestError:
    """The error as Siberite begins it, with a capital letter."""
    return MalformedRequest(message[:1].upper() + message[1:])


_KESTREL_ALONE = frozenset((b"monitor", b"confirm"))

DIALECTS = {
    dialect.name: dialect
    for dialect in (
        Dialect(DARNER, lacks=_KESTREL_ALONE),
        Dialect(
            KESTREL,
            several_reads=True,
            read_name=read_child,
            exclusive=(*EXCLUSIVE, (b"peek", b"close"), (b"peek", b"abort")),
            unknown=ClientError,
        ),
        Dialect(SIBERITE, read_name=_with_cursors, lacks=_KESTREL_ALONE, deleted=END, unknown=_siberite_unknown),
        Dialect(
            KYOTO_TYCOON,
            several_reads=True,
            gets_open=True,
            expires_at_ms=kyoto_tycoon_expiry,
            lacks=_KESTREL_ALONE,
            flushed_all=OK,
        ),
    )
}
