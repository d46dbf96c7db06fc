"""Several queues at once, with all that a queue can be told to do, against a plain model: fanout, expiry, where expired
items go, limits, cursors, a queue in memory, large items, turns that fail, crashes."""

import copy
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from darner_core.message_queue import Large, MessageQueue, OpenRead
from darner_core.queue_options import QueueOptions
from darner_core.records import Blob
from darner_core.storage import Storage
from tests.bench import CHUNK_BYTES, Bench
from tests.conftest import SMALL

OPTIONS = {
    "work": QueueOptions(expire_to_queue=b"dead"),
    "aged": QueueOptions(max_age_s=7, expire_to_queue=b"dead"),
    "full": QueueOptions(max_items=4),
    "ring": QueueOptions(max_items=4, discard_old_when_full=True),
    "memory": QueueOptions(durable=False),
    "fan": QueueOptions(fanout_only=True),
}
# fan's and dead's children get what they do; "plain" and "dead" have no options.
PUT_INTO = ["work", "aged", "full", "ring", "memory", "fan", "plain", "work,plain", "plain,full", "memory,work"]
TAKE_FROM = ["work", "aged", "full", "ring", "memory", "fan+a", "fan+b", "plain", "dead", "dead+a"]
CHILDREN = {"fan": ["fan+a", "fan+b"], "dead": ["dead+a"]}
CURSORS = ["work", "plain", "aged"]


class Put:
    """One item in one queue, of the model."""

    def __init__(self, number: int, size: int, dies_at_s: float, is_large: bool) -> None:
        self.number = number  # in the order of the puts of all queues
        self.size = size
        self.dies_at_s = dies_at_s  # never: infinity
        self.is_large = is_large
        self.state = "new"  # "open", "returned"

    def body(self) -> bytes:
        return (b"%d." % self.number).ljust(self.size, b"x")


class Plain:
    """All queues of the model: their items in order."""

    def __init__(self) -> None:
        self.queues: dict[str, list[Put]] = {name: [] for name in [*TAKE_FROM, "fan"]}
        self.seen: dict[
            str, int
        ] = {}  # by cursor's queue: the last item that was read there, in the order of the queue
        self.order: dict[int, int] = {}

    def waiting(self, name: str, now_s: float) -> list[Put]:
        """What waits and has not expired, in the order in which it is handed out."""
        live = [put for put in self.queues[name] if put.state != "open" and put.dies_at_s >= now_s]
        return sorted(live, key=lambda put: put.state != "returned")


