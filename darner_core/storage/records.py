"""What stands on disk: every key and value, as bytes. Pure struct, no I/O.

The file FORMAT holds "darner" and FORMAT_VERSION, on one line. All else is in the database.

All numbers are big-endian and unsigned, so that the byte order of keys is the order of ids.

    column family   key                                   value
    default         "q" name                              queue: number u32, family u16, created_at_ms u64 [, kind u8]
    default         "c" name of the queue "/" name        cursor: as a queue's record, with the family of its queue
    default         "u" number u32, blob u64              empty: an upload that was never finished
    default         "e" expires_at_ms u64, number u32, id u64    empty: an expiry
    q000 .. qNNN    number u32, id u64 (from 1)           item
    q000 .. qNNN    number u32, 0 u64                     state of queue or cursor `number`
    q000 .. qNNN    number u32, id u64, of a cursor       an item that is open or was given back there: a copy if it
                                                          is gone from the queue, else kind 2 alone, one byte
    chunks          number u32, blob u64, index u32       one chunk of a large item

    item    +------+-------+---------------+-------------+--------------------------------+
            | kind | flags | expires_at_ms | added_at_ms | kind 0: the body               |
            | u8   | u32   | u64, 0 never  | u64         | kind 1: blob u64, body_bytes u64 |
            +------+-------+---------------+-------------+--------------------------------+

    state   first u64   every id below it is gone
            next  u64   every id from it on was never handed out, up to `tail`
            tail  u64   every id from it on was put after this record was written
            bytes u64   body bytes of the items in [first, tail) that are still stored
            reclaimed u64   every id below it has been range-deleted
            missing u64     how many ids in [next, tail) have expired and are gone; left out if it is 0

A queue's kind is 0, or 1 for a fanout child; and 2 or 4 more if clients use it as a list, which has its head at the
left, or at the right. 0 is left out. An item that was put with an expiry has an expiry record.
It is only a hint that the item is to be looked at at that time, which is later than the item's expiry if that was over
when the item was put. It may outlive the item, and goes when its time has come, if not before.

A queue is whole without reading it: recovery takes the state record, looks at the few ids in [first, next)
(those that are still there were open or given back at the end) and at the few from `tail` on.

Of a cursor's state only `next` counts: from this id on, the cursor has handed out nothing but what it has records of.
All that was open or given back below it has a record, so nothing has to be looked for. `first` equals `next`, and the
others are 0. The chunks of a large item, also of a copy, are stored under the number of the queue.

To change a format: add the new form under a new FORMAT_VERSION, keep a reader for the old one or refuse it with
a message that says what to do, add golden bytes to tests/storage/test_records.py and a row to docs/on-disk-format.md.
"""

import re
import struct
from collections.abc import Iterable
from struct import Struct
from typing import NamedTuple

FORMAT_VERSION = 3

# Files beside RocksDB's own. The format is read before the database is opened, which would change a directory that is
# not ours.
FORMAT_FILE = "FORMAT"
FORMAT = b"darner %d\n" % FORMAT_VERSION
# Version 2 lacks what is set aside (`job_records`), version 1 also "e", kind and missing; they are otherwise the same.
# They can be read, and opening a directory makes it one of the newest.
READABLE_FORMATS = frozenset((b"darner 1\n", b"darner 2\n", FORMAT))

# All that starts have found damaged, one line each. The file stays until the directory is repaired.
DAMAGE_FILE = "DAMAGED"
REPAIR_ADVICE = "stop the server, see --check for how much is damaged, and --repair saves what can be read"

# While the server runs, this file holds the machine's boot id. If a start finds it with another boot id, the server
# ended with the machine.
RUNNING_FILE = "RUNNING"
MARKED_LOG = b"log "  # in the file's second line, before the number of a log that is not empty

# Files that only a directory with items can have. The first MANIFEST, without CURRENT, is not among them: a start that
# was killed while it made the directory leaves one.
_TRACE = re.compile(r"\d+\.(sst|log)|CURRENT|MANIFEST-(?!000001$)\d+|OPTIONS-\d+|DAMAGED|RUNNING")

QUEUE_PREFIX = b"q"
CURSOR_PREFIX = b"c"
UPLOAD_PREFIX = b"u"
EXPIRY_PREFIX = b"e"

STATE_ID = 0
FIRST_ID = 1
MAX_ID = 2**64 - 1
MAX_NUMBER = 2**32 - 2

PLAIN, CHILD = 0, 1  # kinds of queues
HEAD_LEFT, HEAD_RIGHT = 2, 4  # added to the kind: at which end of a list the head is, if anybody has said it

WHOLE = 0  # the body follows the header
CHUNKED = 1  # the body lies in chunks; the header is followed by their place
HELD = b"\x02"  # a cursor's record of an item that its queue still has

item_key = Struct(">IQ").pack  # (number, id)
chunk_key = Struct(">IQI").pack  # (number, blob, index)
item_header = Struct(">BIQQ").pack  # (kind, flags, expires_at_ms, added_at_ms)
ITEM_HEADER_BYTES = 21
ITEM_KEY_BYTES = 12
CHUNK_KEY_BYTES = 16
EXPIRY_KEY_BYTES = 21

