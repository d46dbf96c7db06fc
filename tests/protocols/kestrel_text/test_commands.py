"""Kestrel's text protocol as its clients speak it, beside others on the same queues."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.harness import Client, wait_until
from tests.support.kestrel_clients import KestrelServer

Connect = Callable[[], Client]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KestrelServer]:
    directory = tmp_path_factory.mktemp("server")
    server = KestrelServer(directory / "data", "--chunk-bytes", "16 KiB", "--max-item-bytes", "1 MiB")
    yield server
    server.end()


@pytest.fixture
def server(shared: KestrelServer) -> KestrelServer:
    shared.as_new()
    return shared


@pytest.fixture
def connect(server: KestrelServer) -> Connect:
    return server.text_client


def test_items_are_put_and_taken_in_order_by_clients_of_either_protocol(server: KestrelServer) -> None:
    text, memcache = server.text_client(), server.client()
    text.ask(b"put q:\na\nb b\n\n", b"+2\n")
    memcache.set("q", b"c", flags=5)
    assert memcache.get("q") == b"a"
    text.ask(b"get q\nget q\n", b":b b\n:c\n")
    text.ask(b"get q\nget nothing\n", b"*\n*\n")
    assert memcache.get("q") is None


def test_a_get_confirms_all_that_were_open_of_its_queue(server: KestrelServer) -> None:
    text = server.text_client()
    text.ask(b"put q:\na\nb\nc\nd\n\nput other:\nx\n\n", b"+4\n+1\n")
    text.ask(b"monitor q 0\n", b":a\n:b\n:c\n:d\n*\n")
    text.ask(b"get other\n", b":x\n")
    assert server.client().stats()["queue_q_open_transactions"] == "4"
    text.ask(b"get q\n", b"*\n")
    stats = server.client().stats()
    assert stats["queue_q_open_transactions"] == "0"
    assert stats["queue_other_open_transactions"] == "1"


def test_a_peek_makes_no_child_and_waits_on_if_it_comes_too_late(server: KestrelServer) -> None:
    peeking, taking, text = (server.text_client() for _ in range(3))
    peeking.send(b"peek p+c 10000\n")
    peeking.expect_nothing()
    assert server.thrift_client().peek("p+c").items == 0
    text.ask(b"put p:\nfor no child\n\n", b"+1\n")
    assert not any(name.startswith("queue_p+c") for name in server.client().stats())
    taking.send(b"get p+c 10000\n")
    taking.expect_nothing()
    text.ask(b"put p:\na\n\n", b"+1\n")
    taking.expect(b":a\n")
    peeking.expect_nothing()
    text.ask(b"put p+c:\nb\n\n", b"+1\n")
    peeking.expect(b":b\n")


def test_a_lost_connection_gives_back_what_was_not_confirmed(server: KestrelServer) -> None:
    text = server.text_client()
    text.ask(b"put q:\na\nb\nc\n\n", b"+3\n")
    text.ask(b"monitor q 0\nconfirm q 1\n", b":a\n:b\n:c\n*\n+1\n")
    text.close()
    memcache = server.client()
    assert [memcache.get("q/t=5000"), memcache.get("q"), memcache.get("q")] == [b"b", b"c", None]


def test_a_count_that_is_not_open_confirms_nothing(connect: Connect) -> None:
    text = connect()
    text.ask(b"put q:\na\nb\n\nmonitor q 0\n", b"+2\n:a\n:b\n*\n")
    text.ask(b"confirm q 3\nconfirm other 1\n", b"-Not that many transactions open.\n" * 2)
    text.ask(b"confirm q 0\nconfirm q 2\nconfirm q 1\n", b"+0\n+2\n-Not that many transactions open.\n")


def test_peek_shows_the_head_and_confirms(server: KestrelServer) -> None:
    text = server.text_client()
    text.ask(b"put q:\na\nb\n\nget q\npeek q\npeek q\n", b"+2\n:a\n:b\n:b\n")
    text.close()
    memcache = server.client()
    assert [memcache.get("q/t=1000"), memcache.get("q")] == [b"b", None]


@pytest.mark.parametrize("verb", [b"get", b"peek"])
def test_who_waits_gets_what_comes(server: KestrelServer, verb: bytes) -> None:
    text, memcache = server.text_client(), server.client()
    text.ask(b"%b q 1\n" % verb, b"*\n")
    text.send(b"%b q 10000\nversion\n" % verb)
    text.expect_nothing()
    memcache.set("q", b"a")
    text.expect(b":a\n")
    assert text.line().startswith(b":")  # the version


def test_an_item_goes_to_the_next_if_who_waited_has_gone(server: KestrelServer) -> None:
    gone, next_one = server.text_client(), server.text_client()
    gone.send(b"get q 10000\n")
    gone.expect_nothing()
    next_one.send(b"get q 10000\n")
    next_one.expect_nothing()
    gone.close()
    server.client().set("q", b"a")
    next_one.expect(b":a\n")


def test_a_monitor_sends_what_is_there_and_what_comes(server: KestrelServer) -> None:
    text, memcache = server.text_client(), server.client()
    memcache.set("q", b"a")
    text.send(b"monitor q 1000\n")
    text.expect(b":a\n")
    memcache.set("q", b"b")
    memcache.set("q", b"c")
    text.expect(b":b\n:c\n*\n")
    text.ask(b"confirm q 3\n", b"+3\n")


def test_a_monitor_ends_when_as_many_are_open_as_may_be(connect: Connect) -> None:
    text = connect()
    text.ask(b"put q:\n" + b"x\n" * 150 + b"\n", b"+150\n")
    text.ask(b"monitor q 60000\n", b":x\n" * 100 + b"*\n")
    text.ask(b"confirm q 60\nmonitor q 0\n", b"+60\n" + b":x\n" * 50 + b"*\n")


def test_a_monitor_confirms_all_that_was_open(server: KestrelServer) -> None:
    text, other = server.text_client(), server.text_client()
    text.ask(b"put q:\na\nb\nc\n\n", b"+3\n")
    text.ask(b"get q\n", b":a\n")
    text.ask(b"monitor q 0\n", b":b\n:c\n*\n")
    text.ask(b"confirm q 3\n", b"-Not that many transactions open.\n")
    text.ask(b"monitor q 0\n", b"*\n")
    text.close()
    other.ask(b"get q 1\n", b"*\n")


def test_large_items_are_sent_piece_by_piece(server: KestrelServer) -> None:
    text, memcache = server.text_client(), server.client()
    large = os.urandom(500_000).replace(b"\n", b" ")
    memcache.set("q", large)
    memcache.set("q", b"small")
    text.ask(b"peek q\n", b":" + large + b"\n")
    text.send(b"get q\n")
    text.close()  # before it has been sent, or before it has been confirmed
    wait_until(lambda: memcache.stats()["curr_connections"] == "1")
    text = server.text_client()
    text.ask(b"get q 5000\nget q\nget q\n", b":" + large + b"\n:small\n*\n")
    memcache.set("q", b"a")
    memcache.set("q", large)
    memcache.set("q", b"b")
    text.ask(b"monitor q 0\nconfirm q 3\n", b":a\n:" + large + b"\n:b\n*\n+3\n")


def test_an_expiry_is_kept_with_the_item(connect: Connect) -> None:
    connect().ask(b"put q 60000:\na\n\nget q\n", b"+1\n:a\n")


def test_what_is_not_understood_is_answered_and_the_connection_goes_on(connect: Connect) -> None:
    text = connect()
    text.ask(b"get\nput q soon:\nflush x\n\nversion\n", b"-Queue name required.\n-Error parsing expiration time.")
    assert text.line().startswith(b' "soon"')
    assert text.line().startswith(b":")


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"get " + b"q" * 9000, b"-line too long: at most 8192 bytes\n"),
        (b"put q:\na\n" + b"x" * 17000, b"-item too long: at most 16384 bytes in this protocol\n"),
        (b"put q:\n" + b"x\n" * 1025 + b"\n", b"-too many items: at most 1024 in one put\n"),
        (b"put q\nput q:\n\nput q:\nx\n\n", b"-a put is: put <queue> [<expiry in ms>]: and then a line for each item"),
        (b"POST / HTTP/1.1\r\nput q:\nx\n\n", b"-this is an HTTP request, but no web server\n"),
        (b"\x16", b"-this is the beginning of a TLS handshake, but there is no TLS at this port\n"),
    ],
)
def test_what_is_too_much_is_answered_with_a_hang_up_and_stores_nothing(
    server: KestrelServer, said: bytes, answer: bytes
) -> None:
    text = server.text_client()
    text.ask(said, answer)
    if not answer.endswith(b"\n"):
        text.line()
    text.expect_hang_up()
    assert server.client().get("q") is None


def test_half_a_put_puts_nothing(server: KestrelServer) -> None:
    text = server.text_client()
    text.send(b"put q:\na\nb\n")
    text.close()
    assert server.client().get("q/t=200") is None


def test_flush_delete_and_quit(server: KestrelServer) -> None:
    text, memcache = server.text_client(), server.client()
    text.ask(b"put q:\na\nb\n\nget q\nflush q\nflush nothing\n", b"+2\n:a\n+0\n+0\n")
    assert memcache.stats()["queue_q_open_transactions"] == "1"
    text.ask(b"delete q\ndelete q\n", b"+0\n+0\n")
    assert "queue_q_items" not in memcache.stats()
    text.ask(b"get q\nquit\n", b"*\n")
    text.expect_hang_up()


def test_shutdown_stops_the_server_as_a_signal_does(server: KestrelServer) -> None:
    text, waiting = server.text_client(), server.text_client()
    waiting.send(b"get q 60000\n")
    waiting.expect_nothing()
    text.ask(b"put q2:\na\n\nshutdown\n", b"+1\n+0\n")
    waiting.expect(b"*\n")
    assert server.process.wait(10) == 0
    server.start()
    server.text_client().ask(b"get q2\n", b":a\n")


def test_what_was_answered_survives_kill_9(server: KestrelServer) -> None:
    text = server.text_client()
    text.ask(b"put q:\na\nb\nc\nd\n\nget q\nget q\nget q\n", b"+4\n:a\n:b\n:c\n")
    server.kill()
    server.start()
    server.text_client().ask(b"monitor q 0\n", b":c\n:d\n*\n")  # c was open: it comes again


def test_a_failed_write_is_answered_and_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARNER_TICK_S", "0.1")
    server = KestrelServer(tmp_path / "data", fails=True)
    try:
        text = server.text_client()
        text.ask(b"put q:\na\nb\n\nget q\n", b"+2\n:a\n")
        switch = tmp_path / "data.fails"
        switch.write_text("write put reopen")
        text.ask(b"get q\n", b"-no space left on device\n")  # neither is a confirmed nor b opened
        text.ask(b"put q:\nc\n\n", b"-cannot write: no space left on device\n")
        switch.unlink()
        wait_until(lambda: "the disk takes writes again" in server.printed())
        text.ask(b"confirm q 2\nconfirm q 1\n", b"-Not that many transactions open.\n+1\n")
        text.ask(b"get q\nget q\n", b":b\n*\n")
    finally:
        server.end()


def test_an_item_whose_fsync_failed_is_handed_over_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARNER_TICK_S", "0.1")
    server = KestrelServer(tmp_path / "data", "--sync", "always", fails=True)
    try:
        text = server.text_client()
        text.ask(b"put q:\na\nb\n\nget q\n", b"+2\n:a\n")
        (tmp_path / "data.fails").write_text("once sync")
        text.ask(b"get q\n", b":b\n")  # else the next get would confirm what the client has never seen
    finally:
        server.end()


def test_a_client_that_takes_nothing_holds_up_nobody(server: KestrelServer) -> None:
    memcache, slow = server.client(), server.text_client()
    for _ in range(20):
        memcache.set("q", bytes(500_000))
    before = server.resident_bytes()
    slow.send(b"get q\n" * 20)
    wait_until(lambda: int(memcache.stats()["queue_q_open_transactions"]) + int(memcache.stats()["queue_q_items"]) < 20)
    memcache.set("other", b"x")
    assert memcache.get("other") == b"x"
    assert server.resident_bytes() - before < 8 << 20
    os.kill(server.process.pid, signal.SIGTERM)
    assert server.process.wait(10) == 0


# -- what queues are told to do

QUEUES = """
[queues.small]
max_items = 3

