"""What is done to jobs by their ids."""

import time
from pathlib import Path
from typing import Any

import pytest

from darner_core.protocols.resp.acting import ACTED_AT_ONCE
from tests.support.harness import wait_until
from tests.support.resp_clients import Failed, RespClient, RespServer

BAD_ID = Failed("BADID Invalid Job ID format.")


def add(client: RespClient, *bodies: str, words: tuple[Any, ...] = ()) -> list[str]:
    return [client.do("ADDJOB", "q", body, 0, *words) for body in bodies]


def got(client: RespClient, count: int = 9) -> list[bytes]:
    return [job[2] for job in client.do("GETJOB", "NOHANG", "COUNT", count, "FROM", "q") or ()]


def shown(client: RespClient, job: str) -> dict[bytes, Any]:
    told = client.do("SHOW", job)
    return dict(zip(told[::2], told[1::2], strict=True))


def unknown(job: str) -> str:
    """An id of the same server that no job has, because its tag is not the server's."""
    return job[:30] + ("AAAA" if job[30:34] != "AAAA" else "BBBB") + job[34:]


@pytest.mark.parametrize("verb", ["ACKJOB", "FASTACK", "DELJOB"])
def test_a_job_is_removed_whatever_its_state(client: RespClient, verb: str) -> None:
    active, queued = add(client, "a", "b")
    (delayed,) = add(client, "c", words=("DELAY", 100))
    got(client, 1)
    assert client.do(verb, active, queued, delayed, queued) == 3
    assert client.do(verb, active, queued, delayed) == 0
    assert client.do("QLEN", "q") == 0
    assert client.do("SHOW", active) is None


def test_ids_that_are_none_are_told_before_anything_is_done(client: RespClient) -> None:
    (job,) = add(client, "a")
    for verb in ("ACKJOB", "FASTACK", "DELJOB", "NACK", "ENQUEUE", "DEQUEUE", "REJECT"):
        assert client.do(verb, job, "foo") == BAD_ID
    assert client.do("WORKING", "foo") == client.do("SHOW", "foo") == BAD_ID
    assert client.do("QLEN", "q") == 1


def test_ids_that_nobody_has_given_are_unknown_jobs(client: RespClient) -> None:
    (job,) = add(client, "a")
    other_node = "D-00000000" + job[10:]
    for stranger in (unknown(job), other_node):
        assert client.do("ACKJOB", stranger) == client.do("NACK", stranger) == client.do("ENQUEUE", stranger) == 0
        assert client.do("SHOW", stranger) is None
        assert client.do("WORKING", stranger) == Failed("NOJOB Job not known in the context of this node.")
    assert got(client) == [b"a"]


def test_a_job_that_is_given_back_has_its_place_again(client: RespClient) -> None:
    jobs = add(client, "a", "b", "c")
    assert got(client, 2) == [b"a", b"b"]
    assert client.do("NACK", *jobs) == 2
    assert got(client) == [b"a", b"b", b"c"]
    assert client.do("NACK", jobs[1], jobs[1]) == 1
    assert got(client) == [b"b"]


def test_nack_can_say_when_the_job_comes_again(client: RespClient) -> None:
    jobs = add(client, "a")
    got(client)
    assert client.do("NACK", jobs[0], "DELAY", "x") == Failed(
        "ERR DELAY must be a number of seconds from 0 to 281474976710"
    )
    assert client.do("NACK", jobs[0], "DELAY", 1) == 1
    assert got(client) == []
    assert client.do("GETJOB", "TIMEOUT", 5000, "FROM", "q")[0][2] == b"a"


def test_a_delayed_job_can_be_queued_at_once(client: RespClient) -> None:
    (job,) = add(client, "a", words=("DELAY", 100))
    assert shown(client, job)[b"state"] == b"active"
    assert client.do("ENQUEUE", job) == 1
    assert client.do("GETJOB", "WITHCOUNTERS", "FROM", "q") == [
        [b"q", job.encode(), b"a", b"nacks", 0, b"additional-deliveries", 0]
    ]


def test_a_job_that_is_taken_out_of_its_queue_comes_back_after_retry(client: RespClient) -> None:
    (job,) = add(client, "a", words=("RETRY", 1))
    assert client.do("DEQUEUE", job) == 1
    assert client.do("DEQUEUE", job) == 0
    assert client.do("QLEN", "q") == 0
    assert client.do("GETJOB", "TIMEOUT", 5000, "FROM", "q")[0][2] == b"a"


def test_one_with_retry_0_that_is_taken_out_is_out_for_good(client: RespClient) -> None:
    (job,) = add(client, "a", words=("RETRY", 0))
    assert client.do("DEQUEUE", job) == 1
    assert client.do("ENQUEUE", job) == 0
    assert shown(client, job)[b"state"] == b"active"


