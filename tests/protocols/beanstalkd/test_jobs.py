"""Conversations about jobs, held with this server and with the real beanstalkd."""

import socket
import time
from collections.abc import Callable

import pytest

from tests.protocols.beanstalkd.conftest import MAX_JOB_BYTES, Beans
from tests.support.beanstalkd import TubeServer, Worker
from tests.support.harness import wait_until

Join = Callable[[], Worker]


def state(worker: Worker, job: int) -> str:
    return worker.told(f"stats-job {job}")["state"]


# -- putting


def test_jobs_have_numbers_that_grow(join: Join) -> None:
    a = join()
    first, second = a.put("one"), a.put("two")
    assert second > first


def test_the_first_jobs_are_1_2_and_3(alone: Beans) -> None:
    a = alone.worker()
    assert [a.put() for _ in range(3)] == [1, 2, 3]
    a.close()


def test_a_job_can_be_empty_and_can_hold_what_ends_a_line(join: Join) -> None:
    a = join()
    for body in ("", "\r\n", "a\r\nreserve\r\n"):
        a.put(body)
        assert a.reserve() == body


def test_the_largest_job_and_one_that_is_too_big(join: Join) -> None:
    a = join()
    a.put(b"x" * MAX_JOB_BYTES)
    a.send(b"put 0 0 1 %d\r\n%b\r\n" % (MAX_JOB_BYTES + 1, b"y" * (MAX_JOB_BYTES + 1)))
    a.expect(b"JOB_TOO_BIG\r\n")
    assert a.reserve() == "x" * MAX_JOB_BYTES
    assert a.reserve() is None


def test_a_large_job_is_peeked_at_and_comes_again(join: Join, shared: Beans) -> None:
    a, b = join(), join()
    body = "".join(f"{number:06}" for number in range(40_000))
    job = a.put(body)
    assert a.peek(f"peek {job}") == body
    assert a.peek("peek-ready") == body
    assert a.reserve() == body
    assert b.peek(f"peek {job}") == body, "also while somebody has it"
    a.says(f"release {job} 0 0", "RELEASED")
    assert b.reserve() == body
    b.says(f"bury {job} 0", "BURIED")
    assert a.peek("peek-buried") == body
    a.says(f"delete {job}", "DELETED")
    a.says(f"peek {job}", "NOT_FOUND")


def test_a_large_job_that_does_not_end_as_it_should(join: Join) -> None:
    a = join()
    a.send(b"put 0 0 100 200000\r\n" + b"x" * 200_000 + b"yyuse other\r\n")
    a.expect(b"EXPECTED_CRLF\r\nUSING other\r\n")
    assert a.reserve() is None


def test_several_requests_in_one_packet(join: Join) -> None:
    a = join()
    a.send(b"use other\r\nput 0 0 100 1\r\na\r\nlist-tube-used\r\n")
    a.expect(b"USING other\r\nINSERTED ")
    job = int(a.line())
    a.expect(b"USING other\r\n")
    a.says(f"delete {job}", "DELETED")


# -- which job comes


def test_the_most_urgent_job_comes_first_and_of_equal_ones_the_oldest(join: Join) -> None:
    a = join()
    for pri, body in ((5, "a"), (1, "b"), (5, "c"), (4294967295, "d"), (0, "e"), (1, "f")):
        a.put(body, pri)
    assert [a.reserve() for _ in range(7)] == ["e", "b", "f", "a", "c", "d", None]


def test_the_order_goes_over_all_tubes_that_are_watched(join: Join, tube: str) -> None:
    a = join()
    for number, (pri, suffix) in enumerate(((3, "x"), (1, "y"), (2, "x"), (1, "x"), (2, "y"))):
        a.says(f"use {tube}{suffix}", f"USING {tube}{suffix}")
        a.put(str(number), pri)
        time.sleep(0.002)  # so that one is older
    a.says(f"watch {tube}x", "WATCHING 2")
    a.says(f"watch {tube}y", "WATCHING 3")
    assert [a.reserve() for _ in range(6)] == ["1", "3", "2", "4", "0", None]


def test_those_who_wait_are_served_in_turn(join: Join) -> None:
    a, b, c = join(), join(), join()
    a.begin_reserve()
    b.begin_reserve()
    c.put("first")
    c.put("second")
    assert a.reserved() == "first"
    assert b.reserved() == "second"


def test_one_who_waits_at_several_tubes_gets_a_job_of_any(join: Join, tube: str) -> None:
    a, b = join(), join()
    a.says(f"watch {tube}x", "WATCHING 2")
    a.begin_reserve()
    b.says(f"use {tube}x", f"USING {tube}x")
    b.put("there")
    assert a.reserved() == "there"


