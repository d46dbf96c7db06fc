"""Replies, and errors as clients of RESP are told them."""

import pytest

from darner_core.errors import ClientError, Incomplete, MalformedRequest, RequestError, ServerError, Unavailable
from darner_core.protocols.resp import replies
from darner_core.protocols.resp.replies import NotAllowed, ProtocolError, RespError, error_reply


@pytest.mark.parametrize(
    ("error", "reply"),
    [
        (RespError("no"), b"-ERR no\r\n"),
        (RespError("full", "MAXLEN"), b"-MAXLEN full\r\n"),
        (ProtocolError("no"), b"-ERR Protocol error: no\r\n"),
        (NotAllowed("no"), b"-NOPERM no\r\n"),
        (ClientError("user a may not"), b"-NOPERM user a may not\r\n"),
        (Incomplete("the rest of the request did not come"), b"-ERR the rest of the request did not come\r\n"),
        (ClientError("unauthenticated"), b"-NOAUTH Authentication required.\r\n"),
        (Unavailable("too many"), b"-READONLY too many\r\n"),
        (MalformedRequest("this is HTTP"), b"-ERR this is HTTP\r\n"),
        (ServerError("too many queues"), b"-OOM too many queues\r\n"),
        (ServerError("too many connections"), b"-ERR max number of clients reached\r\n"),
        (ServerError("the disk"), b"-MISCONF the disk\r\n"),
        (ServerError("\udcff"), b"-MISCONF \\udcff\r\n"),
    ],
)
def test_errors_begin_with_a_word(error: RequestError, reply: bytes) -> None:
    assert error_reply(error) == reply


def test_only_behind_errors_of_the_protocol_the_connection_ends() -> None:
    assert ProtocolError("no").hangs_up
    assert not RespError("no").hangs_up


def test_values() -> None:
    assert replies.simple(b"OK") == replies.OK
    assert replies.bulks(()) == replies.EMPTY
    assert replies.array((replies.integer(-5), replies.bulk(b"a\r\n"))) == b"*2\r\n:-5\r\n$3\r\na\r\n\r\n"


def test_pairs_are_a_map_in_version_3() -> None:
    named = [(b"a", replies.integer(1))]
    assert replies.pairs(named, 3) == b"%1\r\n$1\r\na\r\n:1\r\n"
    assert replies.pairs(named, 2) == b"*2\r\n$1\r\na\r\n:1\r\n"