def test_working_keeps_a_job(client: RespClient) -> None:
    (job,) = add(client, "a", words=("RETRY", 2))
    got(client)
    until = time.monotonic() + 4
    while time.monotonic() < until:
        assert client.do("WORKING", job) == 2
        assert client.do("GETJOB", "TIMEOUT", 500, "FROM", "q") is None
    assert client.do("GETJOB", "TIMEOUT", 5000, "FROM", "q")[0][2] == b"a"


def test_who_works_on_a_queued_job_takes_it_out_of_its_queue(client: RespClient) -> None:
    (job,) = add(client, "a")
    assert client.do("WORKING", job) == 300
    assert got(client) == []
    assert client.do("NACK", job) == 1
    assert got(client) == [b"a"]


def test_in_the_second_half_of_a_jobs_life_nobody_may_postpone_it(client: RespClient) -> None:
    (job,) = add(client, "a", words=("TTL", 3, "RETRY", 2))
    got(client)
    assert client.do("WORKING", job) == 2

    said = "TOOLATE Half of job TTL already elapsed, you are no longer allowed to postpone the next delivery."
    wait_until(lambda: client.do("WORKING", job) == Failed(said))


def test_bound_jobs_are_acted_on_as_others(client: RespClient) -> None:
    jobs = add(client, "a", "b", "c")
    client.do("GETJOB", "BOUND", "COUNT", 3, "FROM", "q")
    assert client.do("WORKING", jobs[0]) == 300
    assert client.do("NACK", jobs[0]) == 1
    assert client.do("REJECT", jobs[1]) == 1
    assert client.do("ENQUEUE", jobs[2]) == 1
    assert shown(client, jobs[1])[b"state"] == b"buried"
    assert got(client) == [b"a", b"c"]


def test_a_rejected_job_is_buried_until_it_is_kicked(client: RespClient) -> None:
    (job,) = add(client, "a")
    assert client.do("REJECT", job) == 0  # nobody has it
    got(client)
    assert client.do("REJECT", job) == 1
    assert got(client) == []
    assert client.do("KICK", "q", 10) == 1
    assert client.do("KICK", "q", 10) == 0
    assert got(client) == [b"a"]


def test_or_goes_to_the_dead_letter_queue(tmp_path: Path) -> None:
    server = RespServer(tmp_path / "data", tables='[queues.q]\nmax_deliveries = 2\ndead_letter_queue = "dead"\n')
    try:
        client = server.resp()
        rejected, failing = add(client, "rejected", "failing")
        got(client)
        assert client.do("REJECT", rejected) == 1
        assert client.do("NACK", failing) == 1
        assert got(client) == [b"failing"]
        assert client.do("NACK", failing) == 1
        assert [job[2] for job in client.do("QPEEK", "dead", 9)] == [b"rejected", b"failing"]
        assert client.do("SHOW", failing) is None
    finally:
        server.end()


def test_show_tells_all_of_a_job(client: RespClient) -> None:
    (job,) = add(client, "a", words=("RETRY", 10, "TTL", 1000))
    told = shown(client, job)
    node = client.do("CLUSTER", "MYID")
    assert list(told) == [
        b"id", b"queue", b"state", b"repl", b"ttl", b"ctime", b"delay", b"retry", b"nacks", b"additional-deliveries",
        b"nodes-delivered", b"nodes-confirmed", b"next-requeue-within", b"next-awake-within", b"body",
    ]  # fmt: skip
    assert told[b"id"] == job.encode()
    assert (told[b"queue"], told[b"state"], told[b"repl"], told[b"body"]) == (b"q", b"queued", 1, b"a")
    assert 990 <= told[b"ttl"] <= 1000
    assert abs(told[b"ctime"] / 10**9 - time.time()) < 60
    assert (told[b"delay"], told[b"retry"], told[b"nodes-delivered"], told[b"nodes-confirmed"]) == (0, 10, [node], [])
    assert 0 < told[b"next-requeue-within"] <= 10_000
    got(client)
    told = shown(client, job)
    assert told[b"state"] == b"active"
    assert 0 < told[b"next-requeue-within"] <= 10_000
    (delayed,) = add(client, "b", words=("DELAY", 50))
    told = shown(client, delayed)
    assert (told[b"state"], told[b"delay"]) == (b"active", 50)
    assert 40_000 < told[b"next-awake-within"] <= 50_000


def test_many_jobs_are_dealt_with_by_one_command(server: RespServer) -> None:
    client = server.resp()
    jobs = client.do_all(*[("ADDJOB", "q", number, 0) for number in range(3 * ACTED_AT_ONCE)])
    assert client.do("ACKJOB", *jobs) == len(jobs)
    assert client.do("QLEN", "q") == 0


def test_the_ids_of_a_deleted_queue_are_not_those_of_the_next(client: RespClient) -> None:
    (job,) = add(client, "a")
    client.do("DEL", "q")
    (next_one,) = add(client, "b")
    assert job != next_one
    assert client.do("ACKJOB", job) == 0
    assert got(client) == [b"b"]
