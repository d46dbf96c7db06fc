"""The large items of one queue: bodies that are received, stored and sent in chunks, never whole in memory.

A large item's chunks lie under a number of their own, its blob, and are written as they come. Only when the last has
come does the queue put an item that points to them. A note on disk says which blobs are being received, so that
what a crash cuts off is removed at the next start. No call here switches greenlets.
"""

from darner_core.journal import Journal


class LargeItems:
    __slots__ = ("_journal", "_next", "_number", "_receiving")

    def __init__(self, journal: Journal, number: int) -> None:
        """For the queue with this number. Raises StorageError."""
        self._journal = journal
        self._number = number
        self._next = journal.storage.next_blob(number)
        self._receiving: set[int] = set()

    def start(self) -> int:
        """The blob for an item that is about to be received. Raises StorageError."""
        blob = self._next
        self._journal.storage.start_upload(self._number, blob)
        self._next += 1
        self._receiving.add(blob)
        return blob

    def finish(self, blob: int) -> None:
        """It has been received: in this turn, the note that it is being received goes."""
        self._receiving.discard(blob)
        storage, number = self._journal.storage, self._number
        self._journal.also.append(lambda batch: storage.end_upload(batch, number, blob))

    def drop(self, blob: int, received_bytes: int) -> None:
        """It will not be received: in this turn, what came is removed."""
        self.finish(blob)
        self.remove(blob, blob + 1, received_bytes)

    def remove(self, from_blob: int, to_blob: int, dead_bytes: int) -> None:
        """In this turn, remove the chunks of the blobs in [from_blob, to_blob), about `dead_bytes` of them."""
        storage, number = self._journal.storage, self._number
        self._journal.also.append(lambda batch: storage.remove_blobs(batch, number, from_blob, to_blob))
        self._journal.dead.add_chunks(number, from_blob, to_blob, dead_bytes)

    def remove_all_but(self, keep: set[int], dead_bytes: int) -> None:
        """In this turn, remove all blobs but these and those that are being received."""
        begin = 1
        for kept in [*sorted(keep | self._receiving), self._next]:
            if begin < kept:
                self.remove(begin, kept, dead_bytes)
            begin = kept + 1
