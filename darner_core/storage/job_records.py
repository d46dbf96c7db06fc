"""What stands on disk of what is set aside from a queue's line: every key and value, as bytes. Pure struct, no I/O.

A queue that needs it has an aside, with a number as queues and cursors have. It holds the items that are not in the
line: delayed, of another priority than the line's, with a unique key, or buried.

    column family   key                                             value
    default         "j" name of the queue                           aside: number u32, created_at_ms u64, pause u8,
                                                                    pause_until_ms u64, pri u32, ttr_ms u64, ttl_ms u64
    asides          number u32, id u64                              item, as a queue's
    jobs            number u32, id u64, "j"                         job
    order           number u32, kind u8, first u64, second u64, id u64    empty, or of a key's window the key
    keys            number u32, BLAKE2b of the key, 16 bytes        id u64, until_ms u64
    states          number u32                                      state of the aside
    states          number u32, part u32                            a flush that is being carried out

    aside   pause: bit 0 no puts, bit 1 no gets; pause_until_ms: 0 until somebody ends it
            pri, ttr_ms: the terms that all items of the line share; ttl_ms: 0, kept for lines whose items all expire
            after the same time, so that these need no record of their own
    job     state u8, pri u32, place u64, at u64, ttr_ms u64, nacks u16, timeouts u16, losses u16, buries u16,
            kicks u16, key_bytes u16, key, note_bytes u8, note
            place: where it stands in the order of arrival, or from 2**63 on, falling, what was put before all others;
            at: when a delayed one is due, the number of a burying
    order   kind 0 ready:   pri, place
            kind 1 delayed: due_ms, place
            kind 2 buried:  number of the burying, 0
            kind 3 window of a key whose item is gone: until_ms, 0
    state   next_id u64, next_burying u64, bytes u64, then for each kind: how many there are u64, and the lowest of the
            order's keys that may be there: first u64, second u64, id u64; then urgent u64, how many of the ready have a
            priority below the neutral one

    flush   part 0: before u64, end_id u64, end_blob u64, and the large items below end_blob that stay, u64 each
            other parts: ids that stay, u64 each

A queue is flushed in one turn, though it may take many to remove what has gone. While there is a flush, what it takes
(`Flush.takes`) is as good as removed, wherever it is met. Of the queue's large items, chunks of those below end_blob go
that belong neither to an item nor to those that stay.

A job record whose state is delayed may lie among the ready: that it has become due is written in `order` alone.

The keys of each family but `asides` have a length of their own, which says what they are where nothing else does: in a
write-ahead log that is read without its database.

A job whose state is 3 is a large dead letter on its way to where these go. It lies among the ready.

Whoever looks for the first of a kind begins at the lowest of the state, never at the kind's first possible key: what
lies before it is deleted, and to pass over half a million deleted keys takes a third of a second.
"""

from collections.abc import Collection, Iterable
from hashlib import blake2b
from struct import Struct, pack, unpack
from typing import Final, NamedTuple

ASIDE_PREFIX = b"j"

# The ids that an aside gives begin here; an item that comes from the line keeps its own. All fit 53 bits.
FIRST_ASIDE_ID = 2**51

# Places of what was put before all others, each before the last: they come with a priority of their own.
FIRST_FRONT_PLACE, LAST_FRONT_PLACE = 2**63, 2**64 - 2

# Kinds in `order`, which are the states of jobs, too.
READY, DELAYED, BURIED, WINDOW = range(4)
KINDS = (READY, DELAYED, BURIED, WINDOW)

# Of jobs alone: a dead letter, on its way to where these go. It lies among the ready, and is not handed out.
DYING = 3

NO_PUTS, NO_GETS = 1, 2  # bits of a pause

NEUTRAL_PRI = 1024
MAX_COUNT = 2**16 - 1
MAX_NOTE_BYTES = 200

_number = Struct(">I")
_aside = Struct(">IQBQIQQ")
_job_key = Struct(">IQ1s")
_job = Struct(">BIQQQHHHHHH")
_order_key = Struct(">IBQQQ")
_taken = Struct(">QQ")
_state = Struct(">QQQ" + "QQQQ" * len(KINDS) + "Q")
_flush_key = Struct(">II")

number_key = _number.pack
order_key = _order_key.pack  # (number, kind, first, second, id)
flush_key = _flush_key.pack  # (number, part)

ORDER_KEY_BYTES = _order_key.size
JOB_KEY_BYTES = _job_key.size
KEY_KEY_BYTES = 20
STATE_KEY_BYTES = 4
FLUSH_KEY_BYTES = 8
JOB_BYTES = _job.size + 1  # without key and note

# (first, second, id): where an item stands among those of its kind.
Place = tuple[int, int, int]
LOWEST: Final[Place] = (0, 0, 0)
HIGHEST: Final[Place] = (2**64 - 1, 2**64 - 1, 2**64 - 1)


class AsideRecord(NamedTuple):
    number: int
    created_at_ms: int
    pause: int = 0
    pause_until_ms: int = 0
    pri: int = NEUTRAL_PRI
    ttr_ms: int = 0
    ttl_ms: int = 0


class Job(NamedTuple):
    """What is known of an item beside the item. The counts stop at MAX_COUNT."""

    state: int
    pri: int
    place: int
    at: int = 0
    ttr_ms: int = 0
    nacks: int = 0
    timeouts: int = 0
    losses: int = 0
    buries: int = 0
    kicks: int = 0
    key: bytes = b""
    note: bytes = b""

    @property
    def failures(self) -> int:
        return self.nacks + self.timeouts + self.losses


