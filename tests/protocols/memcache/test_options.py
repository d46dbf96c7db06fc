"""The options with a value: what each takes, what they say together, and what is said of a bad one."""

from functools import partial

import pytest

from darner_core.engines.jobs import NEUTRAL, JobOptions
from darner_core.errors import RequestError
from darner_core.protocols.contract import Command
from darner_core.protocols.memcache import lines
from darner_core.protocols.memcache.options import ReadOptions
from darner_core.protocols.memcache.reader import LineRequest, RequestReader
from tests.protocols.memcache.test_reader import CHUNK, MAX_LINE, listen, no_command


def job(*_: object) -> None:
    raise AssertionError("reading a request does not run it")


def several(*_: object) -> None:
    raise AssertionError("reading a request does not run it")


TABLE = {
    b"set": Command(lines.parse_storing, no_command, job=job),
    b"add": Command(lines.parse_storing, job, job=job),
    b"get": Command(partial(lines.parse_reading, several_reads=True), no_command, job=job, several=several),
    b"touch": Command(lines.parse_touching, no_command),
    b"history": Command(lines.parse_history, no_command),
    b"kick": Command(lines.parse_kicking, no_command),
    b"pause": Command(lines.parse_pausing, no_command),
}


def read(line: bytes, kept_lines: dict[bytes, LineRequest] | None = None) -> LineRequest | RequestError:
    """The request in this line, or what is wrong with it."""
    reader = RequestReader(TABLE, {} if kept_lines is None else kept_lines, MAX_LINE, CHUNK)
    requests, error = listen([line + b"\r\nx\r\n" if line[:3] in (b"set", b"add") else line + b"\r\n"], reader)
    if error is not None:
        return error
    return requests[0][0]


def understood(line: bytes) -> LineRequest:
    request = read(line)
    assert isinstance(request, LineRequest), request
    return request


@pytest.mark.parametrize(
    ("key", "options"),
    [
        (b"q/delay=5", JobOptions(5)),
        (b"q/DELAY=281474976710656", JobOptions(2**48)),
        (b"q/pri=0", JobOptions(0, 0)),
        (b"q/pri=4294967295/sync", JobOptions(0, 2**32 - 1)),
        (b"q/ttr=7", JobOptions(0, NEUTRAL, 7)),
        (b"q/key=Some=Text", JobOptions(key=b"Some=Text")),
        (b"q/key=" + b"k" * 200, JobOptions(key=b"k" * 200)),
        (b"q/key=k/ttr=3/pri=2/sync/delay=1", JobOptions(1, 2, 3, b"k")),
    ],
)
def test_a_put_says_what_its_job_needs(key: bytes, options: JobOptions) -> None:
    request = understood(b"set %b 3 0 1 noreply" % key)
    assert (request.job, request.run, request.queue, request.key) == (options, job, b"q", key)
    assert (request.sync, request.noreply, request.flags) == (b"sync" in key, True, 3)


def test_a_plain_line_is_what_it_was_and_each_options_make_a_line_of_their_own() -> None:
    kept: dict[bytes, LineRequest] = {}
    for line in (b"set q 0 0 1", b"set q/sync 0 0 1", b"get q", b"get q/open"):
        request = read(line, kept)
        assert isinstance(request, LineRequest)
        assert (request.run, request.job, request.asked) == (no_command, None, None)
    for line in (b"set q/delay=1 0 0 1", b"set q/delay=2 0 0 1", b"get q/open/ttr=1"):
        assert read(line, kept) is read(line, kept)
    assert len(kept) == 7


@pytest.mark.parametrize(
    ("key", "options"),
    [
        (b"q/open/ttr=5", ReadOptions(5)),
        (b"q/open/ttr", ReadOptions(0)),
        (b"q/ttr=5/close/open/t=3", ReadOptions(5)),
        (b"q/open/n=9", ReadOptions(most=9)),
        (b"q/close/n=9", ReadOptions(most=9)),
        (b"q/close/id=4503599627370497", ReadOptions(item_id=2**52 + 1)),
        (b"q/abort/delay=0/pri=3", ReadOptions(delay_ms=0, pri=3)),
        (b"q/abort/id=2", ReadOptions(item_id=2)),
        (b"q/reject", ReadOptions(rejects=True)),
    ],
)
def test_a_get_says_what_it_asks_for(key: bytes, options: ReadOptions) -> None:
    request = understood(b"get " + key)
    assert (request.asked, request.run) == (options, job)
    assert request.aborts == (b"abort" in key or b"reject" in key)


