"""What an operator asks of a running server."""

import re
import signal
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from darner_core.config import command_line
from darner_core.config.options import OPTIONS
from darner_core.config.queues import QueueOptions
from tests.operations.test_stats import QUEUE_STATS
from tests.support.harness import REPLY_S, Client, RunningServer, wait_until
from tests.support.identities import login, write_users

Start = Callable[..., RunningServer]
Connect = Callable[[], Client]


def frames(client: Client, request: bytes) -> Iterator[tuple[str, list[str]]]:
    """The frames of the reply to a dump_...: the title and the lines of each."""
    client.send(request + b"\r\n")
    title, lines = "", list[str]()
    while (line := client.line()) != b"END\r\n":
        text = line.decode().removesuffix("\r\n")
        if text.endswith(" {"):
            assert not title
            title = text.removesuffix(" {")
        elif text == "}":
            yield title, lines
            title, lines = "", []
        else:
            assert title
            assert text.startswith("  ")
            lines.append(text[2:])
    assert not title


# -- reload


def test_reload_does_what_the_signal_does_and_says_so(start_server: Start, tmp_path: Path) -> None:
    file = tmp_path / "darner.toml"
    file.write_text("debug = false\nport = 0\n")
    server = start_server("-c", str(file))
    client, other = server.client(), server.client()
    other.send(b"get q/t=60000\r\n")
    client.ask(b"reload\r\n", b"Reloaded config.\r\n")
    assert "connected:" not in server.printed()
    file.write_text("debug = true\nmax_queues = 5\n")
    client.ask(b"reload\r\n", b"Reloaded config.\r\n")
    assert "reload: max_queues has changed, and takes effect after a restart" in server.printed()
    server.client().ask(b"version\r\nquit\r\n", b"VERSION")
    wait_until(lambda: "connected:" in server.printed())
    client.set("q", b"x")
    other.expect(b"VALUE q 0 1\r\nx\r\nEND\r\n")  # who was there has not been disturbed


def test_a_reload_that_names_more_queues_than_there_may_be_changes_nothing(start_server: Start, tmp_path: Path) -> None:
    file = tmp_path / "darner.toml"
    file.write_text("max_queues = 2\n[queues.a]\n")
    server = start_server("-c", str(file))
    client = server.client()
    file.write_text("max_queues = 2\n[queues.a]\nmax_items = 1\n[queues.b]\n[queues.c]\n")
    said = b"SERVER_ERROR not reloaded: %b: line 2: [queues.NAME] make more queues than max_queues = 2\r\n"
    client.ask(b"reload\r\n", said % str(file).encode())
    assert not {"queue_b_items", "queue_c_items"} & client.stats().keys()
    client.set("a", b"1")
    client.set("a", b"2")  # with the options it had
    file.write_text("max_queues = 2\n[queues.a]\nmax_items = 1\n[queues.b]\n")
    client.ask(b"reload\r\n", b"Reloaded config.\r\n")
    assert client.stats()["queue_b_items"] == "0"


def test_a_reload_that_fails_says_why_in_one_line_and_changes_nothing(start_server: Start, tmp_path: Path) -> None:
    file = tmp_path / "darner.toml"
    file.write_text("debug = false\n")
    server = start_server("-c", str(file))
    client = server.client()
    file.write_text("debug = true\nport = -7\n")
    client.ask(
        b"reload\r\n",
        b"SERVER_ERROR not reloaded: %b: line 2: port = -7: must be a number from 0 to 65535\r\n" % str(file).encode(),
    )
    file.unlink()
    client.ask(b"reload\r\n", b"SERVER_ERROR not reloaded: %b: No such file or directory\r\n" % str(file).encode())
    server.client().ask(b"version\r\n", b"VERSION")
    assert "connected:" not in server.printed()
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: server.printed().count("ERROR not reloaded: ") == 3)


def test_who_reloads_may_lose_the_right_to_do_so(start_server: Start, tmp_path: Path) -> None:
    write_users(tmp_path / "users", bob="secret")
    file = tmp_path / "darner.toml"
    head = f'auth_file = "{tmp_path}/users"\n'
    file.write_text(head + '[users.bob]\nput = ["*"]\nget = ["*"]\nadmin = ["*"]\n')
    server = start_server("-c", str(file))
    bob = server.client()
    bob.ask(login("bob", "secret"), b"STORED\r\n")
    file.write_text(head + '[users.bob]\nget = ["*"]\n')
    bob.send(b"reload\r\nget q\r\nreload\r\n")
    bob.expect(b"Reloaded config.\r\nEND\r\nCLIENT_ERROR user bob may not administer every queue\r\n")
    bob.expect_hang_up()


