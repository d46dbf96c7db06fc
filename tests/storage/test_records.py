"""The bytes on disk. What stands here in hexadecimal stands in data directories too: it changes with FORMAT_VERSION."""

import struct
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from darner_core.storage import records
from darner_core.storage.records import CHILD, Blob, Expiry, Item, QueueRecord, State

# A machine that is busy is no failure.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

u16s, u32s, u64s = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))
bodies = st.one_of(st.binary(max_size=100), st.builds(Blob, u64s, u64s.filter(lambda size: size < 2**63)))
items: st.SearchStrategy[Item] = st.tuples(bodies, u32s, u64s, u64s)

# -- golden bytes


def test_these_are_the_bytes_of_version_3() -> None:
    assert records.FORMAT_VERSION == 3
    assert (records.FORMAT_FILE, records.FORMAT) == ("FORMAT", b"darner 3\n")
    assert {b"darner 1\n", b"darner 2\n", b"darner 3\n"} == records.READABLE_FORMATS


ITEM = "00 00000007 0000000000000000 0000018bcfe56800 68656c6c6f"
EMPTY_ITEM = "00 00000000 0000000000000000 0000000000000001"
EXPIRING_ITEM = "00 ffffffff 8000000000000000 0000000000000002 00"
LARGE_ITEM = "01 00000001 0000000000000002 0000000000000003 0000000000000009 0000000040000000"
STATE = "0000000000000001 0000000000000002 0000000000000003 0000000000000004 0000000000000005"

GOLDEN: list[tuple[str, bytes, str]] = [
    ("item's key", records.item_key(1, 1), "00000001 0000000000000001"),
    ("item's key, every byte", records.item_key(0x01020304, 0x05060708090A0B0C), "01020304 05060708090a0b0c"),
    ("state's key", records.item_key(7, records.STATE_ID), "00000007 0000000000000000"),
    ("chunk's key", records.chunk_key(2, 3, 4), "00000002 0000000000000003 00000004"),
    ("queue's key", records.queue_key(b"jobs"), "71 6a6f6273"),
    ("cursor's key", records.cursor_key(b"jobs", b"c.d"), "63 6a6f6273 2f 632e64"),
    ("held by a cursor", records.HELD, "02"),
    ("upload's key", records.upload_key(5, 6), "75 00000005 0000000000000006"),
    ("item", records.pack_item((b"hello", 7, 0, 1_700_000_000_000)), ITEM),
    ("empty item", records.pack_item((b"", 0, 0, 1)), EMPTY_ITEM),
    ("item that expires", records.pack_item((b"\x00", 2**32 - 1, 2**63, 2)), EXPIRING_ITEM),
    ("large item", records.pack_item((Blob(9, 1 << 30), 1, 2, 3)), LARGE_ITEM),
    ("item written in two parts", records.item_header(records.WHOLE, 7, 0, 1_700_000_000_000) + b"hello", ITEM),
    ("queue", records.pack_queue(QueueRecord(1, 2, 3)), "00000001 0002 0000000000000003"),
    ("state", records.pack_state(1, 2, 3, 4, 5), STATE),
    ("state, some missing", records.pack_state(1, 2, 3, 4, 5, 6), STATE + "0000000000000006"),
    ("fanout child", records.pack_queue(QueueRecord(1, 2, 3, CHILD)), "00000001 0002 0000000000000003 01"),
    ("expiry's key", records.expiry_key(5, 6, 7), "65 0000000000000005 00000006 0000000000000007"),
]


@pytest.mark.parametrize(("written", "golden"), [case[1:] for case in GOLDEN], ids=[case[0] for case in GOLDEN])
def test_what_is_written_is_what_it_always_was(written: bytes, golden: str) -> None:
    assert written.hex() == golden.replace(" ", "")


READ_BACK: list[tuple[Callable[[bytes], object], str, object]] = [
    (records.unpack_item_key, "00000001 0000000000000002", (1, 2)),
    (records.unpack_chunk_key, "00000001 0000000000000002 00000003", (1, 2, 3)),
    (records.unpack_cursor_key, "63 6a6f6273 2f 632e64", (b"jobs", b"c.d")),
    (records.unpack_cursor_item, "02", None),
    (records.unpack_upload_key, "75 00000005 0000000000000006", (5, 6)),
    (records.unpack_item, ITEM, (b"hello", 7, 0, 1_700_000_000_000)),
    (records.unpack_item, EMPTY_ITEM, (b"", 0, 0, 1)),
    (records.unpack_item, EXPIRING_ITEM, (b"\x00", 2**32 - 1, 2**63, 2)),
    (records.unpack_item, LARGE_ITEM, (Blob(9, 1 << 30), 1, 2, 3)),
    (records.unpack_queue, "00000001 0002 0000000000000003", QueueRecord(number=1, family=2, created_at_ms=3)),
    (records.unpack_state, STATE, State(first=1, next=2, tail=3, bytes=4, reclaimed=5)),
    (records.unpack_state, STATE + "0000000000000006", State(1, 2, 3, 4, 5, missing=6)),
    (records.unpack_queue, "00000001 0002 0000000000000003 01", QueueRecord(1, 2, 3, CHILD)),
    (records.unpack_expiry_key, "65 0000000000000005 00000006 0000000000000007", Expiry(5, 6, 7)),
]


