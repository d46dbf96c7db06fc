"""Which conversation of ours shows what each of beanstalkd's own tests of its server shows (1.13, testserv.c), and the
conversations that no other file here has.
"""

import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from tests.protocols.beanstalkd.conftest import MAX_JOB_BYTES, Beans, start
from tests.protocols.beanstalkd.test_jobs import state
from tests.protocols.beanstalkd.test_lines import LINES
from tests.support.beanstalkd import TubeServer, UnixWorker, Worker
from tests.support.harness import ROOT

Join = Callable[[], Worker]
Serve = Callable[..., TubeServer]

LINE = "lines.test_a_line_is_answered_so_and_the_next_is_read"
HERE = "own_tests."

# Its tests, and ours; behind a line of `test_lines.LINES` that it sends, if that is all of it.
OWN = {
    "unknown_command": (LINE, "nosuchcommand"),
    "too_long_commandline": HERE + "test_a_line_that_is_too_long_is_told_once_and_the_next_is_read",
    "put_in_drain": "commands.test_sigusr1_drains",
    "peek_ok": "jobs.test_looking_at_jobs_leaves_them_where_they_are",
    "peek_not_found": (LINE, f"peek {2**64 - 1}"),
    "peek_ok_unix": HERE + "test_a_unix_socket_serves_and_is_there_again_after_a_kill",
    "unix_auto_removal": HERE + "test_a_unix_socket_serves_and_is_there_again_after_a_kill",
    "peek_bad_format": (LINE, f"peek {2**64}"),
    "peek_delayed": HERE + "test_the_next_that_is_due_is_peeked_at",
    "peek_buried_kick": HERE + "test_a_job_is_buried_peeked_at_and_kicked",
    "touch_bad_format": (LINE, "touch !@#!@#"),
    "touch_not_found": (LINE, "touch 4000000000000"),
    "bury_bad_format": (LINE, "bury 1 2x"),
    "kickjob_bad_format": (LINE, "kick-job 1x"),
    "kickjob_buried": "jobs.test_one_job_is_kicked",
    "kickjob_delayed": "jobs.test_one_job_is_kicked",
    "pause": "tubes.test_a_tube_that_is_paused_hands_nothing_out",
    "underscore": (LINE, "use a_b"),
    "2cmdpacket": "jobs.test_several_requests_in_one_packet",
    "too_big": HERE + "test_behind_a_job_that_is_too_big_the_next_is_taken",
    "job_size_invalid": (LINE, "put 0 0 0 4294967296"),
    "job_size_max_plus_1": HERE + "test_a_job_of_more_than_a_gigabyte",
    "delete_ready": "jobs.test_jobs_are_deleted_in_every_state_but_anothers",
    "delete_reserved_by_other": "jobs.test_jobs_are_deleted_in_every_state_but_anothers",
    "delete_bad_format": (LINE, f"delete {2**64}"),
    "multi_tube": "jobs.test_the_order_goes_over_all_tubes_that_are_watched",
    "negative_delay": (LINE, "put 0 -1 1 1"),
    "garbage_priority": (LINE, "put -1kkd 0 100 1"),
    "negative_priority": (LINE, "put -1 0 1 1"),
    "max_priority": "jobs.test_the_most_urgent_job_comes_first_and_of_equal_ones_the_oldest",
    "too_big_priority": (LINE, "put 4294967296 0 1 1"),
    "omit_time_left": "statistics.test_the_age_of_a_job_and_what_is_left_of_its_time",
    "small_delay": "jobs.test_a_delayed_job_comes_when_it_is_time",
    "delayed_to_ready": HERE + "test_a_tube_counts_a_job_as_delayed_and_then_as_ready",
    "statsjob_ck_format": (LINE, "stats-job 1 2"),
    "stats_tube": HERE + "test_a_tube_remembers_its_jobs_and_default_is_there",
    "ttrlarge": HERE + "test_times_to_run_are_told_as_they_were_given",
    "ttr_small": "jobs.test_a_time_of_0_is_one_of_1",
    "zero_delay": "jobs.test_jobs_have_numbers_that_grow",
    "reserve_with_timeout_2conns": "jobs.test_two_who_wait_for_a_time_hear_of_it",
    "reserve_ttr_deadline_soon": HERE + "test_who_is_warned_has_its_job_still",
    "reserve_job_ttr_deadline_soon": HERE + "test_a_job_that_was_reserved_by_its_number_ends_as_others_do",
    "reserve_job_already_reserved": "jobs.test_any_job_is_reserved_by_its_number_unless_somebody_has_it",
    "reserve_job_ready": "jobs.test_any_job_is_reserved_by_its_number_unless_somebody_has_it",
    "reserve_job_delayed": "jobs.test_any_job_is_reserved_by_its_number_unless_somebody_has_it",
    "reserve_job_buried": "jobs.test_any_job_is_reserved_by_its_number_unless_somebody_has_it",
    "release_bad_format": (LINE, f"release {2**64} 1 1"),
    "release_not_found": (LINE, "release 4000000000000 0 0"),
    "close_releases_job": "jobs.test_what_a_client_had_is_ready_when_it_has_gone",
    "quit_releases_job": "jobs.test_what_a_client_had_is_ready_when_it_has_gone",
    "unpause_tube": HERE + "test_who_waits_gets_the_job_when_a_long_pause_is_ended",
    "list_tube": HERE + "test_tubes_are_listed",
    "use_tube_long": "tubes.test_the_longest_name",
    "longest_command": HERE + "test_the_longest_line",
    "binlog_empty_exit": HERE + "test_a_server_that_was_killed_without_jobs_starts_again",
    "binlog_bury": "jobs.test_no_job_is_lost_by_kill_9",
    "binlog_basic": "jobs.test_no_job_is_lost_by_kill_9",
    "binlog_allocation": HERE + "test_a_hundred_jobs_come_and_go",
    "binlog_read": HERE + "test_what_was_released_and_what_was_deleted_is_so_after_kill_9",
}
# Those that do not apply: they are about its log files.
OTHERS = ("binlog_size_limit", "binlog_disk_full", "binlog_disk_full_delete", "binlog_v5")


