"""Kestrel's thrift service, with a client that is made from the same IDL, beside clients of the other protocols."""

import os
import random
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from thriftpy2.protocol.binary import TBinaryProtocol
from thriftpy2.thrift import TApplicationException
from thriftpy2.transport.base import TTransportException
from thriftpy2.transport.memory import TMemoryBuffer

from darner_core.operations.putting import ITEMS_A_TURN
from tests.protocols.thrift.test_reader import field, text
from tests.support.harness import Client, wait_until
from tests.support.kestrel_clients import IDL, KestrelServer

Connect = Callable[[], Any]

MINUTE_MS = 60_000


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KestrelServer]:
    directory = tmp_path_factory.mktemp("server")
    server = KestrelServer(directory / "data", "--chunk-bytes", "16 KiB", "--max-item-bytes", "20 MiB")
    yield server
    server.end()


@pytest.fixture
def server(shared: KestrelServer) -> KestrelServer:
    shared.as_new()
    return shared


@pytest.fixture
def connect(server: KestrelServer) -> Connect:
    return server.thrift_client


def data(items: list[Any]) -> list[bytes]:
    return [item.data for item in items]


def ids(items: list[Any]) -> set[int]:
    return {item.id for item in items}


def why(call: Callable[..., Any], *arguments: Any) -> str:
    """What a call is refused with; the connection goes on."""
    with pytest.raises(TApplicationException) as raised:
        call(*arguments)
    return str(raised.value.message.decode() if isinstance(raised.value.message, bytes) else raised.value.message)


# -- putting and taking


def test_items_are_put_and_taken_in_order_by_clients_of_any_protocol(server: KestrelServer) -> None:
    thrift, memcache, text_client = server.thrift_client(), server.client(), server.text_client()
    assert thrift.put("q", [b"a", b"", b"\0\n\xff"]) == 3
    memcache.set("q", b"d", flags=5)
    text_client.ask(b"get q\n", b":a\n")
    items = thrift.get("q", 2)
    assert [(item.data, item.id) for item in items] == [(b"", 0), (b"\0\n\xff", 0)]
    assert data(thrift.get("q", 10)) == [b"d"]
    assert thrift.get("q", 10) == []
    assert thrift.get("nothing", 1) == []
    assert thrift.put("q", []) == 0
    assert memcache.get("q") is None


def test_at_most_as_many_are_taken_as_are_asked_for(connect: Connect) -> None:
    thrift = connect()
    assert thrift.put("q", [b"%d" % i for i in range(10)]) == 10
    assert thrift.get("q", 0) == thrift.get("q", -1) == []
    assert data(thrift.get("q", 3)) == [b"0", b"1", b"2"]
    assert data(thrift.get("q", 2**31 - 1)) == [b"%d" % i for i in range(3, 10)]


def test_a_put_stops_at_the_first_item_that_is_refused(server: KestrelServer, tmp_path: Path) -> None:
    small = KestrelServer(tmp_path / "small", "--max-item-bytes", "10")
    try:
        thrift = small.thrift_client()
        assert thrift.put("q", [b"a", b"b", b"x" * 11, b"c"]) == 2
        assert data(thrift.get("q", 10)) == [b"a", b"b"]
    finally:
        small.end()


def test_an_expiry_is_kept_with_the_item(connect: Connect) -> None:
    thrift = connect()
    assert thrift.put("q", [b"a"], MINUTE_MS) == 1
    assert data(thrift.get("q", 1)) == [b"a"]


def test_who_waits_gets_what_comes_until_it_has_enough(server: KestrelServer) -> None:
    raw, memcache = server.raw_thrift_client(), server.client()
    raw.send(call("get", name("q") + i32(2, 3) + i32(3, 10_000)))
    raw.expect_nothing()
    memcache.set("q", b"a")
    memcache.set("q", b"b")
    raw.expect_nothing()
    assert memcache.get("q") is None  # the two are open
    memcache.set("q", b"c")
    assert reply(raw, "get") == [b"a", b"b", b"c"]
    assert memcache.stats()["queue_q_open_transactions"] == "0"


