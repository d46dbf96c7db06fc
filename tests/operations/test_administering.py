"""Flushing and deleting, as a client sees it, beyond the recorded conversations of tests/wire."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from thriftpy2.thrift import TApplicationException

from darner_core.config.options import Config
from darner_core.operations import stats as stats_module
from darner_core.operations.client import SCARCE_PIECE_BYTES
from darner_core.operations.session import Session
from darner_core.protocols.memcache.operating import Operating
from darner_core.protocols.memcache.reader import LineRequest
from darner_core.protocols.memcache.replies import ONE_PIECE_BYTES
from darner_core.storage.storage import Storage
from tests.operations.test_session import House
from tests.support.bench import Bench
from tests.support.harness import Client, RunningServer
from tests.support.identities import login, write_users
from tests.support.kestrel_clients import IDL, KestrelServer
from tests.support.operations_on import operations_on

Connect = Callable[[], Client]
Start = Callable[..., RunningServer]


def test_flush_drops_what_waits_and_leaves_what_is_open(connect: Connect) -> None:
    holder, client = connect(), connect()
    for body in (b"a", b"b", b"c"):
        client.set("q", body)
    assert holder.get("q/open") == b"a"
    client.ask(b"flush q\r\n", b"END\r\n")
    assert client.get("q") is None
    client.set("q", b"d")
    assert holder.get("q/abort") is None
    assert [client.get("q"), client.get("q"), client.get("q")] == [b"a", b"d", None]


def test_flush_drops_what_was_given_back(connect: Connect) -> None:
    client = connect()
    client.set("q", b"a")
    assert client.get("q/open") == b"a"
    assert client.get("q/abort") is None
    client.ask(b"flush q\r\n", b"END\r\n")
    assert client.get("q") is None


def test_a_deleted_queue_starts_anew(connect: Connect) -> None:
    holder, client = connect(), connect()
    client.set("q", b"a")
    client.set("q", b"b")
    assert holder.get("q/open") == b"a"
    client.ask(b"delete q\r\n", b"DELETED\r\n")
    client.set("q", b"c")
    assert holder.get("q/close/open") == b"c"
    assert holder.get("q/abort") is None
    assert [client.get("q"), client.get("q")] == [b"c", None]


def test_asking_creates_nothing(connect: Connect) -> None:
    client = connect()
    for request in ("q", "q/open", "q/peek", "q/close", "q/abort", "q/t=10", "q/close/open/t=10"):
        assert client.get(request) is None
    client.ask(b"flush q\r\ndelete q\r\n", b"END\r\nDELETED\r\n")
    stats = client.stats()
    assert stats["queue_creates"] == stats["queue_deletes"] == "0"
    assert not [name for name in stats if name.startswith("queue_q_")]


class Taker:
    """A client that takes all it is sent."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def wait_sent(self, data: bytes = b"") -> None:
        self.pieces.append(data)

    def wait_turn(self) -> None: ...

    def may_see(self, queue: bytes) -> bool:
        return True


def test_a_long_reply_comes_in_as_few_pieces_as_its_bytes_allow(open_storage: Callable[[], Storage]) -> None:
    """npm's memcached loses the first piece of two."""
    house = House(open_storage)
    operations = operations_on(house)
    operating = Operating(operations, Config())

    def pieces_of(command: Callable[..., Any]) -> list[bytes]:
        client = Taker()
        rest = command(LineRequest(command), None, None)(client)
        assert rest.endswith(b"END\r\n")
        return [*client.pieces, rest]

    asked = (operating.stats, operating.dump_stats, operating.dump_config)
    for number in range(60):
        house.registry.create(b"queue%d" % number)
    for command in asked:
        (piece,) = pieces_of(command)
        assert piece.count(b"queue59") >= 1
        assert 10_000 < len(piece) <= ONE_PIECE_BYTES
    for number in range(60, 250):
        house.registry.create(b"queue%d" % number)
    operations.pipeline_memory.used_bytes = operations.pipeline_memory.budget_bytes
    whole = [pieces_of(command) for command in asked]
    operations.pipeline_memory.used_bytes += 1  # now it is scarce
    small = [pieces_of(command) for command in asked]
    for pieces, limit in (
        *((pieces, ONE_PIECE_BYTES) for pieces in whole),
        *((one, SCARCE_PIECE_BYTES) for one in small),
    ):
        assert len(pieces) > 1
        assert max(map(len, pieces[1:])) <= limit + 5
    assert [b"".join(pieces).count(b"queue249") for pieces in whole] == [
        b"".join(pieces).count(b"queue249") for pieces in small
    ]


