"""The command `watch`: what a client of a running server is told of a queue."""

import json
import re
import signal
import time
from binascii import a2b_base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from darner_core.engines.contract import Event
from darner_core.engines.local.tracing import GET, PUT
from darner_core.operations.watching import MOST_EVENTS, Told, Watcher
from darner_core.protocols.memcache.operating import events_lines
from tests.support.harness import REPLY_S, Client, RunningServer, wait_until
from tests.support.identities import login, write_users

Start = Callable[..., RunningServer]


def watch(client: Client, queue: str, exists: bool) -> None:
    client.send(b"watch %b\r\n" % queue.encode())
    assert json.loads(client.line()) == {"what": "watch", "exists": exists}


def events(client: Client, count: int) -> list[tuple[Any, ...]]:
    """(what, id, body's beginning) of the next so many."""
    found = []
    for _ in range(count):
        event = json.loads(client.line())
        start = event.get("first_bytes")
        found.append((event["what"], event.get("id"), None if start is None else a2b_base64(start)))
    return found


def test_what_happens_to_a_queue_is_told_as_it_happens(server: RunningServer) -> None:
    watcher, client = server.client(), server.client()
    watch(watcher, "q", exists=False)
    client.set("aside", b"of no interest")
    client.set("q", b"hello", 7)
    before = time.time() * 1000
    put = json.loads([watcher.line(), watcher.line()][1])
    assert abs(put.pop("time_ms") - before) < REPLY_S * 1000
    assert put == {"what": "put", "id": 1, "bytes": 5, "flags": 7, "first_bytes": "aGVsbG8="}
    client.get("q/open")
    client.get("q/abort")
    client.get("q")
    assert events(watcher, 3) == [("open", 1, b"hello"), ("abort", 1, None), ("get", 1, b"hello")]
    client.ask(b"flush q\r\n", b"END\r\n")
    client.ask(b"delete q\r\n", b"DELETED\r\n")
    client.set("q", b"")
    assert events(watcher, 4) == [
        ("flush", None, None), ("delete", None, None), ("create", None, None), ("put", 1, b""),
    ]  # fmt: skip


def test_what_becomes_of_jobs_is_told(start_server: Start, tmp_path: Path) -> None:
    file = tmp_path / "darner.toml"
    file.write_text('[queues.q]\nmax_deliveries = 2\ndead_letter_queue = "dead"\n[queues.b]\nmax_deliveries = 1\n')
    server = start_server("-c", str(file))
    watcher, client, other = server.client(), server.client(), server.client()
    watch(watcher, "q", exists=True)
    watch(other, "b", exists=True)
    client.ask(b"set q/pri=1 0 0 1\r\na\r\n", b"STORED\r\n")
    for _ in range(2):
        client.get("q/open")
        client.get("q/abort")
    assert [what for what, *_ in events(watcher, 5)] == ["put", "open", "abort", "open", "dead"]
    client.ask(b"set b/pri=1 0 0 1\r\na\r\n", b"STORED\r\n")
    client.get("b/open")
    client.get("b/reject")
    client.ask(b"kick b 1\r\n", b"KICKED 1\r\n")
    assert [what for what, *_ in events(other, 3)] == ["put", "open", "bury"]
    kicked = json.loads(other.line())
    assert kicked["what"] == "kick"
    assert "bytes" not in kicked  # a kick does not read the item, so its size is not known
    client.ask(b"set b/delay=60000 0 0 1\r\nb\r\n", b"STORED\r\n")
    client.ask(b"flush b\r\n", b"END\r\n")
    put, flush = (json.loads(other.line()) for _ in range(2))
    assert (put["what"], flush["what"], flush["items"]) == ("put", "flush", 2)  # the ready one and the delayed one
    server.stop()
    assert re.search(r"INFO admin: 127\.0\.0\.1:\d+: kick b 1\n", server.log + server.printed())


def test_who_hangs_up_with_an_open_item_is_seen_and_who_waits_too(server: RunningServer) -> None:
    watcher, client, other = server.client(), server.client(), server.client()
    client.set("q", b"a")
    watch(watcher, "q", exists=True)
    client.get("q/open")
    other.send(b"get q/t=9000\r\n")
    other.expect_nothing()
    client.close()
    assert other.item() == b"a"
    assert events(watcher, 4) == [("open", 1, b"a"), ("abort", 1, None), ("open", 1, b"a"), ("close", 1, None)]


def test_several_can_watch_and_go_as_they_like(server: RunningServer) -> None:
    watchers = [server.client() for _ in range(3)]
    client = server.client()
    client.set("q", b"a")
    for watcher in watchers:
        watch(watcher, "q", exists=True)
    watchers.pop().reset()
    for number in (2, 3, 4):
        client.set("q", b"b")
        for watcher in watchers:
            assert events(watcher, 1) == [("put", number, b"b")]
        watchers[1:2] = []