# -- shutdown


def test_shutdown_stops_as_the_signal_does(server: RunningServer) -> None:
    client, holder, waiter = server.client(), server.client(), server.client()
    client.set("q", b"x")
    assert holder.get("q/open") == b"x"
    waiter.send(b"get other/t=60000\r\n")
    client.set("r", b"y")
    client.send(b"get r\r\nshutdown\r\nset r 0 0 1\r\nz\r\n")
    client.expect(b"VALUE r 0 1\r\ny\r\nEND\r\n")
    client.expect_hang_up()
    waiter.expect(b"END\r\n")
    assert server.process.wait(10) == 0
    assert re.search(r"INFO admin: 127\.0\.0\.1:\d+: shutdown\n", server.log + server.printed())
    server.start()
    client = server.client()
    assert [client.get("q"), client.get("r")] == [b"x", None]


# -- dump_stats


def test_dump_stats_says_what_stats_does_queue_by_queue(connect: Connect) -> None:
    client = connect()
    for body in (b"a", b"bcd"):
        client.set("q", body)
    client.set("r", b"")
    client.get("q/open")
    stats = client.stats()
    dumped = dict(frames(client, b"dump_stats"))
    assert list(dumped) == ["queue 'q'", "queue 'r'"]
    for name in ("q", "r"):
        figures = dict(line.split("=", 1) for line in dumped[f"queue '{name}'"])
        assert list(figures) == QUEUE_STATS
        changing = ("age",)
        assert {key: value for key, value in figures.items() if key not in changing} == {
            key: stats[f"queue_{name}_{key}"] for key in QUEUE_STATS if key not in changing
        }


def test_dump_stats_of_some_has_these_alone_in_the_order_they_are_named(connect: Connect) -> None:
    client = connect()
    for name in ("a", "b", "c"):
        client.set(name, b"x")
    assert [title for title, _ in frames(client, b"dump_stats c a c")] == ["queue 'c'", "queue 'a'"]
    found = dict(frames(client, b"dump_stats gone b"))
    assert found["queue 'gone'"] == []
    assert found["queue 'b'"][0] == "items=1"
    client.send(b"dump_stats a/b\r\n")
    assert client.line().startswith(b'ERROR bad queue name "a/b"')
    client.expect_hang_up()


def test_a_server_without_queues_dumps_nothing(connect: Connect) -> None:
    connect().ask(b"dump_stats\r\n", b"END\r\n")


def test_the_dumps_of_thousands_of_queues_come_in_pieces(server: RunningServer) -> None:
    client, other = server.client(), server.client()
    client.send(b"".join(b"set q%d 0 0 1 noreply\r\nx\r\n" % number for number in range(3000)))
    client.set("q", b"x")
    for request in (b"dump_stats", b"dump_config"):
        client.send(request + b"\r\n")
        other.set("other", b"x")  # is answered between the pieces
        client.socket.settimeout(REPLY_S)
        reply = bytearray()
        while not reply.endswith(b"}\r\nEND\r\n"):
            reply += client.socket.recv(1 << 20)
        assert reply.count(b"queue 'q") == 3001
        assert reply.count(b"queue 'other'") <= 1  # it was put meanwhile


# -- dump_config


def test_dump_config_tells_each_option_of_the_server_as_the_file_has_it(start_server: Start, tmp_path: Path) -> None:
    file = tmp_path / "darner.toml"
    file.write_text('max_queues = 7\nstatus_file = "/tmp/a \\"status\\" \\\\ file"\n')
    server = start_server("-c", str(file), "--host", "127.0.0.1", "--host", f"unix:{tmp_path}/socket", "--debug")
    dumped = dict(frames(server.client(), b"dump_config"))
    assert list(dumped) == ["server"]
    lines = [line.rpartition(" (")[0] for line in dumped["server"]]
    assert all(line.endswith(")") for line in dumped["server"])
    told = tomllib.loads("\n".join(lines))  # a script can read it so
    assert list(told) == [option.name for option in OPTIONS]
    expected = command_line.parse(
        ["-c", str(file), "--debug", *server.options[2:6], "--port", "0", "--data", str(server.data)]
    )
    for name, value in told.items():
        assert value == (list(getattr(expected, name)) if value.__class__ is list else getattr(expected, name)), name
    assert "min_free_bytes=67108864 (built in)" in dumped["server"]


