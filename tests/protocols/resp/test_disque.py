"""What Disque's own tests show (1.0-rc1, tests/cluster/tests), as far as one node can, in conversations of ours."""

import random
import time
from importlib import import_module
from typing import Any

import pytest

from tests.support.harness import wait_until
from tests.support.resp_clients import Failed, RespClient, RespServer


def body(job: Any) -> bytes:
    found: bytes = job[0][2]
    return found


def field(client: RespClient, job: str, name: bytes) -> Any:
    told = client.do("SHOW", job)
    return told[told.index(name) + 1] if told else None


# Its tests, and the conversation that shows the same: in this file, or in another one.
OWN = {
    "02 ADDJOB, single node": "test_a_node_says_that_it_alone_has_the_job",
    "03 ADDJOB will initially queue the job": "test_a_node_says_that_it_alone_has_the_job",
    "03 not consumed, no requeue happens": "test_a_job_that_nobody_gets_is_queued_once",
    "03 consumed, but not acknowledged": "test_a_job_is_delivered_again_and_again_until_it_is_acknowledged",
    "03 retry is set to 0": "test_a_job_with_retry_0_is_never_queued_again",
    "03 FIFO": "test_jobs_are_delivered_in_order",
    "03 MAXLEN": "test_maxlen_is_a_bound",
    "04 Jobs TTL is honoured": "test_a_job_is_not_delivered_after_its_life",
    "04 Jobs mass expire": "test_a_thousand_jobs_are_gone_when_their_life_is_over",
    "05 Acks, single node": "test_an_acknowledged_job_is_forgotten",
    "05 Fast ack to owner": "test_an_acknowledged_job_is_forgotten",
    "07 Enable AOF": "test_the_log_is_there_from_the_start",
    "07 delivered after a restart": "test_jobs_are_kept_over_a_restart_and_so_are_their_terms",
    "07 Disable AOF": "test_the_log_is_there_from_the_start",
    "08 QSCAN, iterator": "queues.test_qscan_comes_upon_every_queue",
    "08 QSCAN, BUSYLOOP": "test_scans_of_queues_filter_by_length",
    "08 QSCAN, MINLEN or MAXLEN": "test_scans_of_queues_filter_by_length",
    "09 JSCAN, iterator": "queues.test_jscan_comes_upon_every_job",
    "09 JSCAN, BUSYLOOP": "test_scans_of_jobs_filter_by_queue_and_state",
    "09 JSCAN, QUEUE": "test_scans_of_jobs_filter_by_queue_and_state",
    "09 JSCAN, STATE": "test_scans_of_jobs_filter_by_queue_and_state",
    "09 JSCAN, REPLY all": "queues.test_jscan_can_tell_all_of_each_job",
    "11 WORKING returns the retry time": "test_who_says_that_it_works_is_told_the_retry",
    "11 WORKING can prevent the requeue": "test_who_says_that_it_works_keeps_the_job",
    "12 NACK immediately re-enqueues": "test_a_job_that_is_given_back_is_delivered_again_at_once",
    "12 WITHCOUNTERS, nacks": "test_a_job_that_is_given_back_is_delivered_again_at_once",
    "12 WITHCOUNTERS, additional deliveries": "test_one_that_nobody_acknowledged_counts_otherwise",
}


def test_each_of_its_tests_that_fits_has_a_conversation_of_ours() -> None:
    assert len(OWN) == 27
    for ours in OWN.values():
        module, _, test = ours.rpartition(".")
        assert callable(getattr(import_module(f"tests.protocols.resp.test_{module or 'disque'}"), test, None)), ours


# -- 02 to 04: adding and delivering


def test_a_node_says_that_it_alone_has_the_job(client: RespClient) -> None:
    job = client.do("ADDJOB", "myqueue", "myjob", 5000, "REPLICATE", 1)
    assert field(client, job, b"state") == b"queued"
    assert field(client, job, b"nodes-delivered") == [client.do("CLUSTER", "MYID")]
    assert client.do("ADDJOB", "myqueue", "myjob", 5000, "REPLICATE", 3).startswith("NOREPL ")
    assert client.do("ADDJOB", "myqueue", "myjob", 5000, "REPLICATE", 3, "ASYNC").startswith("NOREPL ")


def test_a_job_that_nobody_gets_is_queued_once(client: RespClient) -> None:
    job = client.do("ADDJOB", "myqueue", "myjob", 5000, "RETRY", 1)
    time.sleep(1.2)
    assert field(client, job, b"state") == b"queued"
    assert client.do("QLEN", "myqueue") == 1
    ((*_, again),) = client.do("GETJOB", "WITHCOUNTERS", "FROM", "myqueue")
    assert again == 0


