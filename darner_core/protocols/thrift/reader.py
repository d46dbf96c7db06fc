"""Thrift's framed transport and binary protocol, as far as they have to be known to trust a message: bytes in, whole
and sound messages out. No sockets, no gevent, and not the thrift library, which decodes what comes out here.

A frame has to be in memory whole, because what it means is known only when it has been decoded; so its size is bounded,
and so is the sum of all frames that have come in part (`shared_memory`). A message is walked through before the
library sees it: every length in it is within the frame, and every container has no more elements than a call can use.
The library itself would believe the lengths, allocate what they say and hand out what it finds there.

Source: Apache Thrift's doc/specs/thrift-binary-protocol.md and thrift-rpc.md.
"""

from collections.abc import Callable, Iterator, Mapping
from struct import Struct
from typing import Any, NamedTuple

from darner_core.errors import ClientError, MalformedRequest, RequestError
from darner_core.protocols.contract import Request, WholeReader
from darner_core.protocols.grammar import excerpt

# A frame that is received or sent. Apache's libraries refuse larger ones, too (16,384,000 bytes).
MAX_FRAME_BYTES = 16_384_000
MAX_ITEM_BYTES = MAX_FRAME_BYTES - 1024  # an item that a frame can hold, with what stands around it
MAX_ELEMENTS = 16_384  # in all containers of a message together; to put or confirm 16,384 items takes 40 ms
MAX_DEPTH = 16  # of structs and containers in each other; our calls need two
MAX_METHOD_BYTES = 256

CALL, REPLY, EXCEPTION = 1, 2, 3  # kinds of messages
STRUCT, MAP, SET, LIST, STRING, BINARY = 12, 13, 14, 15, 11, 18
_OF_STRINGS = bytes((STRING,))
_FIXED_BYTES = {2: 1, 3: 1, 4: 8, 6: 2, 8: 4, 10: 8}  # bool, byte, double, i16, i32, i64
_VERSION_1 = 0x8001

NO_FIELDS: Mapping[int, tuple[Any, ...]] = {}

_I32 = Struct(">i")
_FIELD = Struct(">bh")


class Message(NamedTuple):
    """What stands before a call's arguments."""

    method: bytes
    kind: int
    sequence: int
    end: int  # where the arguments begin


def read_message(frame: bytes) -> Message:
    """Raises MalformedRequest. Both forms are taken: with the version first, and the older with the name first."""
    first, at = _i32(frame, 0)
    if first < 0:
        if first >> 16 & 0xFFFF != _VERSION_1:
            raise MalformedRequest("the frame holds no message of thrift's binary protocol")
        kind = first & 0xFF
        method, at = _method(frame, at)
    else:
        method, at = _method(frame, 0)
        kind = frame[at] if at < len(frame) else 0
        at += 1
    sequence, at = _i32(frame, at)
    return Message(method, kind, sequence, at)


def check_arguments(frame: bytes, at: int, fields: Mapping[int, tuple[Any, ...]]) -> None:
    """Whether a struct stands at `at` in `frame`, and nothing behind it. `fields`: types by number, as the IDL has
    them; one of another type is an error, one that is not there is passed over. Raises MalformedRequest."""
    end = _Walk(frame).struct(at, MAX_DEPTH, fields)
    if end != len(frame):
        raise MalformedRequest(f"{len(frame) - end} bytes stand behind the message in its frame")


def _i32(frame: bytes, at: int) -> tuple[int, int]:
    if at + 4 > len(frame):
        raise MalformedRequest("the message ends before it should")
    return _I32.unpack_from(frame, at)[0], at + 4


def _method(frame: bytes, at: int) -> tuple[bytes, int]:
    size, at = _i32(frame, at)
    if not 0 <= size <= MAX_METHOD_BYTES or at + size > len(frame):
        raise MalformedRequest("the frame holds no message of thrift's binary protocol")
    return frame[at : at + size], at + size


