"""One HTTP client, as the turn sees it."""

from collections.abc import Callable

from tests.support.harness import RunningServer
from tests.support.http import HTTP, Http, http_port


def test_clients_are_counted(start_server: Callable[..., RunningServer]) -> None:
    server = start_server(*HTTP)
    http = Http(http_port(server))
    http.get("session")
    stats = server.client().stats()
    assert (stats["curr_connections"], stats["total_connections"]) == ("2", "2")
    assert int(stats["bytes_read"]) > 0
    http.close()


def test_an_answer_waits_for_the_disk_where_that_is_asked_for(start_server: Callable[..., RunningServer]) -> None:
    server = start_server(*HTTP, "--sync", "always")
    http = Http(http_port(server))
    for _ in range(5):
        http.put("q", b"x")
    assert http.take("q").status == 200
    http.close()