[queues.short]
max_age_s = 1

[aliases]
both = ["one", "two"]
"""


@pytest.fixture
def with_tables(tmp_path: Path) -> Iterator[KestrelServer]:
    server = KestrelServer(tmp_path / "data", "--chunk-bytes", "16 KiB", tables=QUEUES)
    yield server
    server.end()


def test_limits_aliases_children_and_expiry_hold_in_these_protocols(with_tables: KestrelServer) -> None:
    text, thrift = with_tables.text_client(), with_tables.thrift_client()
    text.ask(b"put small:\na\nb\n\nput small:\nc\nd\ne\n\n", b"+2\n+1\n")
    assert thrift.put("small", [b"x"]) == 0
    assert thrift.put("small", [bytes(20_000)]) == 0  # a large one
    text.ask(b"put both:\na\nb\n\nget one\nget two\nget both 60000\n", b"+2\n:a\n:a\n*\n")
    assert thrift.put("both", [b"c", bytes(20_000)]) == 2
    assert [item.data for item in thrift.get("two", 2)] == [b"b", b"c"]
    assert [item.data for item in thrift.get("two", 2)] == [bytes(20_000)]
    assert thrift.get("both", 1, 60_000) == []
    text.ask(b"get parent+child\n", b"*\n")  # from now on it gets a copy
    assert thrift.put("parent", [b"a", bytes(20_000)]) == 2
    text.ask(b"get parent\nget parent+child\n", b":a\n:a\n")
    assert len(thrift.get("parent+child", 5)[0].data) == 20_000
    assert thrift.put("q", [b"a", b"b"], 1) == 2
    assert thrift.put("q", [b"c"]) == 1
    wait_until(lambda: thrift.peek("q").head_item == b"c")
    text.ask(b"get q\n", b":c\n")


def test_many_expired_items_are_passed_over(with_tables: KestrelServer) -> None:
    text, thrift = with_tables.text_client(), with_tables.thrift_client()
    for queue in ("a", "b", "c", "d", "e"):
        assert thrift.put(queue, [b"x"] * 5000, 1) == 5000
        assert thrift.put(queue, [b"last"]) == 1
    time.sleep(0.01)
    text.ask(b"get a\npeek b\nmonitor c 0\n", b":last\n:last\n:last\n*\n")
    assert thrift.peek("d").head_item == b"last"
    assert [item.data for item in thrift.get("e", 10)] == [b"last"]


def test_a_monitor_sends_what_lies_before_an_item_that_cannot_be_read(tmp_path: Path) -> None:
    server = KestrelServer(tmp_path / "data", tables="[default]\nmax_open_reads = 1000\n", fails=True)
    try:
        text = server.text_client()
        for _ in range(6):
            text.ask(b"put q:\n%b\n" % (b"x\n" * 100), b"+100\n")
        server.stop()
        server.start()  # what is in memory now is read from the disk, 512 at a time
        text = server.text_client()
        text.ask(b"peek q\n", b":x\n")
        (tmp_path / "data.fails").write_text("items")
        text.send(b"monitor q 60000\n")
        text.expect(b":x\n" * 512)
        assert text.line().startswith(b"-queue q cannot be read: ")
        (tmp_path / "data.fails").unlink()
        text.ask(b"confirm q 512\nget q\n", b"+512\n:x\n")
    finally:
        server.end()
