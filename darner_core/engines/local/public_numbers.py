"""Public numbers: one sequence for the items of all queues, for protocols whose clients know an item by a number alone.

Numbers are given in blocks: so many numbers for as many ids of a queue that follow one another, of which some may not
be put yet. The blocks of a queue's line, and those of what lies aside of it, become larger, 1, 1, 2, 4 up to MOST: so
few numbers are left out, and a queue that is used much costs one record in a thousand items. A queue whose items nobody
asks for by number has none.

At any time no number and no id is in two blocks, and all numbers from `mark` on are free. The mark is on disk, so that
no number is given twice, also if its block is gone. Blocks of queues in memory are in memory.

A block goes when the last of its items is gone. That is not noticed when it happens, which would cost every close
something: now and then all blocks are looked at, in slices.

No call here switches greenlets.
"""

from bisect import bisect_right, insort
from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING

from darner_core.engines.local.journal import Journal
from darner_core.errors import ServerError, StorageError
from darner_core.storage.job_records import FIRST_ASIDE_ID
from darner_core.storage.number_records import Block
from darner_core.storage.storage import Batch

if TYPE_CHECKING:
    from darner_core.engines.local.asides import Asides
    from darner_core.engines.local.message_queue import MessageQueue

MOST = 1024  # numbers in a block
HIGHEST = 2**53  # what a double holds exactly

# After damage some blocks may be lost, and the mark with them. As many numbers are left out as such a server could have
# given in some months.
LEFT_OUT = 1 << 32

# How many blocks are looked at in one turn: 1 to 2 ms.
LOOKS_A_TURN = 100

# All are looked at when so many have been given since, or half as many as there are.
LOOK_AFTER = 64

_first_id = attrgetter("first_id")
_first = attrgetter("first")


class _Ids:
    """The blocks of a queue's line, or of what lies aside of it."""

    __slots__ = ("blocks", "given")

    def __init__(self) -> None:
        self.blocks: list[Block] = []  # in the order of the ids
        self.given = 0  # numbers, of which some may be gone again