def test_nothing_comes_in_time(join: Join) -> None:
    a = join()
    a.says("reserve-with-timeout 0", "TIMED_OUT")
    a.says("reserve-with-timeout 1", "TIMED_OUT")
    a.put("now")
    assert a.reserve(1) == "now"


def test_two_who_wait_for_a_time_hear_of_it(join: Join) -> None:
    a, b = join(), join()
    a.send(b"reserve-with-timeout 1\r\n")
    b.send(b"reserve-with-timeout 1\r\n")
    a.expect(b"TIMED_OUT\r\n")
    b.expect(b"TIMED_OUT\r\n")


def test_who_sends_no_more_waits_no_more(join: Join, shared: Beans) -> None:
    a, b = join(), join()
    a.begin_reserve()
    a.socket.shutdown(socket.SHUT_WR)
    if not isinstance(shared, TubeServer):  # ours takes it that nobody listens
        a.expect(b"TIMED_OUT\r\n")
    a.expect_hang_up()
    b.put("x")
    assert b.reserve() == "x"


# -- delays


def test_a_delayed_job_comes_when_it_is_time(join: Join) -> None:
    a = join()
    job = a.put("later", delay=1)
    assert a.reserve() is None
    assert state(a, job) == "delayed"
    assert a.reserve(5) == "later"


def test_who_waits_as_long_as_the_delay_gets_the_job(join: Join, shared: Beans, tube: str) -> None:
    clients = [shared.worker() for _ in range(5)]
    for number, client in enumerate(clients):
        client.use(f"{tube}{number}")
    for client in clients:
        client.send(b"put 0 1 100 1\r\nx\r\nreserve-with-timeout 1\r\n")
    for client in clients:
        assert client.line().startswith(b"INSERTED ")
        assert client.reserved() == "x"
        client.close()


def test_what_was_delayed_keeps_its_place(join: Join) -> None:
    a = join()
    first = a.put("first", delay=1000)
    a.put("second")
    a.says(f"kick-job {first}", "KICKED")
    assert [a.reserve(), a.reserve()] == ["first", "second"]


def test_the_one_that_is_due_first_is_peeked_at(join: Join) -> None:
    a = join()
    a.put("long", delay=2000)
    a.put("short", delay=1000)
    assert a.peek("peek-delayed") == "short"
    assert a.peek("peek-ready") is None


# -- deadlines


def test_a_reservation_ends_and_another_client_gets_the_job(alone: Beans) -> None:
    a, b = alone.worker(), alone.worker()
    job = a.put("x", ttr=1)
    assert a.reserve() == "x"
    body = b.reserve(3)
    if body is None and not isinstance(alone, TubeServer):
        # Now and then the real one does not see that a reservation has ended, until its client says something.
        a.says("list-tube-used", "USING default")
        body = b.reserve(3)
    assert body == "x"
    assert b.told(f"stats-job {job}")["timeouts"] == "1"
    a.says(f"delete {job}", "NOT_FOUND")
    b.says(f"delete {job}", "DELETED")


def test_a_time_of_0_is_one_of_1(join: Join) -> None:
    a = join()
    job = a.put("x", ttr=0)
    assert a.told(f"stats-job {job}")["ttr"] == "1"


def test_a_long_time(join: Join) -> None:
    a = join()
    job = a.put("x", ttr=4294967295)
    assert a.reserve() == "x"
    told = a.told(f"stats-job {job}")
    assert told["ttr"] == "4294967295"
    assert told["time-left"] in ("4294967294", "4294967295")


def test_who_reserves_with_less_than_a_second_left_is_warned(join: Join) -> None:
    a = join()
    job = a.put("x", ttr=1)
    assert a.reserve() == "x"
    a.says("reserve", "DEADLINE_SOON")
    a.says("reserve-with-timeout 0", "DEADLINE_SOON")
    a.says(f"delete {job}", "DELETED")
    a.says("reserve-with-timeout 0", "TIMED_OUT")


@pytest.mark.parametrize("at", [0, 11])
def test_of_many_reservations_the_first_to_end_is_warned_of(join: Join, at: int) -> None:
    a = join()
    jobs = [a.put("x", ttr=1 if number == at else 100) for number in range(12)]
    for _ in jobs:
        assert a.reserve() == "x"
    a.says("reserve-with-timeout 0", "DEADLINE_SOON")
    a.says(f"delete {jobs[at]}", "DELETED")
    a.says("reserve-with-timeout 0", "TIMED_OUT")


