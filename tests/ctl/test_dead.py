"""`darner ctl dead`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.ctl import Terminal, run_ctl
from tests.support.harness import RunningServer


@pytest.fixture
def server(start_server: Callable[..., RunningServer], tmp_path: Path) -> RunningServer:
    file = tmp_path / "darner.toml"
    file.write_text('[queues.mail]\nmax_deliveries = 1\ndead_letter_queue = "dead"\n[queues.own]\nmax_deliveries = 1\n')
    return start_server("-c", str(file))


def fail(server: RunningServer, queue: str, *bodies: bytes) -> None:
    client = server.client()
    for body in bodies:
        client.set(queue, body)
        assert client.get(f"{queue}/open") == body
        client.get(f"{queue}/abort")


def test_dead_letters_are_shown_and_put_back(server: RunningServer) -> None:
    fail(server, "mail", b"a", b"b" * 300, b"c")
    first, second, third = run_ctl("dead", "mail", port=server.port).jsons()
    assert (first["body"], first["history"]["reason"], first["history"]["from"]) == ("a", "nack", "mail")
    assert ("body" in second, second["bytes"]) == (False, 300)
    shown = run_ctl("--text", "dead", "mail", "-n", "2", port=server.port)
    assert "nack" in shown.out
    assert "b" * 100 + "…" in shown.out
    assert "the oldest 2 items are shown" in shown.complaint
    back = run_ctl("dead", "mail", "--put-back", "--id", str(third["id"]), port=server.port)
    assert back.json() == {"queue": "mail", "put_back": 1}
    again = run_ctl("dead", "mail", "--put-back", "--id", str(third["id"]), port=server.port)
    assert (again.status, again.out) == (4, "")
    assert f"mail has no dead letter {third['id']}" in again.complaint
    assert run_ctl("dead", "mail", "--put-back", "-n", "1", port=server.port).json()["put_back"] == 1
    assert run_ctl("--text", "dead", "mail", "--put-back", port=server.port).out == "mail: 1 item put back\n"
    client = server.client()
    assert [client.get("mail") for _ in range(4)] == [b"c", b"a", b"b" * 300, None]


def test_dead_letters_are_dropped_after_a_yes(server: RunningServer) -> None:
    fail(server, "own", b"a", b"b", b"c")
    first, *_ = run_ctl("dead", "own", port=server.port).jsons()
    unasked = run_ctl("dead", "own", "--drop", port=server.port)
    assert (unasked.status, "Drop all dead letters of queue own?" in unasked.complaint) == (1, True)
    one = run_ctl("dead", "own", "--drop", "--id", str(first["id"]), "--yes", port=server.port)
    assert one.json() == {"queue": "own", "dropped": 1}
    terminal = Terminal("dead", "own", "--drop", port=server.port)
    terminal.wait_shows("[y/N]")
    terminal.type("y\n")
    assert terminal.wait_ended() == 0
    assert "own: 2 items dropped" in terminal.shown
    assert run_ctl("--text", "dead", "own", port=server.port).out == "own has no dead letters\n"


def test_what_cannot_be_is_said(server: RunningServer) -> None:
    assert run_ctl("dead", "nix", port=server.port).status == 4
    assert run_ctl("dead", "mail", "--id", "1", port=server.port).status == 2
    assert run_ctl("dead", "mail", "--put-back", "--drop", port=server.port).status == 2
    fail(server, "mail", b"a")
    server.client().ask(b"pause mail in\r\n", b"PAUSED in\r\n")
    full = run_ctl("dead", "mail", "--put-back", port=server.port)
    assert (full.status, "put back 0: queue mail takes no more" in full.complaint) == (1, True)
