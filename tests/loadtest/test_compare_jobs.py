"""The measurement of jobs: it runs, nothing is lost unnoticed, and its page says what was measured."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from loadtest.compare import jobs
from loadtest.compare.job_clients import IN_FLIGHT, Beanstalkd, Books, Darner, Script, body_of
from loadtest.errors import LoadTestError, Violation
from tests.support.harness import ROOT

Answer = Callable[[bytes], bytes]


def played(script: Script, answer: Answer) -> list[bytes]:
    """What the script asks of a server that answers like this."""
    asked: list[bytes] = []
    request, is_whole = next(script)
    while True:
        asked.append(request)
        said = answer(request)
        assert is_whole(bytearray(said))
        assert not is_whole(bytearray(said[:-1]))
        try:
            request, is_whole = script.send(said)
        except StopIteration:
            return asked


def compared(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "loadtest.compare.jobs", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.long
def test_a_moment_of_everything_loses_nothing() -> None:
    ended = compared("--smoke")
    assert ended.returncode == 0, ended
    for said in ("put with a delay", "come due at once", "start after kill -9", "the next get"):
        assert said in ended.stdout


def test_all_jobs_are_put_with_a_delay() -> None:
    asked = played(Darner().put(Books(IN_FLIGHT + 1), lambda: 1500), lambda said: b"STORED\r\n" * said.count(b"set"))
    assert [request.count(b"set q/delay=1500 0 0 64\r\n") for request in asked] == [IN_FLIGHT, 1]


def test_beanstalkd_is_asked_in_whole_seconds_and_not_earlier() -> None:
    said = played(Beanstalkd().put(Books(1), lambda: 1500), lambda _said: b"INSERTED 1\r\n")
    assert said == [b"put 1024 2 120 64\r\n%b\r\n" % body_of(0)]


def test_what_is_taken_is_closed() -> None:
    def answer(said: bytes) -> bytes:
        if said == b"get q/close\r\n":
            return b"END\r\n"
        return b"VALUE q 0 64\r\n%b\r\nEND\r\n" % body_of(0) + b"END\r\n" * (IN_FLIGHT - 1)

    assert played(Darner().take(Books(1)), answer)[-1] == b"get q/close\r\n"


def test_what_is_reserved_is_deleted() -> None:
    def answer(said: bytes) -> bytes:
        if said.startswith(b"delete"):
            return b"DELETED\r\n"
        return b"RESERVED 7 64\r\n%b\r\n" % body_of(0) + b"TIMED_OUT\r\n" * (IN_FLIGHT - 1)

    assert played(Beanstalkd().take(Books(1)), answer)[-1] == b"delete 7\r\n"


def test_a_job_that_comes_out_twice_is_noticed() -> None:
    books = Books(2)
    books.note(b"\r\n%b\r\n" % body_of(1))
    with pytest.raises(Violation, match="job 1 of 2 came out again"):
        books.note(b"\r\n%b\r\n" % body_of(1))


def test_a_job_that_does_not_come_out_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtest.compare.job_clients.MOST_MISSES", 3)
    books = Books(2)
    for _ in range(3):
        books.note(b"END\r\n")
    with pytest.raises(Violation, match="2 of 2 jobs do not come out"):
        books.note(b"END\r\n")


def test_a_run_that_fails_is_kept_and_the_others_go_on() -> None:
    def fail() -> dict[str, float]:
        raise LoadTestError("a job was lost")

    found: list[dict[str, Any]] = []
    steps: list[jobs.Step] = [("flood", 1, "darner", 5, fail), ("flood", 2, "darner", 5, lambda: {"due_per_s": 1.0})]
    jobs.measure(steps, True, found.append)
    assert [run.get("error") or run.get("due_per_s") for run in found] == ["a job was lost", 1.0]


def test_the_page_says_what_is_met_and_what_is_missed() -> None:
    def run(group: str, items: int, **figures: float) -> dict[str, Any]:
        return {"group": group, "round": 1, "server": "darner", "parameters": {"items": items}, **figures}

    rows = jobs.rows(
        [
            run("rates-10", 50_000, put_per_s=20_000.0, take_per_s=9_000.0),
            run("flood", 1000, due_per_s=90_000.0),
            run("instructions", 0, ratio=1.004),
        ]
    )
    assert rows == [
        ["put with a delay, connections: 10", "at least 15,000 /s", "**20,000**", "met"],
        ["take and close, connections: 10", "at least 10,000 /s", "**9,000**", "**missed**"],
        ["a million come due at once", "at least 20,000 /s", "**90,000**", "with 1,000 items"],
        ["a plain request: instructions, now / before", "at most 1.005 ×", "**1.004**", "met"],
    ]


def test_the_page_says_when_each_part_was_measured() -> None:
    def saved(group: str, day: str, server: str = "darner", **figures: float) -> dict[str, Any]:
        run = {"group": group, "round": 1, "server": server, "parameters": {"items": 5}, "day": day, "commit": "abc"}
        about = {
            "cpu": "a processor", "cores": 2, "memory_bytes": 25e9, "kernel": "Linux", "file_system": "ext4",
            "python": "3.11", "build": [], "gevent": "1", "rocksdict": "2",
            "servers": {server: {"version": "1.12", "command": f"{server} -p PORT"}},
        }  # fmt: skip
        return {"machine": about, "commands": [f"command of {group}"], "runs": [run | figures]}

    together: dict[str, Any] = {"runs": [], "commands": []}
    jobs.add(together, saved("rates-10", "1 May", "beanstalkd", put_per_s=5.0))
    jobs.add(together, saved("drain", "1 May", put_per_s=7.0))
    jobs.add(together, saved("drain", "2 May", put_per_s=8.0))  # again: the later counts
    page = jobs.part(together)
    assert (
        "Measured: rates-10 on 1 May, commit `abc`; drain on 2 May, commit `abc`. Machine: a processor, 2 cores" in page
    )
    assert "Beside it: beanstalkd 1.12." in page
    assert "| ten million put, 10 connections | /s | 8 |" in page
    for command in ("command of rates-10", "command of drain", "darner -p PORT", "beanstalkd -p PORT"):
        assert f"    {command}\n" in page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["speed"], "unknown part 'speed': one of rates, flood, plain, drain"),
        (["plain"], "plain needs --before"),
        (["--before", "/"], "no checkout of this server"),
        (["--smoke", "--write", "x"], "not worth writing down"),
    ],
)
def test_what_cannot_be_measured_is_named(words: list[str], said: str) -> None:
    ended = compared(*words)
    assert ended.returncode == 2
    assert said in ended.stderr