class Taken(NamedTuple):
    """A key is taken by the item with this id; until that is gone, if `until_ms` is 0."""

    id: int
    until_ms: int = 0


class Front(NamedTuple):
    """How many entries a kind has, and a place before which there is none."""

    entries: int = 0
    lowest: Place = LOWEST


class AsideState(NamedTuple):
    """`bytes` are those of the bodies of all items, open ones included."""

    next_id: int = FIRST_ASIDE_ID
    next_burying: int = 1
    bytes: int = 0
    fronts: tuple[Front, ...] = (Front(),) * len(KINDS)
    urgent: int = 0


class Flush(NamedTuple):
    """What was ready or delayed when the queue was flushed, and not open."""

    before: int  # twice the tail of the line
    end_id: int  # the next id of the aside
    end_blob: int  # 0: no chunks have to be looked at
    blobs: frozenset[int]  # that were being received
    spared: set[int]  # the ids of what was open, and of what has been kicked since

    def takes(self, place: Place) -> bool:
        """Whether what lies here, among the ready or the delayed, is gone."""
        _, arrival, item_id = place
        if item_id in self.spared:
            return False
        if arrival >= FIRST_FRONT_PLACE:
            return item_id < self.end_id
        if arrival > self.before:
            return False
        return arrival < self.before or FIRST_ASIDE_ID <= item_id < self.end_id

    def takes_job(self, item_id: int, job: Job) -> bool:
        """Whether the item with this job is gone."""
        return job.state != BURIED and self.takes((0, job.place, item_id))


def aside_key(queue: bytes) -> bytes:
    return ASIDE_PREFIX + queue


def pack_aside(record: AsideRecord) -> bytes:
    return _aside.pack(*record)


def unpack_aside(value: bytes) -> AsideRecord:
    """Raises ValueError or struct.error."""
    record = AsideRecord(*_aside.unpack(value))
    if not record.number or record.pause > NO_PUTS | NO_GETS:
        raise ValueError(f"an aside with number {record.number} and pause {record.pause}")
    return record


def pack_job(job: Job) -> bytes:
    key, note = job[10], job[11]
    return b"%b%b%c%b" % (_job.pack(*job[:10], len(key)), key, len(note), note)


def unpack_job(value: bytes) -> Job:
    """Raises ValueError or struct.error."""
    numbers = _job.unpack_from(value)
    key_end = _job.size + numbers[10]
    if len(value) <= key_end or len(value) != key_end + 1 + value[key_end] or numbers[0] > DYING:
        raise ValueError(f"a job record of {len(value)} bytes with state {numbers[0]}")
    return Job._make((*numbers[:10], value[_job.size : key_end], value[key_end + 1 :]))


def job_key(number: int, item_id: int) -> bytes:
    return _job_key.pack(number, item_id, b"j")


def unpack_job_key(key: bytes) -> tuple[int, int]:
    """(number, id)"""
    number, item_id, _ = _job_key.unpack(key)
    return number, item_id


def unpack_order_key(key: bytes) -> tuple[int, int, Place]:
    """(number, kind, place)"""
    number, kind, *place = _order_key.unpack(key)
    return number, kind, tuple(place)


def place_of(key: bytes) -> Place:
    """Of a key in `order`."""
    return _order_key.unpack(key)[2:]


def key_key(number: int, key: bytes) -> bytes:
    return _number.pack(number) + blake2b(key, digest_size=KEY_KEY_BYTES - _number.size).digest()


def key_bounds(number: int) -> tuple[bytes, bytes]:
    """(begin, end) of the keys of `keys` that are an aside's."""
    zeros = bytes(KEY_KEY_BYTES - _number.size)
    return _number.pack(number) + zeros, _number.pack(number + 1) + zeros


def pack_taken(taken: Taken) -> bytes:
    return _taken.pack(*taken)


def unpack_taken(value: bytes) -> Taken:
    return Taken(*_taken.unpack(value))


def pack_aside_state(state: AsideState) -> bytes:
    numbers = [number for entries, lowest in state.fronts for number in (entries, *lowest)]
    return _state.pack(*state[:3], *numbers, state.urgent)


def unpack_aside_state(value: bytes) -> AsideState:
    next_id, next_burying, stored_bytes, *rest, urgent = _state.unpack(value)
    fronts = tuple(Front(rest[at], (rest[at + 1], rest[at + 2], rest[at + 3])) for at in range(0, len(rest), 4))
    return AsideState(next_id, next_burying, stored_bytes, fronts, urgent)


def flush_bounds(number: int) -> tuple[bytes, bytes]:
    """(begin, end) of the keys of a flush."""
    return flush_key(number, 0), number_key(number + 1)


def pack_flush(flush: Flush) -> bytes:
    """Part 0."""
    return pack_numbers([*flush[:3], *sorted(flush.blobs)])


def pack_numbers(numbers: Collection[int]) -> bytes:
    return pack(f">{len(numbers)}Q", *numbers)


def unpack_flush(parts: Iterable[tuple[bytes, bytes]]) -> Flush | None:
    """The flush of these keys and values, in order; None: there are none. Raises ValueError or struct.error."""
    flush = None
    for key, value in parts:
        _, part = _flush_key.unpack(key)
        numbers = unpack(f">{len(value) // 8}Q", value)
        if part == 0:
            before, end_id, end_blob, *blobs = numbers
            flush = Flush(before, end_id, end_blob, frozenset(blobs), set())
        elif flush is None:
            raise ValueError("the beginning of a flush is missing")
        else:
            flush.spared.update(numbers)
    return flush
