"""What a transaction may have."""

from typing import Any

import pytest

from darner_core.protocols.resp.reader import RespRequest
from darner_core.protocols.resp.replies import RespError
from darner_core.protocols.resp.transactions import MAX_QUEUED, MAX_QUEUED_BYTES, MAX_WORDS, QueuedMemory, Transaction


def queue(transaction: Transaction, *words: bytes) -> None:
    request: Any = RespRequest(print, words[0], words=words)
    transaction.queue(print, request, words)


def test_so_many_commands() -> None:
    transaction = Transaction(QueuedMemory())
    for _ in range(MAX_QUEUED):
        queue(transaction, b"ping")
    assert not transaction.spoiled
    with pytest.raises(RespError, match="too many commands"):
        queue(transaction, b"ping")
    assert transaction.spoiled


def test_so_many_values_also_those_that_are_asked_for() -> None:
    transaction = Transaction(QueuedMemory())
    for _ in range(MAX_WORDS // 1003):
        queue(transaction, b"lpop", b"k", b"99999999")
    with pytest.raises(RespError, match="too many values"):
        queue(transaction, b"lpush", b"k", *[b"a"] * 1000)


def test_so_many_bytes_of_all_clients_together() -> None:
    memory = QueuedMemory()
    first, second = Transaction(memory), Transaction(memory)
    queue(first, b"lpush", b"k", b"x" * (MAX_QUEUED_BYTES - 1000))
    with pytest.raises(RespError, match="too much memory"):
        queue(second, b"lpush", b"k", b"x" * 1000)
    first.end()
    first.end()
    assert memory.used_bytes == 0
