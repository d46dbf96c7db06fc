"""What is told of a job, a tube and the server, by this server and by the real beanstalkd."""

import time
from collections.abc import Callable

from tests.protocols.beanstalkd.conftest import MAX_JOB_BYTES, Beans
from tests.support.beanstalkd import Worker
from tests.support.harness import wait_until

Join = Callable[[], Worker]


def test_a_job_tells_all_of_itself_in_this_order(join: Join, tube: str) -> None:
    a = join()
    job = a.put("x", 3, delay=1000, ttr=50)
    told = a.told(f"stats-job {job}")
    assert list(told) == [
        "id", "tube", "state", "pri", "age", "delay", "ttr", "time-left", "file", "reserves", "timeouts", "releases",
        "buries", "kicks",
    ]  # fmt: skip
    assert told.pop("file").isdigit()
    assert told.pop("time-left") in ("999", "1000")
    assert told.pop("tube").strip('"') == tube
    assert told == {
        "id": str(job), "state": "delayed", "pri": "3", "age": "0", "delay": "1000", "ttr": "50", "reserves": "0",
        "timeouts": "0", "releases": "0", "buries": "0", "kicks": "0",
    }  # fmt: skip
    a.says("stats-job 4000000000000", "NOT_FOUND")


def test_the_age_of_a_job_and_what_is_left_of_its_time(join: Join) -> None:
    a = join()
    job = a.put("x", ttr=50)
    assert a.told(f"stats-job {job}")["time-left"] == "0"
    assert a.reserve() == "x"
    time.sleep(1.1)
    told = a.told(f"stats-job {job}")
    assert told["age"] == "1"
    assert told["time-left"] == "48"


def test_a_tube_tells_all_of_itself_in_this_order(join: Join, tube: str) -> None:
    a, b = join(), join()
    a.put("u", 1023)
    a.put("r", 1024)
    a.put("d", delay=1000)
    job = a.put("b", 1)
    assert b.reserve() == "b"
    b.says(f"bury {job} 0", "BURIED")
    job = a.put("x", 0)
    assert b.reserve() == "x"
    told = a.told(f"stats-tube {tube}")
    assert list(told.items())[1:] == [
        ("current-jobs-urgent", "1"), ("current-jobs-ready", "2"), ("current-jobs-reserved", "1"),
        ("current-jobs-delayed", "1"), ("current-jobs-buried", "1"), ("total-jobs", "5"), ("current-using", "2"),
        ("current-watching", "2"), ("current-waiting", "0"), ("cmd-delete", "0"), ("cmd-pause-tube", "0"),
        ("pause", "0"), ("pause-time-left", "0"),
    ]  # fmt: skip
    b.says(f"delete {job}", "DELETED")
    assert a.told(f"stats-tube {tube}")["cmd-delete"] == "1"


def test_who_waits_is_counted(join: Join, tube: str) -> None:
    a, b = join(), join()
    b.begin_reserve()
    assert a.told(f"stats-tube {tube}")["current-waiting"] == "1"
    a.put("x")
    assert b.reserved() == "x"
    assert a.told(f"stats-tube {tube}")["current-waiting"] == "0"
    b.begin_reserve()
    b.close()
    wait_until(lambda: a.told(f"stats-tube {tube}")["current-waiting"] == "0")


def test_the_server_tells_all_of_itself_in_this_order(alone: Beans) -> None:
    a, b = alone.worker(), alone.worker()
    a.says("use t", "USING t")
    job = a.put("x")
    a.put("d", 2000, delay=1000)
    b.says("watch t", "WATCHING 2")
    assert b.reserve() == "x"
    b.says(f"delete {job}", "DELETED")
    b.says("frobnicate", "UNKNOWN_COMMAND")
    told = a.told("stats")
    assert list(told) == [
        "current-jobs-urgent", "current-jobs-ready", "current-jobs-reserved", "current-jobs-delayed",
        "current-jobs-buried", "cmd-put", "cmd-peek", "cmd-peek-ready", "cmd-peek-delayed", "cmd-peek-buried",
        "cmd-reserve", "cmd-reserve-with-timeout", "cmd-delete", "cmd-release", "cmd-use", "cmd-watch", "cmd-ignore",
        "cmd-bury", "cmd-kick", "cmd-touch", "cmd-stats", "cmd-stats-job", "cmd-stats-tube", "cmd-list-tubes",
        "cmd-list-tube-used", "cmd-list-tubes-watched", "cmd-pause-tube", "job-timeouts", "total-jobs", "max-job-size",
        "current-tubes", "current-connections", "current-producers", "current-workers", "current-waiting",
        "total-connections", "pid", "version", "rusage-utime", "rusage-stime", "uptime", "binlog-oldest-index",
        "binlog-current-index", "binlog-records-migrated", "binlog-records-written", "binlog-max-size", "draining",
        "id", "hostname", "os", "platform",
    ]  # fmt: skip
    wanted = {
        "current-jobs-ready": "0", "current-jobs-delayed": "1", "current-jobs-reserved": "0", "cmd-put": "2",
        "cmd-reserve-with-timeout": "1", "cmd-delete": "1", "cmd-use": "1", "cmd-watch": "1", "cmd-stats": "1",
        "job-timeouts": "0", "total-jobs": "2", "max-job-size": str(MAX_JOB_BYTES), "current-tubes": "2",
        "current-connections": "2", "current-producers": "1", "current-workers": "1", "current-waiting": "0",
        "draining": "false",
    }  # fmt: skip
    assert {name: told[name] for name in wanted} == wanted
    a.close()
    b.close()
