"""Moving away from a real beanstalkd."""

from collections.abc import Callable, Iterator

import greenstalk
import pytest

from darner_core.ctl.moving.addresses import open_source
from darner_core.ctl.moving.beanstalkd import Beanstalkd
from tests.support import old_servers
from tests.support.harness import RunningServer
from tests.support.moving import drained, move_all


@pytest.fixture
def old() -> Iterator[int]:
    with old_servers.beanstalkd() as port:
        yield port


def worker(port: int, tube: str) -> "greenstalk.Client[bytes]":
    return greenstalk.Client(("127.0.0.1", port), encoding=None, use=tube, watch=tube)


def test_jobs_keep_their_priority_their_time_and_their_delay(
    old: int, shared_server: Callable[..., RunningServer]
) -> None:
    new = shared_server()
    with worker(old, "mail/out") as client:
        client.put(b"later", priority=20, ttr=60)
        client.put(b"first", priority=10, ttr=90)
        client.put(b"last", priority=30, ttr=60)
        client.put(b"tomorrow", priority=5, delay=86_400, ttr=70)
    moved = {one.name: one for one in move_all(f"beanstalkd://127.0.0.1:{old}", new)}
    assert (moved[b"mail/out"].items, moved[b"mail/out"].left) == (4, "")
    assert moved[b"mail/out"].into == b"mail%2Fout"
    stats = new.client().stats()
    assert stats["queue_mail%2Fout_delayed"] == "1"
    assert drained(new, "mail%2Fout") == [b"first", b"later", b"last"]
    with worker(old, "mail/out") as client, pytest.raises(greenstalk.NotFoundError):
        client.peek_delayed()


def test_buried_jobs_stay_and_are_named_unless_they_are_wanted(
    old: int, shared_server: Callable[..., RunningServer]
) -> None:
    new = shared_server()
    with worker(old, "work") as client:
        client.put(b"poison")
        client.bury(client.reserve(timeout=1))
        client.put(b"good")
    source = open_source(f"beanstalkd://127.0.0.1:{old}")
    listed = {one.name: one for one in source.queues()}[b"work"]
    source.close()
    assert (listed.items, listed.note) == (1, "1 buried jobs stay there")
    moved = {one.name: one for one in move_all(f"beanstalkd://127.0.0.1:{old}", new)}[b"work"]
    assert (moved.items, moved.left) == (1, "1 buried")
    moved = {one.name: one for one in move_all(f"beanstalkd://127.0.0.1:{old}", new, takes_buried=True)}[b"work"]
    assert (moved.items, moved.left) == (1, "")
    assert drained(new, "work") == [b"good", b"poison"]


def test_a_job_that_a_worker_has_reserved_is_left_to_it(old: int, shared_server: Callable[..., RunningServer]) -> None:
    new = shared_server()
    with worker(old, "work") as client:
        client.put(b"mine")
        client.put(b"yours")
        job = client.reserve(timeout=1)
        moved = {one.name: one for one in move_all(f"beanstalkd://127.0.0.1:{old}", new)}[b"work"]
        assert (moved.items, moved.left) == (1, "1 reserved")
        client.delete(job)
    assert drained(new, "work") == [b"yours"]


def test_a_refused_job_goes_back_with_its_priority(old: int, shared_server: Callable[..., RunningServer]) -> None:
    new = shared_server("--max-item-bytes", "10")
    with worker(old, "work") as client:
        client.put(b"x" * 100, priority=3)
        client.put(b"fits", priority=4)
        told = {"patience_s": 0.0}
        moved = {one.name: one for one in move_all(f"beanstalkd://127.0.0.1:{old}", new, told)}[b"work"]
        assert moved.items == 1
        assert "too large" in moved.refused
        assert client.stats_job(client.peek_ready())["pri"] == 3
    assert drained(new, "work") == [b"fits"]


def test_with_keys_a_job_that_is_put_again_is_there_once(old: int, shared_server: Callable[..., RunningServer]) -> None:
    new = shared_server()
    with worker(old, "work") as client:
        for number in range(5):
            client.put(b"%d" % number)

        class Killed(Exception): ...

        source = open_source(f"beanstalkd://127.0.0.1:{old}")

        def die(queue: bytes) -> int:
            raise Killed

        from darner_core.ctl.moving.mover import Mover
        from darner_core.ctl.moving.server import Server
        from tests.support.moving import wire_to

        source.confirm = die  # type: ignore[method-assign]
        target = Server(wire_to(new.port))
        with pytest.raises(Killed):
            Mover(source, target, key_prefix=b"old:").move(b"work")
        source.close()
        target.close()
        move_all(f"beanstalkd://127.0.0.1:{old}", new, {"key_prefix": b"old:"})
    assert drained(new, "work") == [b"0", b"1", b"2", b"3", b"4"]


def test_each_process_of_the_server_has_a_name_of_its_own(old: int) -> None:
    """Its ids begin anew: what was moved from the one before must not be taken for the same jobs."""
    with old_servers.beanstalkd() as other:
        names = []
        for port in (old, old, other):
            source = open_source(f"beanstalkd://127.0.0.1:{port}")
            assert isinstance(source, Beanstalkd)
            names.append(source.instance())
            source.close()
    assert names[0] == names[1] != names[2]
    assert names[0]
