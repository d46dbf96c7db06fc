"""Dead letters of a queue: what its dead letter queue has of it, or what is buried in it if it has none. They are
looked at, put back and dropped, for all protocols.

To put one back is one write: it is in one of the two queues, whatever happens. Calls whose names begin with wait_
switch greenlets; one item that is not large is put back, or dropped, without.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from darner_core.engines.contract import Engine
from darner_core.engines.items import Seen, State
from darner_core.engines.jobs import JobOptions, Outcome
from darner_core.operations.administering import InEffect
from darner_core.operations.client import Client
from darner_core.operations.jobs import JobOperations
from darner_core.operations.putting import Putting
from darner_core.showing import show

LOOKED_AT_ONCE: Final = 100  # in one turn: 2 ms

_NOTE: Final = re.compile(rb"from=(.*) id=(\d+) failures=(\d+) last=(\w+) client=(.*) put=(\d+)", re.DOTALL)


class Place(NamedTuple):
    """Where the dead letters of a queue lie."""

    queue: bytes
    state: State
    begins: bytes  # of their notes; b"": all are of this queue

    def has(self, seen: Seen) -> bool:
        return seen.state is self.state and seen.note.startswith(self.begins)


class PutBack(NamedTuple):
    done: int  # how many are back
    is_full: bool = False  # the queue has taken no more: it is full, or paused


class DeadLetters:
    def __init__(self, engine: Engine, jobs: JobOperations, putting: Putting, in_effect: InEffect) -> None:
        self._queues = engine.registry.queues
        self._items = engine.items
        self._jobs = jobs
        self._putting = putting
        self._in_effect = in_effect

    # -- looking

    def place(self, queue: bytes) -> Place:
        options = {name: value for name, value, _ in self._in_effect.of_queue(queue)}
        dead = options["dead_letter_queue"]
        if not dead:
            return Place(queue, State.BURIED, b"")
        return Place(dead, State.READY, b"from=%b id=" % show(queue).encode("utf-8", "backslashreplace"))

    def is_there(self, place: Place, item_id: int) -> bool:
        """Whether this item is a dead letter of the queue, and nobody has it open."""
        seen = self._items.find(place.queue, item_id)
        return seen is not None and place.has(seen)

    def wait_each(self, client: Client, place: Place) -> Iterator[Seen]:
        """All of them, one by one."""
        after = None
        while some := self._items.look(place.queue, place.state, after, LOOKED_AT_ONCE):
            yield from filter(place.has, some)
            after = some[-1].position
            client.wait_turn()

    def wait_page(
        self, client: Client, place: Place, after: Any, most: int, most_looked_at: int
    ) -> tuple[list[Seen], Any]:
        """Up to `most` of those behind the position `after`, and the position behind which to go on; None: there are no
        more. It may be none, if `most_looked_at` items are others' dead letters."""
        found: list[Seen] = []
        looked_at = 0
        while some := self._items.look(place.queue, place.state, after, LOOKED_AT_ONCE):
            for seen in some:
                after = seen.position
                if place.has(seen):
                    found.append(seen)
                    if len(found) == most:
                        return found, after
            looked_at += len(some)
            if looked_at >= most_looked_at:
                return found, after
            client.wait_turn()
        return found, None

    def first_bytes(self, place: Place, item_id: int, most: int) -> bytes:
        """The beginning of an item's body."""
        item = self._items.item(place.queue, item_id)
        if item is None:
            return b""
        body: Any = item[0]
        if body.__class__ is bytes:
            return bytes(body[:most])
        return self._queues[place.queue].large_items.send(body).next(most)

    # -- putting back

    def wait_put_back(self, client: Client, queue: bytes, place: Place, item_id: int) -> PutBack:
        """One of them; none is done if it is not there any more. Raises ServerError or StorageError; then it is where
        it was."""
        if place.state is State.BURIED:
            return PutBack(int(self._items.kick(place.queue, item_id)))
        read = self._items.open(place.queue, item_id)
        if read is None:
            return PutBack(0)
        try:
            item: Any = read.queue.item_of(read)
            body, flags = item[0], item[1]
            if body.__class__ is bytes:
                self._putting.require_taken(len(body))
                outcome = self._jobs.put(client.session, (queue,), body, flags, 0, JobOptions()).outcome
            else:
                outcome = self._wait_copy(client, queue, read, body, flags)
            if outcome is Outcome.FULL:
                read.queue.give_back(read)
                return PutBack(0, is_full=True)
            if read.queue.holds(read):  # else it was flushed or deleted while it was copied
                read.queue.close(read)
        except BaseException:
            read.queue.give_back(read)
            raise
        return PutBack(1)

    def _wait_copy(self, client: Client, queue: bytes, read: Any, body: Any, flags: int) -> Outcome:
        """A large one, piece by piece. It is open meanwhile."""
        download = read.queue.large_items.send(body)
        with self._putting.large((queue,), len(body), as_child=False) as item:
            if not item.wait_begin(client):
                return Outcome.FULL
            while item.wanted_bytes:
                item.wait_add(client, download.next(item.wanted_bytes))
                client.wait_turn()
            item.wait_store(client)
            item.require_queues()
            return self._jobs.put_large(client.session, (queue,), item, flags, 0, JobOptions()).outcome

    def wait_put_several_back(
        self, client: Client, queue: bytes, place: Place, most: int, require: Callable[[], None]
    ) -> PutBack:
        """Up to `most` of those that are dead letters now, the oldest first. What fails again meanwhile stays a dead
        letter. `require` is asked before each, and raises if it may not be done any longer."""
        most = min(most, self._count(place))
        done = 0
        for seen in self.wait_each(client, place) if most else ():
            require()
            one = self.wait_put_back(client, queue, place, seen.id)
            done += one.done
            if one.is_full:
                return PutBack(done, is_full=True)
            if done == most:
                break
        return PutBack(done)

    # -- dropping

    def drop(self, place: Place, item_id: int) -> bool:
        """False: it is not there. Raises StorageError."""
        return self.is_there(place, item_id) and self._items.remove(place.queue, item_id)

    def wait_drop_several(self, client: Client, place: Place, most: int, require: Callable[[], None]) -> int:
        """Up to `most` of those that are dead letters now, the oldest first; how many. `require`: as above."""
        most = min(most, self._count(place))
        dropped = 0
        for seen in self.wait_each(client, place) if most else ():
            require()
            dropped += self.drop(place, seen.id)
            if dropped == most:
                break
        return dropped

    def _count(self, place: Place) -> int:
        queue = self._queues.get(place.queue)
        if queue is None:
            return 0
        return queue.waiting_items if place.begins else self._jobs.figures(place.queue).get(b"buried", 0)


def history_of(note: bytes) -> dict[str, Any] | None:
    """What a dead letter's note says; None: it is none."""
    found = _NOTE.fullmatch(note)
    if found is None:
        return None
    queue, item_id, failures, why, client, put_at_ms = found.groups()
    return {
        "from": show(queue),
        "id": item_id.decode(),
        "failures": int(failures),
        "reason": why.decode(),
        "client": show(client),
        "put_at_ms": int(put_at_ms),
    }