def test_a_watcher_that_does_not_read_holds_nobody_up_and_is_told_what_it_missed(server: RunningServer) -> None:
    watcher, client = server.client(), server.client()
    client.set("q", b"a")
    watch(watcher, "q", exists=True)
    total = 40_000
    some = b"set q 0 0 2 noreply\r\nab\r\n" * 2000
    before = server.resident_bytes()
    for _ in range(total // 2000):
        client.send(some)
    client.set("q", b"last")
    assert server.resident_bytes() - before < 50 << 20
    last, missed = 1, 0  # the id of the last item known of, shown or not
    while last < total + 2:
        event = json.loads(watcher.line())
        if event["what"] == "not shown":
            last += event["events"]
            missed += event["events"]
        else:
            assert event["id"] == last + 1
            last += 1
    assert last == total + 2
    assert missed > 0


def test_it_ends_when_the_server_stops(server: RunningServer) -> None:
    watcher = server.client()
    watch(watcher, "q", exists=False)
    assert server.stop() == 0
    watcher.expect(b"END\r\n")
    watcher.expect_hang_up()


def test_only_who_may_administer_a_queue_may_watch_it(start_server: Start, tmp_path: Path) -> None:
    users = write_users(tmp_path / "users", anna="secret", janitor="pw")
    file = tmp_path / "darner.toml"
    file.write_text('[users.anna]\nput = ["*"]\nget = ["*"]\nadmin = ["mine"]\n[users.janitor]\nadmin = ["mine"]\n')
    server = start_server("-c", str(file), "--auth-file", str(users))
    client = server.client()
    client.ask(login("anna", "secret"), b"STORED\r\n")
    watch(client, "mine", exists=False)
    other = server.client()
    other.ask(login("anna", "secret"), b"STORED\r\n")
    other.ask(b"watch other\r\n", b"CLIENT_ERROR user anna may not administer queue other\r\n")
    # Who may not get sees no bodies, and whose right is taken sees nothing any longer.
    janitor, anna = server.client(), server.client()
    janitor.ask(login("janitor", "pw"), b"STORED\r\n")
    anna.ask(login("anna", "secret"), b"STORED\r\n")
    watch(janitor, "mine", exists=False)
    anna.set("mine", b"private")
    assert events(client, 2) == [("create", None, None), ("put", 1, b"private")]
    assert events(janitor, 2) == [("create", None, None), ("put", 1, None)]
    file.write_text('[users.anna]\nput = ["*"]\nget = ["*"]\nadmin = ["mine"]\n')
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "reloaded" in server.printed())
    anna.set("mine", b"more")
    assert events(client, 1) == [("put", 2, b"more")]
    janitor.expect_hang_up()


@pytest.mark.parametrize("line", [b"watch", b"watch a/b", b"watch a b c"])
def test_a_request_that_names_no_queue_is_refused(server: RunningServer, line: bytes) -> None:
    client = server.client()
    client.send(line + b"\r\n")
    assert client.line().startswith(b"ERROR ")
    client.expect_hang_up()


# -- without a server


def lines_of(watcher: Watcher, most: int = MOST_EVENTS) -> bytes:
    return events_lines(Told(*watcher.take(most), True))


def test_events_beyond_the_limit_are_counted_and_not_kept() -> None:
    watcher = Watcher()
    for number in range(MOST_EVENTS + 5):
        watcher.tell(Event(b"q", PUT, 1000, number + 1, 1, 0, b"a"))
    lines = lines_of(watcher).split(b"\r\n")
    assert [json.loads(line)["id"] for line in lines[:-2]] == list(range(1, MOST_EVENTS + 1))
    assert json.loads(lines[-2]) == {"what": "not shown", "events": 5}
    watcher.tell(Event(b"q", GET, 1000, 1, 0))
    assert json.loads(lines_of(watcher)) == {"time_ms": 1000, "what": "get", "id": 1, "bytes": 0}
    assert lines_of(watcher) == b""


def test_a_watcher_can_be_told_a_few_at_a_time_and_of_what_was_too_much_at_the_end() -> None:
    watcher = Watcher()
    for number in range(MOST_EVENTS + 5):
        watcher.tell(Event(b"q", GET, number, 0))
    told = b""
    while lines := lines_of(watcher, 12):
        assert lines.count(b"\r\n") <= 13
        told += lines
    assert told.count(b"\r\n") == MOST_EVENTS + 1
    assert told.endswith(b'{"what": "not shown", "events": 5}\r\n')


def test_a_large_item_that_is_sent_while_the_last_watcher_leaves_is_delivered_once(server: RunningServer) -> None:
    watcher, client, other = server.client(), server.client(), server.client()
    body = b"x" * 8_000_000
    client.set("q", body)
    watch(watcher, "q", exists=True)
    client.send(b"get q\r\n")
    client.expect(b"VALUE q 0 8000000\r\n")
    watcher.close()
    wait_until(lambda: other.stats()["curr_connections"] == "2")
    client.expect(body + b"\r\nEND\r\n")
    assert other.get("q") is None
