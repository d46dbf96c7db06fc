"""`/metrics`, asked of real servers."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import parser

from darner_core.access.users import hash_password
from tests.support.harness import RunningServer
from tests.support.http import HTTP, Connect, Http
from tests.support.scraping import OPENMETRICS, Scrape, families_of, scraped


def test_both_texts_are_what_their_parsers_read(http: Http, queue: str) -> None:
    http.put(queue, b"x")
    plain = http.ask("GET", "/metrics")
    assert (plain.status, plain.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert {family.name for family in parser.text_string_to_metric_families(plain.body.decode())} >= {"darner_items"}
    said = http.ask("GET", "/metrics", Accept=OPENMETRICS)
    assert said.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert {family.name for family in families_of(said.body.decode())} >= {"darner", "darner_items", "darner_queue_put"}


def test_a_queue_tells_what_is_in_it(http: Http, http_server: RunningServer, queue: str) -> None:
    client = http_server.client()
    for _ in range(3):
        client.set(queue, b"12345")
    client.ask(b"get %b/open\r\n" % queue.encode(), b"VALUE %b 0 5\r\n12345\r\nEND\r\n" % queue.encode())
    told = scraped(http)
    figures = {name: told.of(f"darner_queue_{name}", queue=queue) for name in ("items", "bytes", "open_items")}
    assert figures == {"items": 2, "bytes": 10, "open_items": 1}
    assert told.of("darner_queue_put_total", queue=queue) == 3
    assert told.of("darner_queue_age_seconds", queue=queue) >= 0


def test_names_are_told_as_they_are_or_by_their_bytes(http: Http, http_server: RunningServer) -> None:
    client = http_server.client()
    for name in (b'a"b\\c{}', "größe".encode(), b"\xff\xfe"):
        client.ask(b"set %b 0 0 1\r\nx\r\n" % name, b"STORED\r\n")
    told = scraped(http)
    for shown in ('a"b\\c{}', "größe", "\\xff\\xfe"):
        assert told.of("darner_queue_items", queue=shown) == 1


def test_jobs_are_told(start_server: Callable[..., RunningServer], connect_http: Connect) -> None:
    server = start_server(*HTTP)
    client = server.client()
    client.ask(b"set q/delay=60000 0 0 1\r\nx\r\nset q 0 0 1\r\ny\r\n", b"STORED\r\n" * 2)
    client.ask(b"get q/open\r\nget q/reject\r\n", b"VALUE q 0 1\r\ny\r\nEND\r\nEND\r\n")
    client.ask(b"pause q in\r\n", b"PAUSED in\r\n")
    told = scraped(connect_http(server))
    figures = [told.of(f"darner_queue_{name}", queue="q") for name in ("delayed_items", "buried_items", "paused")]
    assert figures == [1, 1, 1]


def test_only_some_queues_get_labels_and_these_stay(
    start_server: Callable[..., RunningServer], connect_http: Connect
) -> None:
    server = start_server(*HTTP, "--metrics-max-queues", "2")
    client, http = server.client(), connect_http(server)
    for queue, items in (("few", 1), ("many", 3), ("some", 2)):
        for _ in range(items):
            client.set(queue, b"x")
    told = scraped(http)
    assert (told.queues(), told.of("darner_queues_without_labels")) == ({"many", "some"}, 1)
    for _ in range(9):
        client.set("few", b"x")
    assert scraped(http).queues() == {"many", "some"}
    client.ask(b"delete many\r\n", b"DELETED\r\n")
    told = scraped(http)
    assert (told.queues(), told.of("darner_queues_without_labels")) == ({"few", "some"}, 0)


def test_a_user_is_told_of_the_queues_that_the_user_may_see(
    start_server: Callable[..., RunningServer], connect_http: Connect, tmp_path: Path
) -> None:
    hashed = hash_password(b"secret")
    (tmp_path / "users").write_text("".join(f"{name}:{hashed}\n" for name in ("mail", "boss")))
    (tmp_path / "rights.toml").write_text(
        f'auth_file = "{tmp_path / "users"}"\n[users.mail]\nput = ["mail"]\n[users.boss]\nput = ["*"]\n'
    )
    server = start_server(*HTTP, "--config", str(tmp_path / "rights.toml"))
    boss = connect_http(server, "boss", "secret")
    for queue in ("mail", "other"):
        assert boss.ask("PUT", f"queues/{queue}").status == 201
    seen = [scraped(connect_http(server, user, "secret")).queues() for user in ("mail", "boss")]
    assert seen == [{"mail"}, {"mail", "other"}]
    assert connect_http(server).ask("GET", "/metrics").status == 401


def test_requests_are_timed_by_verb(start_server: Callable[..., RunningServer], connect_http: Connect) -> None:
    server = start_server(*HTTP)
    client, http = server.client(), connect_http(server)

    def told_of_all() -> Scrape | None:
        client.set("q", b"x")
        client.ask(b"get q/open\r\nget q/close\r\n", b"VALUE q 0 1\r\nx\r\nEND\r\nEND\r\n")
        told = scraped(http)
        counts = [
            *(told.of("darner_request_seconds_count", dialect="darner", verb=verb) for verb in ("get", "set")),
            told.of("darner_queue_time_seconds_count"),
            told.of("darner_acknowledge_time_seconds_count"),
            told.of("darner_commit_seconds_count"),
            told.of("darner_loop_lag_seconds_count"),
        ]
        return told if all(counts) else None

    deadline = time.monotonic() + 20  # after a second in which little happens every request is timed
    while told_of_all() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_requests_over_http_are_timed_each(http: Http, queue: str) -> None:
    before = scraped(http).of("darner_request_seconds_count", dialect="http", verb="POST /queues/{queue}/items")
    http.put(queue, b"x")
    http.put(queue, b"y")
    after = scraped(http).of("darner_request_seconds_count", dialect="http", verb="POST /queues/{queue}/items")
    assert after - before == 2


@pytest.mark.long
def test_ten_thousand_queues_hold_nobody_up(start_server: Callable[..., RunningServer], connect_http: Connect) -> None:
    server = start_server(*HTTP, "--metrics-max-queues", "10000")
    client = server.client()
    for start in range(0, 10_000, 500):
        names = [b"queue%d" % number for number in range(start, start + 500)]
        client.ask(b"".join(b"set %b 0 0 1\r\nx\r\n" % name for name in names), b"STORED\r\n" * 500)
    told = scraped(connect_http(server))
    assert len(told.queues()) == 10_000
    lags = scraped(connect_http(server))
    slow = lags.of("darner_loop_lag_seconds_count") - lags.of("darner_loop_lag_seconds_bucket", le="0.1")
    assert slow == 0