_unpack_item_key = Struct(">IQ").unpack
_unpack_item_header = Struct(">BIQQ").unpack_from
_blob_place = Struct(">QQ")
_upload = Struct(">IQ")
_queue = Struct(">IHQ")
_state = Struct(">QQQQQ")
_expiry_key = Struct(">QIQ")


class Blob:
    """The place of a large item's body, which stands in for its bytes. len() is the size of the body."""

    __slots__ = ("blob", "body_bytes")

    def __init__(self, blob: int, body_bytes: int) -> None:
        self.blob = blob
        self.body_bytes = body_bytes

    def __len__(self) -> int:
        return self.body_bytes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Blob) and (self.blob, self.body_bytes) == (other.blob, other.body_bytes)

    __hash__ = None  # type: ignore[assignment]


# An item as the queue holds it: (body, flags, expires_at_ms, added_at_ms). A bare tuple because two are made for
# every message: 0.05 us each, where a NamedTuple costs 0.6 us.
Item = tuple[bytes | Blob, int, int, int]


class QueueRecord(NamedTuple):
    number: int
    family: int
    created_at_ms: int
    kind: int = PLAIN


class State(NamedTuple):
    first: int = FIRST_ID
    next: int = FIRST_ID
    tail: int = FIRST_ID
    bytes: int = 0
    reclaimed: int = FIRST_ID
    missing: int = 0


class Expiry(NamedTuple):
    """A hint that an item may have expired by this time."""

    expires_at_ms: int
    number: int  # its queue's
    id: int


def pack_item(item: Item) -> bytes:
    body, flags, expires_at_ms, added_at_ms = item
    if isinstance(body, Blob):
        return item_header(CHUNKED, flags, expires_at_ms, added_at_ms) + _blob_place.pack(body.blob, body.body_bytes)
    return item_header(WHOLE, flags, expires_at_ms, added_at_ms) + body


def unpack_item(record: bytes) -> Item:
    kind, flags, expires_at_ms, added_at_ms = _unpack_item_header(record)
    if kind == WHOLE:
        return record[ITEM_HEADER_BYTES:], flags, expires_at_ms, added_at_ms
    if kind == CHUNKED:
        return Blob(*_blob_place.unpack_from(record, ITEM_HEADER_BYTES)), flags, expires_at_ms, added_at_ms
    raise ValueError(f"an item record of unknown kind {kind}")


def unpack_item_key(key: bytes) -> tuple[int, int]:
    """(number, id)"""
    number, item_id = _unpack_item_key(key)
    return number, item_id


def unpack_chunk_key(key: bytes) -> tuple[int, int, int]:
    """(number, blob, index)"""
    number, blob, index = Struct(">IQI").unpack(key)
    return number, blob, index


def traces(names: Iterable[str]) -> list[str]:
    """Those of these names of files that say that their directory may hold items."""
    return sorted(name for name in names if _TRACE.fullmatch(name))


def is_format(found: bytes) -> bool:
    """Whether this is what a file FORMAT of some version holds."""
    return re.fullmatch(rb"darner \d+\n", found) is not None


def queue_key(name: bytes) -> bytes:
    return QUEUE_PREFIX + name


def cursor_key(queue: bytes, name: bytes) -> bytes:
    return CURSOR_PREFIX + queue + b"/" + name  # which is in no name


def unpack_cursor_key(key: bytes) -> tuple[bytes, bytes]:
    """(name of the queue, name)"""
    queue, _, name = key[len(CURSOR_PREFIX) :].partition(b"/")
    return queue, name


def unpack_cursor_item(record: bytes) -> Item | None:
    """The item that a cursor has a copy of; None: its queue still has it."""
    return None if record == HELD else unpack_item(record)


def pack_queue(record: QueueRecord) -> bytes:
    return _queue.pack(*record[:3]) + (bytes((record.kind,)) if record.kind else b"")


def unpack_queue(value: bytes) -> QueueRecord:
    return QueueRecord(*_queue.unpack(value[: _queue.size]), *value[_queue.size :])


def upload_key(number: int, blob: int) -> bytes:
    return UPLOAD_PREFIX + _upload.pack(number, blob)


def unpack_upload_key(key: bytes) -> tuple[int, int]:
    """(number, blob)"""
    number, blob = _upload.unpack(key[len(UPLOAD_PREFIX) :])
    return number, blob


def expiry_key(expires_at_ms: int, number: int = 0, item_id: int = 0) -> bytes:
    return EXPIRY_PREFIX + _expiry_key.pack(expires_at_ms, number, item_id)


def unpack_expiry_key(key: bytes) -> Expiry:
    return Expiry(*_expiry_key.unpack(key[len(EXPIRY_PREFIX) :]))


def pack_state(first: int, next_id: int, tail: int, stored_bytes: int, reclaimed: int, missing: int = 0) -> bytes:
    state = _state.pack(first, next_id, tail, stored_bytes, reclaimed)
    return state + missing.to_bytes(8) if missing else state


def unpack_state(value: bytes) -> State:
    state, missing = value[: _state.size], value[_state.size :]
    if len(missing) not in (0, 8):
        raise struct.error(f"a state record of {len(value)} bytes")
    return State(*_state.unpack(state))._replace(missing=int.from_bytes(missing))