def test_when_the_time_is_over_it_gets_what_there_is(connect: Connect) -> None:
    thrift = connect()
    assert thrift.get("q", 3, 20) == []
    thrift.put("q", [b"a", b"b"])
    assert data(thrift.get("q", 3, 20)) == [b"a", b"b"]


def test_what_was_taken_goes_to_the_next_if_the_client_goes_while_it_waits_for_more(server: KestrelServer) -> None:
    raw, memcache = server.raw_thrift_client(), server.client()
    memcache.set("q", b"a")
    raw.send(call("get", name("q") + i32(2, 5) + i32(3, 60_000)))
    raw.expect_nothing()
    memcache.set("q", b"b")
    memcache.set("q", b"c")
    raw.close()
    wait_until(lambda: memcache.stats()["queue_q_items"] == "3")
    assert [memcache.get("q") for _ in range(3)] == [b"a", b"b", b"c"]


def test_a_deleted_queues_items_are_not_handed_out_any_more(server: KestrelServer) -> None:
    raw, memcache = server.raw_thrift_client(), server.client()
    memcache.set("q", b"a")
    raw.send(call("get", name("q") + i32(2, 2) + i32(3, 60_000)))
    raw.expect_nothing()
    memcache.ask(b"delete q\r\n", b"DELETED\r\n")
    memcache.set("q", b"b")
    memcache.set("q", b"c")
    assert reply(raw, "get") == [b"b"]  # with the two that it had taken, it was enough


# -- open reads


def test_open_items_are_confirmed_and_aborted_by_any_connection(server: KestrelServer) -> None:
    first, second, memcache = server.thrift_client(), server.thrift_client(), server.client()
    assert first.put("q", [b"a", b"b", b"c"]) == 3
    items = first.get("q", 10, 0, MINUTE_MS)
    assert data(items) == [b"a", b"b", b"c"]
    assert len(ids(items) - {0}) == 3
    assert memcache.get("q") is None
    first.close()  # which aborts nothing
    assert second.get("q", 10, 50) == []
    assert second.confirm("q", {items[0].id}) == 1
    assert second.confirm("q", {items[0].id, 12345}) == 0
    assert second.confirm("other", {items[1].id}) == 0
    assert second.abort("q", {items[1].id, items[2].id}) == 2
    assert second.abort("q", ids(items)) == 0
    assert [memcache.get("q") for _ in range(3)] == [b"b", b"c", None]


def test_items_nobody_decides_on_come_back_by_themselves(server: KestrelServer) -> None:
    thrift, waiting = server.thrift_client(), server.client()
    thrift.put("q", [b"a", b"b"])
    items = thrift.get("q", 2, 0, 300)
    assert data(items) == [b"a", b"b"]
    waiting.send(b"get q/t=10000\r\n")
    waiting.expect_nothing()
    assert thrift.confirm("q", {items[1].id}) == 1
    assert waiting.item() == b"a"
    assert thrift.confirm("q", {items[0].id}) == 0


def test_as_many_can_be_open_as_a_connection_may_have(server: KestrelServer) -> None:
    thrift, other = server.thrift_client(), server.thrift_client()
    thrift.put("q", [b"x"] * 250)
    items = thrift.get("q", 4000, 1000, MINUTE_MS)
    assert len(items) == 100
    assert thrift.get("q", 1, 1000, MINUTE_MS) == []
    assert len(other.get("q", 30, 0, MINUTE_MS)) == 30
    assert len(thrift.get("q", 5)) == 5  # which are not open
    assert other.confirm("q", {item.id for item in items[:40]}) == 40
    assert len(thrift.get("q", 4000, 0, MINUTE_MS)) == 40


# -- large items


