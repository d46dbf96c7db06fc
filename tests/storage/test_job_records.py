"""The bytes on disk of what is set aside. What stands here in hexadecimal stands in data directories too."""

import struct
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from darner_core.storage import job_records as records
from darner_core.storage import records as plain_records
from darner_core.storage.job_records import AsideRecord, AsideState, Flush, Front, Job, Taken

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

u8s, u16s, u32s, u64s = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64))
places = st.tuples(u64s, u64s, u64s)
jobs = st.builds(
    Job, st.integers(0, 2), u32s, u64s, u64s, u64s, u16s, u16s, u16s, u16s, u16s, st.binary(max_size=300),
    st.binary(max_size=records.MAX_NOTE_BYTES),
)  # fmt: skip

# -- golden bytes

ASIDE = "00000007 0000000000000002 03 0000000000000004 00000005 0000000000000006 0000000000000008"
JOB = "01 00000400 0000000000000002 0000018bcfe56800 000000000000ea60 0001 0002 0003 0004 0005 0003 6b6579 04 6e6f7465"
PLAIN_JOB = "00 00000400 0000000000000002 0000000000000000 0000000000000000 0000 0000 0000 0000 0000 0000 00"
STATE = (
    "0008000000000001 0000000000000002 0000000000000003"
    " 0000000000000004 0000000000000005 0000000000000006 0000000000000007"
    " 0000000000000008 0000000000000009 000000000000000a 000000000000000b"
    " 0000000000000000 0000000000000000 0000000000000000 0000000000000000"
    " 000000000000000c 000000000000000d 0000000000000000 000000000000000e"
    " 000000000000000f"
)
A_JOB = Job(records.DELAYED, 1024, 2, 1_700_000_000_000, 60_000, 1, 2, 3, 4, 5, b"key", b"note")
A_STATE = AsideState(
    2**51 + 1, 2, 3, (Front(4, (5, 6, 7)), Front(8, (9, 10, 11)), Front(), Front(12, (13, 0, 14))), 15
)  # fmt: skip
FLUSH = "0000000000000010 0008000000000005 0000000000000009 0000000000000002 0000000000000003"
A_FLUSH = Flush(16, 2**51 + 5, 9, frozenset((3, 2)), {5, 6})

GOLDEN: list[tuple[str, bytes, str]] = [
    ("aside's key", records.aside_key(b"jobs"), "6a 6a6f6273"),
    ("aside", records.pack_aside(AsideRecord(7, 2, 3, 4, 5, 6, 8)), ASIDE),
    ("job's key", records.job_key(1, 2**51), "00000001 0008000000000000 6a"),
    ("job", records.pack_job(A_JOB), JOB),
    ("job, nothing special", records.pack_job(Job(records.READY, 1024, 2)), PLAIN_JOB),
    ("ready", records.order_key(1, 0, 1024, 2, 3), "00000001 00 0000000000000400 0000000000000002 0000000000000003"),
    ("delayed", records.order_key(1, 1, 9, 2, 3), "00000001 01 0000000000000009 0000000000000002 0000000000000003"),
    ("buried", records.order_key(1, 2, 9, 0, 3), "00000001 02 0000000000000009 0000000000000000 0000000000000003"),
    ("window", records.order_key(1, 3, 9, 0, 3), "00000001 03 0000000000000009 0000000000000000 0000000000000003"),
    ("key's key", records.key_key(1, b"text"), "00000001 d732c6be860e019351f99173fa6ae612"),
    ("key", records.pack_taken(Taken(5, 6)), "0000000000000005 0000000000000006"),
    ("state's key", records.number_key(7), "00000007"),
    ("state", records.pack_aside_state(A_STATE), STATE),
    ("flush's key", records.flush_key(7, 0), "00000007 00000000"),
    ("flush", records.pack_flush(A_FLUSH), FLUSH),
    ("flush, what it spares", records.pack_numbers([5, 6]), "0000000000000005 0000000000000006"),
]


@pytest.mark.parametrize(("written", "golden"), [case[1:] for case in GOLDEN], ids=[case[0] for case in GOLDEN])
def test_what_is_written_is_what_it_always_was(written: bytes, golden: str) -> None:
    assert written.hex() == golden.replace(" ", "")


READ_BACK: list[tuple[Callable[[bytes], object], str, object]] = [
    (records.unpack_aside, ASIDE, AsideRecord(7, 2, 3, 4, 5, 6, 8)),
    (records.unpack_job_key, "00000001 0008000000000000 6a", (1, 2**51)),
    (records.unpack_job, JOB, A_JOB),
    (records.unpack_job, PLAIN_JOB, Job(records.READY, 1024, 2)),
    (records.unpack_order_key, "00000001 01" + "0000000000000009" * 3, (1, records.DELAYED, (9, 9, 9))),
    (records.unpack_taken, "0000000000000005 0000000000000006", Taken(5, 6)),
    (records.unpack_aside_state, STATE, A_STATE),
]


@pytest.mark.parametrize(("unpack", "golden", "meaning"), READ_BACK)
def test_what_was_written_is_understood(unpack: Callable[[bytes], object], golden: str, meaning: object) -> None:
    assert unpack(bytes.fromhex(golden)) == meaning