class Together(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.storages: list[Storage] = []
        self.bench = Bench(self._open_storage, **OPTIONS)
        self.model = Plain()
        self.held: list[tuple[str, Put, OpenRead]] = []
        self.next_number = 0
        self.before: tuple[Any, ...] = ()

    def _open_storage(self) -> Storage:
        storage = Storage(str(Path(self.directory.name) / "data"), **SMALL)
        self.storages.append(storage)
        return storage

    def teardown(self) -> None:
        for storage in self.storages:
            storage.close()
        self.directory.cleanup()

    @initialize()
    def begin(self) -> None:
        for children in CHILDREN.values():
            for child in children:
                self.bench.registry.child(child.encode())
        self.bench.delivery.targets([name.encode() for name in TAKE_FROM])
        self.end_turn()

    # -- turns

    def note(self) -> None:
        puts: dict[int, Put] = {}
        memo: dict[int, Any] = {id(read): read for _, _, read in self.held}
        self.before = copy.deepcopy((self.model, self.held), memo), puts

    @rule()
    def end_turn(self) -> None:
        self.bench.end_turn()
        self.note()

    @rule()
    def fail(self) -> None:
        """What the turn has changed is undone. Queues in memory, too; but a turn that is about nothing else, and has no
        expiry to write, is not written, so it cannot fail."""
        bench = self.bench
        held = self.held
        if not bench.fails():
            self.note()
            return
        (self.model, self.held), _ = self.before
        # Nobody holds what was closed in the turn: then it waits.
        known = {id(read) for _, _, read in held}
        still = []
        for name, put, read in self.held:
            if id(read) in known and self.queue(name).holds(read):
                still.append((name, put, read))
            else:
                put.state = "returned"
        self.held = still
        self.note()
        bench.registry.recheck()
        self.end_turn()

    @rule(seconds=st.sampled_from([0.5, 1, 2, 4]))
    def time_passes(self, seconds: float) -> None:
        self.end_turn()
        self.bench.now_s += seconds
        self.bench.journal.begin()

    @rule()
    def crash(self) -> None:
        self.end_turn()
        self.sweep()
        self.bench.crash()
        self.held = []
        self.model.queues["memory"] = []
        for puts in self.model.queues.values():
            for put in puts:
                if put.state == "open":
                    put.state = "returned"
        # In memory only: the next start knows no such queue.
        self.bench.delivery.targets([name.encode() for name in TAKE_FROM])
        self.end_turn()

    @rule()
    def sweep(self) -> None:
        """Twice, so that what is large has gone where it goes. Then nothing that has expired is left."""
        self.end_turn()
        model, now_s = self.model, self.bench.now_s
        self.bench.sweep()
        self.bench.sweep()
        gone: list[Put] = []
        for name, puts in model.queues.items():
            expired = [put for put in puts if put.state != "open" and put.dies_at_s < now_s]
            model.queues[name] = [put for put in puts if put not in expired]
            if name in ("work", "aged"):
                gone += expired
        # The order in which they went there is that in which they were found: only which, is known here.
        for name in ("dead", "dead+a"):
            known = {put.number for put in model.queues[name]}
            there = self.numbers(name)
            new = [number for number in there if number not in known]
            assert sorted(new) == sorted(put.number for put in gone), name
            assert [number for number in there if number in known] == [put.number for put in self.all_of(name)]
            by_number = {put.number: put for put in gone}
            for number in new:
                put = by_number[number]
                model.queues[name].append(Put(number, put.size, float("inf"), put.is_large))
        self.note()

    def all_of(self, name: str) -> list[Put]:
        return [put for put in self.model.queues[name] if put.state != "open"] if name else []

    def numbers(self, name: str) -> list[int]:
        """Of the items that wait there, in the order of their ids."""
        queue = self.queue(name)
        found = []
        for item_id in [*sorted(queue.returned), *range(queue.next_id, queue.tail)]:
            item = queue.log.find(item_id)
            if item is None:
                continue
            body = item[0]
            if isinstance(body, Blob):
                body = queue.large_items.send(body).next(100)
            found.append(int(body.split(b".")[0]))
        return found

    def queue(self, name: str) -> MessageQueue:
        return self.bench.queue(name.encode())

    # -- what clients do

    @rule(
        name=st.sampled_from(PUT_INTO),
        size=st.sampled_from([8, 30]),
        expires_in_s=st.sampled_from([0, 0, 0, 1, 3, 5, -1]),
        count=st.integers(1, 5),
    )
    def put(self, name: str, size: int, expires_in_s: float, count: int) -> None:
        for _ in range(count):
            if "full" in name or "ring" in name:
                self.sweep()  # what has expired is not counted
            body = Put(self.next_number, size, 0, False).body()
            stored = self.bench.put(name.encode(), body, expires_in_s=expires_in_s)
            assert stored == self.expect_put(name, size, expires_in_s, False)

    @rule(name=st.sampled_from(["work", "aged", "plain", "memory", "fan"]), expires_in_s=st.sampled_from([0, 1, 3]))
    def put_large(self, name: str, expires_in_s: float) -> None:
        size = CHUNK_BYTES * 2 + 10
        self.end_turn()
        self.bench.put_large(name.encode(), Put(self.next_number, size, 0, True).body(), expires_in_s)
        self.expect_put(name, size, expires_in_s, True)
        self.note()

    def expect_put(self, name: str, size: int, expires_in_s: float, is_large: bool) -> bool:
        model, now_s = self.model, self.bench.now_s
        number, self.next_number = self.next_number, self.next_number + 1
        names = name.split(",")
        if "full" in names and len(model.queues["full"]) >= 4:
            return False
        for target in names:
            for queue in [*CHILDREN.get(target, ()), *([target] if target != "fan" else [])]:
                dies_at_s = now_s + expires_in_s if expires_in_s else float("inf")
                if queue == "aged":
                    dies_at_s = min(dies_at_s, now_s + 7)
                puts = model.queues[queue]
                if queue == "ring" and len(puts) >= 4:
                    puts.remove(next(iter(model.waiting("ring", now_s))))
                puts.append(Put(number, size, dies_at_s, is_large))
        return True

    @rule(name=st.sampled_from(TAKE_FROM), count=st.integers(1, 4))
    def take(self, name: str, count: int) -> None:
        if "dead" in name:
            self.sweep()
        for _ in range(count):
            waiting = self.model.waiting(name, self.bench.now_s)
            got = self.bench.take(name.encode())
            assert got == (waiting[0].body() if waiting else None)
            if waiting:
                self.model.queues[name].remove(waiting[0])

    @rule(name=st.sampled_from(TAKE_FROM))
    def open(self, name: str) -> None:
        if "dead" in name:
            self.sweep()
        waiting = self.model.waiting(name, self.bench.now_s)
        queue = self.queue(name)
        read = queue.open()
        assert (read is None) == (not waiting)
        if read is not None:
            assert read.body_bytes == waiting[0].size
            waiting[0].state = "open"
            self.held.append((name, waiting[0], read))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), closes=st.booleans())
    def close_or_give_back(self, data: st.DataObject, closes: bool) -> None:
        name, put, read = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        if closes:
            self.queue(name).close(read)
            self.model.queues[name].remove(put)
        else:
            self.queue(name).give_back(read)
            put.state = "returned"

    @rule(name=st.sampled_from(["work", "ring", "memory", "plain", "fan+a"]))
    def flush(self, name: str) -> None:
        self.sweep()  # what has expired, and goes elsewhere, is not flushed
        self.queue(name).flush()
        self.model.queues[name] = [put for put in self.model.queues[name] if put.state == "open"]

    @rule(name=st.sampled_from(CURSORS), count=st.integers(1, 4))
    def read_at_cursor(self, name: str, count: int) -> None:
        """It sees what waits in the queue, each once."""
        cursor = self.bench.registry.cursors.of(self.queue(name), b"c")
        if name not in self.model.seen:
            waiting = self.model.waiting(name, self.bench.now_s)
            self.model.seen[name] = min((put.number for put in waiting), default=self.next_number) - 1
        for _ in range(count):
            seen = self.model.seen[name]
            waiting = [put for put in self.model.waiting(name, self.bench.now_s) if put.number > seen]
            waiting.sort(key=lambda put: put.number)
            item = cursor.take()
            if isinstance(item, Large):
                read = cursor.open()
                assert read is not None
                item = cursor.item_of(read)
                assert isinstance(item[0], Blob)
                body = cursor.large_items.send(item[0]).next(100)
                cursor.close(read)
            else:
                body = b"" if item is None else bytes(item[0])  # type: ignore[arg-type]
            assert (int(body.split(b".")[0]) if body else None) == (waiting[0].number if waiting else None)
            if waiting:
                self.model.seen[name] = waiting[0].number

    # -- what must always hold

    @invariant()
    def nobody_has_what_another_has(self) -> None:
        for name in TAKE_FROM:
            if name.encode() in self.bench.registry.queues:
                queue = self.queue(name)
                assert queue.waiting_items >= len(self.model.waiting(name, self.bench.now_s))
                assert queue.waiting_bytes >= sum(put.size for put in self.model.waiting(name, self.bench.now_s))

    @rule()
    def count(self) -> None:
        self.sweep()
        for name in TAKE_FROM:
            queue, puts = self.queue(name), self.model.queues[name]
            waiting = [put for put in puts if put.state != "open"]
            assert queue.waiting_items == len(waiting), name
            assert queue.waiting_bytes == sum(put.size for put in waiting), name
            assert queue.open_bytes == sum(put.size for put in puts if put.state == "open"), name


TestTogether = Together.TestCase
TestTogether.settings = settings(
    max_examples=25, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
