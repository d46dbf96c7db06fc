"""The journals of a Kestrel server that has ended, as a source of items. Only reads.

A queue `Q` has the file `Q` and perhaps older ones, `Q.<milliseconds>`; `Q.<milliseconds>.pack` stands for all that are
not newer, and `Q~~…` was never finished. They are replayed in order, as Kestrel does at its start: what was open then
is waiting again, at the head, in its old order. All numbers are little endian.

    0 ADD                   i32 n, i32 expiry in seconds or 0, body       written by the first versions
    1 REMOVE                the head is gone
    2 ADDX                  i32 n, i64 put at ms, i64 expires at ms or 0, body
    3 REMOVE_TENTATIVE      the head is open
    4 SAVE_XID              i32 the number of the last read
    5 UNREMOVE              i32 number of a read, which is waiting again
    6 CONFIRM_REMOVE        i32 number of a read, which is gone
    7 ADD_XID               i32 number, then as ADDX: an item that is open, in a journal that was written anew
    8 CONTINUE              i32 number of a read that is gone, then as ADDX: what is put in its place
    9 REMOVE_TENTATIVE_XID  i32 number: the head is open

A record that is cut off, at the end of a file, is what a crash leaves: Kestrel drops it, too. Where a record makes no
sense nothing behind it can be read, because records do not say where they begin: a Damage.
"""

import os
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from typing import IO, Final, NamedTuple

from darner_core.ctl import names
from darner_core.ctl.errors import CtlError
from darner_core.ctl.moving.places import PIECE_BYTES, WHOLE_BYTES, Item, Listed
from darner_core.ctl.resuming import Progress
from darner_core.showing import show

_ADD, _REMOVE, _ADDX, _TENTATIVE, _SAVE_XID, _UNREMOVE, _CONFIRM, _ADD_XID, _CONTINUE, _TENTATIVE_XID = range(10)
_WITH_XID: Final = (_SAVE_XID, _UNREMOVE, _CONFIRM, _TENTATIVE_XID, _ADD_XID, _CONTINUE)
_WITH_ITEM: Final = (_ADD, _ADDX, _ADD_XID, _CONTINUE)
_PACK: Final = ".pack"
_UNFINISHED: Final = "~~"


class Finding(NamedTuple):
    """`is_cut`: the file ends within a record, and nothing else is wrong."""

    file: str
    offset: int
    why: str
    is_cut: bool

    def __str__(self) -> str:
        return f"{show(self.file)}: byte {self.offset}: {self.why}"


class Stored(NamedTuple):
    """Where the body of an item stands. `expires_ms`: since 1970; 0: never."""

    file: int
    offset: int
    size: int
    expires_ms: int
    xid: int = 0


class Record(NamedTuple):
    kind: int
    xid: int
    item: Stored | None


def journal_files(folder: str, queue: str) -> list[str]:
    """The paths of a queue's journals, in order. Raises CtlError."""
    try:
        found = sorted(os.listdir(folder))
    except OSError as error:
        raise CtlError(f"cannot read {show(folder)}: {error.strerror}") from error
    older = {}
    for name in found:
        written = name.removeprefix(f"{queue}.").removesuffix(_PACK)
        if name.startswith(f"{queue}.") and written.isdigit():
            older[name] = int(written)
    packed = max((time for name, time in older.items() if name.endswith(_PACK)), default=-1)
    kept = [name for name, time in older.items() if time > packed or (time == packed and name.endswith(_PACK))]
    ordered = sorted(kept, key=lambda name: older[name]) + ([queue] if queue in found else [])
    return [os.path.join(folder, name) for name in ordered]


def queues_in(folder: str) -> tuple[list[str], list[str]]:
    """The names of the queues that have journals there, and the files that are none, because they were never finished.
    Raises CtlError."""
    try:
        entries = [entry.name for entry in os.scandir(folder) if entry.is_file()]
    except OSError as error:
        raise CtlError(f"cannot read {show(folder)}: {error.strerror}") from error
    queues = {queue_of(name) for name in entries if _UNFINISHED not in name}
    return sorted(queues), sorted(name for name in entries if _UNFINISHED in name)


def queue_of(name: str) -> str:
    """The queue that a journal's file is named after."""
    stem, _, last = name.removesuffix(_PACK).rpartition(".")
    return stem if stem and last.isdigit() else name


def read_records(file: IO[bytes], number: int, path: str) -> Iterator[Record | Finding]:
    """The records of one file, until its end or what makes no sense, which is the last thing told."""
    total = os.fstat(file.fileno()).st_size
    offset = 0
    while offset < total:
        record, size, why = _read(file, number, offset, total)
        if record is None:
            is_cut = size > total - offset
            if is_cut:
                why = f"the last record is cut off: {total - offset} bytes of it are there"
            yield Finding(path, offset, why, is_cut)
            return
        yield record
        offset += size


