"""Kestrel's text protocol as bytes: any split of the same bytes is the same requests, and what is wrong ends with its
line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darner_core.engines.jobs import JobOptions, Pause
from darner_core.errors import RequestError
from darner_core.protocols.contract import Command
from darner_core.protocols.kestrel_text.reader import (
    MAX_ITEMS,
    NOT_UNDERSTOOD,
    STATUS_TO,
    TextReader,
    TextRequest,
    parse_abort,
    parse_add,
    parse_bare,
    parse_confirm,
    parse_get,
    parse_monitor,
    parse_naming,
    parse_pause,
    parse_put,
    parse_reading,
    parse_status,
    parse_touch,
)

PARSERS = {
    "put": parse_put,
    "add": parse_add,
    "get": parse_get,
    "peek": parse_reading,
    "monitor": parse_monitor,
    "confirm": parse_confirm,
    "abort": parse_abort,
    "reject": parse_confirm,
    "touch": parse_touch,
    "kick": parse_confirm,
    "pause": parse_pause,
    "flush": parse_naming,
    "status": parse_status,
    "version": parse_bare,
}


def new_reader(max_line_bytes: int = 300, max_item_bytes: int = 100) -> TextReader:
    table = {verb.encode(): Command(parse, lambda *_: b"") for verb, parse in PARSERS.items()}
    return TextReader(table, max_line_bytes, max_item_bytes)


def heard(*said: bytes) -> list[object]:
    """What was understood: of a request its verb and all that was filled in, of one that cannot be understood its
    reply; at the end what ends the connection, if anything does."""
    reader = new_reader()
    found: list[object] = []
    for data in said:
        for request, body in reader.requests(data):
            assert body is None
            if request.verb == NOT_UNDERSTOOD:
                found.append(request.run(request, None, None))
            else:
                assert isinstance(request, TextRequest)
                found.append(
                    (request.verb, request.queue, request.items, request.expiry_ms, request.wait_ms, request.count)
                )
        if reader.error is not None:
            found.append(str(reader.error))
            break
    return found


def single_bytes(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


UNDERSTOOD = {
    b"put q:\na\nb b\n\n": (b"put", b"q", (b"a", b"b b"), None, 0, 0),
    b"put q 500:\r\na\r\n\r\n": (b"put", b"q", (b"a",), 500, 0, 0),
    b"PUT q 0 :\n\n": (b"put", b"q", (), 0, 0, 0),
    b"put q: \nflush q\n\n": (b"put", b"q", (b"flush q",), None, 0, 0),
    b"put q:\t\r\nflush q\r\n\r\n": (b"put", b"q", (b"flush q",), None, 0, 0),
    b"put q:\nget x\n:y:\n \n\n": (b"put", b"q", (b"get x", b":y:", b" "), None, 0, 0),
    b"get q\n": (b"get", b"q", None, None, 0, 0),
    b"get  q  250 \r\n": (b"get", b"q", None, None, 250, 0),
    b"peek q 1\n": (b"peek", b"q", None, None, 1, 0),
    b"monitor q 10\n": (b"monitor", b"q", None, None, 10, 0),
    b"confirm q 3\n": (b"confirm", b"q", None, None, 0, 3),
    b"flush q\n": (b"flush", b"q", None, None, 0, 0),
    b"version\n": (b"version", b"", None, None, 0, 0),
    b"status\n": (b"status", b"", None, None, 0, 0),
    b"status up\n": (STATUS_TO, b"", None, None, 0, 0),
}

# What is said of jobs: the options behind a name, and more verbs.
ABOUT_JOBS: dict[bytes, dict[str, object]] = {
    b"put q/delay=5/pri=0/ttr=7 9:\na\nb\n\n": {"job": JobOptions(5, 0, 7), "expiry_ms": 9, "items": (b"a", b"b")},
    b"put q/KEY=a:b:\na\n\n": {"job": JobOptions(key=b"a:b")},
    b"put q+c/delay=0:\n\n": {"job": JobOptions(), "queue": b"q+c", "parent": b"q"},
    b"add q/key=" + b"k" * 200 + b":\na\n\n": {"job": JobOptions(key=b"k" * 200)},
    b"get q/ttr=5 250\n": {"ttr_ms": 5, "wait_ms": 250, "key": b"q/ttr=5"},
    b"get q/ttr\n": {"ttr_ms": 0},
    b"get q 5\n": {"ttr_ms": None},
    b"monitor q/ttr=5 10 3\n": {"ttr_ms": 5, "wait_ms": 10, "count": 3},
    b"abort q 2\n": {"count": 2, "delay_ms": None, "pri": None},
    b"abort q/delay=0/pri=3 2\n": {"count": 2, "delay_ms": 0, "pri": 3},
    b"reject q 1\n": {"count": 1},
    b"touch q 0\n": {"time_ms": 0},
    b"touch q 281474976710656\n": {"time_ms": 2**48},
    b"kick q 9\n": {"count": 9},
    b"pause q OUT\n": {"pause": Pause.OUT, "time_ms": 0},
    b"pause q all 1500\n": {"pause": Pause.ALL, "time_ms": 1500},
    b"pause q none\n": {"pause": Pause.NONE},
}

NO_COLON = "a put is: put <queue> [<expiry in ms>]: and then a line for each item and an empty one"

# Answered, and the connection goes on.
NOT_UNDERSTOOD_LINES = {
    b"get\n": b"-Queue name required.\n",
    b"put:\na\n\n": b"-Queue name required.\n",
    b"flush\n": b"-Queue name required.\n",
    b"monitor q\n": b"-Queue name & timeout required.\n",
    b"confirm q\n": b"-Queue name & count required.\n",
    b"put q x:\nget q\n\n": b'-Error parsing expiration time. "x": a number from 0 to 9007199254740991\n',
    b"get q soon\n": b'-Error parsing timeout. "soon": a number from 0 to 2147483647\n',
    b"get q -1\n": b'-Error parsing timeout. "-1": a number from 0 to 2147483647\n',
    b"monitor q 1e3\n": b'-Error parsing timeout. "1e3": a number from 0 to 2147483647\n',
    b"confirm q 99999999999\n": b'-Error parsing count. "99999999999": a number from 0 to 2147483647\n',
    b"what q\n": b"-Unknown command: what\n",
    b"flus q\n": b'-Unknown command: flus; did you mean "flush"?\n',
    b"putt q:\nflush q\n\n": b'-Unknown command: putt; did you mean "put"?\n',
    b"put a/b:\nflush q\n\n": (b'-unknown option "/b" for put: /delay=<ms>, /pri=<n>, /ttr=<ms> and /key=<text>\n'),
    b"put /pri=1:\nflush q\n\n": b'-bad queue name "": 1 to 250 bytes other than control characters, space and /\n',
    b"put q/dealy=1:\nflush q\n\n": b'-unknown option "/dealy=1" for put: did you mean "/delay"?\n',
    b"put q/pri:\nflush q\n\n": b'-bad option "/pri" for put: it is /pri=<n>\n',
    b"put q/pri=4294967296:\nflush q\n\n": b'-bad /pri "4294967296": a number from 0 to 4294967295\n',
    b"put q/delay=1/delay=2:\nflush q\n\n": b'-"/delay=2" and another /delay in one put: one is allowed\n',
    b"put q/key=:\nflush q\n\n": b'-bad /key "" of 0 bytes: 1 to 200\n',
    b"put q/key=k:\na\nb\n\n": b"-a /key with 2 items: it is that of one item\n",
    b"add q/key=k:\n\n": b"-a /key with 0 items: it is that of one item\n",
    b"add q:\na\n\n": b"-an add without /key=<text>: it puts an item unless the queue has one with this key\n",
    b"get q/open\n": b'-unknown option "/open" for get: /ttr=<ms>\n',
    b"get q/ttr=soon 5\n": b'-bad /ttr "soon": a number from 0 to 281474976710656\n',
    b"monitor q 1 0\n": b'-Error parsing count. "0": a number from 1 to 2147483647\n',
    b"peek q/ttr=5\n": b'-bad queue name "q/ttr=5": 1 to 250 bytes other than control characters, space and /\n',
    b"abort q\n": b"-Queue name & count required.\n",
    b"abort q/ttr=1 1\n": b'-unknown option "/ttr=1" for abort: /delay=<ms> and /pri=<n>\n',
    b"touch q\n": b"-Queue name & time required.\n",
    b"touch q 1e3\n": b'-Error parsing time. "1e3": a number from 0 to 281474976710656\n',
    b"kick q all\n": b'-Error parsing count. "all": a number from 0 to 2147483647\n',
    b"pause q\n": b"-Queue name & what to pause required: in, out, all or none.\n",
    b"pause q of\n": b'-bad pause "of": in, out, all or none\n',
    b"pause q in 0\n": b'-Error parsing time. "0": a number from 1 to 281474976710656\n',
    b"put q/ttr:\nx\n\n": b'-bad option "/ttr" for put: it is /ttr=<ms>\n',
    b"pause q none 5\n": b"-a pause none with a time: it ends the pause at once\n",
    b"abort q 1:\na\n\n": b"-abort takes no items: its line must not end with a colon\n",
    b"put " + b"n" * 251 + b": \nflush q\n\n": b"-queue name of 251 bytes: at most 250\n",
    b"put q soon: \nflush q\n\n": b'-Error parsing expiration time. "soon": a number from 0 to 9007199254740991\n',
    b"put q 5 6 :\t \r\nflush q\n\n": b'-"6" is not expected here\n',
    b"\n": b"-Unknown command: \n",
    b"get q 1 2\n": b'-"2" is not expected here\n',
    b"version 2\n": b'-"2" is not expected here\n',
    b"get q:\na\n\n": b"-get takes no items: its line must not end with a colon\n",
    b"get a/b\n": b'-unknown option "/b" for get: /ttr=<ms>\n',
    b"flush a/b\n": b'-bad queue name "a/b": 1 to 250 bytes other than control characters, space and /\n',
    b"get " + b"n" * 251 + b"\n": b"-queue name of 251 bytes: at most 250\n",
}


@pytest.mark.parametrize("said", UNDERSTOOD)
def test_what_is_understood(said: bytes) -> None:
    expected = UNDERSTOOD[said]
    assert heard(said) == [expected]
    assert heard(*single_bytes(said)) == [expected]
    assert heard(said + b"version\n" + said) == [expected, UNDERSTOOD[b"version\n"], expected]


@pytest.mark.parametrize("said", ABOUT_JOBS)
def test_what_is_said_of_jobs_is_understood(said: bytes) -> None:
    for pieces in ([said], single_bytes(said)):
        reader = new_reader()
        (request,) = [request for piece in pieces for request, _ in reader.requests(piece)]
        assert request.verb == said.split()[0], request.run()
        found: dict[str, object] = {"queue": b"q", **ABOUT_JOBS[said]}
        assert {name: getattr(request, name) for name in found} == found


@pytest.mark.parametrize("said", NOT_UNDERSTOOD_LINES)
def test_what_is_not_understood_is_answered_and_what_follows_is_read(said: bytes) -> None:
    expected = [NOT_UNDERSTOOD_LINES[said], UNDERSTOOD[b"version\n"]]
    assert heard(said + b"version\n") == expected
    assert heard(*single_bytes(said + b"version\n")) == expected


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"get " + b"q" * 300, "line too long: at most 300 bytes"),
        (b"put q:\n" + b"x" * 102, "item too long: at most 100 bytes in this protocol"),
        (b"put q:\n" + b"x" * 101 + b"\n\n", "item too long: at most 100 bytes in this protocol"),
        (b"put q:\n" + b"x\n" * (MAX_ITEMS + 1), "too many items: at most 1024 in one put"),
        (
            b"put q\nflush q\n\n",
            NO_COLON,
        ),
        (
            b"PUT q: x\nflush q\n\n",
            NO_COLON,
        ),
        (
            b"add q/key=k\nflush q\n\n",
            "an add is: add <queue>/key=<text> [<expiry in ms>]: and then a line for each item and an empty one",
        ),
        (b"POST / HTTP/1.1\r\nflush q\n", "this is an HTTP request, but no web server"),
        (b"\x80\x01", "this is memcache's binary protocol: set the client to the text protocol"),
        (b"\x0c\nflush q\n", r'a request begins with a command, not with "\x0c"'),
    ],
)
def test_what_is_too_much_or_perhaps_a_stranger_s_ends_the_connection(said: bytes, why: str) -> None:
    assert heard(said) == [why]
    assert heard(*single_bytes(said)) == [why]


def test_the_largest_of_everything_is_taken() -> None:
    assert heard(b"get " + b"q" * 250 + b" " * 46 + b"\n")[0][1] == b"q" * 250  # type: ignore[index]
    (put,) = heard(b"put q:\n" + (b"x" * 100 + b"\r\n") * MAX_ITEMS + b"\r\n")
    assert put[2] == (b"x" * 100,) * MAX_ITEMS  # type: ignore[index]


def test_a_put_is_bounded_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("darner_core.protocols.kestrel_text.reader.MAX_PUT_BYTES", 250)
    assert heard(b"put q:\n" + (b"x" * 100 + b"\n") * 3) == ["too many bytes: at most 250 in one put"]


def test_what_is_held_is_told_and_can_be_dropped() -> None:
    reader = new_reader()
    assert not reader.in_pieces
    assert list(reader.requests(b"put q:\nabc\nde")) == []
    assert reader.in_pieces
    assert reader.body_bytes == 5
    reader.drop()
    assert not reader.in_pieces
    assert reader.body_bytes == 0


@given(
    st.lists(st.sampled_from([*UNDERSTOOD, *ABOUT_JOBS, *NOT_UNDERSTOOD_LINES]), max_size=5),
    st.lists(st.integers(0, 400), max_size=6),
)
def test_any_split_is_the_same(said: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(said)
    ends = sorted({min(cut, len(whole)) for cut in cuts} | {len(whole)})
    pieces = [whole[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    assert heard(*pieces) == heard(whole)


@given(st.binary(max_size=700))
def test_whatever_comes_is_answered_or_refused(garbage: bytes) -> None:
    reader = new_reader()
    for request, _ in reader.requests(garbage):
        assert request.verb in {*(verb.encode() for verb in PARSERS), NOT_UNDERSTOOD, STATUS_TO}
    assert reader.error is None or isinstance(reader.error, RequestError)
