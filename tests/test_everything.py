"""All that queues can do at once, against a plain model: fanout, aliases, cursors, limits, expiry, open reads, crashes.

Each module has tests of its own; here is what they do to one another.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from darner_core.config.options import Config
from darner_core.config.queues import QueueRules
from darner_core.engines.large_items import LARGE
from darner_core.engines.local import compaction as upkeep_module
from darner_core.engines.local import cursor_log as cursor_log_module
from darner_core.engines.local import expiry as expiry_module
from darner_core.engines.local import journal as journal_module
from darner_core.engines.local import leases as leases_module
from darner_core.engines.local import reads as reads_module
from darner_core.engines.local import sweeper as sweeper_module
from darner_core.engines.local import window as window_module
from darner_core.engines.local.compaction import Compaction
from darner_core.engines.local.engine import LocalEngine
from darner_core.engines.local.large_items import Upload
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.routing import Target
from darner_core.errors import ServerError, StorageError
from darner_core.operations.session import ManyReads, Session
from darner_core.shared_memory import BodyMemory
from darner_core.storage.records import EXPIRY_PREFIX, MAX_ID
from darner_core.storage.storage import Storage
from tests.conftest import SMALL
from tests.engines.local.test_message_queue import CHUNK_BYTES, refusing_writes, whole_body
from tests.support import plain_world as plain
from tests.support.bench import never
from tests.support.plain_world import DEAD, MOVES, OPEN, WAITS, World

AT_ONCE = 5  # expired items that a look at the head removes

# What the tables of the file may say: everything that changes where an item goes, or when.
LIMITS: list[dict[str, Any]] = [
    {},
    {"max_items": 4},
    {"max_items": 4, "discard_old_when_full": True},
    {"max_bytes": 1200},
    {"max_bytes": 1200, "discard_old_when_full": True},
    {"max_item_bytes": 300},
    {"max_age_s": 20},
]
TIMES: list[dict[str, Any]] = [
    {},
    {"expire_to_queue": DEAD},
    {"expire_to_queue": DEAD, "max_age_s": 10},
    {"open_transaction_timeout_s": 10},
    {"max_expire_sweep": 2},
    {"max_queue_age_s": 30},
]
DEADS: list[dict[str, Any]] = [{}, {}, {"max_items": 3}, {"fanout_only": True}]

NAMES = [b"p", b"p", b"p", b"p+a", b"p+b", b"q", b"q", b"r", b"memory", DEAD, b"both"]
CHILDREN = [b"p+a", b"p+b", b"dead+x", b"memory+a"]
SEVERAL = [(b"q", b"r"), (b"p", b"q", b"memory"), (b"r", b"p"), (b"both", b"q", b"p+a", b"p")]
ALIASES: list[dict[bytes, tuple[bytes, ...]]] = [
    {b"both": (b"p", b"q")},
    {b"both": (b"q",), b"r": (b"memory",), b"p+a": (b"q",)},  # hides queues
    {},
]
CURSORS = [b"", b"", b"", b"c", b"d"]
CLIENT_COUNT = 6  # of which the first three may have several items open

DEEDS = [
    *["put", "put", "open", "close"] * 6, *["take", "abort", "advance", "advance", "sweep"] * 3,
    *["fail_turn", "look_at_timeouts", "change_rules", "finish_large", "begin_large"] * 4, "put_several", "put_several",
    "make_child", "make_child", "hang_up", "peek", "confirm", "flush", "delete", "delete_cursor", "change_aliases",
    "expire_queues", "crash", "restart", "tidy_up", "empty_all",
]  # fmt: skip

# What may go on while a sweep waits for its next turn.
MEANWHILE = ["nothing", "nothing", "put", "take", "open", "close", "hang_up", "flush", "delete", "look_at_timeouts",
    "fail_turn", "crash"]  # fmt: skip


class Crash(Exception):
    """In the middle of a sweep."""


class OneTurn:
    """A client whose large item goes into so few queues that nobody has a turn meanwhile."""

    def wait_turn(self) -> None:
        raise AssertionError


class Everything(RuleBasedStateMachine):
    """Six clients, queues with children, cursors and an alias, and whatever goes wrong. EXAMPLES=1000 tries for longer.

    Nothing is lost, nothing comes twice, the order is kept, nothing that has expired is handed out, and every figure is
    true: after every step and every turn, one that could not be written included, in the middle of a sweep, and after a
    crash or a restart, which reads everything back from disk.
    """

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.storage = Storage(str(Path(self.directory.name) / "data"), **{**SMALL, "max_column_families": 2})
        self.world = World(AT_ONCE)
        self.now_s = 1000.0
        self.bodies = 0
        self.seen: dict[int, int] = {}  # since when the open reads have been seen, by number
        self.swept: dict[bytes, int] = {}
        self.disturbed = False
        self.meanwhile: list[Any] = []
        self.queue_rules = QueueRules(None, {b"memory": {"durable": False}})
        self.start()

    def teardown(self) -> None:
        self.storage.close()
        self.directory.cleanup()

    def start(self) -> None:
        world = self.world
        world.now_ms = self.now_ms
        world.set_rules(self.queue_rules)
        memory = BodyMemory(1 << 20, lambda: None)
        config = Config(window_bytes=4000, chunk_bytes=CHUNK_BYTES, rules=self.queue_rules)
        engine = LocalEngine(
            config, self.storage, memory, never, lambda: self.now_s, lambda: self.now_s, self.wait_in_sweep
        )
        self.journal, self.registry, self.routing = engine.journal, engine.registry, engine.routing
        self.routing.set_aliases(world.aliases)
        self.sweeper, self.leases = engine.sweeper, engine.leases
        self.upkeep = Compaction(self.registry, self.journal, 0)
        self.sessions = [self.new_session(client) for client in range(CLIENT_COUNT)]
        self.uploads: list[list[tuple[Target, Upload]]] = []
        self.journal.commit()
        self.begin_turn()

    @property
    def now_ms(self) -> int:
        return int(self.now_s * 1000)

    def new_session(self, client: int) -> Session:
        return ManyReads(self.journal) if client < CLIENT_COUNT // 2 else Session(self.journal)

    def begin_turn(self) -> None:
        self.journal.begin()
        self.before = self.world.copy()
        self.gone: set[int] = set()
        self.timed_out: set[int] = set()

    # One rule: left to choose among many, hypothesis leaves out half of them in each run.
    @rule(
        do=st.sampled_from(DEEDS),
        name=st.sampled_from(NAMES),
        cursor=st.sampled_from(CURSORS),
        count=st.integers(1, 4),
        size=st.sampled_from([0, 30, 300, 1000]),
        expires_in_s=st.sampled_from([0, 0, 0, -5, 5, 5, 15, 60]),
        ends=st.booleans(),
        data=st.data(),
    )
    def step(self, do: str, ends: bool, data: st.DataObject, **chosen: Any) -> None:
        self.data = data
        self.do(do, **chosen)
        if ends:
            self.end_turn()

    def do(self, do: str, name: bytes, cursor: bytes, count: int, size: int, expires_in_s: int) -> None:
        self.name, self.cursor_name, self.size = name, cursor, size
        self.count = count
        self.expires_ms = self.now_ms + expires_in_s * 1000 if expires_in_s and name != DEAD else 0
        getattr(self, do)()
        self.settle_dead()

    def choose(self, among: list[Any]) -> Any:
        return self.data.draw(st.sampled_from(among))

    # -- the real and the plain thing

    def found(self) -> Any:
        """The queue or cursor that is meant, as the server and as the model have it."""
        queue, expected = self.registry.queues.get(self.name), self.world.find(self.name)
        assert (queue is None) == (expected is None)
        if queue is None or expected is None:
            return None
        if not self.cursor_name or self.name.startswith(DEAD):
            return queue, expected
        if expected.in_memory:
            with pytest.raises(ServerError):
                self.registry.cursors.of(queue, self.cursor_name)
            return queue, expected
        return self.registry.cursors.of(queue, self.cursor_name), self.world.cursor(expected, self.cursor_name)

    def settled(self, queue: MessageQueue) -> bool:
        """Whether what was found is the answer; else so many had expired that it takes another turn."""
        if not queue.half_swept:
            return True
        self.end_turn()
        return False

    def body_of(self, queue: Any, read: Any) -> bytes:
        return whole_body(getattr(queue, "parent", queue), queue.item_of(read)[0])

    def a_body(self, size: int) -> bytes:
        self.bodies += 1
        return b"%d " % self.bodies + b"x" * size

    # -- putting

    def put(self) -> None:
        self.put_into((self.name,))

    def put_several(self) -> None:
        self.put_into(SEVERAL[self.count % len(SEVERAL)])

    def put_into(self, names: tuple[bytes, ...]) -> None:
        for _ in range(self.count):
            body = self.a_body(self.size)
            stored = self.routing.put(names, body, self.count, self.expires_ms)
            assert (stored is not None) == self.world.put(names, body, self.count, self.expires_ms)
            self.settle_dead()

    def begin_large(self) -> None:
        """As `receive_large` does. Its end may be in any later turn."""
        names = (self.name,) if self.count > 1 else self.choose(SEVERAL)
        body = self.a_body(900)
        before = set(self.world.queues)
        transfer = self.routing.transfer(names, len(body))
        found, expected = transfer.find_queues(), self.world.targets(names, len(body))
        self.settle_dead()
        assert (found is None) == (expected is None)
        if found is None or expected is None:
            return
        targets = transfer._targets
        names_found = [target.queue.name for target in targets]
        assert sorted(names_found) == sorted(queue.name for queue, _ in expected)
        expected.sort(key=lambda one: names_found.index(one[0].name))  # children come in any order
        if not targets:
            return
        transfer.wait_begin(OneTurn().wait_turn)
        uploads = transfer.uploads
        for _, upload in uploads:
            for at in range(0, len(body), CHUNK_BYTES):
                upload.add(body[at : at + CHUNK_BYTES])
            upload.store()
        self.uploads.append(uploads)
        made = [queue for queue, _ in expected if queue.name not in before]
        assert {queue.name for queue in made} == {target.queue.name for target in targets if target.made}
        self.world.uploads.append(plain.Upload(names, expected, body, self.count, made))
        if self.count % 2:
            self.finish_large()

    def finish_large(self) -> None:
        if not self.uploads:
            return
        uploads, expected = self.uploads.pop(), self.world.uploads.pop()
        if any(target.queue.deleted for target, _ in uploads if target.decides):
            for _, upload in uploads:
                upload.drop()
            self.routing.abandon(target for target, _ in uploads)
            self.world.abandon(expected)
            return
        names, body, flags = expected.names, expected.body, expected.flags
        expires_ms = self.expires_ms if DEAD not in names else 0
        stored = self.routing.put_large(names, uploads, len(body), flags, expires_ms) is not None
        assert stored == self.world.put_into(expected.targets, body, flags, expires_ms, True)
        if not stored:
            self.world.abandon(expected)

    # -- reading

    def take(self) -> None:
        for _ in range(self.count):
            if (found := self.found()) is None:
                return
            queue, place = found
            item, expected = queue.take(), self.world.hand_out(place)
            self.settle_dead()
            if item is LARGE:
                read = queue.open()
                assert read is not None
                assert expected is not None
                assert (self.body_of(queue, read), True) == (expected.item.body, expected.item.large)
                queue.close(read)
            elif item is None:
                assert expected is None
                if self.settled(queue):
                    return
                continue
            else:
                assert expected is not None
                assert isinstance(item, tuple)
                assert item[:2] == (expected.item.body, expected.item.flags)
            self.world.close(expected)

    def peek(self) -> None:
        while (found := self.found()) is not None:
            queue, place = found
            item, expected = queue.peek(), self.world.look(place)
            assert (item is None) == (expected is None)
            self.settle_dead()
            if item is not None and expected is not None:
                assert whole_body(getattr(queue, "parent", queue), item[0]) == expected.body
            elif not self.settled(queue):
                continue
            return

    def open(self) -> None:
        for client in range(CLIENT_COUNT):
            session = self.sessions[client]
            if not session.holds_nothing and (not session.several_reads or self.count < 3):
                continue
            if (found := self.found()) is None:
                return
            queue, place = found
            read, expected = queue.open(), self.world.hand_out(place)
            assert (read is None) == (expected is None), (read, expected)
            self.settle_dead()
            if read is not None and expected is not None:
                session.hold(read)
                self.world.hold(client, expected)
            elif self.settled(queue):
                return
            if client >= self.count:
                return

    def a_holder(self) -> tuple[int, plain.Read] | None:
        """Somebody who has something open, and what comes first there."""
        clients = [client for client, held in self.world.held.items() if held]
        if not clients:
            return None
        client = sorted(clients)[self.size % 7 % len(clients)]
        held = self.world.held[client]
        return client, held[self.count % len(held)]

    def first_of(self, client: int, read: plain.Read) -> plain.Read:
        """The oldest that the client has open of the same queue."""
        return next(one for one in self.world.held[client] if one.place.name == read.place.name)

    def close(self) -> None:
        if (holder := self.a_holder()) is not None:
            client, read = holder
            self.sessions[client].close_read(read.place.name)
            first = self.first_of(client, read)
            self.world.held[client].remove(first)
            self.world.close(first)

    def confirm(self) -> None:
        if (holder := self.a_holder()) is None:
            return
        client, read = holder
        session = self.sessions[client]
        if isinstance(session, ManyReads):
            same = [one for one in self.world.held[client] if one.place.name == read.place.name]
            assert session.close_oldest(read.place.name, self.count) == (len(same) >= self.count)
            if len(same) >= self.count:
                for one in same[: self.count]:
                    self.world.held[client].remove(one)
                    self.world.close(one)

    def abort(self) -> None:
        if (holder := self.a_holder()) is not None:
            client, read = holder
            self.sessions[client].abort_read(read.place.name)
            first = self.first_of(client, read)
            self.world.held[client].remove(first)
            self.world.give_back(first)

    def hang_up(self) -> None:
        client = self.count % CLIENT_COUNT if (holder := self.a_holder()) is None else holder[0]
        self.sessions[client].end()
        self.sessions[client] = self.new_session(client)
        self.gone.add(client)
        for read in self.world.held.pop(client, []):
            self.world.give_back(read)

    def look_at_timeouts(self) -> None:
        self.look_once()
        if self.count > 2:
            self.pass_time(10)
            self.look_once()
            self.open()

    def look_once(self) -> None:
        for _ in self.leases.look():
            pass
        seen, self.seen = self.seen, {}
        for name, queue in self.world.queues.items():
            timeout_ms = queue.options.open_transaction_timeout_s * 1000
            if not timeout_ms or name in self.world.aliases:
                continue
            cursors = [read for cursor in queue.cursors.values() for read in cursor.open.values()]
            for read in [*queue.reads, *cursors]:
                since = seen.get(read.number, self.now_ms)
                if self.now_ms - since >= timeout_ms:
                    self.world.give_back(read)
                    self.timed_out.add(read.number)
                else:
                    self.seen[read.number] = since
            self.found_moving(queue)

    # -- the rest

    def flush(self) -> None:
        if (found := self.found()) is not None:
            found[0].flush()
            self.world.flush(found[1])

    def delete(self) -> None:
        if self.count > 2:
            return
        self.registry.delete(self.name)
        self.world.delete(self.name)

    def delete_cursor(self) -> None:
        short = self.cursor_name or b"c"
        queue = self.world.find(self.name)
        self.registry.cursors.delete(self.name, short)
        if queue is not None and short in queue.cursors:
            self.world.delete_cursor(queue, short)

    def make_child(self) -> None:
        name = CHILDREN[self.count % len(CHILDREN)]
        self.registry.child(name)
        if name not in self.world.aliases:
            self.world.child(name)

    def change_rules(self) -> None:
        def some() -> dict[str, Any]:
            return {**self.choose(LIMITS), **self.choose(TIMES)}

        tables: dict[bytes, dict[str, Any]] = {
            b"p": some(), b"q": some(), b"r*": some(), b"memory": {**some(), "durable": False},
            DEAD: self.choose(DEADS),
        }  # fmt: skip
        if self.size == 0:
            tables[b"p"]["fanout_only"] = True
        if self.size < 100:
            tables[b"p+b"] = some()
        self.queue_rules = QueueRules(None, tables)
        list(self.registry.set_rules(self.queue_rules))
        self.world.set_rules(self.queue_rules)
        list(self.registry.make_named())
        self.world.create_named()

    def change_aliases(self) -> None:
        self.aliases = ALIASES[self.count % len(ALIASES)]
        self.end_turn()
        self.routing.set_aliases(self.aliases)
        self.world.aliases = self.before.aliases = self.aliases

    def advance(self) -> None:
        self.pass_time(self.choose([1, 5, 5.001, 10.001, 16]))

    def pass_time(self, seconds: float) -> None:
        self.end_turn()
        self.now_s += seconds
        self.world.now_ms = self.before.now_ms = self.now_ms
        self.journal.begin()

    def tidy_up(self) -> None:
        for job in self.upkeep.tick():
            job()

    def expire_queues(self) -> None:
        """Twice, because the first look only sees that nobody uses them."""
        expires = self.registry.expires

        def look() -> None:
            nonlocal expires
            gone = [q for n, q in self.world.queues.items() if n not in {*self.registry.queues, *self.registry.hidden}]
            for queue in gone:
                assert not queue.items
                assert not any(cursor.open or cursor.returned for cursor in queue.cursors.values())
                assert 0 < queue.options.max_queue_age_s * 1000 <= self.now_ms - queue.used_ms
                self.world.delete(queue.name)
            assert self.registry.expires == expires + len(gone)
            self.end_turn()
            expires = self.registry.expires

        self.sweeper._wait = lambda _: look()
        for wait_s in (0, 31):
            self.pass_time(wait_s)
            self.sweeper.wait_expire_queues()
            look()
        self.sweeper._wait = self.wait_in_sweep

    # -- sweeping

    def sweep(self) -> None:
        self.end_turn()
        self.swept, self.disturbed = {}, False
        self.meanwhile = [self.choose(MEANWHILE) for _ in range(6)] if self.count > 2 else []
        try:
            self.sweeper.wait_sweep()
        except Crash:
            return
        self.sweeper_waited(complete=not self.disturbed)

    def wait_in_sweep(self, _: float) -> None:
        self.sweeper_waited()
        self.end_turn()
        deed = self.meanwhile.pop(0) if self.meanwhile else "nothing"
        if deed == "nothing":
            return
        self.disturbed = True
        if deed == "crash":
            self.crash()
            raise Crash
        if deed == "fail_turn":  # that in which the sweep goes on is another one, so begin it
            self.fails = True
            return
        self.do(deed, self.choose(NAMES), b"", self.choose([1, 2, 3, 4]), 30, 5)

    def sweeper_waited(self, complete: bool = False) -> None:
        """See what the sweep has removed. It may be anything that has expired, and all in the end."""
        world = self.world
        if DEAD in self.registry.queues and DEAD not in world.queues:
            world.create(DEAD)  # a large item is on its way there
        for queue in world.queues.values():
            if queue.name.startswith(DEAD):
                continue
            there = dict(self.contents(queue.name))
            for item in list(queue.items):
                is_open = there.pop(item.body, None)
                if item.state == OPEN:
                    assert is_open, item
                elif is_open is None:
                    assert item.state == MOVES or world.has_expired(queue, item), f"{queue.name!r} has lost {item}"
                    if item.state != MOVES and not (item.large and queue.options.expire_to_queue):
                        self.swept[queue.name] = self.swept.get(queue.name, 0) + 1  # what is moved does not count
                    world.expire(queue, item)
                elif is_open and item.state == WAITS:
                    assert item.large, item
                    assert queue.options.expire_to_queue, item
                    assert world.has_expired(queue, item), item
                    item.state = MOVES
                elif not is_open:
                    item.state = WAITS
            assert not there
            most = queue.options.max_expire_sweep
            if complete:
                assert not most or self.swept.get(queue.name, 0) <= most
                left = [item for item in queue.waiting if world.has_expired(queue, item)]
                if queue.options.expire_to_queue:  # large ones are moved when they are the head
                    left = [item for item in left if not item.large or item is queue.waiting[0]]
                assert not left or most, (queue.name, left)
        self.settle_dead()

    def settle_dead(self) -> None:
        """What has expired in this step is in DEAD and its children now, in whatever order, as far as there is room."""
        world = self.world
        limbo, world.limbo = world.limbo, []
        if not limbo:
            return
        # All or nothing: a child has none that DEAD does not take.
        taken = len(limbo)
        for queue, decides in sorted(world.targets((DEAD,)) or (), key=lambda target: not target[1]):
            arrived = [body for body, _ in self.contents(queue.name)][len(queue.items) :]
            most = queue.options.max_items
            room = max(0, most - len(queue.items)) if most else taken
            assert len(arrived) == min(room, taken), (queue.name, arrived, limbo)
            taken = len(arrived) if decides else taken
            coming = list(limbo)
            for body in arrived:
                item = next(one for one in coming if one.body == body)
                coming.remove(item)
                world.number()
                queue.items.append(plain.Item(world.count, body, item.flags, 0, world.now_ms, item.large))
                queue.total += 1
                queue.used_ms = world.now_ms

    # -- the ends of turns

    fails = False

    def end_turn(self) -> None:
        if self.fails:
            self.fails = False
            self.fail_turn()
            return
        self.journal.commit()
        self.begin_turn()
        self.look_everywhere()

    def fail_turn(self) -> None:
        try:
            with refusing_writes(self.storage):
                self.journal.commit()
        except StorageError:
            self.undo()
        if self.size % 4:
            self.registry.recheck()
        self.journal.commit()
        self.begin_turn()
        self.look_everywhere()

    def undo(self) -> None:
        uploads = [uploads for uploads in self.uploads if not any(target.queue.deleted for target, _ in uploads)]
        self.world = world = self.before
        self.uploads, world.uploads = [], []  # their clients are told of the error
        for one in uploads:
            for _, upload in one:
                upload.drop()
        world.set_rules(self.queue_rules)
        for client in self.gone:
            for read in world.held.pop(client, []):
                world.give_back(read)
        for queue in world.queues.values():
            reads = [*queue.reads, *(read for cursor in queue.cursors.values() for read in cursor.open.values())]
            for read in reads:
                if read.number in self.timed_out:
                    world.give_back(read)
            self.found_moving(queue)

    def found_moving(self, queue: plain.Queue) -> None:
        """What is on its way to where expired items go is a matter of the server's memory."""
        is_open = dict(self.contents(queue.name))
        for item in queue.items:
            if item.state == MOVES and not is_open[item.body]:
                item.state = WAITS

    def crash(self) -> None:
        self.world = self.before
        self.world.restart()
        self.storage.close()
        self.storage = Storage(self.storage.path, **{**SMALL, "max_column_families": 2})
        self.start()
        self.look_everywhere()

    def restart(self) -> None:
        self.end_turn()
        self.registry.record_all()
        self.journal.commit()
        self.crash()

    def empty_all(self) -> None:
        """All that comes is what should, whatever is in memory; and nothing is left on disk."""
        self.crash()
        for cursor in (b"c", b"d", b""):
            for name in list(self.world.queues):
                queue = self.world.find(name)
                if queue is not None and (not cursor or cursor in queue.cursors):
                    self.name, self.cursor_name, self.count = name, cursor, 1000
                    self.take()
        self.end_turn()
        hidden = [queue for name, queue in self.world.queues.items() if name in self.world.aliases]
        moving = any(queue.held for queue in self.world.queues.values())
        if not moving and not any(queue.items or queue.cursors for queue in hidden):
            assert self.storage.first_chunk() is None

    # -- what has to be true

    def contents(self, name: bytes) -> list[tuple[bytes, bool]]:
        """(body, whether it is open) of all that is in a queue, in order, in the middle of a turn, too."""
        queue = self.registry.queues.get(name) or self.registry.hidden[name]
        found = []
        removed = set(queue.log.removed)
        for item_id in range(queue.first_id(), queue.tail):
            read = queue.outstanding.get(item_id)
            if item_id in removed or (item_id < queue.next_id and read is None):
                continue
            item = queue.log.find(item_id)
            if item is not None:
                found.append((whole_body(queue, item[0]), read is not None and not read.returned))
        return found

    def look_everywhere(self) -> None:
        """After a turn."""
        latest: dict[int, int] = {}  # when what waits in a queue is looked at, at the latest
        for hint in [*self.hints(), *(again._replace(expires_at_ms=MAX_ID) for again in self.journal.again)]:
            latest[hint.number] = max(latest.get(hint.number, 0), hint.expires_at_ms)
        for name, queue in self.world.queues.items():
            there = self.contents(name)
            assert there == [(item.body, item.state != WAITS) for item in queue.items], (name, there, queue.items)
            real = self.registry.queues.get(name) or self.registry.hidden[name]
            for item in queue.items:
                if item.expires_ms and (item.state == WAITS or item.expires_ms > self.journal.swept_ms):
                    assert latest.get(real.log.record.number, 0) >= item.expires_ms, (name, item)

    def hints(self) -> Iterator[Any]:
        yield from self.storage.expiries(EXPIRY_PREFIX, MAX_ID, 10**6)

    @invariant()
    def the_figures_are_true(self) -> None:
        world = self.world
        real = {**self.registry.queues, **self.registry.hidden}
        assert sorted(real) == sorted(world.queues)
        assert sorted(self.registry.hidden) == sorted(name for name in world.queues if name in world.aliases)
        children = {name for queues in self.registry.children.values() for name in queues}
        assert children == {name for name, queue in world.queues.items() if queue.is_child}
        for name, queue in world.queues.items():
            assert figures(real[name]) == plain_figures(queue), name
            assert sorted(real[name].cursors or ()) == sorted(queue.cursors)
            items = [*queue.items, *(item for cursor in queue.cursors.values() for item in cursor.returned.values())]
            # A cursor's figure is the highest that it can be, if some of what it has to pass over has expired.
            exact = not real[name].missing and not any(world.has_expired(queue, item) for item in items)
            for short, cursor in (real[name].cursors or {}).items():
                expected = queue.cursors[short]
                assert cursor.open_reads == len(expected.open)
                to_come = world.to_come(expected)
                assert cursor.waiting_items >= len(to_come), (cursor.name, to_come)
                assert cursor.waiting_items == len(to_come) or not exact, (cursor.name, to_come)

    @invariant()
    def what_is_open_can_be_read(self) -> None:
        for client, session in enumerate(self.sessions):
            expected: dict[bytes, list[plain.Read]] = {}
            for read in self.world.held.get(client, []):
                expected.setdefault(read.place.name, []).append(read)
            held = reads_of(session)
            assert {name: len(reads) for name, reads in held.items()} == {n: len(r) for n, r in expected.items()}
            for name, reads in held.items():
                for mine, other in zip(reads, expected[name], strict=True):
                    assert mine.queue.holds(mine) == other.lives, (name, other.item)
                    if other.lives:
                        assert self.body_of(mine.queue, mine) == other.item.body


