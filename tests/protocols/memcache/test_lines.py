"""The forms of line that the darner dialect lacks: gets that open, monitors and confirms. The others: test_reader."""

from functools import partial

import pytest

from darner_core.protocols.contract import Command
from darner_core.protocols.memcache import lines
from darner_core.protocols.memcache.reader import LineRequest, RequestReader
from tests.protocols.memcache.test_reader import CHUNK, MAX_LINE, listen, no_command

KYOTO_TABLE = {
    b"get": Command(partial(lines.parse_opening, wait_ms=700), no_command),
    b"gets": Command(partial(lines.parse_opening, wait_ms=700), no_command),
    b"monitor": Command(lines.parse_monitor, no_command),
    b"confirm": Command(lines.parse_confirm, no_command),
}


def understand(line: bytes, kept_lines: dict[bytes, LineRequest] | None = None) -> LineRequest:
    """The request in this line, as the kyototycoon dialect has it."""
    reader = RequestReader(KYOTO_TABLE, {} if kept_lines is None else kept_lines, MAX_LINE, CHUNK)
    understood = listen([line + b"\r\n"], reader)
    assert understood.error is None
    return understood.requests[0][0]


@pytest.mark.parametrize(
    ("line", "keys", "queues", "wait_ms"),
    [
        (b"get a", [b"a"], [b"a"], 700),
        (b"get a/t=5", [b"a/t=5"], [b"a"], 5),
        (b"get a/T=0", [b"a/T=0"], [b"a"], 0),
        (b"get a b", [b"a", b"b"], [b"a", b"b"], 700),
        (b"get a b/t=5 c/t=9", [b"a", b"b/t=5", b"c/t=9"], [b"a", b"b", b"c"], 9),
        (b"get a b/t=0", [b"a", b"b/t=0"], [b"a", b"b"], 0),
        (b"get a b a/t=5", [b"a", b"b"], [b"a", b"b"], 5),
        (b"get a a", [b"a"], [b"a"], 700),
    ],
)
def test_a_get_that_opens_is_read_with_all_its_queues(
    line: bytes, keys: list[bytes], queues: list[bytes], wait_ms: int
) -> None:
    request = understand(line)
    ones = request.several or (request,)
    assert [one.key for one in ones] == keys
    assert [one.queue for one in ones] == queues
    assert request.targets == (tuple(queues) if len(queues) > 1 else ())
    for one in (request, *ones):
        assert (one.opens, one.plain, one.with_cas, one.wait_ms) == (True, False, False, wait_ms)
    assert all(one.with_cas for one in understand(line.replace(b"get", b"gets", 1)).several)


def test_a_get_with_options_is_what_it_is_elsewhere() -> None:
    for options in (b"peek", b"open", b"close", b"abort", b"close/open/t=3", b"peek/t=3"):
        mine = understand(b"get a/" + options)
        (theirs, _), *_ = listen([b"get a/" + options + b"\r\n"]).requests
        mine.run = theirs.run
        assert mine == theirs


def test_lines_of_several_queues_are_not_kept_because_they_are_large() -> None:
    kept: dict[bytes, LineRequest] = {}
    understand(b"get a b", kept)
    assert kept == {}
    understand(b"get a", kept)
    assert len(kept) == 1


def test_monitor_and_confirm() -> None:
    request = understand(b"monitor q 5")
    assert (request.queue, request.key, request.wait_ms, request.most, request.opens) == (b"q", b"q", 5000, 0, True)
    assert understand(b"monitor q 0 7").most == 7
    request = understand(b"CONFIRM q 3 ")
    assert (request.queue, request.most, request.opens) == (b"q", 3, False)
