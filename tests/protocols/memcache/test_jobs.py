"""The commands about jobs, as clients see them, beyond the recorded conversations of tests/wire."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from darner_core.errors import StorageError
from darner_core.protocols.memcache.jobs import JobItems
from darner_core.protocols.memcache.reader import LineRequest
from darner_core.storage.storage import Storage
from tests.support.harness import RunningServer
from tests.support.identities import login, write_users
from tests.support.job_bench import JobBench
from tests.support.operations_on import items_on, operations_on

LARGE = bytes(300_000)
RIGHTS = """
[users.putter]
put = ["q"]

[users.getter]
get = ["q"]

[users.boss]
admin = ["q"]
"""


@pytest.mark.parametrize(
    ("user", "line", "may"),
    [
        ("putter", b"set q/delay=1 0 0 1\r\nx", True),
        ("putter", b"add q/key=k 0 0 1\r\nx", True),
        ("getter", b"add q/key=k 0 0 1\r\nx", False),
        ("getter", b"touch q 1", True),
        ("getter", b"get q/reject", True),
        ("getter", b"get q/abort/delay=5", True),
        ("getter", b"get q/open r/t=1", False),
        ("putter", b"touch q 1", False),
        ("getter", b"history q", True),
        ("putter", b"history q", False),
        ("getter", b"kick q 1", False),
        ("getter", b"pause q out", False),
        ("boss", b"kick q 1", True),
        ("boss", b"pause q out", True),
    ],
)
def test_rights(start_server: Callable[..., RunningServer], tmp_path: Path, user: str, line: bytes, may: bool) -> None:
    users = write_users(tmp_path / "users", putter="pw", getter="pw", boss="pw")
    file = tmp_path / "darner.toml"
    file.write_text(RIGHTS)
    client = start_server("-c", str(file), "--auth-file", str(users)).client()
    client.ask(login(user, "pw"), b"STORED\r\n")
    client.send(line + b"\r\n")
    assert client.line().startswith(b"CLIENT_ERROR user ") != may


def test_a_status_that_refuses_puts_refuses_jobs_and_lets_what_is_open_be_settled(
    start_server: Callable[..., RunningServer],
) -> None:
    server = start_server()
    client = server.client()
    client.set("q", b"a")
    client.set("q", b"b")
    assert client.get("q/open/ttr=60000") == b"a"
    server.client().ask(b"status quiescent\r\n", b"END\r\n")
    for line in (b"add q/key=k 0 0 1\r\nx", b"set q/delay=1 0 0 1\r\nx", b"get q r", b"get q/open/ttr=5", b"kick q 1"):
        other = server.client()
        other.send(line + b"\r\n")
        assert b"is refused: the server is QUIESCENT" in other.line()
    client.ask(b"touch q 60\r\nget q/abort/delay=0\r\nget q/reject\r\n", b"TOUCHED\r\nEND\r\nEND\r\n")


def test_a_close_that_also_opens_is_done_and_then_refused(start_server: Callable[..., RunningServer]) -> None:
    server = start_server()
    client = server.client()
    client.set("q", b"a")
    client.set("q", b"b")
    assert client.get("q/open/ttr=60000") == b"a"
    server.client().ask(b"status quiescent\r\n", b"END\r\n")
    client.send(b"get q/close/open/ttr=60000\r\n")
    assert b"is refused" in client.line()
    client = server.client()
    client.ask(b"status up\r\n", b"END\r\n")
    assert client.get("q/t=1000") == b"b"
    assert client.get("q") is None


def test_a_close_of_several_queues_that_may_not_open_any_more_takes_nothing(
    start_server: Callable[..., RunningServer],
) -> None:
    server = start_server("--dialect", "kestrel")
    client = server.client()
    client.set("q", b"a")
    client.set("q", LARGE)
    assert client.get("q/open") == b"a"
    server.client().ask(b"status quiescent\r\n", b"END\r\n")
    client.send(b"get r q/close/open\r\n")
    assert b"is refused" in client.line()
    client = server.client()
    client.ask(b"status up\r\n", b"END\r\n")
    assert client.get("q") == LARGE
    assert (client.stats()["queue_q_canceled_transactions"], client.get("q")) == ("0", None)


@pytest.mark.parametrize("noreply", [False, True])
def test_a_kick_that_fails_is_told_to_clients_that_listen(
    open_storage: Callable[[], Storage],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    noreply: bool,
) -> None:
    bench = JobBench(open_storage)
    operations = operations_on(bench)
    commands = JobItems(operations, bench.config, items_on(bench))

    def fail(*_: object) -> int:
        raise StorageError("no space left on device")

    monkeypatch.setattr(operations.jobs, "wait_kick", fail)
    nobody: Any = None
    kick: Any = commands.kick(LineRequest(fail, b"kick", noreply=noreply), None, nobody)
    if noreply:
        assert kick(nobody) == b""
        assert caplog.messages == ["kick: no space left on device"]
    else:
        with pytest.raises(StorageError):
            kick(nobody)


def test_a_batch_ends_before_a_large_item_which_comes_alone(
    shared_server: Callable[..., RunningServer], queue: str
) -> None:
    client = shared_server("--dialect", "kestrel").client()
    for body in (b"a", LARGE, b"b"):
        client.set(queue, body)
    name = queue.encode()
    client.ask(b"get %b/open/n=3\r\n" % name, b"VALUE %b 0 1\r\na\r\nEND\r\n" % name)
    client.ask(b"get %b/open/n=3/ttr=60000\r\n" % name, b"VALUE %b 0 300000\r\n%b\r\nEND\r\n" % (name, LARGE))
    client.ask(b"get %b/open/n=3\r\n" % name, b"VALUE %b 0 1\r\nb\r\nEND\r\n" % name)
    client.ask(b"get %b/close/n=3\r\nget %b\r\n" % (name, name), b"END\r\nEND\r\n")


def test_a_batch_is_of_the_whole_queue_in_its_order(shared_server: Callable[..., RunningServer], queue: str) -> None:
    client, name = shared_server("--dialect", "kestrel").client(), queue.encode()
    for body, pri in ((b"l", b""), (b"a", b"/pri=5"), (b"b", b"/pri=2000"), (b"m", b"")):
        client.ask(b"set %b%b 0 0 1\r\n%b\r\n" % (name, pri, body), b"STORED\r\n")
    client.ask(
        b"get %b/open/n=3\r\n" % name,
        b"VALUE %b 0 1\r\na\r\nVALUE %b 0 1\r\nl\r\nVALUE %b 0 1\r\nm\r\nEND\r\n" % (name, name, name),
    )
    assert client.get(f"{queue}/open") == b"b"


def test_a_connection_of_one_item_takes_no_batch(shared_server: Callable[..., RunningServer], queue: str) -> None:
    client = shared_server().client()
    client.send(b"get %b/open/n=2\r\n" % queue.encode())
    assert client.line() == b"CLIENT_ERROR /n=2: a connection of this dialect can have one item open\r\n"
    client.expect_hang_up()


HISTORY = rb"HISTORY from=mail id=1 failures=1 last=%s client=127\.0\.0\.1:\d+ put=\d{13}\r\n"


@pytest.mark.parametrize("dialect", ["darner", "kestrel", "siberite", "kyototycoon"])
def test_a_dead_letter_tells_its_history(
    start_server: Callable[..., RunningServer], tmp_path: Path, dialect: str
) -> None:
    file = tmp_path / "darner.toml"
    file.write_text('[queues.mail]\nmax_deliveries = 1\ndead_letter_queue = "dead"\n')
    client = start_server("-c", str(file), "--dialect", dialect).client()
    client.ask(b"history dead\r\nhistory none\r\n", b"NOT_FOUND\r\nNOT_FOUND\r\n")
    client.set("mail", b"a")
    client.ask(b"history mail\r\n", b"NOT_FOUND\r\n")
    assert client.get("mail/open") == b"a"
    client.ask(b"history mail\r\nget mail/abort\r\n", b"NOT_FOUND\r\nEND\r\n")
    for key in ("dead/open", "dead/close"):  # waiting at the head, and then open
        client.send(b"history dead\r\n")
        assert re.fullmatch(HISTORY % b"nack", client.line())
        client.get(key)
    client.ask(b"history dead\r\nhistory dead/id=5\r\n", b"NOT_FOUND\r\nNOT_FOUND\r\n")


@pytest.mark.parametrize("dialect", ["darner", "kestrel", "siberite", "kyototycoon"])
def test_jobs_are_reached_in_every_dialect(
    shared_server: Callable[..., RunningServer], dialect: str, queue: str
) -> None:
    client, name = shared_server("--dialect", dialect).client(), queue.encode()
    client.ask(
        b"set %b/pri=9 0 0 1\r\nb\r\nadd %b/key=k/pri=1 0 0 1\r\na\r\nadd %b/key=k 0 0 1\r\nc\r\n" % (name, name, name),
        b"STORED\r\nSTORED\r\nNOT_STORED\r\n",
    )
    client.ask(b"get %b/open/ttr=60000\r\n" % name, b"VALUE %b 0 1\r\na\r\nEND\r\n" % name)
    client.ask(
        b"touch %b 5\r\nget %b/abort/delay=60000\r\nget %b/open none\r\n" % (name, name, name)
        if dialect != "kyototycoon"
        else b"touch %b 5\r\nget %b/abort/delay=60000\r\nget %b none\r\n" % (name, name, name),
        b"TOUCHED\r\nEND\r\nVALUE %b 0 1\r\nb\r\nEND\r\n" % name,
    )
    client.ask(b"get %b/reject\r\nkick %b 5\r\n" % (name, name), b"END\r\nKICKED 1\r\n")
    client.ask(b"pause %b out 60\r\nget %b/t=0\r\n" % (name, name), b"PAUSED out\r\nEND\r\n")


@pytest.mark.parametrize("line", [b"pause %b.c out", b"kick %b.c 5"])
def test_a_cursor_is_neither_paused_nor_kicked(
    shared_server: Callable[..., RunningServer], line: bytes, queue: str
) -> None:
    client = shared_server("--dialect", "siberite").client()
    client.set(queue, b"a")
    client.send(line % queue.encode() + b"\r\n")
    assert client.line().endswith(b" of a cursor: it is done to its queue, so name that\r\n")
    client.expect_hang_up()


def test_a_get_of_several_queues_names_no_cursor(shared_server: Callable[..., RunningServer], queue: str) -> None:
    client = shared_server("--dialect", "siberite").client()
    client.send(b"get %b r.c\r\n" % queue.encode())
    assert client.line() == b'CLIENT_ERROR "r.c" in a get of several queues: a cursor is read alone\r\n'
    client.expect_hang_up()


def test_a_get_of_several_queues_closes_what_is_open_of_one_of_them(
    shared_server: Callable[..., RunningServer], queue: str
) -> None:
    name = queue.encode()
    for dialect in ("darner", "kestrel"):
        client = shared_server("--dialect", dialect).client()
        client.set(queue, b"a")
        client.set(queue, b"b")
        client.ask(b"get %b2 %b/open\r\n" % (name, name), b"VALUE %b 0 1\r\na\r\nEND\r\n" % name)
        client.ask(b"get %b2 %b/close/open\r\n" % (name, name), b"VALUE %b 0 1\r\nb\r\nEND\r\n" % name)
        client.ask(b"get %b/close\r\nget %b %b2\r\n" % (name, name, name), b"END\r\nEND\r\n")