def _read(file: IO[bytes], number: int, offset: int, total: int) -> tuple[Record | None, int, str]:
    """The record at `offset`, and its bytes; None: it is cut off, if it has more bytes than there are, or makes no
    sense."""
    file.seek(offset)
    head = file.read(min(29, total - offset))
    kind = head[0]
    if kind > _TENTATIVE_XID:
        return None, 0, f"{kind} is no kind of record: nothing behind it in this file can be read"
    size, xid = 1, 0
    if kind in _WITH_XID:
        size += 4
        if len(head) < size:
            return None, size, ""
        (xid,) = struct.unpack_from("<i", head, 1)
    if kind not in _WITH_ITEM:
        return Record(kind, xid, None), size, ""
    stamps = 4 if kind == _ADD else 16
    if len(head) < size + 4:
        return None, size + 4 + stamps, ""
    (length,) = struct.unpack_from("<i", head, size)
    if length < stamps:
        return None, 0, f"an item of {length} bytes with its times: nothing behind it in this file can be read"
    begin, size = size + 4, size + 4 + length
    if size > total - offset:
        return None, size, ""
    if kind == _ADD:
        (seconds,) = struct.unpack_from("<i", head, begin)
        expires_ms = seconds * 1000
    else:
        expires_ms = struct.unpack_from("<qq", head, begin)[1]
    return Record(kind, xid, Stored(number, offset + begin + stamps, length - stamps, expires_ms, xid)), size, ""


class Replayed:
    """What a queue holds, in order, after its journals have been replayed."""

    def __init__(self) -> None:
        self.waiting: deque[Stored] = deque()
        self._open: dict[int, Stored] = {}
        self._last_xid = 0

    def take(self, record: Record) -> None:
        kind, xid, item = record
        if kind == _CONTINUE:
            self._open.pop(xid, None)
        if item is not None:
            self.waiting.append(item)
        elif kind == _SAVE_XID:
            self._last_xid = xid
        elif kind == _UNREMOVE:
            if xid in self._open:
                self.waiting.appendleft(self._open.pop(xid))
        elif kind == _CONFIRM:
            self._open.pop(xid, None)
        elif self.waiting:
            head = self.waiting.popleft()
            if kind != _REMOVE:
                self._last_xid = xid or (head.xid if head.xid else self._last_xid + 1)
                self._open[self._last_xid] = head

    def end(self) -> int:
        """What is open waits again. Returns how many those are."""
        count = len(self._open)
        for xid in sorted(self._open, reverse=True):
            self.waiting.appendleft(self._open.pop(xid))
        return count


class KestrelJournal:
    """A source: one queue, from its journals."""

    def __init__(self, folder: str, queue: str, takes_damaged: bool = False, progress: Progress | None = None) -> None:
        """`takes_damaged`: a queue whose journal cannot be read to its end gives what stands before. Raises
        CtlError."""
        self.name = os.fsencode(queue)
        self.findings: list[Finding] = []
        self.were_open = 0
        self._files: list[IO[bytes]] = []
        self._paths = journal_files(folder, queue)
        self._progress = progress
        self._next = self._taken = 0
        if not self._paths:
            raise CtlError(f"{show(folder)} has no journal of a queue {show(queue)}")
        self.items: Sequence[Stored] = self._replay()
        damage = [one for one in self.findings if not one.is_cut]
        self.is_refused = bool(damage) and not takes_damaged
        if self.is_refused:
            self.items = ()
        if progress is not None:
            self._next = min(progress.begin(self._paths), len(self.items))

    def _replay(self) -> Sequence[Stored]:
        replayed = Replayed()
        for number, path in enumerate(self._paths):
            try:
                file = open(path, "rb")  # noqa: SIM115 - bodies are read from it later
            except OSError as error:
                raise CtlError(f"cannot read {show(path)}: {error.strerror}") from error
            self._files.append(file)
            for record in read_records(file, number, path):
                if isinstance(record, Record):
                    replayed.take(record)
                    continue
                self.findings.append(record)
                if not record.is_cut:
                    # What the later records remove may be what cannot be read: they are not applied to other items.
                    for later in self._paths[number + 1 :]:
                        why = "not read, because it goes on with a journal that is damaged"
                        self.findings.append(Finding(later, 0, why, False))
                    self.were_open = replayed.end()
                    return tuple(replayed.waiting)
        self.were_open = replayed.end()
        return tuple(replayed.waiting)

    # -- as a source

    def queues(self) -> list[Listed]:
        return [Listed(self.name, len(self.items) - self._next)]

    def batch(self, queue: bytes, most: int) -> Iterator[Item]:
        chosen = self.items[self._next : self._next + most]
        self._taken = 0
        for one in chosen:
            self._taken += 1
            yield Item(one.size, self._body(one), expires_at=_seconds(one.expires_ms))

    def _body(self, one: Stored) -> bytes | Iterator[bytes]:
        if one.size > WHOLE_BYTES:
            return self._pieces(one)
        file = self._files[one.file]
        file.seek(one.offset)
        return file.read(one.size)

    def _pieces(self, one: Stored) -> Iterator[bytes]:
        for start in range(0, one.size, PIECE_BYTES):
            file = self._files[one.file]
            file.seek(one.offset + start)
            yield file.read(min(PIECE_BYTES, one.size - start))

    def confirm(self, queue: bytes) -> int:
        self._next += self._taken
        if self._progress is not None:
            self._progress.note(self._next)
        return 0

    def confirm_some(self, queue: bytes, stored: Sequence[bool]) -> int:
        prefix = stored.index(False) if False in stored else len(stored)
        self._taken = prefix
        return self.confirm(queue) + sum(stored[prefix:])

    def left(self, queue: bytes) -> str:
        count = len(self.items) - self._next
        return f"{count:,} in the journal of {names.write(self.name)}" if count else ""

    def told(self) -> list[str]:
        return [str(finding) for finding in self.findings]

    def close(self) -> None:
        for file in self._files:
            file.close()


def _seconds(expires_ms: int) -> int:
    """Up to the next second: an item is not dropped before its time. What has expired does so again: 0 would be never,
    and less than 1,000,000 seconds from now."""
    return max(1_000_000, -(-expires_ms // 1000)) if expires_ms else 0
