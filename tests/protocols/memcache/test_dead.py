"""The commands about dead letters, as clients see them."""

import json
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import Client, RunningServer
from tests.support.identities import login, write_users

CONF = '[default]\nmax_deliveries = 1\ndead_letter_queue = "dead"\n[queues."own*"]\ndead_letter_queue = ""\n'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, shared_server: Callable[..., RunningServer]) -> RunningServer:
    file: Path = tmp_path_factory.mktemp("dead") / "conf.toml"
    file.write_text(CONF)
    return shared_server("-c", str(file))


@pytest.fixture
def client(server: RunningServer) -> Client:
    client = server.client()
    client.ask(b"flush dead\r\n", b"END\r\n")
    return client


def fail(client: Client, queue: str, *bodies: bytes) -> None:
    for body in bodies:
        client.set(queue, body)
        assert client.get(f"{queue}/open") == body
        client.get(f"{queue}/abort")


def dead(client: Client, words: str) -> list[dict[str, Any]]:
    client.send(f"dead {words}\r\n".encode())
    return [json.loads(line) for line in iter(client.line, b"END\r\n")]


def test_dead_letters_are_told_with_their_histories(client: Client, queue: str) -> None:
    fail(client, f"{queue}2", b"other")
    fail(client, queue, b"x", b"y" * 200)
    first, second = dead(client, queue)
    history = first["history"]
    assert (history["from"], history["failures"], history["reason"]) == (queue, 1, "nack")
    assert (first["bytes"], b64decode(first["first_bytes"])) == (1, b"x")
    assert (second["bytes"], b64decode(second["first_bytes"])) == (200, b"y" * 100)
    assert dead(client, f"{queue} 1") == [first]
    assert dead(client, "nix") == []


def test_one_is_put_back_and_one_is_dropped(client: Client, queue: str) -> None:
    fail(client, queue, b"a", b"b", b"c")
    first, second, third = (one["id"] for one in dead(client, queue))
    client.ask(f"put_back {queue}/id={second}\r\n".encode(), b"PUT_BACK 1\r\n")
    client.ask(f"put_back {queue}/id={second}\r\n".encode(), b"NOT_FOUND\r\n")
    client.ask(f"drop {queue}2/id={first}\r\n".encode(), b"NOT_FOUND\r\n")
    client.ask(f"drop {queue}/id={first}\r\n".encode(), b"DROPPED 1\r\n")
    client.ask(f"drop {queue}/id={first}\r\n".encode(), b"NOT_FOUND\r\n")
    assert client.get(queue) == b"b"
    assert [one["id"] for one in dead(client, queue)] == [third]


def test_many_are_put_back_and_dropped(client: Client, queue: str) -> None:
    bodies = [b"%d" % number for number in range(120)]
    fail(client, queue, *bodies)
    client.ask(f"put_back {queue} 110\r\n".encode(), b"PUT_BACK 110\r\n")
    client.ask(f"drop {queue} 3\r\ndrop {queue} 1000\r\n".encode(), b"DROPPED 3\r\nDROPPED 7\r\n")
    client.ask(f"put_back {queue} 10\r\n".encode(), b"PUT_BACK 0\r\n")
    assert [client.get(queue) for _ in range(111)] == [*bodies[:110], None]


def test_a_large_one_is_put_back(client: Client, queue: str) -> None:
    queue, body = f"own{queue}", bytes(300_000)
    fail(client, queue, body)
    (only,) = dead(client, queue)
    assert (only["state"], only["history"], only["failures"]) == ("buried", None, 1)
    client.ask(f"put_back {queue}/id={only['id']}\r\n".encode(), b"PUT_BACK 1\r\n")
    assert client.get(queue) == body


def test_a_large_one_is_copied_back_from_a_dead_letter_queue(client: Client, queue: str) -> None:
    body = bytes(300_000)
    fail(client, queue, body)
    while not dead(client, queue):
        pass  # it moves in the background
    client.ask(f"put_back {queue} 5\r\n".encode(), b"PUT_BACK 1\r\n")
    assert client.get(queue) == body
    assert client.get("dead") is None


def test_a_queue_that_takes_nothing_says_so_and_the_connection_goes_on(client: Client, queue: str) -> None:
    fail(client, queue, b"x")
    client.ask(f"pause {queue} in\r\nput_back {queue} 5\r\n".encode(), b"PAUSED in\r\n")
    said = f"SERVER_ERROR put back 0: queue {queue} takes no more, it is full or paused\r\n"
    assert client.line() == said.encode()
    assert len(dead(client, queue)) == 1


@pytest.mark.parametrize(
    "line", ["dead", "dead q 0", "dead q 1 2", "put_back q", "put_back q/id=1 5", "put_back q/x", "drop q/id=0", "drop"]
)
def test_what_is_wrong_is_said(client: Client, line: str) -> None:
    client.send(line.encode() + b"\r\n")
    assert client.line().startswith(b"ERROR ")
    client.expect_hang_up()


def test_a_cursor_has_no_dead_letters(shared_server: Callable[..., RunningServer], queue: str) -> None:
    for line in ("dead {}.c", "put_back {}.c 5", "drop {}.c 5"):
        client = shared_server("--dialect", "siberite").client()
        client.send(line.format(queue).encode() + b"\r\n")
        assert client.line().endswith(b" of a cursor: it is done to its queue, so name that\r\n")


RIGHTS = """
[users.boss]
put = ["q"]
get = ["q", "dead"]
admin = ["q", "dead"]

[users.half]
admin = ["q"]

[users.blind]
admin = ["q", "dead"]

[users.worker]
get = ["q", "dead"]
"""


def test_rights(start_server: Callable[..., RunningServer], tmp_path: Path) -> None:
    users = write_users(tmp_path / "users", boss="pw", half="pw", blind="pw", worker="pw")
    file = tmp_path / "darner.toml"
    file.write_text(CONF + RIGHTS)
    server = start_server("-c", str(file), "--auth-file", str(users))

    def logged_in(user: str) -> Client:
        client = server.client()
        client.ask(login(user, "pw"), b"STORED\r\n")
        return client

    boss = logged_in("boss")
    fail(boss, "q", b"x", b"y")
    for line in (b"dead q", b"put_back q 1", b"drop q 1"):
        half = logged_in("half")
        half.send(line + b"\r\n")
        assert half.line() == b"CLIENT_ERROR you may not administer queue dead, where its dead letters are\r\n"
        worker = logged_in("worker")
        worker.send(line + b"\r\n")
        assert worker.line().startswith(b"CLIENT_ERROR user worker may not administer queue q")
    assert all("first_bytes" in one for one in dead(boss, "q"))
    blind = logged_in("blind")
    assert [set(one) & {"history", "first_bytes"} for one in dead(blind, "q")] == [{"history"}, {"history"}]
    blind.ask(b"put_back q 1\r\ndrop q 1\r\n", b"PUT_BACK 1\r\nDROPPED 1\r\n")
    assert "admin: blind@" in server.printed()


def test_a_status_that_refuses_puts_refuses_what_changes_them(
    start_server: Callable[..., RunningServer], tmp_path: Path
) -> None:
    file = tmp_path / "darner.toml"
    file.write_text(CONF)
    server = start_server("-c", str(file))
    client = server.client()
    fail(client, "q", b"x")
    client.ask(b"status readonly\r\n", b"END\r\n")
    assert len(dead(client, "q")) == 1
    for line in (b"put_back q 1", b"drop q 1"):
        other = server.client()
        other.send(line + b"\r\n")
        assert b"is refused: the server is READONLY" in other.line()
