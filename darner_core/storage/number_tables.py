"""What a data directory keeps of the public numbers of items, and what it is called; the bytes are `number_records`'.

No call switches greenlets. Reading raises StorageError.
"""

import struct

from darner_core.errors import StorageError
from darner_core.storage import number_records
from darner_core.storage.number_records import BLOCK_PREFIX, IDENTITY_KEY, MARK_KEY, Block
from darner_core.storage.rocks import DEFAULT_FAMILY, Batch, Rocks


class NumberTables:
    def __init__(self, rocks: Rocks) -> None:
        self._rocks = rocks

    def read(self) -> tuple[int, list[Block]]:
        """(mark, all blocks in the order of their numbers). The mark is 0 if there is none."""
        mark, blocks = 0, []
        end = bytes((BLOCK_PREFIX[0] + 1,))
        try:
            for key, value in self._rocks.scan(DEFAULT_FAMILY, BLOCK_PREFIX, end):
                if key == MARK_KEY:
                    mark = number_records.unpack_mark(value)
                else:
                    blocks.append(number_records.unpack_block(key, value))
        except struct.error as error:
            raise StorageError(f"the list of public numbers: {error}") from error
        return mark, blocks

    def put_block(self, batch: Batch, block: Block) -> None:
        """Also in the place of another one that began with this number."""
        key, value = number_records.block_key(block.first), number_records.pack_block(block)
        batch.put(key, value, self._rocks.handles[DEFAULT_FAMILY])

    def remove_block(self, batch: Batch, first: int) -> None:
        batch.delete(number_records.block_key(first), self._rocks.handles[DEFAULT_FAMILY])

    def put_mark(self, batch: Batch, mark: int) -> None:
        batch.put(MARK_KEY, number_records.pack_mark(mark), self._rocks.handles[DEFAULT_FAMILY])

    def identity(self) -> tuple[bytes, bytes] | None:
        value = self._rocks.get(DEFAULT_FAMILY, IDENTITY_KEY)
        try:
            return number_records.unpack_identity(value) if value is not None else None
        except ValueError as error:
            raise StorageError(f"the directory's identity: {error}") from error

    def put_identity(self, batch: Batch, name: bytes, secret: bytes) -> None:
        batch.put(IDENTITY_KEY, name + secret, self._rocks.handles[DEFAULT_FAMILY])
