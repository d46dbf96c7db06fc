"""Moving away from lists of a real Redis server."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from darner_core.ctl.errors import CtlError
from darner_core.ctl.moving.addresses import open_source
from darner_core.ctl.moving.redis_lists import held
from tests.support import old_servers
from tests.support.harness import RunningServer
from tests.support.moving import drained, move_all


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Any]:
    with old_servers.redis_server(tmp_path) as port:
        client = redis.Redis(port=port)
        yield client
        client.close()


def url(old: Any) -> str:
    return f"redis://127.0.0.1:{old.connection_pool.connection_kwargs['port']}"


def test_a_list_comes_over_in_the_order_of_its_workers(old: Any, shared_server: Callable[..., RunningServer]) -> None:
    new = shared_server()
    old.lpush("jobs:high", *range(250))
    old.set("no list", b"x")
    old.rpush("other way", b"a", b"b")
    moved = {one.name: one for one in move_all(url(old), new)}
    assert moved.keys() == {b"jobs:high", b"other way"}
    assert drained(new, "jobs:high") == [b"%d" % number for number in range(250)]
    assert drained(new, "other%20way") == [b"b", b"a"]
    assert old.keys() == [b"no list"]


def test_workers_may_take_at_the_left(old: Any, shared_server: Callable[..., RunningServer]) -> None:
    new = shared_server()
    old.rpush("jobs", *range(50))
    move_all(url(old), new, pops="left")
    assert drained(new, "jobs") == [b"%d" % number for number in range(50)]


def test_what_a_killed_run_has_held_goes_first(old: Any, shared_server: Callable[..., RunningServer]) -> None:
    new = shared_server()
    old.lpush("jobs", "a", "b", "c", "d")
    source = open_source(url(old))
    assert [item.body for item in source.batch(b"jobs", 2)] == [b"a", b"b"]
    source.close()  # nothing is confirmed: it might have been killed
    assert old.lrange(held(b"jobs"), 0, -1) == [b"b", b"a"]
    moved = move_all(url(old), new)
    assert [(one.name, one.items) for one in moved] == [(b"jobs", 4)]
    assert drained(new, "jobs") == [b"a", b"b", b"c", b"d"]
    assert old.keys() == []


def test_equal_items_are_counted(old: Any, shared_server: Callable[..., RunningServer]) -> None:
    new = shared_server()
    old.lpush("jobs", *["same"] * 30)
    move_all(url(old), new)
    assert drained(new, "jobs") == [b"same"] * 30


def test_what_is_refused_is_in_the_list_again(old: Any, shared_server: Callable[..., RunningServer]) -> None:
    new = shared_server("--max-item-bytes", "10")
    old.lpush("jobs", "a", "x" * 100, "y" * 100, "b")
    (moved,) = move_all(url(old), new, {"patience_s": 0.0})
    assert (moved.items, moved.left) == (2, "2 in the list jobs")
    assert old.lrange("jobs", 0, -1) == [b"y" * 100, b"x" * 100]


def test_another_mover_is_noticed(old: Any) -> None:
    old.lpush("jobs", "a")
    source = open_source(url(old))
    assert len(list(source.batch(b"jobs", 5))) == 1
    old.delete(held(b"jobs"))
    assert source.confirm(b"jobs") == 1
    source.close()


def test_no_redis_there_is_said_in_a_line() -> None:
    source = open_source(f"redis://127.0.0.1:{old_servers.free_port()}", timeout_s=1)
    with pytest.raises(CtlError, match="does not answer"):
        source.queues()
