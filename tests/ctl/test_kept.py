"""Looking at a queue's items in the data directory, with all that is known of them."""

from collections.abc import Callable

import pytest

from darner_core.ctl.kept import Kept
from darner_core.errors import DataDirError
from tests.support.harness import RunningServer


def test_all_items_are_told_and_stay(start_server: Callable[..., RunningServer]) -> None:
    server = start_server()
    client = server.client()
    client.set("work", b"plain", flags=3)
    client.set("work", bytes(3 << 20))
    client.ask(b"set work/delay=600000/pri=5/ttr=9000/key=k 0 0 1\r\nd\r\n", b"STORED\r\n")
    assert client.get("work/open") == b"plain"
    source = Kept(str(server.data), b"work")
    plain, large, delayed = source.batch(b"work", 10)
    assert (plain.body, plain.flags, plain.pri, plain.ttr_ms) == (b"plain", 3, None, None)
    assert large.size == 3 << 20
    assert (delayed.body, delayed.pri, delayed.ttr_ms, delayed.key) == (b"d", 5, 9000, b"k")
    assert 500_000 < delayed.delay_ms <= 600_000
    assert list(source.batch(b"work", 10)) == []
    assert source.told() == []
    source.close()
    assert client.stats()["queue_work_items"] != "0"


def test_a_queue_that_is_not_there_is_said(start_server: Callable[..., RunningServer]) -> None:
    server = start_server()
    server.client().set("work", b"x")
    source = Kept(str(server.data), b"other")
    with pytest.raises(DataDirError, match="no queue other"):
        list(source.batch(b"other", 1))
    source.close()
