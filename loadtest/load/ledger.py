"""The books of a load test: which items were stored, what became of each, and whether that balances.

Owns what an item says about itself, and the verdict. Knows no socket and no Locust; `locustfile.py` tells it what it
is about to do and what was answered. What has been announced and never answered is in doubt, and nothing else is:

- a set: its item may have been stored or not. It may turn up, and need not;
- a plain get: it may have taken an item, nobody knows which. So one item may be missing for each such get;
- a close: its item may be gone or have been given back.

A stored item is to be finished once: confirmed by a reader, found where dead letters go, or left over. What a reader
has rejected is to come to no reader again. Reads that were aborted or dropped are not
counted against it, however many they were.

Memory is needed for the items that wait, not for those that are finished.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

# An item begins `<tag>-<producer>-<number> `: 12 bytes for the tag, 5 and 12 digits, 3 signs; rounded up.
MIN_ITEM_BYTES = 40
SHOWN = 5  # of what is wrong, the first few are named


class Item(NamedTuple):
    """One item: its producer, and how many items that producer had sent before."""

    producer: int
    number: int


@dataclass
class Balance:
    """What became of the items of one queue, or of several added up: stored = confirmed + dead + left + in_doubt +
    lost.

    Items are named as their bodies begin. If any are lost, `missing` names all the stored ones of which nothing is
    known. For each plain get without an answer one of them is in doubt, and the others are lost; nobody can tell
    which. `unanswered` sets are not among the stored.
    """

    stored: int = 0
    confirmed: int = 0
    left: int = 0
    dead: int = 0
    in_doubt: int = 0
    lost: int = 0
    aborted: int = 0
    dropped: int = 0
    rejected: int = 0
    timed_out: int = 0
    unanswered: int = 0
    missing: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    invented: list[str] = field(default_factory=list)
    revived: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether everything is as it was promised."""
        return not (self.lost or self.doubled or self.invented or self.revived)

    def add(self, other: Balance) -> None:
        """Take in another queue's."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def line(self) -> str:
        """One line: that nothing was lost, or what is wrong."""
        wrong = []
        if self.lost:
            wrong.append(f"LOST {self.lost:,} of {self.stored:,} stored items, missing: {first_few(self.missing)}")
        if self.doubled:
            wrong.append(f"DOUBLED without reason {len(self.doubled):,}: {first_few(self.doubled)}")
        if self.invented:
            wrong.append(f"INVENTED, stored by nobody, {len(self.invented):,}: {first_few(self.invented)}")
        if self.revived:
            wrong.append(f"CAME AGAIN though rejected {len(self.revived):,}: {first_few(self.revived)}")
        line = "; ".join(wrong) + "; " if wrong else "nothing lost: "
        line += f"{self.stored:,} stored = {self.confirmed:,} confirmed + {self.left:,} left over"
        if self.dead:
            line += f" + {self.dead:,} dead letters"
        if self.in_doubt:
            line += f" + {self.in_doubt:,} in doubt (in flight when the user or the connection ended)"
        if self.lost:
            line += f" + {self.lost:,} lost"
        line += f"; {self.aborted:,} reads aborted, {self.dropped:,} dropped"
        if self.rejected or self.timed_out:
            line += f", {self.timed_out:,} timed out, {self.rejected:,} rejected"
        if self.unanswered:
            line += f"; {self.unanswered:,} sets never answered"
        return line


def first_few(names: list[str]) -> str:
    """The first few, and whether there are more."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


