"""ADDJOB."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from darner_core.protocols.resp.adding import JobWords, read_job_words
from darner_core.protocols.resp.replies import RespError
from tests.support.harness import wait_until
from tests.support.resp_clients import Failed, RespClient, RespServer


def test_a_job_is_added_and_its_id_told(client: RespClient) -> None:
    job = client.do("ADDJOB", "q", "body", 0)
    assert len(job) == 40
    assert job.startswith("D-" + client.do("CLUSTER", "MYID")[:8].decode())
    assert job.endswith("-05a1")  # 1440 minutes, and delivered again and again
    assert client.do("QLEN", "q") == 1
    assert client.do("ADDJOB", "q", "b", 100, "TTL", 600, "RETRY", 0).endswith("-000a")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("0", "REPLICATE", "0"), "ERR REPLICATE must be between 1 and 65535"),
        (("0", "REPLICATE", "65536"), "ERR REPLICATE must be between 1 and 65535"),
        (("0", "TTL", "0"), "ERR TTL must be a number > 0"),
        (("0", "RETRY", "-1"), "ERR RETRY time must be a non negative number"),
        (("0", "DELAY", "-1"), "ERR DELAY time must be a non negative number"),
        (("0", "MAXLEN", "0"), "ERR MAXLEN must be a positive number"),
        (("0", "MAXLEN"), "ERR syntax error"),
        (("x",), "ERR timeout is not an integer or out of range"),
        (("-1",), "ERR timeout is negative"),
        (
            ("0", "RETRY", "0", "REPLICATE", "3"),
            "ERR With RETRY set to 0 please explicitly set  REPLICATE to 1 (at-most-once delivery)",
        ),
        (
            ("0", "DELAY", "11", "TTL", "10"),
            "ERR The specified DELAY is greater than TTL. Job refused since would never be delivered",
        ),
        (("0", "REPLICATE", "2"), "NOREPL Not enough reachable nodes for the requested replication level"),
        (("0", "REPLICATE", "2", "ASYNC"), "NOREPL Not enough reachable nodes for the requested replication level"),
        (("0", "PRI", "-1"), "ERR PRI must be a number from 0 to 4294967295, 0 goes first"),
        (("0", "KEY", ""), "ERR KEY of 0 bytes: 1 to 200"),
    ],
)
def test_what_is_wrong_is_said_in_disques_words(client: RespClient, words: tuple[str, ...], error: str) -> None:
    assert client.do("ADDJOB", "q", "body", *words) == Failed(error)
    assert client.do("QLEN", "q") == 0


def test_an_unknown_option_is_a_syntax_error(client: RespClient) -> None:
    assert client.do("ADDJOB", "q", "body", 0, "SPEED", 9).startswith("ERR syntax error: 'SPEED' is none of REPLICATE,")
    assert client.do("ADDJOB", "q", "body") == Failed("ERR wrong number of arguments for 'addjob' command")


def test_maxlen_refuses_a_job_for_a_queue_that_is_long_already(client: RespClient) -> None:
    for _ in range(5):
        assert isinstance(client.do("ADDJOB", "q", "body", 0, "MAXLEN", 5), str)
    assert client.do("ADDJOB", "q", "body", 0, "MAXLEN", 5) == Failed(
        "MAXLEN Queue is already longer than the specified MAXLEN count"
    )


def test_nothing_is_added_to_a_queue_that_is_paused_in_input(client: RespClient) -> None:
    client.do("ADDJOB", "q", "body", 0)
    client.do("PAUSE", "q", "in")
    assert client.do("ADDJOB", "q", "body", 0) == Failed("PAUSED Queue paused in input, try later")


def test_jobs_with_a_lower_priority_go_first(client: RespClient) -> None:
    for body, pri in (("a", 2000), ("b", 1024), ("c", 0), ("d", 1024)):
        client.do("ADDJOB", "q", body, 0, "PRI", pri)
    assert [job[2] for job in client.do("GETJOB", "NOHANG", "COUNT", 9, "FROM", "q")] == [b"c", b"b", b"d", b"a"]


def test_a_job_whose_key_is_taken_is_the_one_that_has_it(client: RespClient) -> None:
    job = client.do("ADDJOB", "q", "first", 0, "KEY", "k")
    assert client.do("ADDJOB", "q", "second", 0, "KEY", "k") == job
    assert client.do("GETJOB", "FROM", "q") == [[b"q", job.encode(), b"first"]]
    client.do("ACKJOB", job)
    assert client.do("ADDJOB", "q", "third", 0, "KEY", "k") != job


def test_a_delayed_job_waits_for_its_time(client: RespClient) -> None:
    job = client.do("ADDJOB", "q", "body", 0, "DELAY", 1)
    assert client.do("GETJOB", "NOHANG", "FROM", "q") is None
    assert client.do("QLEN", "q") == 0
    assert client.do("GETJOB", "TIMEOUT", 5000, "FROM", "q") == [[b"q", job.encode(), b"body"]]


def test_a_job_that_has_outlived_its_ttl_is_gone(client: RespClient) -> None:
    client.do("ADDJOB", "q", "short", 0, "TTL", 1)
    client.do("ADDJOB", "q", "long", 0, "TTL", 100)
    wait_until(lambda: client.do("QPEEK", "q", 1)[0][2] == b"long")
    assert client.do("GETJOB", "FROM", "q")[0][2] == b"long"


def test_large_jobs_are_stored_in_pieces_and_survive_a_crash(server: RespServer) -> None:
    body = bytes(range(256)) * 4000
    job = server.resp().do("ADDJOB", "q", body, 0, "DELAY", 0)
    server.kill()
    server.start()
    client = server.resp()
    assert client.do("GETJOB", "COUNT", 5, "WITHCOUNTERS", "FROM", "q") == [
        [b"q", job.encode(), body, b"nacks", 0, b"additional-deliveries", 0]
    ]
    assert client.do("ACKJOB", job) == 1
    assert client.do("QLEN", "q") == 0


def test_limits_of_queues_and_the_server_are_told(start_server: Callable[..., Any], tmp_path: Path) -> None:
    server = RespServer(tmp_path / "data", "--max-item-bytes", "1000", tables="[queues.q]\nmax_items = 1\n")
    try:
        client = server.resp()
        client.do("ADDJOB", "q", "body", 0)
        assert client.do("ADDJOB", "q", "body", 0) == Failed("MAXLEN queue q is full: one of its limits allows no more")
        client.send(b"*4\r\n$6\r\nADDJOB\r\n$1\r\nq\r\n$1001\r\n")
        assert client.reply() == Failed("ERR Protocol error: invalid bulk length")
        client.expect_hang_up()
    finally:
        server.end()


def test_retry_is_a_tenth_of_the_ttl_and_at_most_five_minutes() -> None:
    assert JobWords().retry == 300
    assert JobWords(ttl_s=50).retry == 5
    assert JobWords(ttl_s=3).retry == 1
    assert JobWords(ttl_s=3, retry_s=0).retry == 0


def test_options_may_be_in_any_case_and_order() -> None:
    assert read_job_words((b"maxlen", b"5", b"async", b"Retry", b"7")) == JobWords(max_len=5, retry_s=7)
    with pytest.raises(RespError):
        read_job_words((b"RETRY", b"1x"))