@pytest.mark.parametrize("record", [AsideRecord(0, 1), AsideRecord(1, 1, pause=4), AsideRecord(1, 1, pause=238)])
def test_an_aside_without_a_number_or_with_an_unknown_pause_makes_no_sense(record: AsideRecord) -> None:
    with pytest.raises(ValueError, match=f"number {record.number} and pause {record.pause}"):
        records.unpack_aside(records.pack_aside(record))


def test_the_sizes_that_others_count_with_are_those_of_the_records() -> None:
    assert len(records.order_key(1, 2, 3, 4, 5)) == records.ORDER_KEY_BYTES
    assert len(records.job_key(1, 2)) == records.JOB_KEY_BYTES
    assert len(records.key_key(1, b"x")) == records.KEY_KEY_BYTES
    assert len(records.number_key(1)) == records.STATE_KEY_BYTES
    assert len(records.pack_job(Job(records.READY, 1, 2))) == records.JOB_BYTES


def test_an_aside_without_a_state_record_is_empty() -> None:
    assert AsideState() == (2**51, 1, 0, ((0, (0, 0, 0)),) * 4, 0)


def test_the_length_of_a_key_says_which_table_it_is_from() -> None:
    others = [plain_records.ITEM_KEY_BYTES, plain_records.CHUNK_KEY_BYTES]
    ours = [records.JOB_KEY_BYTES, records.KEY_KEY_BYTES, records.ORDER_KEY_BYTES, records.STATE_KEY_BYTES]
    assert len({*others, *ours}) == len(others) + len(ours)


def test_the_keys_of_an_aside_lie_within_its_bounds() -> None:
    begin, end = records.key_bounds(7)
    assert records.key_key(6, b"x") < begin < records.key_key(7, b"x") < end < records.key_key(8, b"x")
    assert len(begin) == len(end) == records.KEY_KEY_BYTES


# -- round trips, and order


@unhurried
@given(jobs)
def test_a_job_comes_back_as_it_was(job: Job) -> None:
    assert records.unpack_job(records.pack_job(job)) == job


@unhurried
@given(st.builds(AsideRecord, st.integers(1, 2**32 - 1), u64s, st.integers(0, 3), u64s, u32s, u64s, u64s))
def test_an_aside_comes_back_as_it_was(record: AsideRecord) -> None:
    assert records.unpack_aside(records.pack_aside(record)) == record


@unhurried
@given(u32s, u8s, places)
def test_an_order_key_comes_back_as_it_was(number: int, kind: int, place: records.Place) -> None:
    key = records.order_key(number, kind, *place)
    assert records.unpack_order_key(key) == (number, kind, place)
    assert records.place_of(key) == place


@unhurried
@given(st.lists(st.tuples(u32s, u8s, places)))
def test_the_order_of_keys_is_the_order_of_places(entries: list[tuple[int, int, records.Place]]) -> None:
    keys = [records.order_key(number, kind, *place) for number, kind, place in entries]
    assert sorted(keys) == [records.order_key(number, kind, *place) for number, kind, place in sorted(entries)]


@pytest.mark.parametrize("spoil", [lambda r: r[:-1], lambda r: r + b"x", lambda r: b"\x04" + r[1:], lambda r: r[:20]])
def test_a_job_record_that_is_damaged_is_refused(spoil: Callable[[bytes], bytes]) -> None:
    with pytest.raises((ValueError, struct.error)):
        records.unpack_job(spoil(records.pack_job(A_JOB)))


def test_a_flush_comes_back_as_it_was_and_takes_what_arrived_before_and_is_not_spared() -> None:
    parts = [(records.flush_key(7, 0), bytes.fromhex(FLUSH)), (records.flush_key(7, 4), records.pack_numbers([5, 6]))]
    flush = records.unpack_flush(parts)
    assert flush == A_FLUSH
    assert records.unpack_flush([]) is None
    own = 2**51 + 4
    places = [(0, 15, 4), (0, 15, 5), (0, 16, own), (0, 16, own + 1), (0, 16, 8), (0, 17, own)]
    assert [flush.takes(place) for place in places] == [True, False, True, False, False, False]
    states = [records.READY, records.DELAYED, records.BURIED]
    assert [flush.takes_job(own, Job(state, 1, 16)) for state in states] == [True, True, False]


@pytest.mark.parametrize(
    "parts",
    [
        [(records.flush_key(7, 1), records.pack_numbers([5]))],
        [(records.flush_key(7, 0), b"x")],
        [(records.flush_key(7, 0), records.pack_numbers([5]))],
    ],
)
def test_a_flush_that_is_damaged_is_refused(parts: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises((ValueError, struct.error)):
        records.unpack_flush(parts)


@pytest.mark.parametrize("record", [AsideRecord(0, 1), AsideRecord(7, 1, 4)])
def test_an_aside_that_makes_no_sense_is_refused(record: AsideRecord) -> None:
    with pytest.raises(ValueError, match="an aside with number"):
        records.unpack_aside(records.pack_aside(record))
