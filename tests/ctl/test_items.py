"""`darner ctl put`, `peek` and `take`."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.ctl import Terminal, environment, run_ctl, run_process, words_of
from tests.support.harness import RunningServer, wait_until


def test_a_body_comes_from_the_command_line_a_file_or_a_pipe(server: RunningServer, tmp_path: Path) -> None:
    file = tmp_path / "body"
    file.write_bytes(b"of a file\n")
    assert run_ctl("put", "q", "a word", port=server.port).json() == {"queue": "q", "put": 1}
    assert run_ctl("put", "q", "--file", str(file), port=server.port).status == 0
    assert run_ctl("put", "q", port=server.port, typed=b"of a pipe\xff").status == 0
    client = server.client()
    assert [client.get("q") for _ in range(4)] == [b"a word", b"of a file\n", b"of a pipe\xff", None]


def test_each_line_is_an_item(server: RunningServer) -> None:
    assert run_ctl("put", "q", "--lines", port=server.port, typed=b"a\nb\r\nc").json()["put"] == 3
    client = server.client()
    assert [client.get("q") for _ in range(4)] == [b"a", b"b", b"c", None]


def test_a_large_body_goes_there_and_back(server: RunningServer) -> None:
    body = bytes(range(33, 126)) * 20_000
    assert run_ctl("put", "q", port=server.port, typed=body).status == 0
    assert run_ctl("peek", "q", "--raw", port=server.port).out.encode() == body
    assert run_ctl("take", "q", "--raw", port=server.port).out.encode() == body
    assert server.client().get("q") is None


def test_options_of_a_put(server: RunningServer) -> None:
    words = ("--delay", "10m", "--pri", "5", "--ttr", "90s", "--ttl", "1h", "--flags", "7", "--key", "k", "--sync")
    assert run_ctl("put", "q", "x", *words, port=server.port).status == 0
    again = run_ctl("put", "q", "x", "--key", "k", port=server.port)
    assert again.status == 1
    assert "q has an item with the key k" in again.complaint
    shown = run_ctl("show", "q", port=server.port).json()
    assert (shown["waiting"], shown["delayed"], shown["put_total"]) == (0, 1, 1)
    for wrong in (("x", "--file", "/dev/null"), ("x", "--ttl", "1ms"), ("--lines", "--key", "k")):
        assert run_ctl("put", "q", *wrong, port=server.port).status == 2


def test_peek_leaves_the_item_there(server: RunningServer) -> None:
    server.client().set("q", b"\xff", flags=3)
    for _ in range(2):
        shown = run_ctl("peek", "q", port=server.port).json()
        assert shown == {"queue": "q", "id": 1, "flags": 3, "bytes": 1, "body_base64": "/w=="}


def test_what_is_taken_is_gone_when_it_has_been_written(server: RunningServer) -> None:
    client = server.client()
    for body in (b"a", b"b", b"c"):
        client.set("q", body)
    assert run_ctl("take", "q", port=server.port).json()["body"] == "a"
    assert [one["body"] for one in run_ctl("take", "q", "--count", "0", port=server.port).jsons()] == ["b", "c"]
    none = run_ctl("take", "q", port=server.port)
    assert (none.status, none.complaint) == (4, "darner ctl: nothing waits in q\n")
    assert run_ctl("peek", "nix", port=server.port).status == 4


def test_what_cannot_be_written_out_is_not_lost(server: RunningServer) -> None:
    server.client().set("q", b"a" * 1000)
    with open("/dev/full", "w") as full:
        words = words_of("take", "q", "--raw", port=server.port)
        ended = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, env=environment(), check=False)
    assert ended.returncode == 1
    assert b"No space left" in ended.stderr
    wait_until(lambda: server.client().get("q") == b"a" * 1000)


@pytest.mark.parametrize("dialect", ["kestrel", "siberite", "kyototycoon"])
def test_clients_of_every_dialect_may_be_on_this_port(dialect: str, start_server: Callable[..., RunningServer]) -> None:
    server = start_server("--dialect", dialect, "--reply-key", "request")
    for body in ("a", "b"):
        assert run_ctl("put", "q", body, port=server.port).status == 0
    assert run_ctl("peek", "q", port=server.port).json()["body"] == "a"
    taken = run_ctl("take", "q", "--count", "0", port=server.port).jsons()
    assert [(one["queue"], one["body"]) for one in taken] == [("q", "a"), ("q", "b")]
    assert run_ctl("take", "q", "--wait", "10ms", port=server.port).status == 4
    server.client().ask(b"get q/peek\r\n", b"END\r\n")


def test_a_take_waits(server: RunningServer) -> None:
    terminal = Terminal("take", "q", "--wait", "60s", port=server.port)
    client = server.client()
    wait_until(lambda: client.stats()["queues_awaited"] == "1")
    client.set("q", b"hello")
    assert terminal.wait_ended() == 0
    assert terminal.shown == "hello\n"


def test_ctrl_c_ends_a_take_with_130(server: RunningServer) -> None:
    terminal = Terminal("take", "q", "--wait", "60s", port=server.port)
    client = server.client()
    wait_until(lambda: client.stats()["queues_awaited"] == "1")
    terminal.process.send_signal(2)
    assert terminal.wait_ended() == 130


def test_a_command_that_fails_gives_the_item_back(server: RunningServer) -> None:
    client = server.client()
    client.set("q", b"hello")
    program = (
        f"{sys.executable} -c 'import os, sys; print(os.environ[\"DARNER_QUEUE\"], sys.stdin.read()); sys.exit(%d)'"
    )
    failed = run_process("take", "q", "--exec", program % 5, port=server.port)
    assert (failed.status, failed.out) == (1, "q hello\n")
    assert "ended with 5; item 1 is back in its queue" in failed.complaint
    missing = run_process("take", "q", "--exec", "/nowhere/x", port=server.port)
    assert "cannot run /nowhere/x: No such file or directory; the item is back" in missing.complaint
    assert run_process("take", "q", "--exec", program % 0, port=server.port).status == 0
    assert client.get("q") is None