class _Walk:
    """Through one message. Each method takes where a value begins and how deep it may nest, and returns where it ends;
    it raises MalformedRequest if the value is not sound."""

    def __init__(self, frame: bytes) -> None:
        self._frame = frame
        self._length = len(frame)
        self._elements = MAX_ELEMENTS

    def struct(self, at: int, depth: int, fields: Mapping[int, tuple[Any, ...]] = NO_FIELDS) -> int:
        self._require(depth > 0, "structs and containers in each other")
        frame = self._frame
        while True:
            self._require(at < self._length)
            kind = frame[at]
            if kind == 0:
                return at + 1
            self._require(at + 3 <= self._length)
            number = _FIELD.unpack_from(frame, at)[1]
            at += 3
            field = fields.get(number)
            if field is not None:
                self._expect(field, kind, at)
            else:
                self._count(1)
            at = self.value(kind, at, depth - 1)

    def _expect(self, field: tuple[Any, ...], kind: int, at: int) -> None:
        expected, name = field[0], field[1]
        right = kind == _on_wire(expected)
        if right and expected in (LIST, SET):
            self._require(at < self._length)
            right = self._frame[at] == _on_wire(field[2])
        if not right:
            raise MalformedRequest(f"{name} is of another type than kestrel.thrift says")

    def value(self, kind: int, at: int, depth: int) -> int:
        fixed_bytes = _FIXED_BYTES.get(kind)
        if fixed_bytes is not None:
            at += fixed_bytes
        elif kind == STRING:
            size, at = _i32(self._frame, at)
            self._require(size >= 0)
            at += size
        elif kind == STRUCT:
            at = self.struct(at, depth)
        elif kind in (LIST, SET):
            at = self._elements_of(at, 1, depth)
        elif kind == MAP:
            at = self._elements_of(at, 2, depth)
        else:
            raise MalformedRequest(f"there is no type {kind}")
        self._require(at <= self._length)
        return at

    def _elements_of(self, at: int, kinds: int, depth: int) -> int:
        self._require(depth > 0, "structs and containers in each other")
        self._require(at + kinds <= self._length)
        of = self._frame[at : at + kinds]
        size, at = _i32(self._frame, at + kinds)
        self._require(size >= 0)
        self._count(size)
        if of == _OF_STRINGS:
            return self._strings(at, size)
        for _ in range(size):
            for kind in of:
                at = self.value(kind, at, depth - 1)
        return at

    def _strings(self, at: int, size: int) -> int:
        # What `value` does, in a quarter of the time: a put may hold thousands of items.
        frame, length, unpack = self._frame, self._length, _I32.unpack_from
        for _ in range(size):
            if at + 4 > length or (string_bytes := unpack(frame, at)[0]) < 0:
                self._require(False)
            at += 4 + string_bytes
        self._require(at <= length)
        return at

    def _count(self, elements: int) -> None:
        self._elements -= elements
        if self._elements < 0:
            raise MalformedRequest(f"too many elements in one call: at most {MAX_ELEMENTS}")

    def _require(self, sound: bool, too_many: str = "") -> None:
        if not sound:
            raise MalformedRequest(
                f"too many {too_many}: at most {MAX_DEPTH}" if too_many else "the message ends before it should"
            )


def _on_wire(kind: Any) -> int:
    kind = kind[0] if isinstance(kind, tuple) else kind
    return STRING if kind == BINARY else int(kind)


class FrameReader(WholeReader):
    """Turns the bytes of one connection into requests, one a frame. See `contract.Reader`."""

    __slots__ = ("_decode", "_held", "_whole", "error")

    def __init__(self, decode: Callable[[bytes], Request]) -> None:
        """`decode` makes a request of a frame without its length. It raises RequestError if there is none in it."""
        self._decode = decode
        self._held = bytearray()  # the incomplete frame, its length first
        self._whole = 0  # how many bytes it must have before it is looked at again
        self.error: RequestError | None = None

    @property
    def in_pieces(self) -> bool:
        return bool(self._held)

    @property
    def body_bytes(self) -> int:
        return len(self._held)

    def drop(self) -> None:
        self._held = bytearray()

    def requests(self, data: bytes) -> Iterator[tuple[Request, bytes | None]]:
        assert self.error is None, "nothing can be read behind an error"
        if self._held:
            self._held += data
            if len(self._held) < self._whole:
                return
            data = bytes(self._held)
            self.drop()
        at = 0
        while len(data) - at >= 4:
            size = _I32.unpack_from(data, at)[0]
            if not 0 < size <= MAX_FRAME_BYTES:
                self.error = _bad_size(data[at : at + 4])
                return
            if at + 4 + size > len(data):
                break
            frame = data[at + 4 : at + 4 + size]
            at += 4 + size
            if at == len(data):
                data, at = b"", 0  # not kept while what was asked for is done
            try:
                request = self._decode(frame)
            except RequestError as error:
                self.error = error.with_traceback(None)  # which would keep the frame
                return
            del frame
            yield request, None
            del request
        if at < len(data) and data[at]:  # more than a frame can have, whatever follows
            self.error = _bad_size(data[at:])
        elif at < len(data):
            self._held = bytearray(data[at:])
            self._whole = 4 + (_I32.unpack_from(self._held)[0] if len(self._held) >= 4 else 0)


def _bad_size(beginning: bytes) -> RequestError:
    """What is wrong with a frame of this `beginning`. The message does not change if only its first byte has come."""
    allowed = f"1 to {MAX_FRAME_BYTES} bytes, in framed thrift"
    if beginning[0] == _VERSION_1 >> 8:
        return ClientError("a message without a frame: this is a thrift service with framed transport")
    if beginning[0]:
        return ClientError(f'what begins with "{excerpt(beginning[:1])}" is no frame of {allowed}')
    return ClientError(f"a frame of {_I32.unpack(beginning)[0]} bytes: it can have {allowed}")