def test_each_of_its_tests_has_a_conversation_of_ours() -> None:
    assert (len(OWN), len(OTHERS)) == (59, 4)
    lines = dict(LINES)
    for ours in OWN.values():
        name, line = ours if isinstance(ours, tuple) else (ours, None)
        module, _, test = name.partition(".")
        assert callable(getattr(import_module(f"tests.protocols.beanstalkd.test_{module}"), test, None)), name
        assert line is None or line in lines, line


def test_the_docs_say_which_do_not_apply() -> None:
    docs = (ROOT / "docs" / "beanstalkd.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in docs for name in OTHERS)


# -- lines


def test_a_line_that_is_too_long_is_told_once_and_the_next_is_read(join: Join) -> None:
    a = join()
    for _ in range(10):
        a.send(b"a" * 50)
    a.send(b"\r\n")
    a.expect(b"BAD_FORMAT\r\n")
    a.put("A")


def test_the_longest_line(join: Join) -> None:
    a = join()
    tube = "0123456789" * 20
    a.says(f"use {tube}", f"USING {tube}")
    a.says(f"pause-tube {tube} 4294967295", "PAUSED")


def test_behind_a_job_that_is_too_big_the_next_is_taken(join: Join) -> None:
    a = join()
    a.send(b"put 0 0 0 %d\r\n%bdelete 9999\r\n" % (MAX_JOB_BYTES + 1, b"x" * (MAX_JOB_BYTES - 10)))
    a.send(b"put 0 0 0 1\r\nx\r\n")
    a.expect(b"JOB_TOO_BIG\r\nINSERTED ")


@pytest.mark.long
@pytest.mark.parametrize("kind", ["darner", "beanstalkd"])
def test_a_job_of_more_than_a_gigabyte(kind: str, tmp_path: Path) -> None:
    server = start(kind, tmp_path / "data", 1 << 30)
    a = server.worker()
    a.send(b"put 0 0 0 %d\r\n" % ((1 << 30) + 1))
    for _ in range(1 << 10):
        a.send(bytes(1 << 20))
    a.send(b"x\r\n")
    a.expect(b"JOB_TOO_BIG\r\n")
    a.put("small")
    server.end()


# -- jobs


def test_the_next_that_is_due_is_peeked_at(join: Join) -> None:
    a = join()
    a.says("peek-delayed", "NOT_FOUND")
    a.put("ready")
    jobs = {body: a.put(body, delay=delay) for body, delay in (("later", 99), ("soon", 50))}
    for body in ("soon", "later"):
        assert a.peek("peek-delayed") == body
        a.says(f"delete {jobs[body]}", "DELETED")
    a.says("peek-delayed", "NOT_FOUND")


def test_a_job_is_buried_peeked_at_and_kicked(join: Join) -> None:
    a = join()
    job = a.put("A")
    a.says(f"bury {job} 0", "NOT_FOUND")
    a.says("peek-buried", "NOT_FOUND")
    assert a.reserve() == "A"
    a.says(f"bury {job} 0", "BURIED")
    assert a.peek("peek-buried") == "A"
    a.says("kick 1", "KICKED 1")
    a.says("peek-buried", "NOT_FOUND")
    assert a.peek("peek-ready") == "A"
    a.says("kick 1", "KICKED 0")


def test_times_to_run_are_told_as_they_were_given(join: Join) -> None:
    a = join()
    given = (120, 4294, 4295, 4296, 4297, 5000, 21600)
    jobs = [a.put("a", ttr=ttr) for ttr in given]
    assert [a.told(f"stats-job {job}")["ttr"] for job in jobs] == [str(ttr) for ttr in given]


def test_who_is_warned_has_its_job_still(join: Join) -> None:
    a = join()
    job = a.put("a", ttr=1)
    assert a.reserve(1) == "a"
    a.says("reserve-with-timeout 1", "DEADLINE_SOON")
    assert state(a, job) == "reserved"
    a.says(f"release {job} 0 0", "RELEASED")
    assert state(a, job) == "ready"


def test_a_job_that_was_reserved_by_its_number_ends_as_others_do(join: Join) -> None:
    a = join()
    job = a.put("a", delay=100, ttr=1)
    assert state(a, job) == "delayed"
    a.says(f"reserve-job {job}", f"RESERVED {job} 1")
    assert state(a, job) == "reserved"
    a.says("reserve-with-timeout 1", "DEADLINE_SOON")
    time.sleep(1.1)
    a.put("b")
    assert state(a, job) == "ready"


def test_a_hundred_jobs_come_and_go(join: Join) -> None:
    a = join()
    jobs = [a.put("job payload xxxxxxxxxx", ttr=120) for _ in range(96)]
    for job in jobs:
        a.says(f"delete {job}", "DELETED")
    assert a.reserve() is None


# -- tubes


def test_a_tube_counts_a_job_as_delayed_and_then_as_ready(join: Join, tube: str) -> None:
    a = join()

    def counted() -> list[str]:
        told = a.told(f"stats-tube {tube}")
        return [told[name] for name in ("current-jobs-ready", "current-jobs-delayed", "total-jobs")]

    a.put("", delay=1)
    assert counted() == ["0", "1", "1"]
    time.sleep(1.1)
    assert counted() == ["1", "0", "1"]


def test_a_tube_remembers_its_jobs_and_default_is_there(alone: Beans) -> None:
    a = alone.worker()
    a.says("use tubea", "USING tubea")
    a.says(f"delete {a.put()}", "DELETED")
    nothing = {
        "current-jobs-urgent", "current-jobs-ready", "current-jobs-reserved", "current-jobs-delayed",
        "current-jobs-buried", "current-waiting", "cmd-pause-tube", "pause", "pause-time-left",
    }  # fmt: skip
    for tube, jobs, using, watching in (("tubea", "1", "1", "0"), ("default", "0", "0", "1")):
        told = a.told(f"stats-tube {tube}")
        assert told.pop("name").strip('"') == tube
        assert {told.pop(name) for name in nothing} == {"0"}
        assert told == {
            "total-jobs": jobs, "current-using": using, "current-watching": watching, "cmd-delete": jobs,
        }  # fmt: skip
    a.close()


def test_who_waits_gets_the_job_when_a_long_pause_is_ended(join: Join, tube: str) -> None:
    a, b = join(), join()
    a.put("x")
    a.says(f"pause-tube {tube} 86400", "PAUSED")
    b.begin_reserve()
    a.says(f"pause-tube {tube} 0", "PAUSED")
    assert b.reserved() == "x"


def test_tubes_are_listed(alone: Beans) -> None:
    a = alone.worker()
    a.says("watch w", "WATCHING 2")
    a.says("use u", "USING u")
    assert a.listed("list-tubes") == ["default", "w", "u"]
    a.says("list-tube-used", "USING u")
    assert a.listed("list-tubes-watched") == ["default", "w"]
    a.says("ignore default", "WATCHING 1")
    assert a.listed("list-tubes-watched") == ["w"]
    a.says("ignore w", "NOT_IGNORED")
    a.close()


# -- over a restart


def test_a_server_that_was_killed_without_jobs_starts_again(alone: Beans) -> None:
    alone.kill()
    alone.start()
    a = alone.worker()
    assert a.put("") == 1
    a.close()


def test_what_was_released_and_what_was_deleted_is_so_after_kill_9(alone: Beans) -> None:
    a = alone.worker()
    a.use("test")
    released, deleted = a.put("test", ttr=120), a.put("tes1", ttr=120)
    assert a.reserve(None) == "test"
    a.says(f"release {released} 1 1", "RELEASED")
    assert a.reserve(None) == "tes1"
    a.says(f"delete {deleted}", "DELETED")
    alone.kill()
    alone.start()
    b = alone.worker()
    b.use("test")
    assert b.reserve(None) == "test"
    b.says(f"delete {released}", "DELETED")
    b.says(f"delete {deleted}", "NOT_FOUND")
    a.close()
    b.close()


def test_a_unix_socket_serves_and_is_there_again_after_a_kill(ours: Serve, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = ours("[[listener]]", 'dialect = "beanstalkd"', f'address = "unix:{path}"')
    a = UnixWorker(path)
    job = a.put("a")
    assert a.peek(f"peek {job}") == "a"
    a.close()
    server.kill()
    server.start()
    b = UnixWorker(path)
    assert b.reserve() == "a"
    b.close()
