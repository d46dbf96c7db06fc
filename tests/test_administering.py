"""Flushing and deleting, as a client sees it, beyond the recorded conversations of tests/wire."""

import time
from collections.abc import Callable
from typing import Any

from darner_core.administering import ONE_PIECE_BYTES, SCARCE_PIECE_BYTES
from darner_core.commands import Commands
from darner_core.config import Config
from darner_core.protocol import Request
from darner_core.stats import Stats
from darner_core.storage import Storage
from tests.harness import Client, RunningServer
from tests.test_session import House

Connect = Callable[[], Client]


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
    commands = Commands(house.registry, house.journal, Stats(), Config())

    def pieces_of(command: Callable[..., Any]) -> list[bytes]:
        client = Taker()
        rest = command(Request(command), None, None)(client)
        assert rest.endswith(b"END\r\n")
        return [*client.pieces, rest]

    asked = (commands.administering.stats, commands.operating.dump_stats, commands.operating.dump_config)
    for number in range(60):
        house.registry.create(b"queue%d" % number)
    for command in asked:
        (piece,) = pieces_of(command)
        assert piece.count(b"queue59") >= 1
        assert 10_000 < len(piece) <= ONE_PIECE_BYTES
    for number in range(60, 250):
        house.registry.create(b"queue%d" % number)
    commands.pipeline_memory.used_bytes = commands.pipeline_memory.budget_bytes
    whole = [pieces_of(command) for command in asked]
    commands.pipeline_memory.used_bytes += 1  # now it is scarce
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