def reads_of(session: Session) -> dict[bytes, list[Any]]:
    if isinstance(session, ManyReads):
        return {name: list(reads) for name, reads in session._reads.items()}
    return {session.open_read.queue.name: [session.open_read]} if session.open_read is not None else {}


def figures(queue: MessageQueue) -> dict[str, int]:
    return {
        "waiting_items": queue.waiting_items,
        "waiting_bytes": queue.waiting_bytes,
        "open_reads": queue.open_reads,
        "open_bytes": queue.open_bytes,
        "stored_bytes": queue.stored_bytes(),
        "expired_items": queue.expired_items,
        "discarded": queue.discarded,
        "total_items": queue.total_items,
        "total_flushes": queue.total_flushes,
        "transactions": queue.transactions,
        "canceled_transactions": queue.canceled_transactions,
    }


def plain_figures(queue: plain.Queue) -> dict[str, int]:
    return {
        "waiting_items": len(queue.waiting),
        "waiting_bytes": plain.size_of(queue.waiting),
        "open_reads": len(queue.held),
        "open_bytes": plain.size_of(queue.held),
        "stored_bytes": plain.size_of(queue.items),
        "expired_items": queue.expired,
        "discarded": queue.discarded,
        "total_items": queue.total,
        "total_flushes": queue.flushes,
        "transactions": queue.transactions,
        "canceled_transactions": queue.canceled,
    }


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes thousands of items takes a few."""
    for module, name, value in (
        (MessageQueue.drop_expired, "__defaults__", (AT_ONCE, 0)),
        (expiry_module.drop_expired, "__defaults__", (AT_ONCE, 0)),
        (reads_module, "MANY", 2),
        (sweeper_module, "MOST_TAKEN", 2),
        (sweeper_module, "TIDIED_AT_ONCE", 3),
        (window_module, "FILL_ITEMS", 5),
        (window_module, "FILL_BYTES", 2000),
        (cursor_log_module, "NEAR_ITEMS", 2),
        (journal_module, "STATE_EVERY", 4),
        (journal_module, "RECLAIM_ITEMS", 5),
        (journal_module, "RECLAIM_BYTES", 4000),
        (expiry_module, "GAP_IDS", 3),
        (sweeper_module, "SWEPT_AT_ONCE", 3),
        (sweeper_module, "SWEPT_BYTES", 1500),
        (sweeper_module, "MOST_DEAD", 4),
        (sweeper_module, "QUEUES_AT_ONCE", 2),
        (leases_module, "LOOKS_A_TURN", 3),
        (upkeep_module, "QUEUES_A_TICK", 3),
    ):
        monkeypatch.setattr(module, name, value)


EXAMPLES = settings(
    max_examples=int(os.environ.get("EXAMPLES", "25")),
    stateful_step_count=int(os.environ.get("STEPS", "60")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
    print_blob=True,
)


@pytest.mark.usefixtures("small_steps")
def test_all_that_queues_do_together_agrees_with_a_plain_model() -> None:
    run_state_machine_as_test(Everything, settings=EXAMPLES)
