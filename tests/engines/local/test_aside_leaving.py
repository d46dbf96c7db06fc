"""Items that leave though nobody closes them."""

from collections.abc import Callable

import pytest

from darner_core.engines.large_items import LARGE
from darner_core.engines.local import aside as aside_module
from darner_core.engines.local import aside_failures
from darner_core.engines.local.aside_leaving import expire_id, remove_id
from darner_core.storage.records import Blob
from darner_core.storage.storage import Storage
from tests.engines.local.test_message_queue import CHUNK_BYTES, whole_body
from tests.support.asides import Bench

OpenStorage = Callable[[], Storage]


@pytest.fixture
def bench(open_storage: OpenStorage) -> Bench:
    return Bench(open_storage)


def test_one_is_removed_by_its_id_in_whatever_state_but_open(bench: Bench) -> None:
    ids = [bench.put(b"r"), bench.put(b"d", delay_ms=1000), bench.put(b"b", pri=0)]
    aside_failures.bury(bench.aside, bench.opened())
    bench.end_turn()
    assert [remove_id(bench.aside, item_id) for item_id in [*ids, *ids]] == [True] * 3 + [False] * 3
    bench.end_turn()
    bench.crash()
    assert bench.aside.is_empty
    item_id = bench.put(b"o")
    bench.opened()
    assert not remove_id(bench.aside, item_id)


def test_what_has_expired_is_not_handed_out(bench: Bench) -> None:
    for number in range(3):
        bench.put(b"%d" % number, expires_ms=bench.now_ms + 1000)
    bench.put(b"x")
    bench.end_turn()
    bench.now_s += 2
    bench.journal.begin()
    assert bench.aside.take() == (b"x", 0, 0, 1_000_000)
    assert [item[0] for item in bench.expired] == [b"0", b"1", b"2"]
    assert bench.aside.expired_items == 3
    bench.fail_turn()
    assert (bench.expired, bench.aside.expired_items, bench.aside.items) == ([], 0, 4)


def test_very_many_that_have_expired_take_several_turns(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside_module, "EXPIRED_AT_ONCE", 2)
    for _ in range(5):
        bench.put(b"x", expires_ms=bench.now_ms + 1000)
    bench.end_turn()
    bench.now_s += 2
    bench.journal.begin()
    assert bench.aside.open() is None
    assert bench.aside.half_swept
    assert not bench.aside.drop_expired()
    assert bench.aside.drop_expired()
    assert bench.aside.is_empty


def test_one_that_expires_behind_the_head_is_found_by_its_hint(bench: Bench) -> None:
    bench.put(b"x")
    item_id = bench.put(b"y", expires_ms=bench.now_ms + 1000)
    bench.end_turn()
    (hint,) = bench.storage.expiries(b"e", 2**60, 10)
    assert (hint.number, hint.id) == (bench.aside.log.record.number, item_id)
    assert not expire_id(bench.aside, item_id)
    bench.now_s += 2
    bench.journal.begin()
    assert expire_id(bench.aside, item_id)
    assert not expire_id(bench.aside, item_id)
    assert bench.bodies(bench.aside.ready) == [b"x"]


def put_large(bench: Bench) -> bytes:
    blob, body = bench.queue.large_items.start(), b"%0999d" % 7
    for index in range(0, len(body), CHUNK_BYTES):
        number = bench.queue.log.record.number
        bench.storage.put_chunk(number, blob, index // CHUNK_BYTES, body[index : index + CHUNK_BYTES])
    bench.queue.large_items.finish(blob)
    bench.aside.put(Blob(blob, len(body)), 0, 0, 5, 2)
    bench.end_turn()
    return body


@pytest.mark.parametrize("how", ["close", "remove"])
def test_the_chunks_of_a_large_item_go_with_it(bench: Bench, how: str) -> None:
    body = put_large(bench)
    assert bench.aside.take() is LARGE
    read = bench.opened()
    assert whole_body(bench.queue, bench.aside.item_of(read)[0]) == body
    if how == "close":
        bench.aside.close(read)
    else:
        bench.aside.give_back(read)
        assert remove_id(bench.aside, read.id)
    bench.end_turn()
    assert bench.storage.first_chunk() is None
    assert bench.aside.is_empty
