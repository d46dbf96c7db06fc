"""Public numbers and the identity, as a restart reads them."""

from collections.abc import Callable

import pytest

from darner_core.errors import StorageError
from darner_core.storage.number_records import Block
from darner_core.storage.rocks import DEFAULT_FAMILY
from darner_core.storage.storage import Storage

BLOCKS = [Block(1, 7, 5, 1), Block(2, 8, 2**51, 2), Block(2**40, 7, 6, 1024)]


def test_what_was_written_is_there_after_a_restart(open_storage: Callable[[], Storage]) -> None:
    storage = open_storage()
    assert storage.numbers.read() == (0, [])
    assert storage.numbers.identity() is None
    batch = storage.batch()
    for block in reversed(BLOCKS):
        storage.numbers.put_block(batch, block)
    storage.numbers.put_block(batch, Block(4, 1, 1, 1))
    storage.numbers.remove_block(batch, 4)
    storage.numbers.put_mark(batch, 2**50)
    storage.numbers.put_identity(batch, b"n" * 20, b"s" * 16)
    storage.write(batch)
    storage.close()
    storage = open_storage()
    assert storage.numbers.read() == (2**50, BLOCKS)
    assert storage.numbers.identity() == (b"n" * 20, b"s" * 16)


@pytest.mark.parametrize("key", [b"b" + bytes(8), b"b" + b"\1" * 8, b"bx"])
def test_nonsense_is_damage(open_storage: Callable[[], Storage], key: bytes) -> None:
    storage = open_storage()
    storage.put(DEFAULT_FAMILY, key, b"nonsense that is long")
    with pytest.raises(StorageError):
        storage.numbers.read()
