"""What a get that wants several items has opened so far, as much as one reply can hold.

No call here switches greenlets.
"""

from darner_core.engines.contract import Read, Source
from darner_core.errors import ServerError, StorageError
from darner_core.protocols.thrift.reader import MAX_ITEM_BYTES


class Taken:
    """`reads` are open. `full`: it takes no more."""

    def __init__(self, most_bytes: int, most_items: int) -> None:
        self.reads: list[Read] = []
        self.full = False
        self._bytes = 0
        self._most_bytes = most_bytes
        self._most_items = most_items

    @property
    def is_large(self) -> bool:
        """There is one, and it is a large item, which goes alone."""
        return bool(self.reads) and bool(self.reads[0].blob)

    def take(self, queue: Source | None) -> None:
        """Open what is there. Raises StorageError if the first cannot be read, and ServerError if it is too large for a
        frame; then nothing has been opened."""
        while queue is not None and not self.full and not queue.deleted:
            try:
                read = queue.open()
            except StorageError:
                if not self.reads:
                    raise
                self.full = True  # what lies before the damage is served
                return
            if read is None:
                return
            self.add(read)

    def add(self, read: Read) -> None:
        """Keep `read`, which is open, or give it back if it does not fit. Raises ServerError if it is the first and too
        large for a frame."""
        if self.reads and (read.blob or self._bytes + read.body_bytes > self._most_bytes):
            self.full = True
            read.queue.give_back(read)
            return
        if read.body_bytes > MAX_ITEM_BYTES:
            read.queue.give_back(read)
            raise ServerError(
                f"the item at the head has {read.body_bytes} bytes, and a frame can hold {MAX_ITEM_BYTES}: take it by"
                " another protocol"
            )
        self._keep(read)

    def _keep(self, read: Read) -> None:
        self.reads.append(read)
        self._bytes += read.body_bytes
        self.full = len(self.reads) >= self._most_items or bool(read.blob) or self._bytes >= self._most_bytes