def test_who_waits_is_warned_when_the_last_second_begins(join: Join) -> None:
    a = join()
    job = a.put("x", ttr=2)
    assert a.reserve() == "x"
    a.says("reserve-with-timeout 5", "DEADLINE_SOON")
    a.says(f"touch {job}", "TOUCHED")
    a.says("reserve-with-timeout 0", "TIMED_OUT")


def test_a_job_that_is_ready_comes_before_the_warning(join: Join) -> None:
    a = join()
    a.put("x", ttr=1)
    assert a.reserve() == "x"
    a.put("y")
    assert a.reserve() == "y"
    a.says("reserve", "DEADLINE_SOON")


def test_a_job_that_is_reserved_by_its_number_comes_without_a_warning(join: Join) -> None:
    a = join()
    a.put("x", ttr=1)
    assert a.reserve() == "x"
    job = a.put("y", delay=1000)
    a.says(f"reserve-job {job}", f"RESERVED {job} 1")


def test_touched_again_and_again_a_job_stays(join: Join) -> None:
    a, b = join(), join()
    job = a.put("x", ttr=2)
    assert a.reserve() == "x"
    for _ in range(4):
        time.sleep(0.8)
        a.says(f"touch {job}", "TOUCHED")
    assert b.reserve() is None
    b.says(f"touch {job}", "NOT_FOUND")
    a.says(f"delete {job}", "DELETED")
    a.says(f"touch {job}", "NOT_FOUND")


# -- giving back


def test_a_job_that_is_released_is_ready_with_another_priority(join: Join) -> None:
    a = join()
    job = a.put("x", 1)
    a.put("y", 2)
    assert a.reserve() == "x"
    a.says(f"release {job} 3 0", "RELEASED")
    assert a.reserve() == "y"
    assert a.reserve() == "x"
    told = a.told(f"stats-job {job}")
    assert (told["pri"], told["releases"], told["reserves"]) == ("3", "1", "2")


def test_a_job_that_is_released_later(join: Join) -> None:
    a = join()
    job = a.put("x")
    assert a.reserve() == "x"
    a.says(f"release {job} 0 1", "RELEASED")
    assert state(a, job) == "delayed"
    a.says(f"release {job} 0 0", "NOT_FOUND")
    assert a.reserve(5) == "x"


def test_only_who_has_reserved_a_job_releases_buries_or_touches_it(join: Join) -> None:
    a, b = join(), join()
    job = a.put("x")
    for line in (f"release {job} 0 0", f"bury {job} 0", f"touch {job}"):
        a.says(line, "NOT_FOUND")
    assert a.reserve() == "x"
    for line in (f"release {job} 0 0", f"bury {job} 0", f"touch {job}", f"delete {job}", f"reserve-job {job}"):
        b.says(line, "NOT_FOUND")
    a.says(f"bury {job} 0", "BURIED")
    for line in (f"release {job} 0 0", f"bury {job} 0", f"touch {job}"):
        a.says(line, "NOT_FOUND")


@pytest.mark.parametrize("leave", ["quit", "close", "reset"])
def test_what_a_client_had_is_ready_when_it_has_gone(join: Join, leave: str) -> None:
    a, b = join(), join()
    for body in "xyz":
        a.put(body)
    assert [a.reserve() for _ in range(3)] == ["x", "y", "z"]
    if leave == "quit":
        a.send(b"quit\r\n")
        a.expect_hang_up()
    else:
        getattr(a, leave)()
    assert [b.reserve(5) for _ in range(3)] == ["x", "y", "z"]


# -- buried ones


def test_buried_jobs_are_kicked_in_their_order_before_delayed_ones(join: Join) -> None:
    a = join()
    jobs = [a.put(body) for body in "abc"]
    assert [a.reserve() for _ in range(3)] == ["a", "b", "c"]
    for job in reversed(jobs):
        a.says(f"bury {job} 7", "BURIED")
    delayed = a.put("d", delay=1000)
    assert a.peek("peek-buried") == "c"
    a.says("kick 2", "KICKED 2")
    assert [state(a, job) for job in [*jobs, delayed]] == ["buried", "ready", "ready", "delayed"]
    a.says("kick 10", "KICKED 1")
    assert state(a, delayed) == "delayed"
    a.says("kick 10", "KICKED 1")
    a.says("kick 10", "KICKED 0")
    told = a.told(f"stats-job {jobs[2]}")
    assert (told["pri"], told["buries"], told["kicks"]) == ("7", "1", "1")
    assert [a.reserve() for _ in range(4)] == ["d", "a", "b", "c"]