def test_many_statistics_that_nobody_takes_are_not_all_kept(server: RunningServer) -> None:
    client, other = server.client(), server.client()
    for number in range(80):
        client.set(f"queue{number}", b"x")  # 40 KB in one answer
    before = server.resident_bytes()
    client.send(b"stats\r\n" * 5000)
    time.sleep(1)  # time to make 20 MB of them; a slower machine finds out less
    other.ask(b"get none\r\n", b"END\r\n")
    assert server.resident_bytes() - before < 8 << 20


# -- who did what, and from where it is taken


def told(server: RunningServer, begin: str) -> list[tuple[str, str]]:
    """What the log says behind `begin` and a client at 127.0.0.1, without its port."""
    return re.findall(rf"{begin}: ((?:\w+@)?127\.0\.0\.1):\d+: (.+)\n", server.printed())


def test_the_log_says_who_has_had_what_done(start_server: Start, tmp_path: Path) -> None:
    server = start_server("--auth-file", str(write_users(tmp_path / "users", bob="pw")))
    bob = server.client()
    bob.ask(login("bob", "pw"), b"STORED\r\n")
    bob.set("q\u009b\u202ex", b"x")
    for said in ("delete q\u009b\u202ex", "flush q", "flush_expired q", "flush_all", "status readonly", "status up",
                 "reload", "status", "dump_config q", "stats"):  # fmt: skip
        bob.send(f"{said}\r\n".encode())
        while not bob.line().startswith((b"END", b"DELETED", b"0", b"Flushed", b"UP", b"Reloaded")):
            pass
    bob.send(b"shutdown\r\n")
    bob.expect_hang_up()
    server.process.wait(10)
    assert told(server, "INFO admin") == [
        ("bob@127.0.0.1", what)
        for what in (r"delete q\x9b\u202ex", "flush q", "flush_expired q", "flush_all", "status readonly", "status up",
                     "reload", "shutdown")
    ]  # fmt: skip


def test_refused_requests_are_told_when_one_looks_closely(start_server: Start) -> None:
    server = start_server("--debug", "--max-queues", "1")
    client = server.client()
    client.set("q", b"x")
    client.ask(b"set r 0 0 1\r\nx\r\n", b"SERVER_ERROR too many queues: at most 1\r\n")
    client.ask(b"get \xc2\x9b/x\r\n", b"ERROR unknown option")
    assert [said for _, said in told(server, "DEBUG refused")] == [
        "too many queues: at most 1",
        'unknown option "/x" for get: /open, /close, /abort, /reject, /peek, /t=<ms>, /ttr=<ms>, /n=<count>, /id=<n>,'
        " /delay=<ms> and /pri=<n>",
    ]


@pytest.fixture(scope="module")
def kestrel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KestrelServer]:
    """Takes an operator's commands from Unix sockets alone, of which there is none."""
    options = 'dialect = "kestrel"\nadmin_from = ["unix", "192.0.2.0/24"]\n'
    server = KestrelServer(tmp_path_factory.mktemp("server") / "data", "--debug", tables=options)
    yield server
    server.end()


NOT_TAKEN = 'is not taken from 127.0.0.1: admin_from = ["unix", "192.0.2.0/24"] does not name it'


def test_from_elsewhere_commands_are_refused_and_nothing_is_done(kestrel: KestrelServer) -> None:
    client = kestrel.client()
    client.set("q", b"x")
    for said in ("delete q", "flush q", "flush_all", "flush_all_expired", "status readonly", "reload", "shutdown",
                 "watch q", "dump_config", "flush_expired q"):  # fmt: skip
        other = kestrel.client()
        other.ask(f"{said}\r\n".encode(), f"CLIENT_ERROR {said.split()[0]} {NOT_TAKEN}\r\n".encode())
        other.expect_hang_up()
    client.ask(b"status\r\n", b"UP\r\n")
    assert client.get("q") == b"x"
    assert f"flush_all {NOT_TAKEN}" in [said for _, said in told(kestrel, "DEBUG refused")]
    assert not told(kestrel, "INFO admin")