def test_a_node_delivers_what_was_added(client: RespClient) -> None:
    job = client.do("ADDJOB", "myqueue", "myjob", 5000, "REPLICATE", 1, "RETRY", 0)
    assert client.do("GETJOB", "FROM", "myqueue") == [[b"myqueue", job.encode(), b"myjob"]]


def test_a_job_with_retry_0_is_never_queued_again(client: RespClient) -> None:
    job = client.do("ADDJOB", "myqueue", "myjob", 5000, "REPLICATE", 1, "RETRY", 0)
    client.do("GETJOB", "FROM", "myqueue")
    assert client.do("GETJOB", "TIMEOUT", 1500, "FROM", "myqueue") is None
    assert field(client, job, b"state") == b"active"


def test_a_job_is_delivered_again_and_again_until_it_is_acknowledged(client: RespClient) -> None:
    job = client.do("ADDJOB", "myqueue", "myjob", 5000, "RETRY", 1)
    for _ in range(3):
        assert body(client.do("GETJOB", "TIMEOUT", 5000, "FROM", "myqueue")) == b"myjob"
    assert client.do("ACKJOB", job) == 1
    assert client.do("GETJOB", "TIMEOUT", 1500, "FROM", "myqueue") is None


def test_a_job_is_not_delivered_after_its_life(client: RespClient) -> None:
    job = client.do("ADDJOB", "myqueue", "myjob", 5000, "TTL", 2, "RETRY", 1)
    assert body(client.do("GETJOB", "FROM", "myqueue")) == b"myjob"
    wait_until(lambda: client.do("SHOW", job) is None)
    assert client.do("GETJOB", "NOHANG", "FROM", "myqueue") is None


def test_jobs_are_delivered_in_order(client: RespClient) -> None:
    added = [b"%d" % number for number in range(1000)]
    client.do_all(*[("ADDJOB", "myqueue", each, 5000, "REPLICATE", 1) for each in added])
    got: list[bytes] = []
    while jobs := client.do("GETJOB", "NOHANG", "COUNT", 100, "FROM", "myqueue"):
        got += [job[2] for job in jobs]
    assert got == added


def test_maxlen_is_a_bound(client: RespClient) -> None:
    for number in range(20):
        client.do("ADDJOB", "myqueue", number, 5000, "MAXLEN", 10)
    assert client.do("QLEN", "myqueue") == 10


def test_a_thousand_jobs_are_gone_when_their_life_is_over(client: RespClient) -> None:
    client.do_all(*[("ADDJOB", "myqueue", number, 5000, "TTL", 2) for number in range(1000)])
    assert client.do("QLEN", "myqueue") == 1000
    wait_until(lambda: client.do("GETJOB", "NOHANG", "FROM", "myqueue") is None)
    wait_until(lambda: b"registered_jobs:0\r\n" in client.do("INFO", "jobs"))


# -- 05: acknowledging


@pytest.mark.parametrize("verb", ["ACKJOB", "FASTACK"])
def test_an_acknowledged_job_is_forgotten(client: RespClient, verb: str) -> None:
    job = client.do("ADDJOB", "myqueue", "myjob", 5000)
    assert client.do(verb, job) == 1
    assert client.do("SHOW", job) is None
    assert client.do("QLEN", "myqueue") == 0


# -- 07: a restart


def test_the_log_is_there_from_the_start(client: RespClient) -> None:
    assert client.do("CONFIG", "SET", "appendonly", "yes") == client.do("CONFIG", "REWRITE") == "OK"
    assert b"aof_state:on\r\n" in client.do("INFO", "persistence")
    assert client.do("CONFIG", "SET", "appendonly", "no").startswith("ERR ")


def test_jobs_are_kept_over_a_restart_and_so_are_their_terms(server: RespServer) -> None:
    client = server.resp()
    jobs = [
        client.do("ADDJOB", "myqueue", number, 5000, "RETRY", 10 + number % 3, "DELAY", number % 2 * 100)
        for number in range(100)
    ]
    random.Random(1).shuffle(jobs)
    acknowledged, kept = jobs[:50], jobs[50:]
    assert client.do("ACKJOB", *acknowledged) == 50
    before = [(field(client, job, b"state"), field(client, job, b"retry")) for job in kept]
    server.kill()
    server.start()
    client = server.resp()
    assert all(client.do("SHOW", job) is None for job in acknowledged)
    assert [(field(client, job, b"state"), field(client, job, b"retry")) for job in kept] == before
    assert client.do("ACKJOB", *kept) == 50


# -- pausing, of which it has no tests


