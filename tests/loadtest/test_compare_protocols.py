"""The measurement of beanstalkd's and Redis's protocol: it runs, and notices what is lost."""

import subprocess
import sys
from typing import Any

import pytest

from loadtest.compare import protocols
from loadtest.compare.protocol_clients import LPUSH, PUT, RESERVE, RPOP, Crowd, Form, body_of, check
from loadtest.errors import LoadTestError, Violation
from tests.support.harness import ROOT

RESERVED = b"RESERVED 7 64\r\n%b\r\nDELETED\r\n"
POPPED = b"$64\r\n%b\r\n"


def compared(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "loadtest.compare.protocols", *words],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.long
def test_a_moment_of_everything_loses_nothing() -> None:
    ended = compared("--smoke")
    assert ended.returncode == 0, ended
    for said in ("| put, 1 connection |", "| reserve and delete, 100 connections |", "| RPOP, 10 connections, 32 in"):
        assert said in ended.stdout


def test_requests_are_written_as_each_protocol_wants_them() -> None:
    assert PUT.asked(5) == b"put 1024 0 120 64\r\n%b\r\n" % body_of(5)
    assert LPUSH.asked(5) == b"*3\r\n$5\r\nLPUSH\r\n$1\r\nq\r\n$64\r\n%b\r\n" % body_of(5)
    assert RESERVE.then is not None
    assert RESERVE.then(b"RESERVED 17 64\r\n%b\r\n" % body_of(5)) == b"delete 17\r\n"


@pytest.mark.parametrize(
    ("form", "answers"),
    [
        (PUT, [b"INSERTED 1\r\n", b"INSERTED 2\r\n"]),
        (LPUSH, [b":1\r\n:2\r\n"]),
        (RPOP, [POPPED % body_of(1), POPPED % body_of(0)]),
        (RESERVE, [RESERVED % body_of(1) + RESERVED % body_of(0)]),
    ],
)
def test_good_answers_pass(form: Form, answers: list[bytes]) -> None:
    check(form, 2, answers)
    with pytest.raises(Violation, match="2 answers to 3 requests"):
        check(form, 3, answers)


@pytest.mark.parametrize(
    ("form", "answers", "why"),
    [
        (PUT, b"INSERTED 1\r\nOUT_OF_MEMORY\r\n", "answered b'OUT_OF_MEMORY"),
        (RESERVE, RESERVED % body_of(0) + b"TIMED_OUT\r\n", "answered b'TIMED_OUT"),
        (RPOP, POPPED % body_of(0) + b"$-1\r\n", "answered b'\\$-1"),
        (RPOP, POPPED % body_of(0) * 2, "1 of 2 items came out"),
        (RPOP, POPPED % body_of(0) + POPPED % body_of(7), "1 of 2 items came out"),
        (RESERVE, RESERVED % body_of(1) * 2, "1 of 2 items came out"),
    ],
)
def test_what_is_refused_lost_or_doubled_is_noticed(form: Form, answers: bytes, why: str) -> None:
    with pytest.raises(Violation, match=why):
        check(form, 2, [answers])


def test_nobody_listens() -> None:
    with pytest.raises(LoadTestError, match="cannot connect"):
        Crowd(1, 1)


def test_a_run_that_fails_is_kept_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(_kind: object, _door: object, load: protocols.Load, items: int) -> dict[str, float]:
        if load.in_flight > 1:
            raise LoadTestError("a job was lost")
        return {"put_per_s": float(items)}

    monkeypatch.setattr(protocols, "measure", measure)
    found: list[dict[str, Any]] = []
    kind: Any = type("Kind", (), {"name": "darner"})
    loads = protocols.LOADS[-2:]
    protocols.run_all([(protocols.DOORS[0], load, 1, kind) for load in loads], 5, True, found.append)
    assert [run.get("error") or run["put_per_s"] for run in found] == [5.0, "a job was lost"]


def test_the_page_says_what_is_met_and_what_is_missed() -> None:
    def run(server: str, load: str, **figures: float) -> dict[str, Any]:
        return {"group": load, "round": 1, "server": server, **figures}

    rows = protocols.rows(
        [
            run("darner", "beanstalkd, 10 connections", put_per_s=20_000.0, take_per_s=9_000.0),
            run("beanstalkd", "beanstalkd, 10 connections", put_per_s=10_000.0, take_per_s=10_000.0),
            run("darner", "redis, 1 connection", put_per_s=5_000.0),
            run("redis", "redis, 1 connection", put_per_s=10_000.0),
        ]
    )
    assert rows == [
        ["beanstalkd", "put, 10 connections", "20,000", "10,000", "2", "1", "met"],
        ["beanstalkd", "reserve and delete, 10 connections", "9,000", "10,000", "0.90", "1", "**missed**"],
        ["redis", "LPUSH, 1 connection", "5,000", "10,000", "0.50", "", ""],
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["speed"], "unknown part 'speed': one of beanstalkd, redis"),
        (["redis", "--write", "x"], "--write needs all parts"),
        (["--smoke", "--write", "x"], "not worth writing down"),
    ],
)
def test_what_cannot_be_measured_is_named(words: list[str], said: str) -> None:
    ended = compared(*words)
    assert ended.returncode == 2
    assert said in ended.stderr
