"""What goes wrong on purpose: who is told, in which words, and whether the connection goes on."""

import re

import pytest

from darner_core import errors
from darner_core.errors import (
    ClientError,
    ConfigError,
    DarnerError,
    DataDirError,
    Incomplete,
    MalformedRequest,
    RequestError,
    ServerError,
    StartError,
    StorageError,
    Unsupported,
)


@pytest.mark.parametrize(
    ("error", "reply", "hangs_up"),
    [
        (MalformedRequest("what?"), b"ERROR what?\r\n", True),
        (ClientError("not now"), b"CLIENT_ERROR not now\r\n", True),
        (Incomplete("the rest did not come"), b"CLIENT_ERROR the rest did not come\r\n", True),
        (Unsupported("no such thing"), b"CLIENT_ERROR no such thing\r\n", False),
        (ServerError("out of disk space"), b"SERVER_ERROR out of disk space\r\n", False),
    ],
)
def test_an_error_of_a_request_is_its_reply(error: RequestError, reply: bytes, hangs_up: bool) -> None:
    assert error.reply == reply
    assert error.hangs_up == hangs_up


def test_a_message_of_any_letters_can_be_sent() -> None:
    assert ClientError("queue grüße").reply == "CLIENT_ERROR queue grüße\r\n".encode()
    assert ClientError("queue \udcff").reply == b"CLIENT_ERROR queue \\udcff\r\n"


def test_what_keeps_the_server_from_starting_is_one_kind() -> None:
    assert issubclass(ConfigError, StartError)
    assert issubclass(DataDirError, StartError)
    assert not issubclass(StorageError, (StartError, RequestError))
    assert str(ConfigError("port = 'x'")) == "port = 'x'"


def test_the_picture_shows_the_tree() -> None:
    """Each class stands in the picture, under the one it derives from."""
    picture = re.findall(r"^ {4}(?:([|+ -]*)\+-- )?(\w+)", errors.__doc__ or "", re.MULTILINE)
    above: list[str] = []
    drawn = {}
    for lead, name in picture:
        depth = 0 if name == "DarnerError" else len(lead) // 4 + 1
        above[depth:] = [name]
        drawn[name] = above[depth - 1] if depth else "Exception"
    classes = {thing for thing in vars(errors).values() if isinstance(thing, type) and issubclass(thing, DarnerError)}
    assert drawn == {thing.__name__: thing.__base__.__name__ for thing in classes if thing.__base__}
