"""What has been removed and still takes space on disk, until a compaction gives the space back."""

from dataclasses import dataclass

from darner_core.storage import records
from darner_core.storage.records import QueueRecord, chunk_key, item_key
from darner_core.storage.storage import CHUNK_FAMILY


@dataclass(slots=True)
class DeadRange:
    family: int
    begin: bytes
    end: bytes
    dead_bytes: int


# (column family, the queue's number for large items, else 0)
RangeKey = tuple[int, int]

# How many ranges of chunks are kept apart. In most of them too little is dead to be worth a compaction.
MOST_CHUNK_RANGES = 64


class DeadRanges:
    """One range for each column family of items, and one for each queue's large items. When there are too many of the
    latter, neighbours are merged."""

    def __init__(self) -> None:
        self.ranges: dict[RangeKey, DeadRange] = {}
        self._chunk_ranges = 0  # an upper bound; counted anew when it seems too many

    def add_items(self, record: QueueRecord, from_id: int, to_id: int, dead_bytes: int) -> None:
        begin, end = item_key(record.number, from_id), item_key(record.number, to_id)
        self.add(DeadRange(record.family, begin, end, dead_bytes))

    def add_chunks(self, number: int, from_blob: int, to_blob: int, dead_bytes: int) -> None:
        begin, end = chunk_key(number, from_blob, 0), chunk_key(number, to_blob, 0)
        self.add(DeadRange(CHUNK_FAMILY, begin, end, dead_bytes), number)

    def add_queue(self, record: QueueRecord, dead_bytes: int, has_chunks: bool) -> None:
        """All of a queue has been removed. How much of it was in chunks is not known."""
        self.add_items(record, records.STATE_ID, records.MAX_ID, dead_bytes)
        if has_chunks:
            self.add_chunks(record.number, 0, records.MAX_ID, dead_bytes)

    def add(self, more: DeadRange, number: int = 0) -> None:
        known = self.ranges.setdefault((more.family, number), more)
        if known is not more:
            _widen(known, more)
        elif more.family == CHUNK_FAMILY:
            self._bound()

    def _bound(self) -> None:
        """There is another range of chunks. If there are too many, merge each with the next."""
        self._chunk_ranges += 1
        if self._chunk_ranges <= MOST_CHUNK_RANGES:
            return
        keys = sorted(key for key in self.ranges if key[0] == CHUNK_FAMILY)
        if len(keys) > MOST_CHUNK_RANGES:
            for key, following in zip(keys[::2], keys[1::2], strict=False):
                _widen(self.ranges[key], self.ranges.pop(following))
        self._chunk_ranges = sum(key[0] == CHUNK_FAMILY for key in self.ranges)


def _widen(known: DeadRange, more: DeadRange) -> None:
    known.begin, known.end = min(known.begin, more.begin), max(known.end, more.end)
    known.dead_bytes += more.dead_bytes
