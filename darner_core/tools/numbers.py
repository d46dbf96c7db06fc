"""Public numbers of items, and a data directory's identity: what `check` says of them, what `repair` keeps, and which
numbers `dump` shows.

A repair gives queues other numbers, and perhaps items other ids. So no item keeps its public number; but no number is
given again, and the identity stays.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from operator import attrgetter
from struct import error as struct_error

from darner_core.storage import number_records
from darner_core.storage.number_records import BLOCK_PREFIX, IDENTITY_KEY, MARK_KEY, Block
from darner_core.storage.storage import Batch, Storage
from darner_core.tools.salvage import Gap, Salvaged

Say = Callable[[str], None]

_first_id = attrgetter("first_id")


def _read(directory: Salvaged) -> Iterator[int | Block | str]:
    """The mark, each block, and what is wrong with what is neither."""
    for entry in directory.scan(directory.default, BLOCK_PREFIX, bytes((BLOCK_PREFIX[0] + 1,))):
        if isinstance(entry, Gap):
            yield entry.why
            continue
        key, value = entry
        try:
            yield number_records.unpack_mark(value) if key == MARK_KEY else number_records.unpack_block(key, value)
        except struct_error:
            yield "a record of them makes no sense"


def check_numbers(directory: Salvaged, tell: Say) -> None:
    mark = end = 0
    ids: dict[int, list[tuple[int, int]]] = {}  # [begin, end) by queue
    for found in _read(directory):
        if isinstance(found, str):
            tell(f"public numbers: {found}")
        elif isinstance(found, int):
            mark = found
        else:
            if found.first < end:
                tell(f"public numbers: {found.first} is given twice")
            end = found.first + found.size
            ids.setdefault(found.number, []).append((found.first_id, found.first_id + found.size))
    if end > mark:
        tell(f"public numbers: those from {mark} on are said to be free, and are given up to {end - 1}")
    for number, spans in ids.items():
        last_end = 0
        for begin, span_end in sorted(spans):
            if begin < last_end:
                tell(f"queue number {number}: item {begin} has two public numbers")
            last_end = max(last_end, span_end)
    try:
        _identity(directory)
    except ValueError as error:
        tell(f"the directory's identity cannot be read: {error}")


def _identity(directory: Salvaged) -> tuple[bytes, bytes] | None:
    """Raises ValueError."""
    for entry in directory.scan(directory.default, IDENTITY_KEY, IDENTITY_KEY + b"\0"):
        if isinstance(entry, Gap):
            raise ValueError(entry.why)
        return number_records.unpack_identity(entry[1])
    return None


def copy_numbers(directory: Salvaged, storage: Storage, batch: Batch, say: Say) -> None:
    """Keep what a repair can keep of them."""
    mark, had_blocks = 0, False
    for found in _read(directory):
        if isinstance(found, int):
            mark = max(mark, found)
        elif isinstance(found, Block):
            mark, had_blocks = max(mark, found.first + found.size), True
    if mark:
        storage.numbers.put_mark(batch, mark)
    if had_blocks:
        say(f"items are given new public numbers, from {mark} on")
    try:
        identity = _identity(directory)
    except ValueError:
        identity = None
        say("the directory has another identity from now on")
    if identity is not None:
        storage.numbers.put_identity(batch, *identity)


class NumbersOf:
    """The public numbers of one queue's items. In memory is one block for up to a thousand items."""

    def __init__(self, directory: Salvaged, queue: int, tell: Say) -> None:
        """`queue`: its number. `tell` hears of what cannot be read."""
        self._blocks: list[Block] = []
        for found in _read(directory):
            if isinstance(found, str):
                tell(f"public numbers: {found}")
            elif isinstance(found, Block) and found.number == queue:
                self._blocks.append(found)
        self._blocks.sort(key=_first_id)

    def __bool__(self) -> bool:
        """Whether any of its items have one."""
        return bool(self._blocks)

    def of(self, item_id: int) -> int:
        """0: it has none."""
        at = bisect_right(self._blocks, item_id, key=_first_id)
        if not at:
            return 0
        _, _, first_id, size = block = self._blocks[at - 1]
        return block.first + item_id - first_id if item_id < first_id + size else 0
