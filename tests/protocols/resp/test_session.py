"""What a connection has beside its requests."""

from typing import Any

import pytest

from darner_core.errors import ClientError
from darner_core.protocols.resp.replies import NIL, NIL_3, NIL_ARRAY, NotAllowed
from darner_core.protocols.resp.session import RespSession
from darner_core.protocols.resp.transactions import QueuedMemory, Transaction


class _Turn:
    def __init__(self) -> None:
        self.undo: list[Any] = []


class _Queue:
    name = b"q"

    def __init__(self) -> None:
        self.open: set[object] = set()

    def holds(self, read: object) -> bool:
        return read in self.open


class _Read:
    def __init__(self, queue: _Queue, item_id: int) -> None:
        self.queue, self.id = queue, item_id
        queue.open.add(self)

    def count(self) -> None: ...


def refused(right: str, queue: bytes) -> None:
    raise ClientError("no")


def session(**options: Any) -> RespSession:
    turn: Any = _Turn()
    nothing: Any = None
    return RespSession(turn, nothing, refused, **options)


def test_nothing_is_said_in_the_words_of_the_version() -> None:
    one = session()
    assert (one.nil, one.nil_array) == (NIL, NIL_ARRAY)
    one.version = 3
    assert one.nil == one.nil_array == NIL_3


def test_a_right_that_is_missing_does_not_end_the_connection() -> None:
    with pytest.raises(NotAllowed, match=r"^no$"):
        session().require("get", b"q")


def test_bound_items_that_others_have_acknowledged_make_room() -> None:
    one, queue = session(), _Queue()
    reads: list[Any] = [_Read(queue, number) for number in range(3)]
    for read in reads:
        one.hold(read)
    assert one.bound_room(b"q", 5) == 2
    assert one.bound_room(b"q", 3) == 0
    assert one.bound(b"q", 1) is reads[1]
    queue.open.discard(reads[1])
    assert one.bound(b"q", 1) is None
    queue.open.discard(reads[0])
    assert one.bound_room(b"q", 2) == 1
    assert one.bound(b"", 2) is one.bound(b"q", 0) is None


def test_its_end_is_told_once_and_its_transaction_takes_no_memory() -> None:
    ended: list[RespSession] = []
    one, memory = session(ended=ended.append), QueuedMemory()
    one.transaction = Transaction(memory)
    request: Any = type("", (), {"verb": b"echo"})()
    one.transaction.queue(print, request, (b"echo", b"hello"))
    assert memory.used_bytes == 9
    one.end()
    one.end()
    assert (ended, memory.used_bytes) == ([one], 0)