@pytest.mark.parametrize(("unpack", "golden", "meaning"), READ_BACK)
def test_what_was_written_by_version_1_is_understood(
    unpack: Callable[[bytes], object], golden: str, meaning: object
) -> None:
    assert unpack(bytes.fromhex(golden)) == meaning


def test_the_sizes_that_others_count_with_are_those_of_the_records() -> None:
    assert len(records.item_key(1, 1)) == records.ITEM_KEY_BYTES
    assert len(records.pack_item((b"", 0, 0, 0))) == records.ITEM_HEADER_BYTES


def test_a_queue_without_a_state_record_begins_at_the_first_id() -> None:
    assert State() == (records.FIRST_ID, records.FIRST_ID, records.FIRST_ID, 0, records.FIRST_ID, 0)
    assert records.STATE_ID < records.FIRST_ID


# -- round trips


@unhurried
@given(items)
def test_an_item_comes_back_as_it_was(item: Item) -> None:
    assert records.unpack_item(records.pack_item(item)) == item


@unhurried
@given(u32s, u16s, u64s)
def test_a_queue_comes_back_as_it_was(number: int, family: int, created_at_ms: int) -> None:
    record = QueueRecord(number, family, created_at_ms)
    assert records.unpack_queue(records.pack_queue(record)) == record


@unhurried
@given(u64s, u64s, u64s, u64s, u64s)
def test_a_state_comes_back_as_it_was(first: int, next_id: int, tail: int, stored_bytes: int, reclaimed: int) -> None:
    state = State(first, next_id, tail, stored_bytes, reclaimed)
    assert records.unpack_state(records.pack_state(*state)) == state


@unhurried
@given(u32s, u64s, u32s)
def test_keys_come_back_as_they_were(number: int, item_id: int, index: int) -> None:
    assert records.unpack_item_key(records.item_key(number, item_id)) == (number, item_id)
    assert records.unpack_chunk_key(records.chunk_key(number, item_id, index)) == (number, item_id, index)
    assert records.unpack_upload_key(records.upload_key(number, item_id)) == (number, item_id)


# -- order


@unhurried
@given(st.lists(st.tuples(u32s, u64s)))
def test_items_lie_in_the_order_of_their_ids_queue_by_queue(ids: list[tuple[int, int]]) -> None:
    assert sorted(records.item_key(*of) for of in ids) == [records.item_key(*of) for of in sorted(ids)]


@unhurried
@given(st.lists(st.tuples(u32s, u64s, u32s)))
def test_chunks_lie_in_the_order_in_which_they_are_sent(places: list[tuple[int, int, int]]) -> None:
    assert sorted(records.chunk_key(*of) for of in places) == [records.chunk_key(*of) for of in sorted(places)]


@unhurried
@given(u32s.filter(bool), st.integers(records.FIRST_ID, records.MAX_ID))
def test_a_queues_state_lies_before_its_items_and_behind_those_of_the_queue_before(number: int, item_id: int) -> None:
    assert records.item_key(number - 1, records.MAX_ID) < records.item_key(number, records.STATE_ID)
    assert records.item_key(number, records.STATE_ID) < records.item_key(number, item_id)


@unhurried
@given(st.binary(min_size=1, max_size=250), u32s, u64s)
def test_queues_and_uploads_never_take_each_others_keys(name: bytes, number: int, blob: int) -> None:
    queue, upload = records.queue_key(name), records.upload_key(number, blob)
    assert queue.startswith(records.QUEUE_PREFIX)
    assert queue.removeprefix(records.QUEUE_PREFIX) == name
    assert not queue.startswith(records.UPLOAD_PREFIX)
    assert not upload.startswith(records.QUEUE_PREFIX)


# -- what was not written by this server


def test_an_item_of_a_kind_that_is_not_known_is_refused() -> None:
    for kind in (2, 255):
        with pytest.raises(ValueError, match=f"unknown kind {kind}"):
            records.unpack_item(records.item_header(kind, 0, 0, 0) + b"x")


def test_a_number_that_does_not_fit_is_not_written_cut_off() -> None:
    too_large: list[Callable[[], bytes]] = [
        lambda: records.item_key(2**32, 1),
        lambda: records.item_key(1, 2**64),
        lambda: records.pack_item((b"", 2**32, 0, 0)),
        lambda: records.pack_item((b"", 0, -1, 0)),
        lambda: records.pack_queue(QueueRecord(1, 2**16, 0)),
    ]
    for write in too_large:
        with pytest.raises((struct.error, OverflowError)):
            write()


# -- the stand-in for a large body


def test_a_blob_passes_for_a_body_where_only_its_size_matters() -> None:
    assert len(Blob(1, 5_000_000)) == 5_000_000
    assert Blob(1, 2) == Blob(1, 2)
    assert Blob(1, 2) != Blob(2, 2)
    assert Blob(1, 2) != Blob(1, 3)
    assert Blob(1, 2) != b"ab"
