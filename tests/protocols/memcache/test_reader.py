"""The grammar: bytes in, requests out.

What a client says is fed whole, byte by byte and with more behind it: how the network cuts it must not matter.
"""

import gc
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from darner_core.errors import ClientError, MalformedRequest, RequestError
from darner_core.protocols.contract import Command
from darner_core.protocols.grammar import excerpt
from darner_core.protocols.memcache import lines
from darner_core.protocols.memcache import reader as protocol
from darner_core.protocols.memcache.reader import LineRequest, RequestReader
from tests.support.feeding import feed

MAX_LINE = 600  # over a longest name with its options and numbers
CHUNK = 100  # so that a failure can be read
RECV_BYTES = 4096  # what comes at once, as the connection reads it

# A machine that is busy is no failure.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def no_command() -> None:
    raise AssertionError("reading a request does not run it")


TABLE = {
    b"set": Command(lines.parse_storing, no_command),
    b"get": Command(lines.parse_reading, no_command),
    b"gets": Command(lines.parse_reading, no_command),
    b"delete": Command(lines.parse_naming, no_command),
    b"flush": Command(lines.parse_naming, no_command),
    b"flush_all": Command(lines.parse_flush_all, no_command),
    b"stats": Command(lines.parse_bare, no_command),
    b"version": Command(lines.parse_bare, no_command),
    b"quit": Command(lines.parse_bare, no_command),
    b"incr": Command(lines.parse_of_memcached, no_command, only_refused=True),
    b"add": Command(lines.parse_storing_of_memcached, no_command, only_refused=True),
    b"cas": Command(lines.parse_storing_of_memcached, no_command, only_refused=True),
    b"ms": Command(lines.parse_storing_of_memcached, no_command, only_refused=True),
}


def new_reader(kept_lines: dict[bytes, LineRequest] | None = None) -> RequestReader:
    return RequestReader(TABLE, {} if kept_lines is None else kept_lines, MAX_LINE, CHUNK)


class Understood(NamedTuple):
    """All that a client said, as the server understands it."""

    requests: list[tuple[LineRequest, bytes | None]]
    error: RequestError | None

    @property
    def meaning(self) -> tuple[list[tuple[LineRequest, bytes | None]], bytes | None]:
        """To be compared: errors have no equality."""
        return self.requests, None if self.error is None else self.error.reply


