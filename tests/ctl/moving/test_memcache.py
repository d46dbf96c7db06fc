"""Moving away from servers of the memcache protocol: ours in three dialects, and what the originals say."""

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from darner_core.ctl.moving.memcache import Lanes, Monitored
from darner_core.ctl.moving.wire import Wire
from tests.support.harness import RunningServer, run_darner
from tests.support.moving import drained, move_all

BODIES = [b"%d" % number for number in range(300)]


def url(kind: str, server: RunningServer) -> str:
    return f"{kind}://127.0.0.1:{server.port}"


@pytest.mark.parametrize("dialect", ["kestrel", "darner", "siberite"])
def test_all_items_come_over_in_their_order(dialect: str, shared_server: Callable[..., RunningServer]) -> None:
    old, new = shared_server("--dialect", dialect), shared_server()
    client = old.client()
    for body in BODIES:
        client.set("work", body, flags=7)
    client.set("other", b"one\r\nEND\r\n")
    client.set("large", bytes(3 << 20))
    moved = {one.name: one for one in move_all(url(dialect, old), new)}
    assert (moved[b"work"].items, moved[b"other"].items, moved[b"large"].items) == (300, 1, 1)
    assert {one.left for one in moved.values()} == {""}
    new.client().ask(b"get work/peek\r\n", b"VALUE work 7 1\r\n0\r\nEND\r\n")
    assert drained(new, "work") == BODIES
    assert drained(new, "other") == [b"one\r\nEND\r\n"]
    assert drained(new, "large") == [bytes(3 << 20)]
    assert [old.client().stats()[f"queue_{name}_items"] for name in ("work", "other", "large")] == ["0"] * 3


@pytest.mark.parametrize("dialect", ["kestrel", "darner"])
def test_what_other_clients_have_open_is_named(dialect: str, shared_server: Callable[..., RunningServer]) -> None:
    old, new = shared_server("--dialect", dialect), shared_server()
    worker = old.client()
    for body in (b"a", b"b"):
        worker.set("held", body)
    worker.ask(b"set held/delay=600000 0 0 1\r\nc\r\n", b"STORED\r\n")
    assert worker.get("held/open") == b"a"
    moved = {one.name: one for one in move_all(url(dialect, old), new)}[b"held"]
    worker.close()
    assert moved.items == 1
    assert moved.left == "1 open at other clients, 1 delayed"
    assert drained(new, "held") == [b"b"]


@pytest.mark.long
def test_a_user_logs_in(start_server: Callable[..., RunningServer], tmp_path: Path) -> None:
    hashed = run_darner("--hash-password", "mover", typed="a:b@c\na:b@c\n").stdout.splitlines()[-1]
    (tmp_path / "auth").write_text(hashed + "\n")
    old, new = start_server("--auth-file", str(tmp_path / "auth")), start_server()
    client = old.client()
    client.ask(b"set x 0 0 11\r\nmover a:b@c\r\n", b"STORED\r\n")
    client.set("work", b"x")
    moved = move_all(f"darner://mover:a%3Ab%40c@127.0.0.1:{old.port}", new)
    assert [one.items for one in moved] == [1]


def test_a_cursor_of_siberite_is_not_a_queue(shared_server: Callable[..., RunningServer]) -> None:
    old, new = shared_server("--dialect", "siberite"), shared_server()
    client = old.client()
    client.set("watched", b"a")
    assert client.get("watched.audit") == b"a"
    source = Lanes(lambda: Wire(socket.create_connection(("127.0.0.1", old.port), 10), "old"), has_cursors=True)
    listed = {one.name: one for one in source.queues()}
    source.close()
    assert listed[b"watched"].items == 1
    assert all(not one.items and one.note for name, one in listed.items() if b"." in name)
    move_all(url("siberite", old), new)
    assert drained(new, "watched") == [b"a"]


# -- servers that say less than ours


class Scripted:
    """A server that answers each line that it reads as it is told to. None: it hangs up."""

    def __init__(self, answers: list[tuple[bytes, bytes | None]]) -> None:
        self.answers = answers
        self.errors: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def connect(self) -> Wire:
        return Wire(socket.create_connection(("127.0.0.1", self.port), 5), "old")

    def _serve(self) -> None:
        while self.answers:
            connected, _ = self._listener.accept()
            threading.Thread(target=self._talk, args=(connected,), daemon=True).start()

    def _talk(self, connected: socket.socket) -> None:
        with connected, connected.makefile("rb") as lines:
            for line in lines:
                if not self.answers:
                    return
                expected, answer = self.answers.pop(0)
                if line.strip() != expected:
                    self.errors.append(f"expected {expected!r}, got {line!r}")
                if answer is None:
                    return
                connected.sendall(answer)

    def end(self) -> None:
        self._listener.close()
        assert self.errors == []
        assert self.answers == []


def test_a_server_that_knows_no_gets_is_asked_with_get() -> None:
    """Siberite hangs up after an unknown command. Its items have no ids, so one connection reads, in order."""
    old = Scripted([
        (b"gets work/open", b"ERROR Unknown command\r\n"),
        (b"get work/open", b"VALUE work 0 1\r\na\r\nEND\r\n"),
        (b"get work/close/open", b"VALUE work 0 1\r\nb\r\nEND\r\n"),
        (b"get work/close/open", b"END\r\n"),
    ])  # fmt: skip
    source = Lanes(old.connect)
    found = []
    while items := list(source.batch(b"work", 10)):
        found += [item.body for item in items]
        source.confirm(b"work")
    source.close()
    assert found == [b"a", b"b"]
    old.end()


def test_a_kestrel_with_one_open_read_gives_one_item_at_a_time() -> None:
    """Kestrel's maxOpenTransactions is 1 unless it is configured: a monitor ends when it is reached."""
    stats = b"STAT queue_work_items %d\r\nSTAT queue_work_open_transactions 0\r\nEND\r\n"
    old = Scripted([
        (b"stats", stats % 2),
        (b"monitor work 1 2", b"VALUE work 0 1\r\na\r\nEND\r\nEND\r\n"),
        (b"confirm work 1", b"END\r\n"),
        (b"monitor work 1 1", b"VALUE work 0 1\r\nb\r\nEND\r\nEND\r\n"),
        (b"confirm work 1", b"END\r\n"),
        (b"get work/open", b"END\r\n"),
    ])  # fmt: skip
    source = Monitored(old.connect)
    assert [(one.name, one.items) for one in source.queues()] == [(b"work", 2)]
    found = []
    while items := list(source.batch(b"work", 10)):
        found += [item.body for item in items]
        source.confirm(b"work")
    source.close()
    assert found == [b"a", b"b"]
    old.end()


def test_a_figure_of_a_queue_is_not_taken_for_another_queue() -> None:
    """`queue_a_expired_items` is no queue `a_expired`."""
    old = Scripted([
        (
            b"stats",
            b"STAT uptime 1\r\nSTAT queue_a_items 1\r\nSTAT queue_a_expired_items 4\r\nSTAT queue_a_mem_items 2\r\n"
            b"STAT queue_a_open_transactions 0\r\nSTAT queue_al_put_items 3\r\nEND\r\n",
        ),
    ])  # fmt: skip
    source = Monitored(old.connect)
    assert [one.name for one in source.queues()] == [b"a"]
    source.close()
    old.end()