def test_a_get_names_several_queues_and_what_it_says_of_one_counts_for_all() -> None:
    request = understood(b"get a b/open/t=5 a c/ttr=7/t=9")
    assert (request.targets, request.run) == ((b"a", b"b", b"c"), several)
    for one in (request, *request.several):
        assert (one.opens, one.wait_ms, one.plain, one.asked) == (True, 9, False, ReadOptions(7))
    assert [one.key for one in request.several] == [b"a", b"b/open/t=5", b"c/ttr=7/t=9"]
    assert not understood(b"get a b").opens
    assert understood(b"get a a").run is no_command


def test_touch_kick_and_pause() -> None:
    assert (understood(b"touch q 5").expiry, understood(b"touch q 5").asked) == (5, None)
    assert understood(b"touch q/id=7 0 noreply").asked == ReadOptions(item_id=7)
    assert understood(b"kick q 12").most == 12
    pause = understood(b"pause q OUT 60")
    assert (pause.pause.value, pause.expiry) == ("out", 60)


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (b"set q/delay=-1 0 0 1", b'ERROR bad /delay "-1": a number from 0 to 281474976710656'),
        (b"set q/delay=1e3 0 0 1", b'ERROR bad /delay "1e3": a number'),
        (b"set q/delay 0 0 1", b'ERROR bad option "/delay" for set: it is /delay=<ms>'),
        (b"set q/ttr= 0 0 1", b'ERROR bad /ttr "": a number from 0 to 281474976710656'),
        (b"set q/ttr 0 0 1", b'ERROR bad option "/ttr" for set: it is /ttr=<ms>'),
        (b"get q/open/ttr=", b'ERROR bad /ttr "": a number from 0 to'),
        (b"get a/open/ttr=x b/ttr=5", b'CLIENT_ERROR "/ttr=5" and another /ttr in a get of several queues: one counts'),
        (b"get a/open/ttr=x b", b'ERROR bad /ttr "x": a number'),
        (b"get q/key=k", b'ERROR unknown option "/key=k" for get: /open, /close, '),
        (b"touch q/ttr=5 5", b'ERROR unknown option "/ttr=5" for touch: /id=<n>\r\n'),
        (b"set q/pri=4294967296 0 0 1", b'ERROR bad /pri "4294967296": a number from 0 to 4294967295'),
        (b"set q/key=" + b"k" * 201 + b" 0 0 1", b'CLIENT_ERROR bad /key "' + b"k" * 60 + b'..." of 201 bytes: 1 to'),
        (b"set q/delay=1/delay=2 0 0 1", b'CLIENT_ERROR "/delay=2" and another /delay in one set: one is allowed'),
        (b"set q/dealy=1 0 0 1", b'ERROR unknown option "/dealy=1" for set: did you mean "/delay"?'),
        (b"set q/sync=1 0 0 1", b'ERROR unknown option "/sync=1" for set: '),
        (b"add q/delay=1 0 0 1", b"CLIENT_ERROR an add without /key=<text>: "),
        (b"get q/open/n=0", b'ERROR bad /n "0": a number from 1 to 2147483647'),
        (b"get q/n=2", b"CLIENT_ERROR /n without /open or /close: "),
        (b"get q/close/open/n=2", b"CLIENT_ERROR cannot close and open with /n in one get: send two"),
        (b"get q/close/n=2/id=3", b"CLIENT_ERROR cannot have /n and /id in one get"),
        (b"get q/open/id=3", b"CLIENT_ERROR /id without /close, /abort or /reject: "),
        (b"get q/pri=3", b"CLIENT_ERROR /pri without /abort: "),
        (b"get q/reject/peek", b"CLIENT_ERROR cannot reject and peek in one get"),
        (b"get a b/peek", b"CLIENT_ERROR /peek in a get of several queues: it can have /open, "),
        (b"get a b/close", b"CLIENT_ERROR /close without /open in a get of several queues: "),
        (b"touch q", b"ERROR a touch is: touch <queue>[/id=<n>] <seconds> [noreply]"),
        (b"touch q x", b'ERROR bad time in seconds "x": a number from 0 to 281474976710'),
        (b"history", b"ERROR a history is: history <queue>[/id=<n>]"),
        (b"history q/n=5", b'ERROR unknown option "/n=5" for history: /id=<n>'),
        (b"kick q 0", b'ERROR bad number of items "0": a number from 1 to'),
        (b"pause q", b"ERROR a pause is: pause <queue> in, out, all or none"),
        (b"pause q out 0", b'ERROR bad time in seconds "0": a number from 1 to 281474976710'),
        (b"pause q none 5", b"CLIENT_ERROR a pause none with a time: "),
    ],
)
def test_an_error_names_the_option_and_what_is_allowed(line: bytes, reply: bytes) -> None:
    error = read(line)
    assert isinstance(error, RequestError)
    assert error.reply.startswith(reply)
