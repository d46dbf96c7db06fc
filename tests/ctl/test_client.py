"""The client, asked in values, against a real server."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from darner_core.ctl.address import Address
from darner_core.ctl.client import Client, Login, PutOptions
from darner_core.ctl.errors import NoServer, Refused
from tests.support.harness import RunningServer, run_darner

StartServer = Callable[..., RunningServer]


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with Client(Address(port=server.port)) as made:
        yield made


def test_an_item_is_put_opened_and_closed(client: Client) -> None:
    assert client.put(b"q", b"a\r\nb", PutOptions(flags=7))
    item = client.open(b"q")
    assert item is not None
    assert (item.flags, item.size, item.body()) == (7, 4, b"a\r\nb")
    assert client.queues([b"q"])[0].open == 1
    client.close_item(b"q")
    assert client.open(b"q") is None
    assert client.queues([b"q"])[0].held == 0


def test_a_large_body_goes_both_ways_in_pieces(client: Client) -> None:
    body = bytes(range(256)) * 4096
    assert client.put(b"q", body)
    item = client.peek(b"q")
    assert item is not None
    assert item.body() == body
    assert client.version()  # nothing is left behind the body


def test_what_is_aborted_comes_again(client: Client) -> None:
    client.put(b"q", b"a")
    for _ in range(2):
        item = client.open(b"q", wait_ms=1)
        assert item is not None
        assert item.body() == b"a"
        client.abort_item(b"q")


def test_jobs_and_their_figures(client: Client) -> None:
    assert client.put(b"q", b"later", PutOptions(delay_ms=600_000, pri=5, ttr_ms=1000, key=b"k"))
    assert not client.put(b"q", b"later", PutOptions(key=b"k"))
    (figures,) = client.queues()
    assert (figures.name, figures.waiting, figures.delayed, figures.buried) == (b"q", 0, 1, 0)
    assert client.kick(b"q", 10) == 1
    client.pause(b"q", "out", 60)
    assert client.queues()[0].paused == "out"
    client.flush(b"q")
    client.delete(b"q")
    assert client.queues() == []


def test_names_of_any_bytes(client: Client) -> None:
    name = b"'\xff\\ {".replace(b" ", b"")
    client.put(name, b"a")
    assert [one.name for one in client.queues()] == [name]
    assert client.options(name)[0].name == "max_items"


def test_options_and_figures_of_the_server(client: Client) -> None:
    assert {one.name: one for one in client.options()}["port"].source == "command line"
    assert client.figures()["cmd_set"] == "0"
    assert client.status() == "up"
    client.set_status("writeavoid")
    assert client.status() == "writeavoid"
    client.reload()


def test_a_watch_tells_what_happens(client: Client, server: RunningServer) -> None:
    events = client.watch(b"q")
    assert next(events) == {"what": "watch", "exists": False}
    server.client().set("q", b"a")
    assert next(events)["what"] == "create"
    server.stop()
    assert [event["what"] for event in events] == ["put"]


def test_a_refusal_has_the_servers_words(client: Client) -> None:
    with pytest.raises(Refused, match="queue nix does not exist"):
        client.pause(b"nix", "in")


def test_in_kyototycoons_dialect_a_delete_is_no_delete(start_server: StartServer) -> None:
    server = start_server("--dialect", "kyototycoon")
    with Client(Address(port=server.port)) as client:
        client.put(b"q", b"a")
        with pytest.raises(Refused, match="no queue can be deleted"):
            client.delete(b"q")


def test_users_log_in(start_server: StartServer, tmp_path: Path) -> None:
    auth = tmp_path / "auth"
    auth.write_text(run_darner("--hash-password", "ann", typed="a secret\n").stdout)
    server = start_server("--auth-file", str(auth))
    with Client(Address(port=server.port), Login("ann", b"a secret")) as client:
        assert client.put(b"q", b"a")
    with pytest.raises(Refused, match="authentication failure"):
        Client(Address(port=server.port), Login("ann", b"wrong"))
    with Client(Address(port=server.port)) as client, pytest.raises(Refused, match="unauthenticated"):
        client.version()


def test_a_server_that_ends(client: Client, server: RunningServer) -> None:
    server.kill()
    with pytest.raises(NoServer, match="has hung up"):
        client.version()
