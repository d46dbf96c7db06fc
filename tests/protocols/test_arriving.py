"""A large item's body on its way: all of it is taken, whatever becomes of it."""

from typing import Any

import pytest

from darner_core.errors import ServerError
from darner_core.protocols.arriving import ArrivingBody

CHUNK = 10


class Sender:
    """A client whose body has come, and is handed over in pieces of up to `at_once` bytes."""

    def __init__(self, sent: bytes, at_once: int = 7) -> None:
        self.left = sent
        self._at_once = at_once
        self.fails = 0  # so many calls raise first

    def wait_body(self, most_bytes: int) -> bytes:
        if self.fails:  # nothing has been taken then
            self.fails -= 1
            raise ServerError("the turn has failed")
        most = min(most_bytes, self._at_once)
        taken, self.left = self.left[:most], self.left[most:]
        return taken


class Put:
    """An item that wants `size` bytes, chunk by chunk."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.body = b""
        self.stored = 0
        self.checked = False

    @property
    def wanted_bytes(self) -> int:
        return min(CHUNK, self.size - len(self.body))

    def wait_add(self, client: object, data: bytes) -> None:
        self.body += data

    def wait_store(self, client: object) -> None:
        self.stored = len(self.body)

    def require_queues(self) -> None:
        self.checked = True


def arriving(sender: Any, size: int) -> ArrivingBody:
    return ArrivingBody(size, sender, CHUNK)


@pytest.mark.parametrize("size", [1, CHUNK, 25, 100])
@pytest.mark.parametrize("at_once", [1, 7, 1000])
def test_all_of_it_is_stored_and_nothing_behind_it_is_taken(size: int, at_once: int) -> None:
    sender, put = Sender(b"x" * size + b"\r\nnext", at_once), Put(size)
    body: Any = arriving(sender, size)
    assert body.wait_store(put)
    assert put.body == b"x" * size
    assert put.stored == size
    assert put.checked
    assert sender.left == b"next"
    body.wait_skip()
    assert sender.left == b"next"


def test_a_body_that_does_not_end_as_it_should_is_taken_whole() -> None:
    sender, put = Sender(b"x" * 25 + b"yynext"), Put(25)
    body: Any = arriving(sender, 25)
    assert not body.wait_store(put)
    assert not put.checked
    assert sender.left == b"next"


def test_what_is_refused_is_skipped() -> None:
    sender = Sender(b"x" * 25 + b"\r\nnext")
    arriving(sender, 25).wait_skip()
    assert sender.left == b"next"


def test_a_turn_that_fails_meanwhile_leaves_nothing_to_be_read_as_a_command() -> None:
    sender = Sender(b"x" * 25 + b"\r\nnext")
    sender.fails = 2
    arriving(sender, 25).wait_skip()
    assert sender.left == b"next"


def test_the_rest_is_skipped_when_the_middle_is_refused() -> None:
    sender = Sender(b"x" * 25 + b"\r\nnext")

    class Full(Put):
        def wait_add(self, client: object, data: bytes) -> None:
            raise ServerError("the disk is full")

    body: Any = arriving(sender, 25)
    with pytest.raises(ServerError):
        body.wait_store(Full(25))
    body.wait_skip()
    assert sender.left == b"next"
