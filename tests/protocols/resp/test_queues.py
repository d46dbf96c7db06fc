"""What clients of Disque ask about queues."""

import pytest

from tests.support.resp_clients import Failed, RespClient, RespServer


def bodies(jobs: list[list[bytes]]) -> list[bytes]:
    return [job[2] for job in jobs]


def scanned(client: RespClient, *words: object) -> set[bytes]:
    """All that a scan comes upon, step by step."""
    cursor, found = client.do(*words[:1], 0, *words[1:])  # type: ignore[arg-type]
    while cursor != b"0":
        cursor, some = client.do(*words[:1], cursor, *words[1:])  # type: ignore[arg-type]
        found += some
    return set(found)


def test_qlen_counts_what_is_queued(client: RespClient) -> None:
    assert client.do("QLEN", "q") == 0
    for body in "ab":
        client.do("ADDJOB", "q", body, 0)
    client.do("ADDJOB", "q", "c", 0, "DELAY", 100)
    assert client.do("QLEN", "q") == 2
    client.do("GETJOB", "FROM", "q")
    assert client.do("QLEN", "q") == 1


def test_qstat_tells_how_a_queue_is(server: RespServer) -> None:
    client, waiting = server.resp(), server.resp()
    assert client.do("QSTAT", "q") is None
    for body in "abc":
        client.do("ADDJOB", "q", body, 0)
    ((_, job, _),) = client.do("GETJOB", "FROM", "q")
    client.do("ACKJOB", job)
    client.do("ADDJOB", "q", "d", 0, "DELAY", 100)
    told = client.do("QSTAT", "q")
    assert told[::2] == [
        b"name", b"len", b"age", b"idle", b"blocked", b"import-from", b"import-rate", b"jobs-in", b"jobs-out", b"pause",
    ]  # fmt: skip
    stat = dict(zip(told[::2], told[1::2], strict=True))
    assert (stat[b"name"], stat[b"len"], stat[b"jobs-in"], stat[b"jobs-out"]) == (b"q", 2, 4, 1)
    waiting.send(b"GETJOB FROM empty\r\n")
    waiting.expect_nothing()
    assert client.do("QSTAT", "empty")[9] == 1


def test_qpeek_shows_jobs_from_either_end(client: RespClient) -> None:
    ids = [client.do("ADDJOB", "q", body, 0).encode() for body in "abc"]
    assert client.do("QPEEK", "q", 2) == [[b"q", ids[0], b"a"], [b"q", ids[1], b"b"]]
    assert bodies(client.do("QPEEK", "q", -2)) == [b"c", b"b"]
    assert bodies(client.do("QPEEK", "q", 10)) == [b"a", b"b", b"c"]
    assert client.do("QPEEK", "q", 0) == client.do("QPEEK", "nothing", 10) == []
    assert client.do("QLEN", "q") == 3


def test_qpeek_has_its_bounds(client: RespClient) -> None:
    client.do_all(*[("ADDJOB", "q", b"x" * 10_000, 0) for _ in range(150)])
    assert 100 <= len(client.do("QPEEK", "q", 1000)) < 110


def test_qscan_comes_upon_every_queue(client: RespClient) -> None:
    names = {b"q%d" % number for number in range(250)}
    client.do_all(*[("ADDJOB", name, "x", 0) for name in sorted(names)])
    assert scanned(client, "QSCAN") == scanned(client, "QSCAN", "COUNT", 7) == names
    cursor, found = client.do("QSCAN", "BUSYLOOP")
    assert (cursor, set(found)) == (b"0", names)
    client.do("ADDJOB", "q7", "y", 0)
    assert client.do("QSCAN", "BUSYLOOP", "MINLEN", 2) == [b"0", [b"q7"]]
    assert len(client.do("QSCAN", "BUSYLOOP", "MAXLEN", 1)[1]) == 249
    assert client.do("QSCAN", "BUSYLOOP", "IMPORTRATE", 1) == [b"0", []]