def test_dump_config_tells_the_options_of_queues(connect: Connect) -> None:
    client = connect()
    client.set("q", b"x")
    client.set("it's", b"x")
    dumped = dict(frames(client, b"dump_config"))
    assert list(dumped) == ["server", "queue 'q'", "queue 'it's'"]
    assert [line.split("=")[0] for line in dumped["queue 'q'"]] == list(vars(QueueOptions()))
    assert "max_items=0 (built in)" in dumped["queue 'q'"]
    assert "durable=true (built in)" in dumped["queue 'q'"]
    assert 'expire_to_queue="" (built in)' in dumped["queue 'q'"]
    alone = dict(frames(client, b"dump_config q"))
    assert alone == {"queue 'q'": dumped["queue 'q'"]}
    assert dict(frames(client, b"dump_config nowhere")) == {"queue 'nowhere'": dumped["queue 'q'"]}
    assert client.stats()["queue_creates"] == "2"


def test_dump_config_tells_whether_a_queue_that_was_there_is_on_disk(start_server: Start, tmp_path: Path) -> None:
    file = tmp_path / "darner.toml"
    file.write_text("[queues.disk]\n[queues.memory]\ndurable = false\n")
    client = start_server("-c", str(file)).client()
    file.write_text("[queues.disk]\ndurable = false\n[queues.memory]\n")
    client.ask(b"reload\r\n", b"Reloaded config.\r\n")

    def told() -> list[str]:
        dumped = dict(frames(client, b"dump_config"))
        return [next(line for line in dumped[f"queue '{name}'"] if "durable" in line) for name in ("disk", "memory")]

    assert told() == ["durable=true (as the queue was made)", "durable=false (as the queue was made)"]
    client.ask(b"delete disk\r\ndelete memory\r\n", b"DELETED\r\nDELETED\r\n")
    client.ask(b"reload\r\n", b"Reloaded config.\r\n")
    assert told() == ["durable=false ([queues.disk])", "durable=true (built in)"]


def test_what_a_reload_has_taken_over_is_told(start_server: Start, tmp_path: Path) -> None:
    file = tmp_path / "darner.toml"
    file.write_text("")
    client = start_server("-c", str(file)).client()
    file.write_text("debug = true\nmax_queues = 5\n")
    client.ask(b"reload\r\n", b"Reloaded config.\r\n")
    told = dict(frames(client, b"dump_config"))["server"]
    assert [line for line in told if line.startswith("debug=true (")]
    assert "max_queues=100000 (built in)" in told  # which needs a restart


# -- who may


@pytest.mark.parametrize("request_line", ["reload", "shutdown", "dump_config", "dump_config q", "status up"])
def test_only_who_may_administer_every_queue_may(house: "House", request_line: str) -> None:
    bob = house.as_user("bob")
    bob.ask(request_line.encode() + b"\r\n", b"CLIENT_ERROR user bob may not administer every queue\r\n")
    bob.expect_hang_up()
    ops = house.as_user("ops")
    ops.send(request_line.encode() + b"\r\n")
    if request_line != "shutdown":
        assert not ops.line().startswith(b"CLIENT_ERROR")


def test_dump_stats_tells_a_user_of_its_queues_alone(house: "House") -> None:
    bob, ops = house.as_user("bob"), house.as_user("ops")
    bob.set("mail", b"x")
    ops.send(b"set other 0 0 1\r\nx\r\n")
    ops.expect(b"STORED\r\n")
    assert [title for title, _ in frames(bob, b"dump_stats")] == ["queue 'mail'"]
    assert list(frames(bob, b"dump_stats other")) == [("queue 'other'", [])]  # as if there were none
    assert [title for title, _ in frames(ops, b"dump_stats")] == ["queue 'mail'", "queue 'other'"]


class House:
    """A server with a user who works with the queue mail, and one who may do everything."""

    def __init__(self, server: RunningServer) -> None:
        self._server = server

    def as_user(self, name: str) -> Client:
        client = self._server.client()
        client.ask(login(name, "secret"), b"STORED\r\n")
        return client


@pytest.fixture
def house(start_server: Start, tmp_path: Path) -> House:
    write_users(tmp_path / "users", bob="secret", ops="secret")
    (tmp_path / "darner.toml").write_text(
        f'auth_file = "{tmp_path}/users"\n'
        '[users.bob]\nput = ["mail"]\nget = ["mail"]\nadmin = ["mail"]\n'
        '[users.ops]\nput = ["*"]\nget = ["*"]\nadmin = ["*"]\n'
    )
    return House(start_server("-c", str(tmp_path / "darner.toml")))
