"""The dialects: what the clients of Kestrel, Siberite and Kyoto Tycoon mean by words that they share with ours.

A dialect says how a name is read, how reads are counted, which verbs there are, and what a few replies are called. The
rest of the server asks these, and never which dialect it is. No sockets, no queues: pure.

Source: section "dialects" of docs/protocol.md; Kestrel 2.4's guide, Siberite 0.6.4, Kyoto Tycoon's queue plug-in.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from darner_core.errors import ClientError, MalformedRequest, RequestError
from darner_core.protocols.contract import Traits
from darner_core.protocols.memcache.replies import DELETED, END, FLUSHED_ALL, OK


class Named(Protocol):
    """A request, as far as its name goes."""

    verb: bytes
    queue: bytes  # the name as it was given, options taken off
    parent: bytes  # whose fanout child `queue` is
    cursor: bytes  # which of `queue`'s durable cursors is meant
    targets: tuple[bytes, ...]  # the queues that an item is put into, or taken from, if several are named


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
    """As `kestrel_expiry`, but by Kyoto Tycoon's rules: below one is never."""
    if number < 1:
        return 0
    if number <= KYOTO_TYCOON_RELATIVE_S:
        return now_ms + number * 1000
    return min(number * 1000, LATEST_MS)


# Options of a get that cannot be in one.
_EXCLUSIVE = ((b"abort", b"open"), (b"abort", b"close"), (b"peek", b"open"))


def _is_value(reply: bytes) -> bool:
    return reply.startswith(b"VALUE ")


def _plainly(request: Named) -> None:
    """The name is the queue's, whatever is in it."""


@dataclass(frozen=True)
class Dialect(Traits):
    """How the words of one kind of clients are meant."""

    read_name: Callable[[Named], None] = _plainly  # fills in what `queue` alone does not say; raises RequestError
    gets_open: bool = False  # every get waits and opens, names several queues perhaps, and a delete acknowledges
    exclusive: tuple[tuple[bytes, bytes], ...] = _EXCLUSIVE
    expires_at_ms: Callable[[int, int], int] = kestrel_expiry  # (the number in a set, now_ms); 0 is never
    lacks: frozenset[bytes] = frozenset()  # verbs that others have
    deleted: bytes = DELETED
    flushed_all: bytes = FLUSHED_ALL
    unknown: Callable[[str], RequestError] = MalformedRequest  # what an unknown verb is
    hands_over: Callable[[bytes], bool] = _is_value
    repeats_key: bool = False  # the reply to a get has the key that was asked for; else the queue's name
    logs_in: bool = True
    receives_whole: bool = False


def with_children(request: Named) -> None:
    """`a+b+c` is b+c, a fanout child of a."""
    parent, plus, child = request.queue.partition(b"+")
    if plus and parent and child:
        request.parent = parent


def _with_cursors(request: Named) -> None:
    """`a.b.c` is b.c, a durable cursor on a; `set a+b` puts into a and b."""
    if request.verb == b"set":
        if b"." in request.queue:
            raise ClientError("a name with a dot is a cursor's, which only reads: set names the queue")
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
        request.queue, request.cursor = queue, cursor


def _siberite_unknown(message: str) -> RequestError:
    """In Siberite's words, and then in ours."""
    return MalformedRequest(message[:1].upper() + message[1:])


_KESTREL_ALONE = frozenset((b"monitor", b"confirm"))

DIALECTS = {
    dialect.name: dialect
    for dialect in (
        Dialect("darner", lacks=_KESTREL_ALONE),
        Dialect(
            "kestrel",
            several_reads=True,
            read_name=with_children,
            exclusive=(*_EXCLUSIVE, (b"peek", b"close"), (b"peek", b"abort")),
            unknown=ClientError,
        ),
        Dialect("siberite", read_name=_with_cursors, lacks=_KESTREL_ALONE, deleted=END, unknown=_siberite_unknown),
        Dialect(
            "kyototycoon",
            several_reads=True,
            gets_open=True,
            expires_at_ms=kyoto_tycoon_expiry,
            lacks=_KESTREL_ALONE,
            flushed_all=OK,
        ),
    )
}
DARNER = DIALECTS["darner"]