class Ledger:
    """The books of one queue in one run.

    Announce a request with `sending`, `asking` or `closing` before it goes out, and its answer when it is there: then
    it does not matter where a user is stopped, nor that a reader often has an item before its producer hears STORED.
    """

    def __init__(self, tag: str, filler: bytes) -> None:
        """tag: of this queue in this run only, without `-` and spaces; filler: what an item is padded with, as long."""
        self.tag = tag
        self.filler = filler
        self.sent: list[int] = []  # by each producer
        self.stored_count = self.left_count = self.dead_count = self.aborted = self.dropped = self.timed_out = 0
        self.unanswered_gets = 0
        self.unanswered_sets: set[Item] = set()
        self.unanswered_closes: set[Item] = set()
        self.refused_sets: set[Item] = set()
        self.due: set[Item] = set()  # stored, and not finished
        self.unmatched: Counter[Item] = Counter()  # finished, and not stored, or not yet, or for a second time
        self.rejected_items: set[Item] = set()
        self.revived: set[Item] = set()  # read, though they had been rejected
        self.unknown: set[str] = set()  # what was read that is no item of ours

    # -- items

    def name(self, item: Item) -> str:
        """How its body begins."""
        return f"{self.tag}-{item.producer}-{item.number}"

    def body(self, item: Item) -> bytes:
        """All of it."""
        head = self.name(item).encode() + b" "
        return head + self.filler[len(head) :]

    def read(self, body: bytes) -> Item | None:
        """The item that a reader was given. None, with a note, if it was never sent or is not as it was sent."""
        item = self._identify(body)
        if item in self.rejected_items:
            self.revived.add(item)
        return item

    def _identify(self, body: bytes) -> Item | None:
        name = body.partition(b" ")[0]
        try:
            tag, producer, number = name.decode().split("-")
            item = Item(int(producer), int(number))
            ours = tag == self.tag and item.number < self.sent[item.producer] and body == self.body(item)
        except (ValueError, IndexError):
            ours = False
        if ours:
            return item
        self.unknown.add(name[:60].decode(errors="backslashreplace"))
        return None

    # -- what producers do

    def add_producer(self) -> int:
        """A producer's number."""
        self.sent.append(0)
        return len(self.sent) - 1

    def sending(self, producer: int) -> Item:
        """The producer's next item is about to be set."""
        item = Item(producer, self.sent[producer])
        self.sent[producer] += 1
        self.unanswered_sets.add(item)
        return item

    def stored(self, item: Item) -> None:
        """The answer was STORED."""
        self.unanswered_sets.discard(item)
        self.stored_count += 1
        if item not in self.unmatched:
            self.due.add(item)
        elif self.unmatched[item] > 1:
            self.unmatched[item] -= 1
        else:
            del self.unmatched[item]

    def refused(self, item: Item) -> None:
        """The answer was an error, or it could not be sent at all: it is not stored."""
        self.unanswered_sets.discard(item)
        self.refused_sets.add(item)

    # -- what readers do

    def asking(self) -> None:
        """A plain get, which removes what it brings, is about to be sent."""
        self.unanswered_gets += 1

    def answered(self, body: bytes | None) -> None:
        """The plain get has its answer: an item, or None."""
        self.unanswered_gets -= 1
        if body is not None and (item := self.read(body)):
            self._finish(item)

    def closing(self, item: Item) -> None:
        """The close of an open item is about to be sent."""
        self.unanswered_closes.add(item)

    def confirmed(self, item: Item) -> None:
        """The close was answered."""
        self.unanswered_closes.discard(item)
        self._finish(item)

    def not_closed(self, item: Item) -> None:
        """The close was answered with an error, or could not be sent: the item is still open, or was given back."""
        self.unanswered_closes.discard(item)

    def rejected(self, item: Item) -> None:
        """The reject was answered: nobody is to be given it again."""
        self.rejected_items.add(item)

    def left(self, body: bytes) -> None:
        """After all users have ended: this was still in the queue."""
        if item := self._identify(body):
            self.left_count += self._finish(item)

    def dead(self, body: bytes) -> None:
        """And this where dead letters go."""
        if item := self._identify(body):
            self.dead_count += self._finish(item)

    def _finish(self, item: Item) -> bool:
        """Finish an item. Returns whether it was due."""
        if item in self.due:
            self.due.remove(item)
            return True
        self.unmatched[item] += 1
        return False

    # -- the verdict

    def balance(self) -> Balance:
        """When the queue has been emptied."""
        maybe_closed = self.due & self.unanswered_closes
        missing = sorted(self.due - maybe_closed)
        maybe_taken = min(len(missing), self.unanswered_gets)
        lost = len(missing) - maybe_taken
        doubled, invented = [], []
        for item in sorted(self.unmatched):
            if item in self.refused_sets:
                invented.append(item)
            elif self.unmatched[item] > (item in self.unanswered_sets):  # that one was stored, as we know now
                doubled.append(item)
        return Balance(
            stored=self.stored_count,
            confirmed=self.stored_count - self.left_count - self.dead_count - len(self.due),
            left=self.left_count,
            dead=self.dead_count,
            in_doubt=len(maybe_closed) + maybe_taken,
            lost=lost,
            aborted=self.aborted,
            dropped=self.dropped,
            rejected=len(self.rejected_items),
            timed_out=self.timed_out,
            unanswered=len(self.unanswered_sets),
            missing=[self.name(item) for item in missing] if lost else [],
            doubled=[self.name(item) for item in doubled],
            invented=[self.name(item) for item in invented] + sorted(self.unknown),
            revived=[self.name(item) for item in sorted(self.revived)],
        )