class PublicNumbers:
    def __init__(self, journal: Journal, queues: Mapping[int, "MessageQueue"], asides: "Asides") -> None:
        """`queues` by their numbers, and `asides`, as they are at any time."""
        self._journal = journal
        self._queues = queues
        self._asides = asides
        self._mark = 1
        self._blocks: list[Block] = []  # in the order of the numbers
        self._ids: dict[tuple[int, bool], _Ids] = {}  # by the queue's number, and whether they lie aside
        self._doubtful: set[int] = set()  # the firsts of blocks that may be on disk, though their turn has failed
        self._given = 0  # blocks, since the last look
        self._looks = False

    def read_back(self) -> set[int]:
        """What is on disk; the numbers of the queues that have blocks. Raises StorageError."""
        storage = self._journal.storage
        mark, blocks = storage.numbers.read()
        for block in blocks:
            self._add(block)
        ends = [block.first + block.size for block in self._blocks[-1:]]
        self._mark = max(1, mark, *ends)
        if storage.damage:
            self._mark += LEFT_OUT
        if blocks:
            self._look_soon()
        return {block.number for block in blocks}

    # -- asking

    def of(self, queue: "MessageQueue", item_id: int) -> int:
        """The number of an item, given in this turn if it has none. Raises ServerError if there are no more."""
        number, is_aside = queue.log.record.number, item_id >= FIRST_ASIDE_ID
        ids = self._ids.get((number, is_aside))
        blocks = ids.blocks if ids is not None else []
        at = bisect_right(blocks, item_id, key=_first_id)
        if at:
            block = blocks[at - 1]
            if item_id < block.first_id + block.size:
                return block.first + item_id - block.first_id
        size = min(MOST, max(1, ids.given if ids is not None else 0))
        if at < len(blocks):
            size = min(size, blocks[at].first_id - item_id)
        if self._mark + size > HIGHEST:
            raise ServerError("no public numbers are left")
        self._give(Block(self._mark, number, item_id, size), queue.log.durable)
        return self._mark - size

    def find(self, number: int) -> tuple["MessageQueue", int] | None:
        """(queue, id) of the item that has this number, which may be gone; None: none has it."""
        at = bisect_right(self._blocks, number, key=_first)
        block = self._blocks[at - 1] if at else None
        if block is None or number >= block.first + block.size:
            return None
        queue, item_id = self._queues.get(block.number), block.first_id + number - block.first
        if queue is None or queue.unreadable:
            return None
        aside = self._asides.by_queue.get(queue)
        end = queue.tail if item_id < FIRST_ASIDE_ID else aside.new_id if aside is not None else 0
        return (queue, item_id) if item_id < end else None

    # -- giving

    def _give(self, block: Block, durable: bool) -> None:
        self._add(block)
        self._mark += block.size
        self._doubtful.discard(block.first)
        self._journal.undo.append((self._take_back, block))
        storage, mark, doubtful = self._journal.storage, self._mark, self._doubtful

        def write(batch: Batch) -> None:
            for first in doubtful:
                storage.numbers.remove_block(batch, first)
            if durable:
                storage.numbers.put_block(batch, block)
            else:
                storage.numbers.remove_block(batch, block.first)
            storage.numbers.put_mark(batch, mark)

        self._journal.also.append(write)
        self._journal.after.append((doubtful.clear,))
        self._given += 1
        if self._given >= max(LOOK_AFTER, len(self._blocks) // 2):
            self._look_soon()

    def _take_back(self, block: Block) -> None:
        """Undo `_give`."""
        self._remove(block)
        self._ids[block.number, block.first_id >= FIRST_ASIDE_ID].given -= block.size
        self._mark = block.first
        self._doubtful.add(block.first)

    def _add(self, block: Block) -> None:
        ids = self._ids.setdefault((block.number, block.first_id >= FIRST_ASIDE_ID), _Ids())
        insort(ids.blocks, block, key=_first_id)
        insort(self._blocks, block, key=_first)
        ids.given += block.size

    def _remove(self, block: Block) -> None:
        for blocks, key, value in (
            (self._blocks, _first, block.first),
            (self._ids[block.number, block.first_id >= FIRST_ASIDE_ID].blocks, _first_id, block.first_id),
        ):
            at = bisect_right(blocks, value, key=key) - 1
            assert blocks[at] == block
            del blocks[at]

    def recheck(self, batch: Batch) -> None:
        """The storage was opened again after a failed write: nothing of what was undone is to be there."""
        for first in self._doubtful:
            self._journal.storage.numbers.remove_block(batch, first)
        if self._doubtful:
            self._journal.storage.numbers.put_mark(batch, self._mark)

    # -- blocks whose items are gone

    def queue_gone(self, number: int) -> None:
        """The queue with this number is deleted in this turn."""
        if (number, False) in self._ids or (number, True) in self._ids:
            self._journal.after.append((self._look_soon,))

    def _look_soon(self) -> None:
        self._given = 0
        if not self._looks:
            self._looks = True
            self._journal.slices.append(self._look())

    def _look(self) -> Iterator[None]:
        """Remove blocks whose items are gone, a part in each turn."""
        try:
            for looked_at, block in enumerate(list(self._blocks), 1):
                self._look_at(block)
                if looked_at % LOOKS_A_TURN == 0:
                    yield
        finally:
            self._looks = False

    def _look_at(self, block: Block) -> None:
        at = bisect_right(self._blocks, block.first, key=_first) - 1
        if at < 0 or self._blocks[at] != block:
            return  # the turn that gave it has failed
        try:
            if not self._is_gone(block):
                return
        except StorageError:
            return  # it is not known now
        self._remove(block)
        ids = self._ids[block.number, block.first_id >= FIRST_ASIDE_ID]
        if not ids.blocks and block.number not in self._queues:
            del self._ids[block.number, block.first_id >= FIRST_ASIDE_ID]
        self._journal.undo.append((self._put_back, block))
        storage = self._journal.storage
        self._journal.also.append(lambda batch: storage.numbers.remove_block(batch, block.first))

    def _put_back(self, block: Block) -> None:
        self._add(block)
        self._ids[block.number, block.first_id >= FIRST_ASIDE_ID].given -= block.size

    def _is_gone(self, block: Block) -> bool:
        """Whether no item of it is there, and none will be. Raises StorageError."""
        queue, begin, end = self._queues.get(block.number), block.first_id, block.first_id + block.size
        if queue is None:
            return True
        if queue.unreadable or queue.name in self._asides.damaged:
            return False
        aside = self._asides.by_queue.get(queue)
        if begin >= FIRST_ASIDE_ID:
            return aside is None or (end <= aside.new_id and not aside.log.has_any(begin, end))
        if end > queue.next_id:
            return False
        if end > queue.first_id() and any(item_id in queue.outstanding for item_id in range(begin, end)):
            return False
        return aside is None or not aside.log.has_any(begin, end)
