"""What stands on disk of items' public numbers, and of what the data directory is called: bytes. Pure struct, no I/O.

    column family   key                 value
    default         "b" first u64       block: number u32, first_id u64, size u32
    default         "b" 0 u64           mark: u64
    default         "n"                 identity: 20 bytes, 16 bytes

A block says that the public numbers [first, first + size) are those of the items [first_id, first_id + size) of the
queue with this number, whether they stand in its line or lie aside. Some of them may be gone, or not be put yet. From
the mark on, no number has been given to any item. The identity is random: a name, and a secret.
"""

from struct import Struct
from typing import NamedTuple

BLOCK_PREFIX = b"b"
IDENTITY_KEY = b"n"

NAME_BYTES, SECRET_BYTES = 20, 16

_key = Struct(">Q")
_block = Struct(">IQI")

MARK_KEY = BLOCK_PREFIX + _key.pack(0)


class Block(NamedTuple):
    first: int  # the lowest of its public numbers
    number: int  # of the queue
    first_id: int
    size: int


def block_key(first: int) -> bytes:
    return BLOCK_PREFIX + _key.pack(first)


def pack_block(block: Block) -> bytes:
    return _block.pack(*block[1:])


def unpack_block(key: bytes, value: bytes) -> Block:
    """Raises struct.error."""
    return Block(*_key.unpack(key[len(BLOCK_PREFIX) :]), *_block.unpack(value))


def pack_mark(mark: int) -> bytes:
    return _key.pack(mark)


def unpack_mark(value: bytes) -> int:
    """Raises struct.error."""
    mark: int = _key.unpack(value)[0]
    return mark


def unpack_identity(value: bytes) -> tuple[bytes, bytes]:
    """Raises ValueError."""
    if len(value) != NAME_BYTES + SECRET_BYTES:
        raise ValueError(f"an identity of {len(value)} bytes")
    return value[:NAME_BYTES], value[NAME_BYTES:]