def test_large_items_are_put_and_taken_whole(server: KestrelServer) -> None:
    thrift, memcache = server.thrift_client(), server.client()
    large = [os.urandom(3_000_000), os.urandom(16_385)]
    assert thrift.put("q", [b"a", large[0], b"b", large[1]]) == 4
    assert memcache.stats()["queue_q_items"] == "4"
    assert memcache.get("q") == b"a"
    assert memcache.get("q/peek") == large[0]
    assert thrift.peek("q").head_item == large[0]
    (item,) = thrift.get("q", 10, 0, MINUTE_MS)  # it goes alone
    assert item.data == large[0]
    assert thrift.abort("q", {item.id}) == 1
    assert data(thrift.get("q", 10)) == [large[0]]
    assert data(thrift.get("q", 10)) == [b"b"]
    memcache.set("q", b"c")
    assert data(thrift.get("q", 10)) == [large[1]]
    raw = server.raw_thrift_client()
    raw.send(call("get", name("waited") + i32(2, 5) + i32(3, 10_000)))
    raw.expect_nothing()
    memcache.set("waited", large[1])
    assert reply(raw, "get") == [large[1]]
    server.kill()
    server.start()
    assert data(server.thrift_client().get("q", 10)) == [b"c"]
    assert server.thrift_client().get("waited", 10) == []


def test_an_item_that_no_frame_can_hold_stays_at_the_head(server: KestrelServer) -> None:
    thrift, memcache = server.thrift_client(), server.client()
    memcache.set("q", bytes(17_000_000))
    memcache.set("q", b"b")
    refusal = "the item at the head has 17000000 bytes, and a frame can hold 16382976: take it by another protocol"
    assert why(thrift.get, "q", 10) == why(thrift.get, "q", 10, 1000, 1000) == refusal
    info = thrift.peek("q")
    assert (info.head_item, info.items, info.open_transactions) == (None, 2, 0)
    raw = server.raw_thrift_client()
    raw.send(call("get", name("waited") + i32(2, 5) + i32(3, 10_000)))
    raw.expect_nothing()
    memcache.set("waited", bytes(17_000_000))
    with pytest.raises(TApplicationException):
        reply(raw, "get")
    assert memcache.get("waited/peek") == bytes(17_000_000)
    assert memcache.get("q") == bytes(17_000_000)
    assert data(thrift.get("q", 10)) == [b"b"]


def test_the_largest_frame_is_taken_and_sent(server: KestrelServer) -> None:
    thrift = server.thrift_client()
    largest = bytes(16_384_000 - 1024)
    assert thrift.put("q", [largest]) == 1
    assert data(thrift.get("q", 1)) == [largest]
    with pytest.raises((TApplicationException, TTransportException, OSError)):
        thrift.put("q", [bytes(16_384_000)])
    assert server.thrift_client().get("q", 1) == []


def test_a_reply_has_its_bounds_and_the_next_has_the_rest(connect: Connect) -> None:
    thrift = connect()
    bodies = [bytes([i]) * 10_000 for i in range(200)]
    assert thrift.put("q", bodies) == 200
    got = data(thrift.get("q", 1000, 1000))
    assert 100 <= len(got) < 110
    assert got + data(thrift.get("q", 1000)) == bodies


# -- looking after queues and the server


def test_peek_tells_how_the_queue_is(server: KestrelServer) -> None:
    thrift, memcache = server.thrift_client(), server.client()
    info = thrift.peek("q")
    assert (info.head_item, info.items, info.waiters, info.open_transactions) == (None, 0, 0, 0)
    assert "queue_q_items" not in memcache.stats()
    memcache.send(b"get q/t=10000\r\n")
    memcache.expect_nothing()
    assert thrift.peek("q").waiters == 1
    thrift.put("q", [b"a", b"bb", b"ccc"])
    assert memcache.item() == b"a"
    assert len(thrift.get("q", 1, 0, MINUTE_MS)) == 1
    info = thrift.peek("q")
    assert (info.head_item, info.items, info.bytes, info.waiters, info.open_transactions) == (b"ccc", 1, 3, 0, 1)
    assert info.journal_bytes > 6
    assert info.age >= 0


