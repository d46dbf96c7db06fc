"""The turn of a server that measures: what it counts, asked of real servers, and that serving stays what it is."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from darner_core.operations.measures import Measures
from darner_core.server import measuring
from darner_core.server.measuring import timed, wait_lag
from tests.support.beanstalkd import free_port
from tests.support.harness import Client, RunningServer
from tests.support.http import HTTP, Http, http_port
from tests.support.scraping import Scrape, scraped


class Watched:
    def __init__(self, start_server: Callable[..., RunningServer], *options: str) -> None:
        self.server = start_server(*HTTP, *options)
        self.client = self.server.client()
        self.http = Http(http_port(self.server))

    def until(self, ask: Callable[[], object], name: str, **labels: str) -> Scrape:
        """`ask` again and again, until the server, which is bored by now, has counted it."""
        deadline = time.monotonic() + 30
        while True:
            ask()
            told = scraped(self.http)
            if told.of(name, **labels):
                return told
            assert time.monotonic() < deadline, told.text
            time.sleep(0.05)


Watch = Callable[..., Watched]


@pytest.fixture
def watch(start_server: Callable[..., RunningServer]) -> Iterator[Watch]:
    """Starts a server with these options."""
    several: list[Watched] = []

    def start(*options: str) -> Watched:
        several.append(Watched(start_server, *options))
        return several[-1]

    yield start
    for one in several:
        one.http.close()


@pytest.fixture
def watched(watch: Watch) -> Watched:
    return watch()


def test_an_item_tells_how_long_it_waited_and_how_long_it_was_open(watched: Watched) -> None:
    client = watched.client
    watched.until(lambda: client.get("q"), "darner_request_seconds_count", dialect="darner", verb="get")

    def job() -> None:
        client.set("q", b"x")
        client.ask(b"get q/open\r\n", b"VALUE q 0 1\r\nx\r\nEND\r\n")
        client.ask(b"get q/close\r\n", b"END\r\n")

    watched.until(job, "darner_queue_time_seconds_count")
    told = watched.until(job, "darner_acknowledge_time_seconds_count")
    assert told.of("darner_acknowledge_time_seconds_sum") > 0


def test_requests_that_come_together_are_counted_each(watched: Watched) -> None:
    def ask() -> None:
        watched.client.send(b"set p 0 0 1\r\nx\r\nget p\r\nversion\r\n")
        watched.client.expect(b"STORED\r\nVALUE p 0 1\r\nx\r\nEND\r\nVERSION 1.0.0\r\n")

    told = watched.until(ask, "darner_request_seconds_count", dialect="darner", verb="version")
    counts = [told.of("darner_request_seconds_count", dialect="darner", verb=verb) for verb in ("set", "get")]
    assert counts == [told.of("darner_request_seconds_count", dialect="darner", verb="version")] * 2


def test_a_get_that_waits_for_an_item_is_not_timed(watched: Watched) -> None:
    client = watched.client

    def ask() -> None:
        client.ask(b"version\r\nget none/t=1\r\n", b"VERSION 1.0.0\r\nEND\r\n")

    told = watched.until(ask, "darner_request_seconds_count", dialect="darner", verb="version")
    assert told.of("darner_request_seconds_count", dialect="darner", verb="get") == 0


def test_other_protocols_are_timed_as_well(watch: Watch, tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "conf").write_text(f'[[listener]]\ndialect = "beanstalkd"\nport = {port}\n')
    watched = watch("--config", str(tmp_path / "conf"))
    tubes = watched.server.adopt(Client(port))
    watched.until(
        lambda: tubes.ask(b"list-tube-used\r\n", b"USING default\r\n"),
        "darner_request_seconds_count", dialect="beanstalkd", verb="list-tube-used",
    )  # fmt: skip


def test_fsyncs_are_timed_each(watch: Watch) -> None:
    watched = watch("--sync", "always")
    for _ in range(5):
        watched.client.set("q", b"x")
    told = scraped(watched.http)
    assert told.of("darner_fsync_seconds_count") == 5
    told = watched.until(
        lambda: watched.client.set("q", b"x"), "darner_request_seconds_count", dialect="darner", verb="set"
    )
    assert told.of("darner_request_seconds_sum", dialect="darner", verb="set") > 0


def test_what_clients_are_answered_is_the_same_while_all_turns_are_picked(watched: Watched) -> None:
    client = watched.client
    for _ in range(25):
        client.ask(b"version\r\n", b"VERSION 1.0.0\r\n")
        client.send(b"set w 0 0 3\r\nab")
        time.sleep(0.02)
        client.ask(b"c\r\nget w\r\n", b"STORED\r\nVALUE w 0 3\r\nabc\r\nEND\r\n")
        time.sleep(0.04)


def test_a_sync_that_fails_is_not_timed() -> None:
    measures = Measures()

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        timed(fail, measures)()
    timed(lambda: None, measures)()
    assert measures.fsync.count == 1


def test_the_lag_is_what_the_wait_takes_longer() -> None:
    measures = Measures()
    times = iter((10.0, 10.0 + measuring.LAG_S + 0.5))
    wait_lag(measures, lambda: next(times))
    assert (measures.lag.count, measures.lag.sum) == (1, 0.5)
