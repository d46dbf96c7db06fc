"""Whole items, read from a data directory."""

from collections.abc import Callable

from darner_core.tools.whole_items import whole_items
from tests.support.harness import RunningServer

LARGE = bytes(range(256)) * 12288


def test_whole_bodies_come_in_order_and_large_ones_in_chunks(start_server: Callable[..., RunningServer]) -> None:
    server = start_server()
    client = server.client()
    bodies = [b"", b"\xff\0", LARGE, b"last"]
    for body in bodies:
        client.set("work", body)
    client.ask(b"get work/open\r\n", b"VALUE work 0 0\r\n\r\nEND\r\n")
    client.ask(b"get work/reject\r\n", b"END\r\n")
    found, told = [], list[str]()
    for item in whole_items(str(server.data), b"work", told.append):
        body = item.body if isinstance(item.body, bytes) else b"".join(item.body)
        assert len(body) == item.size
        found.append((body, item.is_buried))
    assert found == [(b"\xff\0", False), (LARGE, False), (b"last", False), (b"", True)]
    assert told == []
