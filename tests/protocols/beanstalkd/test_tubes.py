"""Conversations about tubes, held with this server and with the real beanstalkd."""

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from darner_core.protocols.beanstalkd.tubes import SPARE_ENDS, Tubes, TubeSession
from tests.protocols.beanstalkd.conftest import Beans
from tests.support.beanstalkd import Worker
from tests.support.harness import wait_until

Join = Callable[[], Worker]


def test_a_client_begins_with_default(shared: Beans) -> None:
    a = shared.worker()
    a.says("list-tube-used", "USING default")
    assert a.listed("list-tubes-watched") == ["default"]
    a.says("ignore default", "NOT_IGNORED")
    a.says("watch default", "WATCHING 1")
    a.close()


def test_the_last_tube_is_not_ignored(join: Join, tube: str) -> None:
    a = join()
    a.says(f"ignore {tube}", "NOT_IGNORED")
    a.says("ignore other", "WATCHING 1")
    a.says("watch other", "WATCHING 2")
    a.says("watch other", "WATCHING 2")
    assert a.listed("list-tubes-watched") == [tube, "other"]
    a.says(f"ignore {tube}", "WATCHING 1")
    a.says("ignore other", "NOT_IGNORED")


def test_a_tube_exists_while_somebody_uses_or_watches_it_or_it_has_jobs(join: Join, tube: str) -> None:
    a, b = join(), join()
    used, watched, filled = f"{tube}u", f"{tube}w", f"{tube}f"

    def there() -> list[str]:
        return [name for name in a.listed("list-tubes") if name in (used, watched, filled)]

    b.says(f"stats-tube {used}", "NOT_FOUND")
    b.says(f"use {filled}", f"USING {filled}")
    job = b.put("x")
    b.says(f"use {used}", f"USING {used}")
    b.says(f"watch {watched}", "WATCHING 2")
    assert sorted(there()) == sorted([filled, used, watched])
    assert b.told(f"stats-tube {used}")["current-using"] == "1"
    b.close()
    wait_until(lambda: there() == [filled])
    a.says(f"stats-tube {used}", "NOT_FOUND")
    a.says(f"delete {job}", "DELETED")


def test_jobs_lie_in_the_tube_that_was_used(join: Join, tube: str) -> None:
    a = join()
    a.says(f"use {tube}x", f"USING {tube}x")
    job = a.put("x")
    a.says(f"use {tube}", f"USING {tube}")
    assert a.reserve() is None
    assert a.told(f"stats-job {job}")["tube"].strip('"') == f"{tube}x"
    a.says("peek-ready", "NOT_FOUND")
    a.says("kick 1", "KICKED 0")
    a.says(f"watch {tube}x", "WATCHING 2")
    assert a.reserve() == "x"


def test_every_character_that_a_tube_may_have(join: Join) -> None:
    a = join()
    name = "azAZ09+/;.$_()-"
    a.says(f"use {name}", f"USING {name}")
    job = a.put("x")
    assert name in a.listed("list-tubes")
    assert a.told(f"stats-tube {name}")["name"].strip('"') == name
    assert a.peek("peek-ready") == "x"
    a.says(f"delete {job}", "DELETED")


def test_the_longest_name(join: Join) -> None:
    a = join()
    a.says("use " + "x" * 200, "USING " + "x" * 200)
    a.says("use " + "x" * 201, "BAD_FORMAT")
    a.says("pause-tube " + "x" * 200 + " 1", "PAUSED")


def test_a_tube_that_is_paused_hands_nothing_out(join: Join, tube: str) -> None:
    a, b = join(), join()
    a.put("x")
    a.says(f"pause-tube {tube} 1", "PAUSED")
    assert b.reserve() is None
    told = b.told(f"stats-tube {tube}")
    assert (told["pause"], told["cmd-pause-tube"], told["current-jobs-ready"]) == ("1", "1", "1")
    assert b.reserve(5) == "x"
    assert b.told(f"stats-tube {tube}")["pause"] == "0"


def test_who_waits_gets_the_job_when_the_pause_is_over(join: Join, tube: str) -> None:
    a, b = join(), join()
    a.says(f"pause-tube {tube} 1", "PAUSED")
    b.begin_reserve()
    a.put("x")
    assert b.reserved() == "x"


def test_a_pause_is_made_shorter(join: Join, tube: str) -> None:
    a = join()
    a.put("x")
    a.says(f"pause-tube {tube} 1000", "PAUSED")
    assert a.told(f"stats-tube {tube}")["pause-time-left"] in ("999", "1000")
    a.says(f"pause-tube {tube} 1", "PAUSED")
    assert a.reserve(5) == "x"


def test_a_pause_of_0_ends_the_pause_at_once(join: Join, tube: str) -> None:
    a = join()
    a.put("x")
    a.says(f"pause-tube {tube} 1000", "PAUSED")
    a.says(f"pause-tube {tube} 0", "PAUSED")
    time.sleep(0.01)  # the real one looks at it with the next event
    assert a.reserve() == "x"
    told = a.told(f"stats-tube {tube}")
    assert (told["pause"], told["pause-time-left"], told["cmd-pause-tube"]) == ("0", "0", "2")
    a.says(f"pause-tube {tube} 0", "PAUSED")


def test_what_is_reserved_is_done_while_the_tube_is_paused(join: Join, tube: str) -> None:
    a = join()
    job = a.put("x")
    assert a.reserve() == "x"
    a.says(f"pause-tube {tube} 1000", "PAUSED")
    a.says(f"release {job} 0 0", "RELEASED")
    assert a.reserve() is None
    a.says(f"reserve-job {job}", f"RESERVED {job} 1")
    a.says(f"delete {job}", "DELETED")
    a.says(f"pause-tube {tube} 0", "PAUSED")


def test_a_tube_that_does_not_exist_is_not_paused(join: Join, tube: str) -> None:
    a = join()
    a.says(f"pause-tube {tube}x 1", "NOT_FOUND")
    a.says(f"use {tube}x", f"USING {tube}x")
    a.says(f"pause-tube {tube}x 1", "PAUSED")


# -- what a session keeps


def read_of(job: int) -> Any:
    queue = SimpleNamespace(name=b"q", holds=lambda read: True, close=lambda read, session: None)
    return SimpleNamespace(queue=queue, id=job, count=lambda: None)


def test_a_job_that_stays_does_not_make_the_session_grow_by_those_that_pass() -> None:
    left_ms = {1: 60_000}
    session = TubeSession(
        SimpleNamespace(undo=[]),
        SimpleNamespace(),
        lambda right, queue: None,
        Tubes(),
        lambda queue, job: left_ms.get(job, 100_000),
        lambda queue: True,
    )
    session.hold(read_of(1))
    for job in range(2, 2000):
        read = read_of(job)
        session.hold(read)
        session.close_found(read)
    assert len(session._ends) <= SPARE_ENDS + 4
    soonest_s = session.soonest_s()
    assert soonest_s is not None
    assert 59 < soonest_s <= 60
    left_ms[1] = 90_000  # it was touched
    soonest_s = session.soonest_s()
    assert soonest_s is not None
    assert 59 < soonest_s <= 90