class Wire:
    """The bytes of a client, as they come: never more at a time than one piece."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = [piece[i : i + RECV_BYTES] for piece in pieces for i in range(0, len(piece), RECV_BYTES)]
        self._pieces.reverse()

    def receive(self, most_bytes: int = RECV_BYTES) -> bytes:
        """b"" at the end."""
        if not self._pieces:
            return b""
        piece = self._pieces.pop()
        if len(piece) > most_bytes:
            self._pieces.append(piece[most_bytes:])
        return piece[:most_bytes]


def listen(pieces: Iterable[bytes], reader: RequestReader | None = None) -> Understood:
    """Read as a connection does: up to the first error, large bodies in pieces of their own."""
    wire = Wire(pieces)
    reader = reader or new_reader()
    requests: list[tuple[LineRequest, bytes | None]] = []
    while reader.error is None and (data := wire.receive()):
        requests += feed(reader, data)
        while reader.error is None and (request := reader.large) is not None:
            body = b""
            while missing := request.body_bytes + 2 - len(body):
                taken = reader.take_body(missing) or wire.receive(missing)
                if not taken:
                    return Understood(requests, None)
                body += taken
            if not body.endswith(b"\r\n"):
                return Understood(requests, protocol.bad_terminator(request))
            reader.end_body()
            requests.append((request, body[:-2]))
            requests += feed(reader, b"")
    return Understood(requests, reader.error)


def single_bytes(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def understood(data: bytes) -> Understood:
    return listen([data])


def lines_of(said: Iterable[bytes]) -> dict[bytes, LineRequest]:
    """What readers keep of all this, for others to hear it a second time."""
    kept_lines: dict[bytes, LineRequest] = {}
    for words_of_one in said:
        listen([words_of_one], new_reader(kept_lines))
    return kept_lines


def request_of(line: bytes) -> LineRequest:
    """The one request that this line is."""
    requests, error = understood(line + b"\r\n")
    assert error is None, error
    ((request, body),) = requests
    assert body is None
    return request


def error_of(data: bytes) -> RequestError:
    """What is wrong with this, which is all there is to it."""
    requests, error = understood(data)
    assert requests == []
    assert error is not None
    return error


# -- what each form of request means

BARE = {"key": b"", "queue": b"", "noreply": False, "body_bytes": -1}
SET = {"verb": b"set", "queue": b"q", "flags": 0, "expiry": 0, "sync": False, "noreply": False}
GET = {"verb": b"get", "queue": b"q", "wait_ms": 0, "body_bytes": -1, "noreply": False}
GET |= {"opens": False, "closes": False, "aborts": False, "peeks": False}

FORMS: list[tuple[bytes, dict[str, Any], bytes | None]] = [
    (b"set q 0 0 5\r\nhello\r\n", SET | {"key": b"q", "body_bytes": 5}, b"hello"),
    (b"set q 0 0 0\r\n\r\n", SET | {"body_bytes": 0}, b""),
    (b"set q 0 0 8\r\na\r\nget b\r\n", SET, b"a\r\nget b"),
    (b"set q 0 0 4\r\n\r\n\r\n\r\n", SET, b"\r\n\r\n"),
    (b"set q 0 0 3\r\n\x00\xff\n\r\n", SET, b"\x00\xff\n"),
    (b"set q 7 0 1\r\nx\r\n", SET | {"flags": 7}, b"x"),
    (b"set q 4294967295 0 1\r\nx\r\n", SET | {"flags": 2**32 - 1}, b"x"),
    (b"set q 0 60 1\r\nx\r\n", SET | {"expiry": 60}, b"x"),
    (b"set q 0 -1 1\r\nx\r\n", SET | {"expiry": -1}, b"x"),
    (b"set q 0 0 1 noreply\r\nx\r\n", SET | {"noreply": True}, b"x"),
    (b"set q/sync 0 0 1\r\nx\r\n", SET | {"sync": True, "key": b"q/sync"}, b"x"),
    (b"set q/SYNC 1 2 1 NoReply\r\nx\r\n", SET | {"flags": 1, "expiry": 2, "sync": True, "noreply": True}, b"x"),
    (b"SET q 0 0 1 \r\nx\r\n", SET, b"x"),
    (b"get q\r\n", GET | {"key": b"q", "plain": True}, None),
    (b"get q\n", GET | {"plain": True}, None),
    (b"GeT q  \r\n", GET | {"plain": True}, None),
    (b"gets q\r\n", GET | {"verb": b"gets", "plain": False}, None),
    (b"get q/open\r\n", GET | {"key": b"q/open", "opens": True, "plain": False}, None),
    (b"get q/close\r\n", GET | {"closes": True}, None),
    (b"get q/abort\r\n", GET | {"aborts": True}, None),
    (b"get q/peek\r\n", GET | {"peeks": True}, None),
    (b"get q/CLOSE/Open\r\n", GET | {"opens": True, "closes": True}, None),
    (b"get q/open/close\r\n", GET | {"opens": True, "closes": True}, None),
    (b"get q/t=0\r\n", GET | {"plain": False}, None),
    (b"get q/T=250/open\r\n", GET | {"opens": True, "wait_ms": 250}, None),
    (b"get q/peek/t=2147483647\r\n", GET | {"peeks": True, "wait_ms": 2**31 - 1}, None),
    (b"get q/close/open/t=1\r\n", GET | {"opens": True, "closes": True, "wait_ms": 1}, None),
    (b"delete q\r\n", {"verb": b"delete", "queue": b"q", "key": b"q", "noreply": False}, None),
    (b"delete q 0\r\n", {"verb": b"delete", "queue": b"q", "noreply": False}, None),
    (b"delete q noreply\r\n", {"verb": b"delete", "queue": b"q", "noreply": True}, None),
    (b"DELETE q 5 NOREPLY \r\n", {"verb": b"delete", "queue": b"q", "noreply": True}, None),
    (b"flush q\r\n", {"verb": b"flush", "queue": b"q", "noreply": False}, None),
    (b"flush q noreply\n", {"verb": b"flush", "queue": b"q", "noreply": True}, None),
    (b"flush_all\r\n", BARE | {"verb": b"flush_all"}, None),
    (b"flush_all 0\r\n", BARE | {"verb": b"flush_all"}, None),
    (b"flush_all noreply\r\n", BARE | {"verb": b"flush_all", "noreply": True}, None),
    (b"flush_all 0 noreply\r\n", BARE | {"verb": b"flush_all", "noreply": True}, None),
    (b"stats\r\n", BARE | {"verb": b"stats"}, None),
    (b"Version\r\n", BARE | {"verb": b"version"}, None),
    (b"quit \n", BARE | {"verb": b"quit"}, None),
]


@pytest.mark.parametrize(("said", "fields", "body"), FORMS)
def test_a_request_means_the_same_however_it_comes(said: bytes, fields: dict[str, Any], body: bytes | None) -> None:
    for pieces in ([said], single_bytes(said), [said[:-1], said[-1:]], [said[:1], said[1:]]):
        ((request, got),), error = listen(pieces)
        assert error is None
        assert {name: getattr(request, name) for name in fields} == fields
        assert got == body


@pytest.mark.parametrize("behind", [b"get other\r\n", b"set other 0 0 3\r\nabc\r\n", b"\r\n", b"nonsense"])
@pytest.mark.parametrize("said", [said for said, _, _ in FORMS])
def test_what_stands_behind_a_request_changes_neither(said: bytes, behind: bytes) -> None:
    first, second = understood(said), understood(behind)
    expected = Understood(first.requests + second.requests, second.error).meaning
    for kept_lines in ({}, lines_of([said, behind])):
        for pieces in ([said + behind], [said, behind], single_bytes(said + behind)):
            assert listen(pieces, new_reader(kept_lines)).meaning == expected


def test_half_a_request_is_none() -> None:
    for kept_lines in ({}, lines_of(said for said, _, _ in FORMS)):
        for said, _, _ in FORMS:
            for end in range(len(said)):
                assert listen([said[:end]], new_reader(kept_lines)).meaning == ([], None)


def test_nothing_said_is_nothing_heard() -> None:
    reader = new_reader()
    assert list(feed(reader, b"")) == []
    assert list(feed(reader, b"get q\r")) == []
    assert list(feed(reader, b"")) == []
    assert len(feed(reader, b"\n")) == 1
    assert reader.error is None


# -- names


@pytest.mark.parametrize(
    "name", [b"q", b"n" * 250, b"..", b"a+b", b"a.b#c", "grüße".encode(), bytes(range(0x80, 0x100)), b"set"]
)
def test_a_name_is_1_to_250_bytes_of_nearly_anything(name: bytes) -> None:
    assert request_of(b"get %b" % name).queue == name
    assert request_of(b"get %b/open" % name).queue == name
    assert request_of(b"delete %b" % name).queue == name
    ((request, body),), error = understood(b"set %b 0 0 1\r\nx\r\n" % name)
    assert (request.queue, body, error) == (name, b"x", None)


@pytest.mark.parametrize(
    "line", [b"get %b", b"get %b/open", b"set %b 0 0 1", b"set %b/sync 0 0 1", b"delete %b", b"flush %b"]
)
def test_a_name_of_251_bytes_is_refused_as_too_long(line: bytes) -> None:
    error = error_of(line % (b"n" * 251) + b"\r\n")
    assert isinstance(error, ClientError)
    assert "251 bytes: at most 250" in str(error)


def test_a_queue_may_be_called_as_words_of_the_protocol_are() -> None:
    for name in (b"noreply", b"0", b"get", b"END"):
        assert request_of(b"get %b" % name).queue == name
        for line in (b"delete %b", b"flush %b", b"delete %b 0"):
            request = request_of(line % name)
            assert (request.queue, request.noreply) == (name, False)
        request = request_of(b"delete %b noreply" % name)
        assert (request.queue, request.noreply) == (name, True)


def test_no_name_holds_a_control_character_a_space_or_a_slash() -> None:
    for code in [*range(0x21), 0x7F]:
        if code != 0x0A:
            if code != 0x20:  # which is between two queues
                assert isinstance(error_of(b"get a%cb\r\n" % code), MalformedRequest), code
            assert isinstance(error_of(b"delete a%cb\r\n" % code), MalformedRequest), code
    assert isinstance(error_of(b"delete a/b\r\n"), MalformedRequest)


# -- what is wrong, and how it is said

ERRORS = [
    (b"\r\n", "empty line"),
    (b"\n", "empty line"),
    (b"   \r\n", "empty line"),
    (b"frobnicate\r\n", 'unknown command "frobnicate": help lists the commands'),
    (b"delte q\r\n", 'unknown command "delte": did you mean "delete"?'),
    (b"adds q 0 0 1\r\n", 'unknown command "adds": help lists the commands'),
    (b"GET / HTTP/1.1\r\n", "this is an HTTP request"),
    (b"POST /shutdown HTTP/1.0\r\n", "this is an HTTP request"),
    (b"PRI * HTTP/2.0\r\n", "this is an HTTP request"),
    (b"\x16\x03\x01\r\n", "the beginning of a TLS handshake"),
    (b"\x80\x0b\0\0\r\n", "memcache's binary protocol: set the client to the text protocol"),
    (b"\0\0\0\r\n", r'a request begins with a command, not with "\x00"'),
    (b"{}\r\n", 'a request begins with a command, not with "{"'),
    (b"\xc3\xa9" + b"x" * MAX_LINE, r'a request begins with a command, not with "\xc3"'),
    (b"get\tq\r\n", "unknown command"),
    (b"add q 0 0 1\r\n", "there is no add in a queue server: set puts an item into a queue"),
    (b"cas q 0 0 1 5 noreply\r\n", "there is no cas in a queue server"),
    (b"ms q 1\r\n", "there is no ms in a queue server"),
    (b"get\r\n", "a get is: get <queue>"),
    (b"get \r\n", "a get is: get <queue>"),
    (b"get" + b" a" * 65 + b"\r\n", "1 to 64 queues"),
    (b"get /open\r\n", 'bad queue name ""'),
    (b"get q/\r\n", 'unknown option "/" for get'),
    (b"get q/opne\r\n", 'unknown option "/opne" for get: did you mean "/open"?'),
    (b"get q/frob\r\n", 'unknown option "/frob" for get: /open, /close, /abort, /reject, /peek, /t=<ms>, '),
    (b"get q//open\r\n", 'unknown option "/" for get'),
    (b"get q/sync\r\n", 'unknown option "/sync" for get'),
    (b"get q/open=1\r\n", 'unknown option "/open=1" for get'),
    (b"get q/t=\r\n", 'bad timeout "": a number from 0 to 2147483647'),
    (b"get q/t=1s\r\n", 'bad timeout "1s"'),
    (b"get q/t=-1\r\n", 'bad timeout "-1"'),
    (b"get q/t=2147483648\r\n", 'bad timeout "2147483648": a number from 0 to 2147483647'),
    (b"set\r\n", "a set is: set <queue>[/sync] <flags> <expiry> <bytes> [noreply]"),
    (b"set q 0 0\r\n", "a set is: set <queue>"),
    (b"set q 0 0 1 0\r\n", "a set is: set <queue>"),
    (b"set q 0 0 1 noreply noreply\r\n", "a set is: set <queue>"),
    (b"set  0 0 1\r\n", "a set is: set <queue>"),
    (
        b"set q/open 0 0 1\r\n",
        'unknown option "/open" for set: /sync, /delay=<ms>, /pri=<n>, /ttr=<ms> and /key=<text>',
    ),
    (b"set q x 0 1\r\n", 'bad flags "x": a number from 0 to 4294967295'),
    (b"set q -1 0 1\r\n", 'bad flags "-1"'),
    (b"set q 4294967296 0 1\r\n", 'bad flags "4294967296": a number from 0 to 4294967295'),
    (b"set q 0 soon 1\r\n", 'bad expiry "soon"'),
    (b"set q 0 - 1\r\n", 'bad expiry "-"'),
    (b"set q 0 --1 1\r\n", 'bad expiry "--1"'),
    (b"set q 0 9223372036854775808 1\r\n", 'bad expiry "9223372036854775808"'),
    (b"set q 0 -9223372036854775809 1\r\n", 'bad expiry "-9223372036854775809"'),
    (b"set q 0 0 -1\r\n", 'bad size "-1"'),
    (b"set q 0 0 +1\r\n", 'bad size "+1"'),
    (b"set q 0 0 1_0\r\n", 'bad size "1_0"'),
    (b"set q 0 0 1.0\r\n", 'bad size "1.0"'),
    (b"set q 0 0 noreply\r\n", 'bad size "noreply"'),
    (b"set q 0 0 9223372036854775808\r\n", 'bad size "9223372036854775808"'),
    (b"set q 0 0 " + b"9" * 500 + b"\r\n", "bad size"),
    ("set q 0 0 ٣\r\n".encode(), "bad size"),
    (b"delete\r\n", "a queue name is missing"),
    (b"delete a b\r\n", "too many words"),
    (b"delete a 0 0\r\n", "too many words"),
    (b"delete a/open\r\n", 'bad queue name "a/open"'),
    (b"flush\r\n", "a queue name is missing"),
    (b"flush_all soon\r\n", 'bad delay "soon": a number from 0 to 2147483647'),
    (b"flush_all now please\r\n", '"now" is not expected here'),
    (b"version 2\r\n", '"2" is not expected here'),
    (b"quit now please\r\n", '"now" is not expected here'),
]

CLIENT_ERRORS = [
    (b"get q/abort/open\r\n", "cannot abort and open in one get"),
    (b"get q/open/abort\r\n", "cannot abort and open in one get"),
    (b"get q/close/abort\r\n", "cannot abort and close in one get"),
    (b"get q/peek/OPEN\r\n", "cannot peek and open in one get"),
    (b"set q 0 0 3\r\nabcdef\r\n", "bad data chunk: the 3 bytes of the item must be followed by CR LF"),
    (b"set q 0 0 3\r\nabc\n\n", "bad data chunk"),
    (b"set q 0 0 3\r\nab\r\n\r", "bad data chunk"),
    (b"set q 0 0 0\r\nx\r\n", "bad data chunk"),
    (b"g" * (MAX_LINE + 1), f"line too long: at most {MAX_LINE} bytes"),
    (b"g" * (MAX_LINE + 1) + b"\n", f"line too long: at most {MAX_LINE} bytes"),
    (b"get q" + b" " * MAX_LINE + b"\r\n", f"line too long: at most {MAX_LINE} bytes"),
]


@pytest.mark.parametrize(
    ("said", "kind", "prefix", "what"),
    [(said, MalformedRequest, b"ERROR ", what) for said, what in ERRORS]
    + [(said, ClientError, b"CLIENT_ERROR ", what) for said, what in CLIENT_ERRORS],
    ids=lambda value: ascii(value)[:30],
)
def test_what_is_wrong_is_answered_in_one_line_and_ends_the_connection(
    said: bytes, kind: type[RequestError], prefix: bytes, what: str
) -> None:
    for pieces in (
        [said],
        single_bytes(said),
        [b"get good\r\n" + said],
        [b"set good 0 0 1\r\nx\r\n", said + b"get q\r\n"],
    ):
        requests, error = listen(pieces)
        assert [request.queue for request, _ in requests] in ([], [b"good"])
        assert type(error) is kind
        assert error is not None
        assert what in str(error)
        assert error.hangs_up
        assert error.reply.startswith(prefix)
        assert error.reply.endswith(b"\r\n")
        assert error.reply[:-2].isascii()
        assert error.reply[:-2].decode().isprintable()
        assert len(error.reply) < 300


def test_what_is_wrong_is_wrong_the_second_time_too() -> None:
    kept_lines: dict[bytes, LineRequest] = {}
    for said, _ in [*ERRORS, *CLIENT_ERRORS]:
        replies = []
        for _ in range(2):
            _, error = listen([said], new_reader(kept_lines))
            assert error is not None
            replies.append(error.reply)
        assert replies[0] == replies[1]


def test_a_word_is_shown_as_far_as_it_helps() -> None:
    assert excerpt(b"frob") == "frob"
    assert excerpt(b"a\r\n\x00\x1bb") == r"a\r\n\x00\x1bb"
    assert excerpt(b"x" * 60) == "x" * 60
    assert excerpt(b"x" * 61) == "x" * 60 + "..."
    assert excerpt("é".encode()) == r"\xc3\xa9"


@pytest.mark.parametrize("first", [code for code in range(256) if not chr(code).isascii() or not chr(code).isalpha()])
def test_a_byte_that_begins_no_request_is_refused_before_anything_follows(first: int) -> None:
    reader = new_reader()
    feed(reader, b"version\r\n" + bytes([first]))
    assert (reader.error is None) == (bytes([first]) in b" \t\r?"), bytes([first])  # a LF alone is an empty line


# -- lines


def test_a_line_may_be_as_long_as_the_limit_says_and_no_longer() -> None:
    for end in (b"\n", b"\r\n"):
        longest = b"get q".ljust(MAX_LINE + 1 - len(end)) + end
        assert len(longest) == MAX_LINE + 1  # the LF is not counted
        for said in (longest, longest * 3, b"version\r\n" + longest):
            for pieces in ([said], single_bytes(said), [said[:-1], b"\n"]):
                requests, error = listen(pieces)
                assert error is None
                assert requests[-1][0].queue == b"q"
        assert "line too long" in str(error_of(b" " + longest))


def test_an_endless_line_is_refused_before_it_ends() -> None:
    reader = new_reader()
    fed = 0
    while reader.error is None:
        assert fed <= MAX_LINE
        assert feed(reader, b"x") == []
        fed += 1
    assert fed == MAX_LINE + 1


def test_a_number_of_thousands_of_digits_is_no_more_than_a_bad_number() -> None:
    """Python refuses to read such a number, with an error of its own."""
    for line in (b"get q/t=%b\r\n", b"set q 0 0 %b\r\n", b"set q 0 -%b 0\r\n", b"flush_all %b\r\n"):
        reader = RequestReader(TABLE, {}, 8192, CHUNK)
        assert list(feed(reader, line % (b"7" * 5000))) == []
        assert isinstance(reader.error, MalformedRequest)
        assert len(reader.error.reply) < 200


def test_a_carriage_return_belongs_to_the_end_of_a_line_only() -> None:
    assert request_of(b"get q").queue == b"q"
    ((request, _),), _ = understood(b"get q\n")
    assert request.queue == b"q"
    assert isinstance(error_of(b"get q\r\r\n"), MalformedRequest)
    assert isinstance(error_of(b"get\rq\n"), MalformedRequest)


# -- bodies, and the hand-over of those that are larger than a chunk


@pytest.mark.parametrize("size", [0, 1, 2, CHUNK - 1, CHUNK, CHUNK + 1, CHUNK + 2, 3 * CHUNK, 5000])
def test_an_item_of_any_size_comes_through_whole(size: int) -> None:
    body = bytes(i * 7 % 256 for i in range(size))
    said = b"set q 3 0 %d\r\n%b\r\n" % (size, body)
    for pieces in ([said], single_bytes(said), [said[:-2], b"\r\n"], [said[:-1], b"\n"], [said[:20], said[20:]]):
        ((request, got),), error = listen(pieces)
        assert (request.flags, request.body_bytes, got, error) == (3, size, body, None)


@pytest.mark.parametrize(
    "behind",
    [b"get q\r\n", b"version\r\nget q\r\n", b"set q 0 0 1\r\nx\r\n", b"set q 0 0 1100\r\n" + b"b" * 1100 + b"\r\n"],
)
def test_what_comes_along_with_the_end_of_a_large_item_is_heard_at_once(behind: bytes) -> None:
    said = b"set q 0 0 1500\r\n" + b"x" * 1500 + b"\r\n"
    expected = understood(said).requests + understood(behind).requests
    assert len(expected) > 1
    assert understood(said + behind).meaning == (expected, None)


def test_a_large_item_is_handed_over_at_its_first_byte() -> None:
    reader = new_reader()
    requests = feed(reader, b"get before\r\nset q 5 0 3000\r\nabc")
    assert [request.queue for request, _ in requests] == [b"before"]
    assert reader.large is not None
    assert (reader.large.queue, reader.large.flags, reader.large.body_bytes) == (b"q", 5, 3000)
    assert reader.take_body(2) == b"ab"
    assert reader.take_body(2000) == b"c"
    assert reader.take_body(2000) == b""  # the caller takes the rest from the socket
    reader.end_body()
    assert reader.large is None
    assert list(feed(reader, b"")) == []
    assert [request.queue for request, _ in feed(reader, b"get behind\r\n")] == [b"behind"]
    assert reader.error is None


def test_an_item_of_one_chunk_is_not_handed_over() -> None:
    reader = new_reader()
    assert feed(reader, b"set q 0 0 %d\r\n" % CHUNK + b"x") == []
    assert reader.large is None
    assert reader.take_body(10) == b""
    ((_, body),) = feed(reader, b"x" * (CHUNK - 1) + b"\r\n")
    assert body == b"x" * CHUNK


def test_an_item_that_is_announced_and_does_not_come_is_no_request() -> None:
    reader = new_reader()
    assert feed(reader, b"set q 0 0 9223372036854775807\r\n") == []
    assert reader.error is None
    assert reader.large is not None
    assert reader.large.body_bytes == 2**63 - 1


def test_a_large_item_without_its_end_is_an_error() -> None:
    said = b"set q 0 0 2000\r\n" + b"x" * 2000 + b"yz"
    for pieces in ([said], single_bytes(said), [said + b"get q\r\n"]):
        requests, error = listen(pieces)
        assert requests == []
        assert isinstance(error, ClientError)
        assert "bad data chunk: the 2000 bytes" in str(error)


# -- however the network cuts it

names = st.sampled_from([b"q", b"queue", b"n" * 250, b"n" * 251, b"", b"a.b", b"\xc3\xa9", b"a\x00"])
words = st.sampled_from(
    [b"0", b"1", b"-1", b"4294967295", b"4294967296", b"noreply", b"", b"x", b"9" * 19, b"9" * 30, b"1_0"]
)
line_ends = st.sampled_from([b"\r\n", b"\n", b" \r\n", b"  \n"])
verbs = st.sampled_from([*TABLE, b"GET", b"Set", b"frob", b""])
options = st.lists(
    st.sampled_from([b"open", b"close", b"abort", b"peek", b"t=5", b"T=0", b"t=x", b"sync", b""]), max_size=2
)


@st.composite
def stored(draw: st.DrawFn) -> bytes:
    """A good set, with a small or a large body."""
    body = draw(
        st.one_of(st.binary(max_size=40), st.integers(0, 3 * CHUNK).map(lambda size: (b"get q\r\n" * size)[:size]))
    )
    end = draw(line_ends)
    noreply = draw(st.sampled_from([b"", b" noreply"]))
    return b"set %b %d 0 %d%b%b%b\r\n" % (
        draw(st.sampled_from([b"q", b"r/sync"])),
        len(body) % 3,
        len(body),
        noreply,
        end,
        body,
    )


good = st.one_of(
    stored(),
    st.tuples(
        st.sampled_from([b"get q", b"gets q/peek", b"GET q/t=9/open", b"delete q", b"flush_all", b"stats", b"quit"]),
        line_ends,
    ).map(b"".join),
)


@st.composite
def anything(draw: st.DrawFn) -> bytes:
    """A line of words in no particular order, right or wrong."""
    key = b"/".join([draw(names), *draw(options)])
    return b" ".join([draw(verbs), key, *draw(st.lists(words, max_size=5))]) + draw(line_ends)


talk = st.tuples(st.lists(good, max_size=8), st.one_of(st.just(b""), anything(), st.binary(max_size=50))).map(
    lambda said: b"".join(said[0]) + said[1]
)


def cut(data: bytes, places: Iterable[int]) -> Iterator[bytes]:
    start = 0
    for place in sorted(place % (len(data) + 1) for place in places):
        yield data[start:place]
        start = place
    yield data[start:]


@unhurried
@given(talk, st.lists(st.integers(0, 1 << 30), max_size=12))
@example(b"set q 0 0 1\r\nx\r\nget q\r\n", [13, 14, 15])
def test_any_cut_of_the_same_bytes_gives_the_same_requests(said: bytes, places: list[int]) -> None:
    # An empty piece would be the end of the stream.
    pieces = [piece for piece in cut(said, places) if piece]
    assert b"".join(pieces) == said
    whole = understood(said)
    kept_lines: dict[bytes, LineRequest] = {}
    for _ in range(2):
        assert listen(pieces, new_reader(kept_lines)).meaning == whole.meaning
        assert listen(single_bytes(said), new_reader(kept_lines)).meaning == whole.meaning
    assert listen([said], new_reader(kept_lines)).meaning == whole.meaning


@unhurried
@given(st.lists(good, max_size=10), st.lists(st.integers(0, 1 << 30), max_size=12))
def test_every_good_request_is_heard_in_order(said: list[bytes], places: list[int]) -> None:
    alone = [understood(request).requests for request in said]
    assert all(len(requests) == 1 for requests in alone)
    requests, error = listen(piece for piece in cut(b"".join(said), places) if piece)
    assert error is None
    assert requests == [request for requests in alone for request in requests]


@unhurried
@given(st.one_of(st.binary(max_size=2000), st.lists(st.one_of(anything(), st.binary(max_size=30))).map(b"".join)))
def test_garbage_is_answered_and_never_worse(said: bytes) -> None:
    requests, error = understood(said)
    for request, body in requests:
        assert (-1 if body is None else len(body)) == request.body_bytes
    if error is not None:
        assert isinstance(error, (MalformedRequest, ClientError))
        assert error.hangs_up
        assert error.reply.startswith((b"ERROR ", b"CLIENT_ERROR "))
        assert error.reply.endswith(b"\r\n")
        assert error.reply[:-2].decode("ascii").isprintable()


# -- what the reader holds


def held_bytes(reader: RequestReader) -> int:
    """All bytes that the reader refers to, its lists looked into; what all readers share left out."""
    held = 0
    for thing in gc.get_referents(reader):
        if isinstance(thing, list):
            held += sum(map(len, thing))
        elif isinstance(thing, bytes):
            held += len(thing)
    return held


@unhurried
@given(st.lists(st.one_of(st.binary(min_size=1, max_size=400), anything(), good), max_size=30))
def test_what_the_reader_holds_is_bounded_whatever_comes(pieces: list[bytes]) -> None:
    reader = new_reader()
    for piece in pieces:
        feed(reader, piece)
        if reader.error is not None:
            return
        if reader.large is not None:
            assert held_bytes(reader) <= len(piece)
            return
        assert held_bytes(reader) <= max(MAX_LINE, CHUNK + 2)


def test_a_body_that_trickles_in_is_held_once() -> None:
    reader = new_reader()
    feed(reader, b"get q\r\n" * 100 + b"set q 0 0 %d\r\n" % CHUNK)
    assert held_bytes(reader) == 0
    for fed in range(1, CHUNK + 2):
        assert feed(reader, b"\r") == []
        assert held_bytes(reader) == fed
    ((_, body),) = feed(reader, b"\n")
    assert body == b"\r" * CHUNK
    assert held_bytes(reader) == 0


# -- lines that are kept


def test_a_line_that_was_seen_before_means_the_same() -> None:
    kept_lines = lines_of(said for said, _, _ in FORMS)
    assert kept_lines
    for said, _, _ in FORMS:
        for pieces in ([said], single_bytes(said), [said[:-1], said[-1:]], [said[:1], said[1:]]):
            assert listen(pieces, new_reader(kept_lines)).meaning == understood(said).meaning


@pytest.mark.parametrize("known", [b"get q\r\n", b"set q 0 0 3\r\nabc\r\n", b"version\n"])
def test_what_looks_like_a_known_request_and_is_part_of_another_is_no_request(known: bytes) -> None:
    kept_lines = lines_of([known])
    body = known * 3
    for size in (len(body), len(body) - 1):
        # The body comes piece by piece, each of them a whole request by itself.
        said = [b"set q 0 0 %d\r\n" % size, known, known, body[2 * len(known) : size], b"\r\n"]
        ((_, got),), error = listen(said, new_reader(kept_lines))
        assert (got, error) == (body[:size], None)
    for beginning in (b"delete ", b"get ", b"x"):
        expected = understood(beginning + known).meaning
        assert listen([beginning, known], new_reader(kept_lines)).meaning == expected


@unhurried
@given(st.lists(talk, max_size=6))
def test_readers_that_share_their_lines_hear_what_each_would_alone(said: list[bytes]) -> None:
    kept_lines: dict[bytes, LineRequest] = {}
    for words_of_one in said:
        assert listen([words_of_one], new_reader(kept_lines)).meaning == understood(words_of_one).meaning


def test_kept_lines_are_bounded_in_number_and_in_length() -> None:
    kept_lines: dict[bytes, LineRequest] = {}
    reader = new_reader(kept_lines)
    most = 0
    for number in range(3 * protocol.MAX_KEPT_LINES):
        ((request, _),) = feed(reader, b"get queue%d/t=%d\r\n" % (number, number))
        assert (request.queue, request.wait_ms) == (b"queue%d" % number, number)
        most = max(most, len(kept_lines))
    assert 0 < most <= protocol.MAX_KEPT_LINES
    for length in (protocol.MAX_KEPT_LINE_BYTES, protocol.MAX_KEPT_LINE_BYTES + 1, MAX_LINE):
        ((request, _),) = feed(reader, b"get long".ljust(length) + b"\n")
        assert request.queue == b"long"
    assert max(map(len, kept_lines)) == protocol.MAX_KEPT_LINE_BYTES


def test_a_longest_name_with_options_is_kept() -> None:
    kept_lines: dict[bytes, LineRequest] = {}
    feed(new_reader(kept_lines), b"get %b/close/open/t=60000\r\n" % (b"n" * 250))
    assert len(kept_lines) == 1
