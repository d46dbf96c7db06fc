"""Items in files: as lines of JSON, or as they are, each behind a line that says its length.

Lines of JSON have the words of the HTTP API: `body` or `body_base64`, `pri`, `ttr`, `delay`, `key`, times in
milliseconds; and `queue`, `flags`, `expires_at` (seconds since 1970). `id`, `failures` and `buried` are told, and mean
nothing when a file is read: an item that was buried waits then. Raw files begin with a line that says so:

    darner items 1
    {"bytes": 5, "queue": "work"}
    hello

Raw bodies may be of any size; one in a line of JSON is whole in memory.
"""

import base64
import binascii
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, Final

from darner_core.ctl import names
from darner_core.ctl.errors import CtlError
from darner_core.ctl.moving.places import PIECE_BYTES, WHOLE_BYTES, Item, Listed, Refusal
from darner_core.ctl.resuming import Progress
from darner_core.showing import show

RAW_HEAD: Final = b"darner items 1\n"

_NUMBERS: Final = {"flags": 2**32, "pri": 2**32, "ttr": 2**48, "delay": 2**48, "expires_at": 2**48, "id": 2**63}


# -- writing


class ItemFile:
    """A target: a file, or standard output. What is settled is on the disk."""

    def __init__(self, file: IO[bytes], raw: bool = False, syncs: bool = True) -> None:
        self._file = file
        self._raw = raw
        self._syncs = syncs
        if raw:
            file.write(RAW_HEAD)

    def put(self, queue: bytes, item: Item) -> None:
        head = _described(queue, item)
        try:
            if self._raw:
                self._file.write(json.dumps({"bytes": item.size, **head}, ensure_ascii=False).encode() + b"\n")
                for piece in item.pieces():
                    self._file.write(piece)
                self._file.write(b"\n")
            else:
                body = b"".join(item.pieces())
                self._file.write(json.dumps({**head, **_body_in_json(body)}, ensure_ascii=False).encode() + b"\n")
        except OSError as error:
            raise _not_written(error) from error

    def settle(self) -> list[Refusal]:
        try:
            self._file.flush()
            if self._syncs:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise _not_written(error) from error
        return []

    def close(self) -> None:
        self._file.close()


def _not_written(error: OSError) -> CtlError:
    return CtlError(f"cannot write the items: {error.strerror}; those of this batch stay in their queue")


def _described(queue: bytes, item: Item) -> dict[str, Any]:
    """What is known of an item, without its body."""
    options = {
        "id": item.id, "flags": item.flags, "ttr": item.ttr_ms, "delay": item.delay_ms, "expires_at": item.expires_at,
        "key": names.write(item.key) if item.key else "",
        "buried": item.is_buried, "failures": item.failures,
    }  # fmt: skip
    pri = {} if item.pri is None else {"pri": item.pri}
    return {"queue": names.write(queue), **{name: value for name, value in options.items() if value}, **pri}


def _body_in_json(body: bytes) -> dict[str, str]:
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode()}


# -- reading


