"""GETJOB."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.harness import wait_until
from tests.support.resp_clients import Failed, RespClient, RespServer


def add(client: RespClient, queue: str, *bodies: str) -> list[bytes]:
    return [client.do("ADDJOB", queue, body, 0).encode() for body in bodies]


def bodies(jobs: list[list[bytes]]) -> list[bytes]:
    return [job[2] for job in jobs]


def test_jobs_are_got_in_the_order_in_which_they_were_added(client: RespClient) -> None:
    ids = add(client, "q", "a", "b", "c")
    assert client.do("GETJOB", "FROM", "q") == [[b"q", ids[0], b"a"]]
    assert client.do("GETJOB", "COUNT", 5, "FROM", "q") == [[b"q", ids[1], b"b"], [b"q", ids[2], b"c"]]
    assert client.do("GETJOB", "NOHANG", "FROM", "q") is None


def test_several_queues_are_asked_in_turn(client: RespClient) -> None:
    add(client, "m", "m0", "m1", "m2")
    add(client, "n", "n0", "n1", "n2")
    got = client.do("GETJOB", "COUNT", 5, "FROM", "m", "n")
    assert bodies(got) == [b"m0", b"n0", b"m1", b"n1", b"m2"]
    assert bodies(client.do("GETJOB", "COUNT", 5, "FROM", "m", "n", "m")) == [b"n2"]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("COUNT", "0", "FROM", "q"), "ERR COUNT must be a number greater than zero"),
        (("TIMEOUT", "x", "FROM", "q"), "ERR timeout is not an integer or out of range"),
        (("TIMEOUT", "-1", "FROM", "q"), "ERR timeout is negative"),
        (("NOHANG", "NOHANG"), "ERR syntax error"),
        (("FROM",), "ERR wrong number of arguments for 'getjob' command"),
    ],
)
def test_what_is_wrong_is_said(client: RespClient, words: tuple[str, ...], error: str) -> None:
    assert client.do("GETJOB", *words) == Failed(error)


def test_who_waits_gets_the_next_job(server: RespServer) -> None:
    waiting, other = server.resp(), server.resp()
    waiting.send(b"GETJOB COUNT 3 FROM p q\r\n")
    waiting.expect_nothing()
    (job,) = add(other, "q", "a")
    assert waiting.reply() == [[b"q", job, b"a"]]
    assert waiting.do("GETJOB", "TIMEOUT", 20, "FROM", "p", "q") is None


def test_a_client_that_goes_while_it_waits_loses_nothing(server: RespServer) -> None:
    waiting, other = server.resp(), server.resp()
    waiting.send(b"GETJOB FROM q\r\n")
    waiting.expect_nothing()
    waiting.close()
    wait_until(lambda: other.do("QSTAT", "q") is None)
    add(other, "q", "a")
    assert bodies(other.do("GETJOB", "FROM", "q")) == [b"a"]


def test_a_job_that_nobody_acknowledges_is_got_again(server: RespServer) -> None:
    client, other = server.resp(), server.resp()
    job = client.do("ADDJOB", "q", "a", 0, "RETRY", 1).encode()
    assert bodies(client.do("GETJOB", "FROM", "q")) == [b"a"]
    client.close()  # which gives nothing back
    assert other.do("GETJOB", "NOHANG", "FROM", "q") is None
    assert other.do("GETJOB", "WITHCOUNTERS", "FROM", "q") == [
        [b"q", job, b"a", b"nacks", 0, b"additional-deliveries", 1]
    ]


def test_bound_jobs_come_back_with_the_connection(server: RespServer) -> None:
    client, other = server.resp(), server.resp()
    ids = add(other, "q", "a", "b", "c")
    assert bodies(client.do("GETJOB", "BOUND", "COUNT", 3, "FROM", "q")) == [b"a", b"b", b"c"]
    assert client.do("ACKJOB", ids[0]) == 1
    assert other.do("ACKJOB", ids[1]) == 1  # anybody may who knows the id
    assert client.do("NACK", ids[1]) == 0
    client.close()
    assert other.do("GETJOB", "TIMEOUT", 5000, "WITHCOUNTERS", "FROM", "q") == [
        [b"q", ids[2], b"c", b"nacks", 0, b"additional-deliveries", 0]
    ]


def test_acknowledged_jobs_make_room_for_other_bound_ones(tmp_path: Path) -> None:
    server = RespServer(tmp_path / "data", tables="[queues.q]\nmax_open_reads = 2\n")
    try:
        client, other = server.resp(), server.resp()
        ids = add(client, "q", "a", "b", "c", "d")
        assert bodies(client.do("GETJOB", "BOUND", "COUNT", 9, "FROM", "q")) == [b"a", b"b"]
        assert client.do("GETJOB", "BOUND", "FROM", "q") == Failed(
            "OOM max_open_reads allows no more jobs to be active"
        )
        client.do("ACKJOB", ids[0])
        assert bodies(client.do("GETJOB", "BOUND", "COUNT", 9, "FROM", "q")) == [b"c"]
        other.do("ACKJOB", ids[1])
        assert bodies(client.do("GETJOB", "BOUND", "COUNT", 9, "FROM", "q")) == [b"d"]
    finally:
        server.end()


def test_no_more_jobs_are_active_than_max_leases_allows(tmp_path: Path) -> None:
    server = RespServer(tmp_path / "data", "--max-leases", "3")
    try:
        client = server.resp()
        ids = add(client, "q", "a", "b", "c", "d")
        assert bodies(client.do("GETJOB", "COUNT", 9, "FROM", "q")) == [b"a", b"b", b"c"]
        assert client.do("GETJOB", "FROM", "q") == Failed("OOM max_leases allows no more jobs to be active")
        assert client.do("QLEN", "q") == 1
        client.do("ACKJOB", ids[1])
        assert bodies(client.do("GETJOB", "FROM", "q")) == [b"d"]
    finally:
        server.end()


def test_a_job_with_retry_0_is_got_once_also_after_a_crash(server: RespServer) -> None:
    client = server.resp()
    job = client.do("ADDJOB", "q", "a", 0, "RETRY", 0)
    assert bodies(client.do("GETJOB", "FROM", "q")) == [b"a"]
    assert client.do("SHOW", job)[5] == b"active"
    assert (client.do("NACK", job), client.do("ENQUEUE", job), client.do("WORKING", job)) == (0, 0, 0)
    assert client.do("ACKJOB", job) == 1
    assert client.do("ACKJOB", job) == 0
    client.do("ADDJOB", "q", "b", 0, "RETRY", 0)
    assert bodies(client.do("GETJOB", "FROM", "q")) == [b"b"]
    server.kill()
    server.start()
    assert server.resp().do("GETJOB", "NOHANG", "FROM", "q") is None


def test_an_active_job_waits_again_after_a_crash(server: RespServer) -> None:
    client = server.resp()
    (job,) = add(client, "q", "a")
    client.do("GETJOB", "FROM", "q")
    server.kill()
    server.start()
    client = server.resp()
    assert client.do("GETJOB", "NOHANG", "FROM", "q") == [[b"q", job, b"a"]]
    assert client.do("ACKJOB", job) == 1


def test_a_reply_has_its_bounds_and_the_next_has_the_rest(client: RespClient) -> None:
    for number in range(120):
        client.do("ADDJOB", "q", bytes([number]) * 16_000, 0)
    got = bodies(client.do("GETJOB", "COUNT", 1000, "FROM", "q"))
    assert 60 <= len(got) < 120
    got += bodies(client.do("GETJOB", "COUNT", 1000, "FROM", "q"))
    assert got == [bytes([number]) * 16_000 for number in range(120)]


def test_a_large_job_goes_alone(client: RespClient) -> None:
    large = bytes(100_000)
    for body in (b"a", large, b"b"):
        client.do("ADDJOB", "q", body, 0)
    assert bodies(client.do("GETJOB", "COUNT", 9, "FROM", "q")) == [b"a"]
    ((_, job, body),) = client.do("GETJOB", "COUNT", 9, "FROM", "q")
    assert body == large
    assert client.do("NACK", job) == 1
    assert bodies(client.do("GETJOB", "COUNT", 9, "FROM", "q")) == [large]
    assert bodies(client.do("GETJOB", "COUNT", 9, "FROM", "q")) == [b"b"]


def test_items_of_other_protocols_are_jobs_and_jobs_are_items(server: RespServer) -> None:
    client, memcache = server.resp(), server.client()
    memcache.set("q", b"a")
    ((_, job, body),) = client.do("GETJOB", "FROM", "q")
    assert (body, client.do("ACKJOB", job)) == (b"a", 1)
    client.do("ADDJOB", "q", "b", 0)
    assert memcache.get("q") == b"b"


def test_a_server_that_leaves_hands_out_what_there_is_and_sends_others_away(server: RespServer) -> None:
    client, waiting = server.resp(), server.resp()
    add(client, "q", "a")
    assert client.do("CLUSTER", "LEAVING", "yes") == "OK"
    try:
        assert client.do("ADDJOB", "q", "b", 0).startswith("NOREPL Not enough reachable nodes")
        assert bodies(waiting.do("GETJOB", "FROM", "q")) == [b"a"]
        assert waiting.do("GETJOB", "FROM", "q") == Failed(
            "LEAVING This node is leaving the cluster, please connect to a different one"
        )
        assert waiting.do("GETJOB", "NOHANG", "FROM", "q") is None
    finally:
        client.do("CLUSTER", "LEAVING", "no")
    add(client, "q", "b")


def test_counters_tell_how_often_a_job_came_back(connect: Callable[[], RespClient]) -> None:
    client = connect()
    (job,) = add(client, "q", "a")
    client.do("GETJOB", "FROM", "q")
    assert client.do("NACK", job) == 1
    client.do("GETJOB", "FROM", "q")
    assert client.do("ENQUEUE", job) == 1
    assert client.do("GETJOB", "WITHCOUNTERS", "FROM", "q") == [
        [b"q", job, b"a", b"nacks", 1, b"additional-deliveries", 1]
    ]
