"""The server's promises as a model: what must be in each queue, what must not, and what nobody can know.

Owns the books of all queues over any number of kills and restarts, and the verdict. Knows no sockets; links.py tells it
what was sent and what was answered, in the order in which the client saw it. Time is the number of such events. Of a
request is known only that it was done between its sending and its answer, or, if that never came, before the next
restart, or not at all. What follows from that is what is checked:

- answered STORED, and not answered out, flushed or deleted since: it is there, once, whole
- handed out for good, closed and answered, flushed or deleted: it never comes back
- a set without an answer: there once, or not; but it is if a later one of its connection is
- a get without an answer: at most one item may be missing for it, the head of its time
- a close without an answer: its item is there or not. Open at the kill: it is there
- a flush or delete without an answer: all or nothing of what waited
- order: an item is handed out before those put after it was answered, and before those put after it on its connection,
  unless somebody has had it open

The checks are exact where requests did not overlap, and lenient where they did: they may miss an error, and never
report one that is none.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Any

from loadtest.crash.books import DELETED, FLUSHED, NEVER, OPEN, SERIAL_BYTES, WAITING, Book, Doubtful, Front, Item, Op

REMEMBERED = 20_000  # items that are gone, for requests that were answered after they went
REMEMBERED_EVENTS = 100_000
SHOWN = 8


class Model:
    """All queues, and the time."""

    def __init__(self) -> None:
        """No queue has anything."""
        self.now = 0
        self.serial = 0
        self.books: dict[bytes, Book] = {}
        self.gone: OrderedDict[int, int] = OrderedDict()  # when items went, the last few
        self.cut_short: set[int] = set()  # items that were never sent to their end
        self.events: deque[tuple[object, ...]] = deque(maxlen=REMEMBERED_EVENTS)  # time, link, what, details
        self.requests = 0
        self.links = 0  # how many there have been
        self.alive = True  # the server; False: killed or being stopped
        self.stopping = False  # by SIGTERM: connections end one after the other, and what they held is given back
        self.stored = self.confirmed = self.dropped = 0  # items
        self.confirmed_bytes = 0
        self.in_doubt = 0  # requests on their way when the server was killed or stopped

    def tick(self) -> int:
        """The time of the next event."""
        self.now += 1
        return self.now

    def note(self, link: Any, what: str, *details: object) -> None:
        """Keep an event, which may show later what went wrong."""
        self.events.append((self.now, getattr(link, "number", "-"), what, *details))

    def book(self, name: bytes) -> Book:
        """The books of the queue with this name."""
        if name not in self.books:
            self.books[name] = Book(name)
        return self.books[name]

    def new_item(self, book: Book, size: int, producer: object, cut_short: bool = False) -> Item:
        """An item that is about to be sent; cut_short: not to its end."""
        self.serial += 1
        item = Item(self.serial, size, book, producer)
        if cut_short:
            self.cut_short.add(self.serial)
        else:
            book.items[self.serial] = item
        return item

    # -- what was answered

    def put(self, item: Item) -> None:
        """The item was put: STORED was answered, or something else proves it."""
        if not item.sure:
            item.sure = True
            self.stored += 1
        item.put_by = min(item.put_by, self.now)

    def gone_for_good(self, item: Item) -> None:
        """The item has been handed out for good, and the client has it."""
        if item.state == DELETED:
            return
        del item.book.items[item.serial]
        self.confirmed += 1
        self.confirmed_bytes += item.size
        self.gone[item.serial] = self.now
        if len(self.gone) > REMEMBERED:
            self.gone.popitem(last=False)

    def received(self, op: Op, link: Any, flags: int, body: bytes) -> Item | None:
        """A get was answered with this: which item it is, and whether it may come now.

        None: one that has gone to another client since.
        """
        book = op.book
        item = self._identify(op, flags, body)
        if item is None:
            return None
        if item.state == DELETED:
            if op.sent > item.dropped_at:
                raise book.wrong(f"{item} came after the queue was deleted")
            return item
        if item.state == FLUSHED:
            if op.sent > item.dropped_at:
                book.came_back += 1
                if book.came_back > book.lost_gets:
                    raise book.wrong(f"{item} came after the queue was flushed")
            item.state, item.maybe_gone = WAITING, True
        looked_before = op.peeks and op.sent < item.opened_at
        if item.state == OPEN and not (item.aborting or looked_before or self.stopping):
            raise book.wrong(f"{item} was handed out while another connection has it open")
        if not op.peeks:
            self._proven(item)
            self._check_order(op, item)
            item.seen_at = self.now
            if op.opens:
                item.state, item.holder, item.opened_at, item.aborting = OPEN, link, self.now, False
                item.opened_ever = True
            else:
                self.gone_for_good(item)
        return item

    def _identify(self, op: Op, flags: int, body: bytes) -> Item | None:
        book = op.book
        try:
            serial = flags or int(body[:SERIAL_BYTES], 16)
        except ValueError:
            raise book.wrong(f"an item that nobody put: {body[:60]!r}") from None
        item = book.items.get(serial)
        if item is not None:
            if item.flags != flags or item.body() != body:
                raise book.wrong(f"{item} came out changed: flags {flags}, {len(body)} bytes, {body[:60]!r}")
            return item
        # A stopping server answers a get, hangs up, and gives what that opened to the next, who may be answered first.
        if (op.peeks or (op.opens and self.stopping)) and op.sent < self.gone.get(serial, 0):
            return None
        for other in self.books.values():
            if serial in other.items:
                raise book.wrong(f"{other.items[serial]} of queue {other.name.decode()} came out here")
        if serial in self.cut_short:
            raise book.wrong(f"item {serial} came out, which was never sent to its end")
        if serial > self.serial:
            raise book.wrong(f"item {serial} came out, which nobody put: {body[:60]!r}")
        raise book.wrong(f"item {serial} came back though it was gone (it went at {self.gone.get(serial, 'long ago')})")

    def _proven(self, item: Item) -> None:
        """The item was seen. So it was put, and so were those that its connection had sent before."""
        self.put(item)
        unanswered: list[Item] = item.producer.unanswered  # type: ignore[attr-defined]
        if item in unanswered:
            place = unanswered.index(item)
            for earlier in unanswered[:place]:
                self.put(earlier)
            del unanswered[: place + 1]

    def _check_order(self, op: Op, item: Item) -> None:
        book = item.book
        own = book.fronts.setdefault(item.producer, Front())
        late = item.put_by < book.front.before(op.sent) or item.serial < own.before(op.sent)
        if late and not item.opened_ever and not self.stopping:
            book.jumps += 1
            if book.jumps > book.lost_gets:
                raise book.wrong(
                    f"{item} came to a get sent at {op.sent} behind an item that was put after it (put by "
                    f"{item.put_by}, front {book.front.before(op.sent)}, own front {own.before(op.sent)})"
                )
        book.front.add(self.now, item.sent)
        own.add(self.now, item.serial)

    def dropped_by(self, op: Op) -> None:
        """A flush or delete was answered."""
        for item in op.book.items.values():
            if item.state in (FLUSHED, DELETED):
                continue
            if item.put_by > op.sent:
                item.maybe_gone = True
            elif op.verb == "delete":
                item.state, item.dropped_at = DELETED, self.now
                self.dropped += 1
            elif item.state == OPEN:
                item.maybe_gone |= item.aborting or self.stopping
            elif item.open_end > op.sent:
                item.maybe_gone = True
            else:
                item.state, item.dropped_at = FLUSHED, self.now
                self.dropped += 1

    # -- looking at what is there

    def settled(self) -> None:
        """The server runs, and no client is connected: nothing is open, and each request was done or never will be."""
        now = self.tick()
        self.note(None, "settled")
        for book in self.books.values():
            for doubt in book.doubtful:
                if doubt.settled_at == NEVER:
                    self._settle(doubt, now)
            for item in book.items.values():
                if item.state == OPEN or item.open_end == NEVER:
                    item.opened_ever = True
                    item.open_end = now
                if item.state == OPEN:
                    item.state = WAITING
                item.holder, item.aborting = None, False
                item.put_by = min(item.put_by, now)
        self.alive, self.stopping = True, False

    def _settle(self, doubt: Doubtful, now: int) -> None:
        op = doubt.op
        doubt.settled_at = now
        for item in op.book.items.values():
            surely_waited = item.sure and item.put_by < op.sent and not item.opened_ever and not item.maybe_gone
            if item.state == WAITING and surely_waited:
                doubt.group.append(item)
            kept = item.state == OPEN and item.opened_at < op.sent and not item.aborting and not self.stopping
            if op.verb == "delete" or not kept:
                item.maybe_gone = True

    def judge(self, books: list[Book]) -> None:
        """Check what these queues held, which have been emptied."""
        for book in books:
            for doubt in book.doubtful:
                self._judge_doubtful(doubt)
            missing = [i for i in book.items.values() if i.sure and i.state == WAITING and not i.maybe_gone]
            if len(missing) > book.takers:
                shown = ", ".join(str(item) for item in missing[:SHOWN])
                raise book.wrong(
                    f"LOST {len(missing)} items that were answered STORED ({book.takers} may have been taken by gets "
                    f"that were not answered): {shown}"
                )
            self.confirmed += len(missing)
        for book in books:
            self.books[book.name] = Book(book.name)

    def _judge_doubtful(self, doubt: Doubtful) -> None:
        book, op = doubt.op.book, doubt.op
        there = [item for item in doubt.group if item.seen_at > doubt.settled_at]
        missing = [item for item in doubt.group if item.serial in book.items and item.state == WAITING]
        may_stay = book.lost_gets if op.verb == "flush" else 0
        if len(there) > may_stay and len(missing) > book.takers:
            raise book.wrong(
                f"a {op.verb} that was not answered removed a part: {len(missing)} items of {len(doubt.group)}, "
                f"such as {missing[0]}, and left such as {there[0]}"
            )