class ItemsOf:
    """A source: a file that `ItemFile` has written, or a person. All items go into `into`, if that is given."""

    def __init__(self, path: str, into: bytes = b"", progress: Progress | None = None) -> None:
        """Raises CtlError."""
        self.path = path
        self._into = into
        self._found: list[str] = []
        self._waiting: list[tuple[bytes, Item]] = []
        self._queue = b""
        self._done = self._taken = 0
        self._progress = progress
        try:
            self._file = open(path, "rb")  # noqa: SIM115 - closed by `close`
            self._raw = self._file.read(len(RAW_HEAD)) == RAW_HEAD
        except OSError as error:
            raise CtlError(f"cannot read {show(path)}: {error.strerror}") from error
        self._line = 1 if self._raw else 0
        if not self._raw:
            self._file.seek(0)
        self._coming: Iterator[tuple[bytes, Item]] = self._read()
        self._ahead: tuple[bytes, Item] | None = None
        skipped = progress.begin([path]) if progress is not None else 0
        for _ in range(skipped):
            found = next(self._coming, None)
            if found is None:
                break
            for _ in found[1].pieces():
                pass
        self._done = skipped

    def next_queue(self) -> bytes | None:
        """The queue of the next item; None: there are no more."""
        if self._ahead is None:
            self._ahead = next(self._coming, None)
        return None if self._ahead is None else self._ahead[0]

    def queues(self) -> list[Listed]:
        queue = self.next_queue()
        return [] if queue is None else [Listed(queue, 0)]

    def batch(self, queue: bytes, most: int) -> Iterator[Item]:
        """The items of this queue that follow one another."""
        self._taken = 0
        while self._taken < most and self.next_queue() == queue and self._ahead is not None:
            item, self._ahead = self._ahead[1], None
            self._taken += 1
            yield item

    def confirm(self, queue: bytes) -> int:
        self._done += self._taken
        if self._progress is not None:
            self._progress.note(self._done)
        return 0

    def confirm_some(self, queue: bytes, stored: Sequence[bool]) -> int:
        prefix = stored.index(False) if False in stored else len(stored)
        self._taken = prefix
        return self.confirm(queue) + sum(stored[prefix:])

    def left(self, queue: bytes) -> str:
        return ""

    def told(self) -> list[str]:
        return self._found

    def close(self) -> None:
        self._file.close()

    def _read(self) -> Iterator[tuple[bytes, Item]]:
        while line := self._file.readline():
            self._line += 1
            number, offset = self._line, self._file.tell() - len(line)
            if not line.strip():
                continue
            try:
                found = json.loads(line)
                if not isinstance(found, dict):
                    raise ValueError('a line must be an object, as in {"queue": "work", "body": "text"}')
                yield self._item(found)
            except (ValueError, RecursionError) as error:
                self._found.append(f"{show(self.path)}: line {number}, byte {offset}: {error}")
                if self._raw:
                    return  # nobody knows where the next one begins

    def _item(self, found: dict[str, Any]) -> tuple[bytes, Item]:
        queue = self._into or names.read(_text(found, "queue"))
        numbers = {name: _number(found, name, end) for name, end in _NUMBERS.items()}
        body, size = self._raw_body(found) if self._raw else _body(found)
        key = names.read(_text(found, "key")) if found.get("key") else b""
        return queue, Item(
            size, body, numbers["flags"] or 0, 0, numbers["pri"], numbers["ttr"], numbers["delay"] or 0,
            numbers["expires_at"] or 0, key,
        )  # fmt: skip

    def _raw_body(self, found: dict[str, Any]) -> tuple[bytes | Iterator[bytes], int]:
        size = _number(found, "bytes", 2**48)
        if size is None:
            raise ValueError('"bytes" says how long the item is')
        here = self._file.tell()
        if os.fstat(self._file.fileno()).st_size < here + size:
            raise ValueError(f"an item of {size} bytes, and the file ends before")
        self._line += 1
        if size > WHOLE_BYTES:
            return self._pieces(size), size
        body = self._file.read(size)
        self._line += body.count(b"\n")
        self._end()
        return body, size

    def _pieces(self, size: int) -> Iterator[bytes]:
        for start in range(0, size, PIECE_BYTES):
            piece = self._file.read(min(PIECE_BYTES, size - start))
            self._line += piece.count(b"\n")
            yield piece
        try:
            self._end()
        except ValueError as error:
            raise CtlError(f"{show(self.path)}: line {self._line}: {error}") from None

    def _end(self) -> None:
        if self._file.read(1) not in (b"\n", b""):
            raise ValueError("no line ends behind the item: its length is wrong")


def _text(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str):
        raise ValueError(f'"{name}" must be there, and a string')
    return value


def _number(found: Mapping[str, Any], name: str, end: int) -> int | None:
    value = found.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < end:
        raise ValueError(f'"{name}" must be a whole number from 0 to {end - 1}')
    return value


def _body(found: Mapping[str, Any]) -> tuple[bytes, int]:
    if ("body" in found) == ("body_base64" in found):
        raise ValueError('one of "body" and "body_base64" must be there')
    if "body" in found:
        body = _text(found, "body").encode()
    else:
        try:
            body = base64.b64decode(_text(found, "body_base64"), validate=True)
        except binascii.Error:
            raise ValueError('"body_base64" must be base64') from None
    return body, len(body)