def test_flush_and_delete(server: KestrelServer) -> None:
    thrift, memcache = server.thrift_client(), server.client()
    thrift.put("q", [b"a", b"b"])
    thrift.put("other", [b"c"])
    (item,) = thrift.get("q", 1, 0, MINUTE_MS)
    assert thrift.flush_queue("q") is None
    assert thrift.peek("q").open_transactions == 1
    assert thrift.flush_all_queues() is None
    assert memcache.stats()["curr_items"] == "0"
    assert thrift.delete_queue("q") is None
    assert thrift.confirm("q", {item.id}) == 0
    assert thrift.delete_queue("nothing") is None
    assert "queue_q_items" not in memcache.stats()


def test_the_version_and_the_status(server: KestrelServer) -> None:
    thrift = server.thrift_client()
    server.client().ask(b"version\r\n", f"VERSION {thrift.get_version()}\r\n".encode())
    assert thrift.current_status() == IDL.Status.UP
    assert why(thrift.set_status, 7) == "status 7: it can be set to UP, READ_ONLY or QUIESCENT"


# -- what is wrong


def test_what_a_call_lacks_is_said_and_the_connection_goes_on(connect: Connect) -> None:
    thrift = connect()
    assert why(thrift.put, None, [b"a"]) == "put: queue_name is missing"
    assert why(thrift.put, "q", None) == "put: items is missing"
    assert why(thrift.get, "q", None) == "get: max_items is missing"
    assert why(thrift.confirm, "q", None) == "confirm: ids is missing"
    assert why(thrift.put, "a/b", [b"a"]).startswith('bad queue name "a/b"')
    assert why(thrift.get, "", 1).startswith('bad queue name ""')
    assert why(thrift.peek, "q" * 251) == "queue name of 251 bytes: at most 250"
    assert why(thrift.put, "q", [b""] * 20_000) == "put: too many elements in one call: at most 16384"
    assert thrift.get("q", 1) == []


def test_unknown_methods_and_wrong_types_are_answered_to_the_call(server: KestrelServer) -> None:
    raw = server.raw_thrift_client()
    raw.send(call("steal", name("q") + b"garbage", sequence=7) + call("put", field(8, 1, bytes(4)), sequence=8))
    raw.send(
        call("get", field(11, 1, struct.pack(">i", 2**31 - 1)), sequence=9) + call("get_version", b"", sequence=10)
    )
    assert exception(raw) == (
        b"steal", 7, 1, 'unknown method "steal": abort, abort_later, confirm, current_status, delete_queue,'
        " flush_all_queues, flush_queue, get, get_jobs, get_version, kick, pause, peek, peek_jobs, put, put_jobs,"
        " put_unique, reject, set_status, touch",
    )  # fmt: skip
    assert exception(raw) == (b"put", 8, 7, "put: queue_name is of another type than kestrel.thrift says")
    assert exception(raw) == (b"get", 9, 7, "get: the message ends before it should")
    assert read_frame(raw).startswith(b"\x80\x01\x00\x02" + text(b"get_version") + struct.pack(">i", 10))


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"get work\r\n", 'what begins with "g" is no frame'),
        (b"\x80\x01\x00\x01" + text(b"get_version") + bytes(5), "a message without a frame"),
        (bytes(4), "a frame of 0 bytes"),
        (b"\0\xff\xff\xff", "a frame of 16777215 bytes"),
        (b"\x16", r'what begins with "\x16" is no frame'),
        (text(b"garbage"), "the frame holds no message of thrift's binary protocol"),
        (text(b"\x80\x01\x00\x04" + text(b"get_version") + bytes(5)), "a message of kind 4: only calls"),
    ],
)
def test_what_is_no_frame_or_no_call_is_answered_with_a_hang_up(server: KestrelServer, said: bytes, why: str) -> None:
    raw = server.raw_thrift_client()
    raw.send(call("get_version", b"") + said)
    read_frame(raw)
    assert exception(raw)[3].startswith(why)
    raw.expect_hang_up()
    assert server.thrift_client().get("q", 1) == []


