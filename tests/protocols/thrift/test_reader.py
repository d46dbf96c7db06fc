"""Frames and messages of thrift as bytes: what is sound is found however it is split, and nothing else gets through."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darner_core.errors import MalformedRequest, RequestError
from darner_core.protocols.contract import Request
from darner_core.protocols.grammar import excerpt
from darner_core.protocols.thrift.reader import (
    LIST,
    MAX_ELEMENTS,
    MAX_FRAME_BYTES,
    SET,
    STRING,
    FrameReader,
    check_arguments,
    read_message,
)

Fields = dict[int, tuple[object, ...]]

# put(1: string queue_name, 2: list<binary> items, 3: i32 expiration_msec), as the library has it
PUT_FIELDS: Fields = {1: (STRING, "queue_name", False), 2: (LIST, "items", 18, False), 3: (8, "expiration_msec", False)}
CONFIRM_FIELDS: Fields = {1: (STRING, "queue_name", False), 2: (SET, "ids", 10, False)}


def text(data: bytes) -> bytes:
    return struct.pack(">i", len(data)) + data


def field(kind: int, number: int, value: bytes) -> bytes:
    return struct.pack(">bh", kind, number) + value


NAME = field(11, 1, text(b"q"))
ITEMS = field(15, 2, b"\x0b" + struct.pack(">i", 2) + text(b"a") + text(b"bc"))
PUT = NAME + ITEMS + field(8, 3, struct.pack(">i", 5)) + b"\0"


def check(arguments: bytes, fields: Fields = PUT_FIELDS) -> None:
    check_arguments(b"before" + arguments, 6, fields)


def why(arguments: bytes, fields: Fields = PUT_FIELDS) -> str:
    with pytest.raises(MalformedRequest) as raised:
        check(arguments, fields)
    return str(raised.value)


# -- messages


def test_both_forms_of_a_message_are_read() -> None:
    strict = b"\x80\x01\x00\x01" + text(b"put") + struct.pack(">i", 7)
    assert read_message(strict + PUT) == (b"put", 1, 7, len(strict))
    old = text(b"put") + b"\x01" + struct.pack(">i", 7)
    assert read_message(old + PUT) == (b"put", 1, 7, len(old))


@pytest.mark.parametrize(
    "frame",
    [
        b"\0",
        b"\x80\x02\x00\x01" + text(b"put") + bytes(4),
        b"\x80\x01\x00\x01\x7f\xff\xff\xffput",
        b"\x80\x01\x00\x01\xff\xff\xff\xffput",
        struct.pack(">i", 257) + b"x" * 257 + bytes(5),
        b"\x80\x01\x00\x01" + text(b"put") + b"\0\0\0",
        b"get q\r\n",
    ],
)
def test_what_is_no_message_is_refused(frame: bytes) -> None:
    with pytest.raises(MalformedRequest):
        read_message(frame)


def test_arguments_are_sound_or_not() -> None:
    check(PUT)
    check(b"\0")  # nothing is there: whether that is enough is not asked here
    check(ITEMS + NAME + b"\0")
    check(NAME + field(14, 2, b"\x0a" + struct.pack(">iqq", 2, 1, 2)) + b"\0", CONFIRM_FIELDS)
    for end in range(len(PUT)):
        assert why(PUT[:end]) == "the message ends before it should"
    assert why(PUT + b"x") == "1 bytes stand behind the message in its frame"


def test_fields_that_there_are_not_are_passed_over() -> None:
    nested = field(12, 1, field(15, 1, b"\x0c" + struct.pack(">i", 2) + b"\0\0") + b"\0")
    mapped = b"\x0b\x08" + struct.pack(">i", 1) + text(b"k") + bytes(4)
    for kind, value in ((2, b"\1"), (3, b"\1"), (4, bytes(8)), (6, bytes(2)), (12, nested + b"\0"), (13, mapped)):
        check(PUT[:-1] + field(kind, 99, value) + b"\0")
        assert why(PUT[:-1] + field(kind, 99, value[:-1])) == "the message ends before it should"


def test_another_type_than_the_idl_says_is_refused() -> None:
    assert why(field(8, 1, bytes(4)) + b"\0") == "queue_name is of another type than kestrel.thrift says"
    assert why(field(14, 2, b"\x0b" + bytes(4)) + b"\0") == "items is of another type than kestrel.thrift says"
    assert why(field(15, 2, b"\x08" + bytes(4)) + b"\0") == "items is of another type than kestrel.thrift says"
    assert why(field(10, 3, bytes(8)) + b"\0") == "expiration_msec is of another type than kestrel.thrift says"


def test_lengths_are_not_believed() -> None:
    for size in (-1, -(2**31), 2**31 - 1, 1000):
        assert why(field(11, 1, struct.pack(">i", size) + b"q") + b"\0") == "the message ends before it should"
    for size in (-1, -(2**31)):
        assert why(field(15, 2, b"\x0b" + struct.pack(">i", size)) + b"\0") == "the message ends before it should"
    too_many = f"too many elements in one call: at most {MAX_ELEMENTS}"
    assert why(field(15, 2, b"\x0b" + struct.pack(">i", 2**31 - 1)) + b"\0") == too_many
    # Elements that take no room, or one byte: a reader that believed their number would count for minutes.
    for kind in (0, 1, 12):
        assert why(field(15, 9, struct.pack(">bi", kind, 2**31 - 1)) + b"\0") == too_many
        assert why(field(13, 9, struct.pack(">bbi", kind, kind, 2**31 - 1)) + b"\0") == too_many
    assert why(field(15, 9, struct.pack(">bi", 1, 1)) + b"\0") == "there is no type 1"
    assert why(field(2, 9, b"\0") * (MAX_ELEMENTS + 1) + b"\0") == too_many


def test_nesting_has_an_end() -> None:
    assert why(field(12, 9, b"") * 5000).startswith("too many structs and containers in each other")
    assert why(field(15, 9, b"\x0f\0\0\0\1" * 5000)).startswith("too many structs and containers in each other")
    check(field(12, 9, b"") * 10 + b"\0" * 11)


@given(st.binary(max_size=200), st.integers(0, len(PUT)), st.integers(0, len(PUT)))
def test_whatever_comes_is_sound_or_refused(garbage: bytes, begin: int, end: int) -> None:
    for frame in (garbage, PUT[:begin] + garbage + PUT[end:]):
        for look in (
            lambda frame=frame: check_arguments(frame, 0, PUT_FIELDS),
            lambda frame=frame: read_message(frame),
        ):
            try:
                look()
            except MalformedRequest:
                pass


# -- frames


def decode(frame: bytes) -> Request:
    if frame.startswith(b"bad"):
        raise MalformedRequest("bad")
    return Request(lambda *_: b"", key=frame)


def frames(*said: bytes) -> tuple[list[bytes], RequestError | None]:
    reader = FrameReader(decode)
    found = []
    for data in said:
        found += [request.key for request, _ in reader.requests(data)]
        if reader.error is not None:
            break
    return found, reader.error


def test_frames_come_split_at_any_byte() -> None:
    said = b"".join(text(frame) for frame in (b"one", b"t", b"three" * 100))
    for pieces in ([said], [said[i : i + 1] for i in range(len(said))], [said[:9], said[9:]], [said[:2], said[2:]]):
        assert frames(*pieces) == ([b"one", b"t", b"three" * 100], None)


@pytest.mark.parametrize("size", [0, MAX_FRAME_BYTES + 1, 2**24 - 1])
def test_a_frame_of_an_impossible_size_is_refused_at_once(size: int) -> None:
    found, error = frames(text(b"one") + struct.pack(">i", size))
    assert found == [b"one"]
    assert str(error) == f"a frame of {size} bytes: it can have 1 to 16384000 bytes, in framed thrift"


@pytest.mark.parametrize("first", [0x01, 0x16, 0x47, 0x7F, 0xFF])
def test_a_byte_that_begins_no_frame_is_refused_before_anything_follows(first: int) -> None:
    for said in (bytes([first]), bytes([first]) + b"garbage"):
        found, error = frames(text(b"one"), said)
        assert found == [b"one"]
        shown = excerpt(bytes([first]))
        assert str(error) == f'what begins with "{shown}" is no frame of 1 to 16384000 bytes, in framed thrift'


def test_other_protocols_are_told_where_they_are() -> None:
    _, error = frames(b"get work\r\n")
    assert str(error) == 'what begins with "g" is no frame of 1 to 16384000 bytes, in framed thrift'
    for said in (b"\x80\x01\x00\x01" + text(b"get_version") + bytes(5), b"\x80"):
        _, error = frames(said)
        assert str(error) == "a message without a frame: this is a thrift service with framed transport"


def test_what_cannot_be_decoded_ends_it_behind_what_could() -> None:
    found, error = frames(text(b"one") + text(b"bad") + text(b"two"))
    assert (found, str(error)) == ([b"one"], "bad")


def test_what_is_held_is_told_and_can_be_dropped() -> None:
    reader = FrameReader(decode)
    assert list(reader.requests(text(b"one")[:5])) == []
    assert reader.in_pieces
    assert reader.body_bytes == 5
    reader.drop()
    assert not reader.in_pieces
    assert reader.body_bytes == 0
