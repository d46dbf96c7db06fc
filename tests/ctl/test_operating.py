"""`darner ctl flush`, `delete`, `pause`, `kick`, `status` and `reload`."""

import pytest

from tests.support.ctl import Terminal, run_ctl
from tests.support.harness import RunningServer


@pytest.mark.parametrize("command", ["flush", "delete"])
def test_nothing_is_dropped_without_a_yes(command: str, server: RunningServer) -> None:
    client = server.client()
    client.set("q", b"a")
    unasked = run_ctl(command, "q", port=server.port)
    assert unasked.status == 1
    assert "--yes says so" in unasked.complaint
    terminal = Terminal(command, "q", port=server.port)
    terminal.wait_shows("[y/N]")
    terminal.type("n\n")
    assert terminal.wait_ended() == 1
    assert client.stats()["curr_items"] == "1"
    terminal = Terminal(command, "q", port=server.port)
    terminal.wait_shows("[y/N]")
    terminal.type("y\n")
    assert terminal.wait_ended() == 0
    assert client.stats()["curr_items"] == "0"


def test_flush_and_delete_say_what_they_did(server: RunningServer) -> None:
    server.client().set("q", b"a")
    assert run_ctl("flush", "q", "--yes", port=server.port).json() == {"queue": "q", "flushed": 1}
    assert run_ctl("delete", "q", "--yes", port=server.port).json() == {"queue": "q", "deleted": True, "items": 0}
    assert run_ctl("delete", "q", "--yes", port=server.port).status == 4


def test_a_pause_begins_and_ends(server: RunningServer) -> None:
    client = server.client()
    client.set("q", b"a")
    assert run_ctl("pause", "q", "out", "--for", "1h", port=server.port).json() == {"queue": "q", "paused": "out"}
    assert client.get("q") is None
    assert run_ctl("pause", "q", "none", port=server.port).status == 0
    assert client.get("q") == b"a"
    refused = run_ctl("pause", "nix", port=server.port)
    assert (refused.status, "queue nix does not exist" in refused.complaint) == (1, True)
    assert run_ctl("pause", "q", "none", "--for", "1h", port=server.port).status == 2


def test_delayed_items_are_kicked(server: RunningServer) -> None:
    client = server.client()
    for _ in range(3):
        client.ask(b"set q/delay=600000 0 0 1\r\nx\r\n", b"STORED\r\n")
    assert run_ctl("kick", "q", "--count", "1", port=server.port).json() == {"queue": "q", "kicked": 1}
    assert run_ctl("kick", "q", port=server.port).json() == {"queue": "q", "kicked": 2}
    assert run_ctl("kick", "q", port=server.port).json() == {"queue": "q", "kicked": 0}
    assert run_ctl("kick", "nix", port=server.port).status == 4


def test_the_status_is_shown_and_set(server: RunningServer) -> None:
    shown = run_ctl("status", port=server.port).json()
    assert (shown["status"], shown["figures"]["queue_creates"]) == ("up", "0")
    assert run_ctl("status", "readonly", port=server.port).json()["status"] == "readonly"
    refused = run_ctl("put", "q", "x", port=server.port)
    assert (refused.status, "set is refused: the server is READONLY" in refused.complaint) == (1, True)


def test_the_options_are_read_again(server: RunningServer) -> None:
    assert run_ctl("reload", port=server.port).json() == {"reloaded": True}