def test_garbage_hurts_nobody(server: KestrelServer) -> None:
    chance = random.Random(1)
    thrift = server.thrift_client()
    thrift.put("q", [b"a"])
    good = call("put", name("garbage") + field(15, 2, b"\x0b" + struct.pack(">i", 1) + text(b"x")))
    for _ in range(100):
        bad = bytearray(good)
        for _ in range(chance.randrange(1, 5)):
            bad[chance.randrange(4, len(bad))] = chance.randrange(256)
        raw = Client(server.ports[2])
        raw.send(bytes(bad))
        if chance.random() < 0.5:
            raw.socket.shutdown(socket.SHUT_WR)
            raw.read(10)
        raw.close()
    assert data(thrift.get("q", 10)) == [b"a"]


def test_half_a_call_does_nothing(server: KestrelServer) -> None:
    said = call("put", name("q") + field(15, 2, b"\x0b" + struct.pack(">i", 1) + text(b"x")))
    for end in (2, 4, 20, len(said) - 1):
        raw = server.raw_thrift_client()
        raw.send(said[:end])
        raw.close()
    raw = server.raw_thrift_client()
    for byte in said:
        raw.send(bytes([byte]))
    read_frame(raw)
    assert data(server.thrift_client().get("q", 10)) == [b"x"]


def test_who_stops_half_way_is_hung_up_on(tmp_path: Path) -> None:
    server = KestrelServer(tmp_path / "data", "--body-timeout-s", "1")
    try:
        raw = server.raw_thrift_client()
        raw.send(struct.pack(">i", 1000) + b"\x80\x01")
        assert exception(raw)[3] == "the rest of the request did not come for 1 s"
        raw.expect_hang_up()
    finally:
        server.end()


def test_frames_that_come_in_part_cost_a_bounded_sum_of_memory(server: KestrelServer) -> None:
    before = server.resident_bytes()
    stalled = [server.raw_thrift_client() for _ in range(8)]
    for raw in stalled:
        raw.send(struct.pack(">i", 16_000_000) + bytes(15_000_000))
    assert exception(stalled[0])[3] == "too much memory is taken by requests that have come in part; try again"
    stalled[0].expect_hang_up()
    assert server.resident_bytes() - before < 128 << 20
    assert server.thrift_client().put("q", [b"a"]) == 1


def test_what_unfinished_frames_took_is_given_back_when_their_clients_go(server: KestrelServer) -> None:
    before = server.resident_bytes()
    stalled = [server.raw_thrift_client() for _ in range(200)]
    for raw in stalled:
        raw.send(struct.pack(">i", 16_000_000) + bytes(1_000_000))
    admin = server.client()
    wait_until(lambda: int(admin.stats()["curr_connections"]) < 100)  # most are refused, and have been hung up on
    for raw in stalled:
        raw.close()
    wait_until(lambda: server.resident_bytes() - before < 24 << 20)


def test_a_client_that_takes_nothing_holds_up_nobody(server: KestrelServer) -> None:
    thrift, slow = server.thrift_client(), server.raw_thrift_client()
    for _ in range(10):
        thrift.put("q", [bytes(10_000)] * 200)
    before = server.resident_bytes()
    slow.send(call("get", name("q") + i32(2, 4000)) * 20)
    wait_until(lambda: thrift.peek("q").items < 2000)
    assert thrift.put("other", [b"a"]) == 1
    assert data(thrift.get("other", 1)) == [b"a"]
    assert thrift.peek("q").items > 1000  # it is not read any more until it has taken its replies
    assert server.resident_bytes() - before < 16 << 20