def test_a_paused_queue_takes_no_jobs(client: RespClient) -> None:
    client.do("ADDJOB", "myqueue", "a", 0)
    client.do("PAUSE", "myqueue", "in")
    assert client.do("ADDJOB", "myqueue", "b", 0).startswith("PAUSED ")
    client.do("PAUSE", "myqueue", "none")
    assert not isinstance(client.do("ADDJOB", "myqueue", "b", 0), Failed)


def test_a_paused_queue_hands_out_none(client: RespClient) -> None:
    client.do("ADDJOB", "myqueue", "a", 0)
    client.do("PAUSE", "myqueue", "out")
    assert client.do("GETJOB", "TIMEOUT", 100, "FROM", "myqueue") is None
    client.do("PAUSE", "myqueue", "none")
    assert body(client.do("GETJOB", "FROM", "myqueue")) == b"a"


def test_clients_that_wait_are_served_when_the_pause_ends(server: RespServer) -> None:
    client, waiting = server.resp(), server.resp()
    client.do("ADDJOB", "myqueue", "a", 0)
    client.do("PAUSE", "myqueue", "all")
    waiting.send(b"GETJOB FROM myqueue\r\n")
    waiting.expect_nothing()
    client.do("PAUSE", "myqueue", "none")
    assert body(waiting.reply()) == b"a"


# -- 08 and 09: scanning


def test_scans_of_queues_filter_by_length(client: RespClient) -> None:
    names = [b"queue%d" % number for number in range(64)]
    for some in (names, names[:16], names[:8]):
        client.do_all(*[("ADDJOB", name, "myjob", 5000, "RETRY", 0) for name in some])
    for words, found in (
        ((), names), (("MINLEN", 2), names[:16]), (("MINLEN", 3), names[:8]),
        (("MINLEN", 2, "MAXLEN", 3), names[:16]), (("MAXLEN", 1), names[16:]),
    ):  # fmt: skip
        cursor, some = client.do("QSCAN", "BUSYLOOP", *words)
        assert (cursor, sorted(some)) == (b"0", sorted(found))


def test_scans_of_jobs_filter_by_queue_and_state(client: RespClient) -> None:
    for queue in ("queue1", "queue2"):
        client.do_all(*[("ADDJOB", queue, number, 0, "RETRY", 0) for number in range(100)])
    client.do("GETJOB", "COUNT", 30, "FROM", "queue1")
    assert len(client.do("JSCAN", "BUSYLOOP")[1]) == 200
    assert len(client.do("JSCAN", "BUSYLOOP", "QUEUE", "queue1")[1]) == 100
    assert len(client.do("JSCAN", "BUSYLOOP", "QUEUE", "queue1", "STATE", "queued")[1]) == 70
    assert len(client.do("JSCAN", "BUSYLOOP", "STATE", "active")[1]) == 30
    assert all(told[3] == b"queue2" for told in client.do("JSCAN", "BUSYLOOP", "QUEUE", "queue2", "REPLY", "all")[1])


# -- 11: working


def test_who_says_that_it_works_is_told_the_retry(client: RespClient) -> None:
    job = client.do("ADDJOB", "myqueue", "myjob", 5000, "RETRY", 123)
    assert client.do("WORKING", job) == 123


@pytest.mark.long
def test_who_says_that_it_works_keeps_the_job(server: RespServer) -> None:
    client, other = server.resp(), server.resp()
    job = client.do("ADDJOB", "myqueue", "myjob", 5000, "RETRY", 3)
    assert body(client.do("GETJOB", "FROM", "myqueue")) == b"myjob"
    until = time.monotonic() + 10
    while time.monotonic() < until:
        assert client.do("WORKING", job) == 3
        assert other.do("GETJOB", "TIMEOUT", 1000, "FROM", "myqueue") is None
    assert body(other.do("GETJOB", "TIMEOUT", 10_000, "FROM", "myqueue")) == b"myjob"


# -- 12: not acknowledging


def test_a_job_that_is_given_back_is_delivered_again_at_once(client: RespClient) -> None:
    job = client.do("ADDJOB", "myqueue", "myjob", 5000, "RETRY", 1000)
    for times in range(3):
        ((_, _, got, _, nacks, _, again),) = client.do("GETJOB", "WITHCOUNTERS", "FROM", "myqueue")
        assert (got, nacks, again) == (b"myjob", times, 0)
        assert client.do("NACK", job) == 1


def test_one_that_nobody_acknowledged_counts_otherwise(client: RespClient) -> None:
    job = client.do("ADDJOB", "myqueue", "myjob", 5000, "RETRY", 1)
    for times in range(3):
        ((_, _, got, _, nacks, _, again),) = client.do("GETJOB", "TIMEOUT", 5000, "WITHCOUNTERS", "FROM", "myqueue")
        assert (got, nacks, again) == (b"myjob", 0, times)
    assert client.do("ACKJOB", job) == 1