def test_a_scan_misses_no_queue_when_others_are_deleted(client: RespClient) -> None:
    names = [b"q%03d" % number for number in range(200)]
    client.do_all(*[("ADDJOB", name, "x", 0) for name in names])
    cursor, found = client.do("QSCAN", "COUNT", 50)
    client.do("DEL", *names[:40])
    while cursor != b"0":
        cursor, some = client.do("QSCAN", cursor, "COUNT", 50)
        found += some
    assert set(found) >= set(names[40:])


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (("QSCAN", "x"), "ERR invalid cursor or option name"),
        (("QSCAN", "0", "0"), "ERR syntax error"),
        (("QSCAN", "SPEED", "1"), "ERR invalid cursor or option name"),
        (("QSCAN", "COUNT", "0"), "ERR COUNT must be a number greater than zero"),
        (("JSCAN", "STATE", "foo"), "ERR Invalid job state name"),
        (("JSCAN", "REPLY", "foo"), "ERR Invalid REPLY type, try ID or ALL"),
        (("PAUSE", "q", "foo"), "ERR syntax error"),
        (("QPEEK", "q", "x"), "ERR value is not an integer or out of range"),
    ],
)
def test_what_is_wrong_is_said(client: RespClient, request_: tuple[str, ...], error: str) -> None:
    assert client.do(*request_) == Failed(error)


def test_jscan_comes_upon_every_job(client: RespClient) -> None:
    ids = set(client.do_all(*[("ADDJOB", f"q{number % 7}", number, 0) for number in range(250)]))
    assert scanned(client, "JSCAN") == scanned(client, "JSCAN", "COUNT", 11) == ids
    assert set(client.do("JSCAN", "BUSYLOOP")[1]) == ids
    assert len(scanned(client, "JSCAN", "QUEUE", "q3")) == 36


def test_jscan_knows_the_states_of_jobs(client: RespClient) -> None:
    queued = client.do("ADDJOB", "q", "queued", 0)
    delayed = client.do("ADDJOB", "q", "delayed", 0, "DELAY", 100)
    once = client.do("ADDJOB", "once", "once", 0, "RETRY", 0)
    again = client.do("ADDJOB", "p", "again", 0)
    client.do("GETJOB", "COUNT", 2, "FROM", "p", "once")
    assert set(client.do("JSCAN", "STATE", "queued")[1]) == {queued}
    assert set(client.do("JSCAN", "STATE", "active")[1]) == {delayed, once, again}
    assert set(client.do("JSCAN", "STATE", "active", "STATE", "queued")[1]) == {queued, delayed, once, again}
    assert client.do("JSCAN", "STATE", "acked") == client.do("JSCAN", "STATE", "wait-repl") == [b"0", []]
    client.do("ACKJOB", once)
    assert set(client.do("JSCAN", "BUSYLOOP")[1]) == {queued, delayed, again}


def test_jscan_can_tell_all_of_each_job(client: RespClient) -> None:
    job = client.do("ADDJOB", "q", "body", 0)
    cursor, (told,) = client.do("JSCAN", "REPLY", "all")
    assert (cursor, told[1], told[3], told[5], told[-1]) == (b"0", job.encode(), b"q", b"queued", b"body")


def test_a_queue_is_paused_and_goes_on(server: RespServer) -> None:
    client, waiting = server.resp(), server.resp()
    assert client.do("PAUSE", "q", "in") == "none"  # there is no such queue
    client.do("ADDJOB", "q", "a", 0)
    assert client.do("PAUSE", "q", "in") == "in"
    assert client.do("PAUSE", "q", "out") == "all"
    assert client.do("PAUSE", "q", "state") == "all"
    assert client.do("PAUSE", "q", "none", "out", "bcast") == "out"
    assert client.do("QLEN", "q") == 1
    waiting.send(b"GETJOB FROM q\r\n")
    waiting.expect_nothing()
    client.do("ADDJOB", "q", "b", 0)
    waiting.expect_nothing()
    assert client.do("PAUSE", "q", "none") == "none"
    assert waiting.reply()[0][2] == b"a"