def test_one_job_is_kicked(join: Join) -> None:
    a = join()
    buried, delayed, ready = a.put("b"), a.put("d", delay=1000), a.put("r")
    assert a.reserve() == "b"
    a.says(f"kick-job {buried}", "NOT_FOUND")
    a.says(f"bury {buried} 9", "BURIED")
    a.says(f"kick-job {ready}", "NOT_FOUND")
    a.says(f"kick-job {buried}", "KICKED")
    a.says(f"kick-job {buried}", "NOT_FOUND")
    a.says(f"kick-job {delayed}", "KICKED")
    assert [a.reserve() for _ in range(4)] == ["d", "r", "b", None]


def test_who_waits_gets_what_is_kicked(join: Join) -> None:
    a, b = join(), join()
    job = a.put("x", delay=1000)
    b.begin_reserve()
    a.says(f"kick-job {job}", "KICKED")
    assert b.reserved() == "x"


# -- by the number


def test_any_job_is_reserved_by_its_number_unless_somebody_has_it(join: Join) -> None:
    a, b = join(), join()
    first, ready, delayed, buried = a.put("f"), a.put("r"), a.put("d", delay=1000), a.put("b", pri=0)
    a.says(f"reserve-job {buried}", f"RESERVED {buried} 1")
    a.says(f"bury {buried} 0", "BURIED")
    for job in (ready, delayed, buried):
        b.says(f"reserve-job {job}", f"RESERVED {job} 1")
        assert state(a, job) == "reserved"
        a.says(f"reserve-job {job}", "NOT_FOUND")
        b.says(f"reserve-job {job}", "NOT_FOUND")
    b.says(f"release {ready} 0 0", "RELEASED")
    b.says(f"release {delayed} 0 0", "RELEASED")
    assert [a.reserve() for _ in range(4)] == ["f", "r", "d", None]
    a.says(f"delete {first}", "DELETED")
    a.says(f"reserve-job {first}", "NOT_FOUND")
    a.says("reserve-job 4000000000000", "NOT_FOUND")


def test_jobs_are_deleted_in_every_state_but_anothers(join: Join) -> None:
    a, b = join(), join()
    ready, delayed, buried, reserved = a.put("b"), a.put("d", delay=1000), a.put("x"), a.put("r")
    for job in (buried, reserved):
        a.says(f"reserve-job {job}", f"RESERVED {job} 1")
    a.says(f"bury {buried} 0", "BURIED")
    b.says(f"delete {reserved}", "NOT_FOUND")
    for job in (ready, delayed, buried):
        b.says(f"delete {job}", "DELETED")
        b.says(f"delete {job}", "NOT_FOUND")
        b.says(f"peek {job}", "NOT_FOUND")
    a.says(f"delete {reserved}", "DELETED")
    assert a.reserve() is None


def test_looking_at_jobs_leaves_them_where_they_are(join: Join) -> None:
    a, b = join(), join()
    a.says("peek-ready", "NOT_FOUND")
    job = a.put("x", 5)
    a.put("y", 4)
    assert b.peek("peek-ready") == "y"
    assert b.peek(f"peek {job}") == "x"
    assert a.reserve() == "y"
    assert b.peek("peek-ready") == "x"
    b.says("peek 4000000000000", "NOT_FOUND")


def test_no_job_is_lost_by_kill_9(alone: Beans) -> None:
    a = alone.worker()
    ready, delayed, buried, reserved, gone = (
        a.put("r", 9), a.put("d", 8, delay=1000), a.put("b", 7), a.put("x", 6), a.put("g", 5)
    )  # fmt: skip
    assert [a.reserve() for _ in range(3)] == ["g", "x", "b"]
    a.says(f"delete {gone}", "DELETED")
    a.says(f"bury {buried} 3", "BURIED")
    alone.kill()
    alone.start()
    b = alone.worker()
    assert [state(b, job) for job in (ready, delayed, buried, reserved)] == ["ready", "delayed", "buried", "ready"]
    b.says(f"stats-job {gone}", "NOT_FOUND")
    assert [b.reserve(), b.reserve(), b.reserve()] == ["x", "r", None]
    told = b.told(f"stats-job {buried}")
    assert (told["pri"], told["ttr"]) == ("3", "100")
    assert b.put("new") > gone
    a.close()
    b.close()


def test_thousands_of_reservations_of_one_client_come_back(join: Join) -> None:
    a, b = join(), join()
    many = 3000
    a.send(b"put 0 0 100 1\r\nx\r\n" * many)
    for _ in range(many):
        assert a.line().startswith(b"INSERTED ")
    a.send(b"reserve\r\n" * many)
    for _ in range(many):
        assert a.reply()[1] == b"x"
    assert b.reserve() is None
    a.close()
    assert b.reserve(5) == "x"
    wait_until(lambda: b.told("stats-tube " + b.listed("list-tubes-watched")[0])["current-jobs-ready"] == str(many - 1))