def test_it_is_the_same_by_the_text_protocol(kestrel: KestrelServer) -> None:
    kestrel.client().set("q", b"x")
    for said in ("delete q", "flush q", "status to readonly", "shutdown"):
        other = kestrel.text_client()
        verb = "status to" if said.startswith("status") else said.split()[0]
        other.ask(f"{said.replace(' to', '')}\n".encode(), f"-{verb} {NOT_TAKEN}\n".encode())
        other.expect_hang_up()
    kestrel.text_client().ask(b"status\nget q\n", b":UP\n:x\n")


def test_it_is_the_same_by_thrift(kestrel: KestrelServer) -> None:
    thrift = kestrel.thrift_client()
    assert thrift.put("q", [b"x"], 0) == 1
    calls: list[tuple[str, list[Any]]] = [
        ("delete_queue", ["q"]),
        ("flush_queue", ["q"]),
        ("flush_all_queues", []),
        ("set_status", [IDL.Status.READ_ONLY]),
    ]
    for call, arguments in calls:
        with pytest.raises(TApplicationException) as refused:
            getattr(thrift, call)(*arguments)
        assert refused.value.message == f"{call} {NOT_TAKEN}"
    assert thrift.current_status() == IDL.Status.UP
    assert thrift.get("q", 1, 0, 0)[0].data == b"x"


def test_the_log_says_who_by_the_other_protocols_and_a_reload_brings_other_places(tmp_path: Path) -> None:
    server = KestrelServer(tmp_path / "data")
    try:
        server.text_client().ask(b"flush q\ndelete q\nstatus up\n", b"+0\n+0\n+0\n")
        thrift = server.thrift_client()
        thrift.delete_queue("q")
        thrift.flush_all_queues()
        thrift.set_status(IDL.Status.UP)
        expected = ["flush q", "delete q", "status to up", "delete_queue q", "flush_all_queues", "set_status"]
        assert [what for _, what in told(server, "INFO admin")] == expected
        client = server.client()
        file = tmp_path / "data.toml"
        file.write_text('admin_from = ["unix"]\n' + file.read_text())
        client.ask(b"reload\r\n", b"Reloaded config.\r\n")
        client.ask(b"flush q\r\n", b"CLIENT_ERROR flush is not taken from 127.0.0.1")
    finally:
        server.end()


class Asking:
    """A client of `stats`, and what happens in the turns between."""

    def __init__(self, between: Callable[[], None]) -> None:
        self.turns = 0
        self.sent = b""
        self._between = between

    def wait_turn(self) -> None:
        self.turns += 1
        self._between()

    def wait_sent(self, data: bytes) -> None:
        self.sent += data

    def may_see(self, queue: bytes) -> bool:
        return True


def test_the_sums_of_stats_are_taken_in_slices_and_a_queue_that_goes_meanwhile_counts_once(
    open_storage: Callable[[], Storage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stats_module, "SUMMED_A_TURN", 4)
    bench = Bench(open_storage)
    for number in range(12):
        bench.put(b"q%02d" % number, b"xy", b"xy")
    bench.registry.delete(b"q11")
    bench.end_turn()

    def between() -> None:
        if client.turns == 1:  # one that has been counted, and one that has not
            bench.registry.delete(b"q00")
            bench.registry.delete(b"q10")
            bench.end_turn()

    client: Any = Asking(between)
    operating = Operating(operations_on(bench), Config())
    stats = operating.stats(LineRequest(print), None, Session(bench.journal))
    assert callable(stats)
    reply = stats(client)
    assert client.turns >= 2
    lines = (client.sent + reply).split(b"\r\n")
    assert b"STAT total_items 24" in lines
    assert b"STAT curr_items 20" in lines  # as it was: the first deleted was there when it was counted
    assert b"STAT bytes 40" in lines


def test_what_has_expired_of_all_queues_is_removed_and_counted(start_server: Start) -> None:
    client = start_server("--dialect", "kestrel", "--expiration-timer-s", "0").client()
    client.ask(b"flush_all_expired\r\n", b"0\r\n")
    for queue in (b"q", b"r"):
        client.ask(b"set %b 0 1 1\r\nx\r\nset %b 0 0 1\r\ny\r\n" % (queue, queue), b"STORED\r\nSTORED\r\n")
    time.sleep(1.1)
    client.ask(b"flush_all_expired\r\n", b"2\r\n")
    client.ask(b"flush_all_expired\r\n", b"0\r\n")
    assert (client.get("q"), client.get("r")) == (b"y", b"y")
