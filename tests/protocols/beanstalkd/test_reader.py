"""beanstalkd's lines, as its server 1.12 reads them."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darner_core.protocols.beanstalkd import reader
from darner_core.protocols.beanstalkd.reader import JobReader, TubeRequest
from darner_core.protocols.contract import Command

MAX_JOB, CHUNK = 100, 50

PARSERS: dict[bytes, Any] = {
    b"put": reader.parse_put, b"reserve": reader.parse_bare, b"reserve-with-timeout": reader.parse_waiting,
    b"reserve-job": reader.parse_job, b"delete": reader.parse_job, b"release": reader.parse_release,
    b"bury": reader.parse_bury, b"kick": reader.parse_kick, b"kick-job": reader.parse_job, b"use": reader.parse_naming,
    b"peek": reader.parse_job, b"peek-ready": reader.parse_bare, b"stats": reader.parse_bare,
    b"stats-tube": reader.parse_naming, b"stats-job": reader.parse_job, b"peek-delayed": reader.parse_bare,
    b"peek-buried": reader.parse_bare, b"list-tubes": reader.parse_bare, b"list-tube-used": reader.parse_bare,
    b"list-tubes-watched": reader.parse_bare, b"quit": reader.parse_any, b"pause-tube": reader.parse_pausing,
}  # fmt: skip


def new_reader(kept: dict[bytes, TubeRequest]) -> JobReader:
    table = {
        verb: Command(parse, lambda request, body, session: shown(request, body)) for verb, parse in PARSERS.items()
    }
    return JobReader(table, kept, MAX_JOB, CHUNK)


def heard(*pieces: bytes) -> list[bytes]:
    """What is read of these bytes: verbs with what belongs to them, or answers."""
    job_reader = new_reader({})
    found: list[bytes] = []
    for piece in pieces:
        alone = job_reader.single(piece)
        for request, body in job_reader.requests(piece) if alone is None else [(alone, None)]:
            found.append(request.run(request, body, None))
        while job_reader.large is not None:
            found.append(take_large(job_reader))
            found += [request.run(request, body, None) for request, body in job_reader.requests(b"")]
    return found


def shown(request: TubeRequest, body: bytes | None) -> bytes:
    numbers = (request.job, request.pri, request.seconds, request.ttr_s, request.most)
    said = [b"%d" % number for number in numbers if number]
    return b" ".join([request.verb, *said, request.tube, body or b""]).strip()


def take_large(job_reader: JobReader) -> bytes:
    request = job_reader.large
    assert request is not None
    body = job_reader.take_body(request.body_bytes + 2)
    assert len(body) == request.body_bytes + 2, "in these tests a large body comes at once"
    job_reader.end_body()
    return b"large %d %d" % (len(body), request.too_big)


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        (b"put 1 2 3 1\r\nx", b"put 1 2 3  x"),
        (b"put  1  2  3  1\r\nx", b"put 1 2 3  x"),
        (b"put 0 0 0 0\r\n", b"put 1"),  # a time to run of 0 is 1
        (b"reserve", b"reserve"),
        (b"reserve-with-timeout 5", b"reserve-with-timeout 5"),
        (b"delete 18446744073709551615", b"delete 18446744073709551615"),
        (b"release 7 1 2", b"release 7 1 2"),
        (b"bury 7 1", b"bury 7 1"),
        (b"kick 3x", b"kick 3"),
        (b"kick -1", b"kick 4294967295"),
        (b"use a/b;c.d$e_f(g)h+i-j", b"use a/b;c.d$e_f(g)h+i-j"),
        (b"use " + b"a" * 200, b"use " + b"a" * 200),
        (b"pause-tube q 0", b"pause-tube q"),
        (b"pause-tubeq 3", b"pause-tube 3 q"),
        (b"quit x", b"quit"),
        (b"quitx", b"quit"),
    ],
)
def test_a_line_is_understood(line: bytes, meaning: bytes) -> None:
    assert heard(line + b"\r\n") == [meaning]


@pytest.mark.parametrize(
    "line",
    [
        b"put 1 2 3", b"put 1 2 3 1x", b"put 1 2 3 1 ", b"put -1 2 3 1", b"put 4294967296 0 1 1", b"put ",
        b"delete x", b"delete 1x", b"delete 1 ", b"delete -1", b"delete 99999999999999999999", b"release 1 0",
        b"bury 1", b"kick x", b"use a b", b"use  a", b"use -a", b"use a:b", b"use " + b"a" * 201, b"use a\0b",
        b"us\0e a", b"reserve x", b"reservex", b"reserve-with-timeout", b"reserve-with-timeout x", b"statsx",
        b"list-tubesx", b"pause-tube q", b"pause-tube q x", b"pause-tube", b"peek-readyx", b"a" * 223,
    ],
)  # fmt: skip
def test_a_line_is_badly_formed_and_the_next_is_read(line: bytes) -> None:
    assert heard(line + b"\r\nreserve\r\n") == [b"BAD_FORMAT\r\n", b"reserve"]


@pytest.mark.parametrize("line", [b"", b"x", b"PUT 1 2 3 1", b"put", b"use", b"kick", b" use a", b"a" * 222])
def test_a_verb_is_unknown(line: bytes) -> None:
    assert heard(line + b"\r\nreserve\r\n") == [b"UNKNOWN_COMMAND\r\n", b"reserve"]


def test_a_line_that_is_too_long_is_dropped_up_to_its_end() -> None:
    assert heard(b"a" * 300, b"b" * 300 + b"\r", b"\nreserve\r\n") == [b"BAD_FORMAT\r\n", b"reserve"]


def test_one_line_that_comes_alone_is_read_at_once_and_kept_if_it_may_come_again() -> None:
    kept: dict[bytes, TubeRequest] = {}
    delete, reserve, wrong = (new_reader(kept).single(line) for line in (b"delete 7\r\n", b"reserve\r\n", b"x\r\n"))
    assert (delete.job, list(kept)) == (7, [b"reserve\r"])  # type: ignore[union-attr]
    assert kept[b"reserve\r"] is reserve
    assert wrong is not None
    assert wrong.run(wrong, None, None) == b"UNKNOWN_COMMAND\r\n"
    for other in (b"delete 7\r\ndelete 8\r\n", b"delete 7\r", b"put 0 0 1 1\r\n", b"put 0 0 1 1\r\nx\r\n"):
        assert new_reader({}).single(other) is None


def test_behind_a_part_of_a_line_or_a_body_comes_its_rest() -> None:
    for begun in (b"dele", b"put 0 0 1 9\r\n"):
        job_reader = new_reader({})
        assert not list(job_reader.requests(begun))
        assert job_reader.single(b"reserve\r\n") is None


def test_a_line_feed_alone_ends_no_line() -> None:
    assert heard(b"reserve\nreserve\r\n") == [b"BAD_FORMAT\r\n"]


def test_a_body_must_end_with_its_line_end_and_only_its_bytes_are_taken() -> None:
    assert heard(b"put 0 0 1 2\r\nabcdreserve\r\n") == [b"EXPECTED_CRLF\r\n", b"reserve"]


def test_a_body_may_look_like_a_command() -> None:
    assert heard(b"put 0 0 1 9\r\nreserve\r\n\r\nreserve\r\n") == [b"put 1  reserve", b"reserve"]


def test_a_body_of_more_than_a_chunk_is_received_in_pieces() -> None:
    assert heard(b"put 0 0 1 60\r\n" + b"x" * 60 + b"\r\nreserve\r\n") == [b"large 62 0", b"reserve"]


def test_a_body_that_is_too_big_is_received_in_pieces_to_be_dropped() -> None:
    assert heard(b"put 0 0 1 101\r\n" + b"x" * 101 + b"\r\nreserve\r\n") == [b"large 103 1", b"reserve"]


SAID = (
    b"put 0 0 1 3\r\nabc\r\nreserve\r\nput 0 0 1 2\r\nabXYnonsense\r\ndelete 7\r\nuse a\r\n"
    + b"b" * 230
    + b"\r\nquit\r\n"
)


@given(st.lists(st.integers(0, len(SAID)), max_size=8))
def test_any_split_of_the_same_bytes_means_the_same(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(SAID)]
    assert heard(*(SAID[begin:end] for begin, end in pairwise(edges))) == heard(SAID)


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_no_bytes_break_the_reader(pieces: list[bytes]) -> None:
    heard(*pieces)
