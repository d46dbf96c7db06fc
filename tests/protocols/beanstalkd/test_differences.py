"""What this server answers otherwise than beanstalkd 1.12, on purpose. Each of it stands in a table of
docs/beanstalkd.md.
"""

import time
from collections.abc import Callable

import pytest

from tests.protocols.beanstalkd.conftest import Beans
from tests.support.beanstalkd import TubeServer, Worker
from tests.support.harness import ROOT

Join = Callable[[], Worker]

DOCS = (ROOT / "docs" / "beanstalkd.md").read_text(encoding="utf-8")

# What a client sends, what beanstalkd 1.12 answers, and what this server does.
LINES = [
    ("use a%2Fb", "BAD_FORMAT", "USING a%2Fb"),
    ("reserve-with-timeout x", "TIMED_OUT", "BAD_FORMAT"),
    ("reserve-with-timeout 0 ", "TIMED_OUT", "BAD_FORMAT"),
]


def answers(server: Beans, real: str, ours: str) -> str:
    return ours if isinstance(server, TubeServer) else real


@pytest.mark.parametrize(("line", "real", "ours"), LINES)
def test_lines_that_are_answered_differently(shared: Beans, line: str, real: str, ours: str) -> None:
    worker = shared.worker()
    worker.says(line, answers(shared, real, ours))


@pytest.mark.parametrize(("line", "real", "ours"), LINES)
def test_the_table_in_the_docs_has_them(line: str, real: str, ours: str) -> None:
    assert f"| `{line}` | `{real}` | `{ours}` |" in DOCS


def test_the_delay_of_a_job_that_is_ready_is_0(join: Join, shared: Beans) -> None:
    a = join()
    job = a.put("x", delay=1000)
    a.says(f"kick-job {job}", "KICKED")
    assert a.told(f"stats-job {job}")["delay"] == answers(shared, "1000", "0")


def test_an_empty_tube_stays(join: Join, shared: Beans, tube: str) -> None:
    a = join()
    a.says(f"use {tube}x", f"USING {tube}x")
    job = a.put("x")
    a.says(f"delete {job}", "DELETED")
    a.says(f"use {tube}", f"USING {tube}")
    line, _ = a.command(f"stats-tube {tube}x")
    assert line.split()[0].decode() == answers(shared, "NOT_FOUND", "OK")


def test_tubes_that_are_watched_keep_their_order(join: Join, shared: Beans, tube: str) -> None:
    a = join()
    for number, other in enumerate("xyz"):
        a.says(f"watch {other}", f"WATCHING {number + 2}")
    a.says("ignore x", "WATCHING 3")
    assert a.listed("list-tubes-watched") == [tube, *answers(shared, "zy", "yz")]


def test_default_is_the_first_of_the_tubes(alone: Beans) -> None:
    a = alone.worker()
    for tube in ("b", "a"):
        a.says(f"use {tube}", f"USING {tube}")
        a.put("x")
        time.sleep(0.002)
    assert sorted(a.listed("list-tubes")) == ["a", "b", "default"]
    assert a.listed("list-tubes")[0] == "default"


def test_numbers_are_given_out_in_blocks(alone: Beans) -> None:
    """So of two jobs in different tubes the older can have the larger number; in one tube it has the smaller."""
    a = alone.worker()
    numbers: dict[str, list[int]] = {"x": [], "y": []}
    for _ in range(20):
        for tube, given in numbers.items():
            a.says(f"use {tube}", f"USING {tube}")
            given.append(a.put())
    for given in numbers.values():
        assert given == sorted(given)
    everything = numbers["x"] + numbers["y"]
    assert len(set(everything)) == 40
    assert (sorted(everything) == list(range(1, 41))) == (not isinstance(alone, TubeServer))