def test_large_replies_that_nobody_takes_cost_a_bounded_sum_of_memory(server: KestrelServer) -> None:
    thrift = server.thrift_client()
    large = os.urandom(8 << 20)
    for name_ in ("head", *(f"q{number}" for number in range(8))):
        assert thrift.put(name_, [large]) == 1
    before = server.resident_bytes()
    idle = [server.raw_thrift_client() for _ in range(16)]
    for number, raw in enumerate(idle[:8]):
        raw.send(call("peek", name("head")) * 50)
        idle[8 + number].send(call("get", name(f"q{number}") + i32(2, 1) + i32(4, MINUTE_MS)))
    wait_until(lambda: all(thrift.peek(f"q{number}").open_transactions for number in range(8)))
    assert thrift.peek("head").head_item == large  # in pieces
    assert server.resident_bytes() - before < 64 << 20  # of 3.3 GB
    for raw in idle:
        raw.close()
    items = [item for number in range(8) for item in thrift.get(f"q{number}", 1, 10_000, MINUTE_MS)]
    assert [item.data == large for item in items] == [True] * 8
    assert [thrift.confirm(f"q{number}", {item.id}) for number, item in enumerate(items)] == [1] * 8


# -- accidents


def test_what_was_answered_survives_kill_9(server: KestrelServer) -> None:
    thrift = server.thrift_client()
    assert thrift.put("q", [b"%d" % i for i in range(6)]) == 6
    assert data(thrift.get("q", 1)) == [b"0"]
    items = thrift.get("q", 4, 0, MINUTE_MS)
    assert thrift.confirm("q", {items[1].id}) == 1
    assert thrift.abort("q", {items[2].id}) == 1
    server.kill()
    server.start()
    thrift = server.thrift_client()
    assert thrift.confirm("q", ids(items)) == 0  # the ids are nobody's any more: all that was open waits
    again = thrift.get("q", 10, 0, MINUTE_MS)
    assert data(again) == [b"1", b"3", b"4", b"5"]
    assert not ids(again) & ids(items)


def test_a_failed_write_is_answered_and_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARNER_TICK_S", "0.1")
    server = KestrelServer(tmp_path / "data", fails=True)
    try:
        thrift = server.thrift_client()
        thrift.put("q", [b"a", b"b", b"c"])
        (item,) = thrift.get("q", 1, 0, MINUTE_MS)
        switch = tmp_path / "data.fails"
        switch.write_text("write put reopen")
        assert why(thrift.get, "q", 1) == "no space left on device"
        assert why(thrift.confirm, "q", {item.id}) == "no space left on device"
        assert why(thrift.put, "q", [b"d"]) == "cannot write: no space left on device"
        switch.unlink()
        wait_until(lambda: "the disk takes writes again" in server.printed())
        assert thrift.confirm("q", {item.id}) == 1
        assert data(thrift.get("q", 10)) == [b"b", b"c"]
        server.kill()
        server.start()
        assert server.thrift_client().get("q", 10) == []
    finally:
        server.end()


def test_an_item_whose_fsync_failed_is_handed_over_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARNER_TICK_S", "0.1")
    server = KestrelServer(tmp_path / "data", "--sync", "always", fails=True)
    try:
        thrift = server.thrift_client()
        thrift.put("q", [b"a"])
        (tmp_path / "data.fails").write_text("once sync")
        assert data(thrift.get("q", 1)) == [b"a"]  # it is in no queue any more
    finally:
        server.end()


def test_many_items_are_put_in_several_turns_and_counted_up_to_the_turn_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARNER_TICK_S", "0.1")
    server = KestrelServer(tmp_path / "data", fails=True)
    try:
        thrift = server.thrift_client()
        items = [b"%d" % number for number in range(2 * ITEMS_A_TURN + 100)]
        assert thrift.put("whole", items) == len(items)
        switch = tmp_path / "data.fails"
        switch.write_text("2 write")
        assert thrift.put("part", items) == ITEMS_A_TURN
        switch.write_text("once write")
        assert why(thrift.put, "nothing", items) == "cannot write: no space left on device"
        server.kill()
        server.start()
        thrift = server.thrift_client()
        whole = [thrift.get("whole", ITEMS_A_TURN) for _ in range(3)]
        assert [one for some in whole for one in data(some)] == items
        assert data(thrift.get("part", len(items))) == items[:ITEMS_A_TURN]
        assert thrift.get("part", 1) == []
        assert thrift.get("nothing", 1) == []
    finally:
        server.end()


def test_a_confirm_in_several_turns_of_which_one_fails_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARNER_TICK_S", "0.1")
    server = KestrelServer(tmp_path / "data", fails=True)
    try:
        thrift = server.thrift_client()
        thrift.put("q", [b"a", b"b"])
        (item,) = thrift.get("q", 1, 0, MINUTE_MS)
        others = set(range(item.id + 1, item.id + 5000))  # of nobody, but looked for in several turns
        (tmp_path / "data.fails").write_text("once write put")
        assert why(thrift.confirm, "q", {item.id, *others}) in (
            "only some of the items are decided on: a part could not be written",
            "cannot write: no space left on device",
            "no space left on device",
        )
        assert thrift.confirm("q", {item.id, *others}) == 1
        assert data(thrift.get("q", 10)) == [b"b"]
    finally:
        server.end()


def test_an_fsync_that_fails_in_the_middle_of_a_put_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARNER_TICK_S", "0.1")
    server = KestrelServer(tmp_path / "data", "--sync", "always", fails=True)
    try:
        thrift = server.thrift_client()
        items = [b"%d" % number for number in range(2 * ITEMS_A_TURN + 100)]
        assert thrift.put("q", items) == len(items)
        (tmp_path / "data.fails").write_text("once sync")
        # Or it is what a later turn meets: a database that is closed, to be opened again.
        assert why(thrift.put, "q", items).endswith(("no space left on device", "is not open"))
    finally:
        server.end()


def test_who_waits_is_answered_when_the_server_stops(server: KestrelServer) -> None:
    raw = server.raw_thrift_client()
    server.thrift_client().put("q", [b"a"])
    raw.send(call("get", name("q") + i32(2, 5) + i32(3, 60_000)))
    raw.expect_nothing()
    assert server.stop() == 0
    assert reply(raw, "get") == [b"a"]


def test_the_older_form_of_a_message_is_understood(server: KestrelServer) -> None:
    raw = server.raw_thrift_client()
    raw.send(text(text(b"get_version") + b"\x01" + struct.pack(">i", 3) + b"\0"))
    assert read_frame(raw).startswith(b"\x80\x01\x00\x02" + text(b"get_version") + struct.pack(">i", 3))


# -- calls as bytes, for what a proper client does not send


def name(queue: str) -> bytes:
    return field(11, 1, text(queue.encode()))


def i32(number: int, value: int) -> bytes:
    return field(8, number, struct.pack(">i", value))


def call(method: str, arguments: bytes, sequence: int = 0) -> bytes:
    return text(b"\x80\x01\x00\x01" + text(method.encode()) + struct.pack(">i", sequence) + arguments + b"\0")


def read_frame(client: Client) -> bytes:
    return client.read(struct.unpack(">i", client.read(4))[0])


def message(client: Client) -> tuple[int, bytes, int, Any]:
    """The next reply: its kind, method, sequence number, and a reader of what follows."""
    protocol = TBinaryProtocol(TMemoryBuffer(read_frame(client)), decode_response=False)
    method, kind, sequence = protocol.read_message_begin()
    return kind, method.encode(), sequence, protocol


def exception(client: Client) -> tuple[bytes, int, int, str]:
    """The next reply, which is an exception: to which method and sequence number, its type, what it says."""
    kind, method, sequence, protocol = message(client)
    assert kind == 3
    found = TApplicationException()
    found.read(protocol)
    return method, sequence, found.type, found.message.decode()


def reply(client: Client, method: str) -> list[bytes]:
    """The items in the next reply. Raises TApplicationException."""
    kind, _, _, protocol = message(client)
    if kind == 3:
        error = TApplicationException()
        error.read(protocol)
        raise error
    result = getattr(IDL.Kestrel, f"{method}_result")()
    result.read(protocol)
    return data(result.success)
