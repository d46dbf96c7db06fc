"""What one connection holds, over a real journal: closing confirms, hanging up gives back, a failed write undoes."""

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from darner_core.config.options import Config
from darner_core.engines.local.engine import LocalEngine
from darner_core.errors import ClientError, StorageError
from darner_core.operations import session as session_module
from darner_core.operations.session import ManyReads, Session
from darner_core.shared_memory import BodyMemory
from darner_core.storage.records import Blob
from darner_core.storage.storage import Storage
from tests.conftest import SMALL
from tests.support.bench import never, opened

OpenStorage = Callable[[], Storage]


class House:
    """A server without its sockets: queues, sessions, turns."""

    def __init__(self, open_storage: OpenStorage, config: Config | None = None) -> None:
        self._open = open_storage
        self.config = config or Config()
        self.storage = open_storage()
        self._start()

    def _start(self) -> None:
        self.memory = BodyMemory(self.config.body_memory_bytes, lambda: None)
        self.engine = LocalEngine(self.config, self.storage, self.memory, never)
        self.journal, self.registry = self.engine.journal, self.engine.registry

    def restart(self) -> None:
        self.storage.close()
        self.storage = self._open()
        self._start()

    def session(self) -> Session:
        return Session(self.journal)

    def many(self) -> ManyReads:
        return ManyReads(self.journal)

    def put(self, *bodies: bytes, queue: bytes = b"q") -> None:
        """In this turn."""
        found = self.registry.queues.get(queue) or self.registry.create(queue)
        for body in bodies:
            found.put(body, 0, 0)

    def open(self, session: Session, queue: bytes = b"q") -> bytes | None:
        """`get queue/open`, in this turn."""
        session.require_none_open()
        found = self.registry.queues.get(queue)
        read = found.open() if found is not None else None
        if read is None:
            return None
        session.hold(read)
        body = read.queue.item_of(read)[0]
        assert isinstance(body, bytes)
        return body

    def waiting(self, queue: bytes = b"q") -> list[bytes]:
        """What gets would answer, in order; nothing is changed."""
        someone, found = self.session(), []
        holders = []
        while (body := self.open(someone, queue)) is not None:
            found.append(body)
            holders.append(someone)
            someone = self.session()
        for holder in reversed(holders):
            holder.end()
        self.turn()
        return found

    def turn(self) -> None:
        """The end of a turn: it is written."""
        self.journal.commit()

    def failing_turn(self) -> None:
        """The end of a turn that the disk refuses."""

        def refuse(*_: object) -> None:
            raise StorageError("no space left on device")

        with pytest.MonkeyPatch.context() as broken:
            broken.setattr(self.storage, "write", refuse)
            broken.setattr(self.storage, "put", refuse)
            with pytest.raises(StorageError):
                self.journal.commit()

    def give_back(self, queue: bytes = b"q") -> None:
        """All that is open there was open for too long."""
        found = self.registry.queues[queue]
        for read in list(found.outstanding.values()):
            found.give_back(read)


@pytest.fixture
def house(open_storage: OpenStorage) -> House:
    house = House(open_storage)
    house.put(b"a", b"b", b"c")
    house.turn()
    return house


# -- one read at a time


def test_only_one_read_is_open_at_a_time_of_whichever_queue(house: House) -> None:
    session = house.session()
    session.require_none_open()
    assert house.open(session) == b"a"
    house.put(b"x", queue=b"other")
    for queue in (b"q", b"other"):
        with pytest.raises(ClientError, match="close current read first: an item of queue q is open"):
            house.open(session, queue)
    session.close_read()
    assert house.open(session, b"other") == b"x"


def test_a_queue_of_any_name_is_told_of_in_one_line(house: House) -> None:
    session = house.session()
    house.put(b"x", queue=b"\xff\xc3\xa9")
    house.open(session, b"\xff\xc3\xa9")
    with pytest.raises(ClientError, match="queue \\\\xffé is open") as refused:
        session.require_none_open()
    assert refused.value.reply.count(b"\n") == 1


def test_sessions_do_not_know_of_each_other(house: House) -> None:
    first, second = house.session(), house.session()
    assert house.open(first) == b"a"
    second.require_none_open()
    assert house.open(second) == b"b"
    first.close_read()
    house.turn()
    assert second.open_read is not None
    second.end()
    assert house.waiting() == [b"b", b"c"]


# -- close, abort, hang up


def test_what_is_closed_is_gone(house: House) -> None:
    session = house.session()
    house.open(session)
    session.close_read()
    house.turn()
    session.require_none_open()
    session.end()
    assert house.waiting() == [b"b", b"c"]
    house.restart()
    assert house.waiting() == [b"b", b"c"]


def test_what_is_aborted_is_the_next_to_be_handed_out(house: House) -> None:
    session = house.session()
    house.open(session)
    session.abort_read()
    house.turn()
    session.require_none_open()
    assert house.waiting() == [b"a", b"b", b"c"]
    assert house.open(session) == b"a"


def test_what_a_client_held_when_it_hung_up_is_the_next_to_be_handed_out(house: House) -> None:
    session = house.session()
    house.open(session)
    session.end()
    house.turn()
    assert house.waiting() == [b"a", b"b", b"c"]


def test_hanging_up_twice_gives_back_once(house: House) -> None:
    session, other = house.session(), house.session()
    house.open(session)
    session.end()
    assert house.open(other) == b"a"
    session.end()
    house.turn()
    assert house.waiting() == [b"b", b"c"]


def test_who_holds_nothing_closes_and_aborts_and_hangs_up_in_peace(house: House) -> None:
    session = house.session()
    session.close_read()
    session.abort_read()
    session.close_read()
    session.end()
    house.turn()
    assert house.waiting() == [b"a", b"b", b"c"]


def test_what_is_open_at_a_crash_waits_after_it(house: House) -> None:
    first, second = house.session(), house.session()
    house.open(first)
    house.open(second)
    second.close_read()
    house.turn()
    house.restart()
    assert house.waiting() == [b"a", b"c"]


def test_a_read_of_a_deleted_queue_is_let_go_of_quietly(house: House) -> None:
    for let_go in (Session.close_read, Session.abort_read, Session.end):
        session = house.session()
        house.put(b"x", queue=b"doomed")
        house.open(session, b"doomed")
        house.registry.delete(b"doomed")
        house.turn()
        let_go(session)
        house.turn()
        session.require_none_open()
        assert house.registry.queues.get(b"doomed") is None


# -- a turn that cannot be written has not happened


def test_a_close_that_cannot_be_written_leaves_the_read_open(house: House) -> None:
    session = house.session()
    house.open(session)
    house.turn()
    session.close_read()
    house.failing_turn()
    with pytest.raises(ClientError):
        session.require_none_open()
    assert house.waiting() == [b"b", b"c"]
    session.close_read()
    house.turn()
    assert house.waiting() == [b"b", b"c"]
    house.restart()
    assert house.waiting() == [b"b", b"c"]


def test_a_failed_close_of_a_client_that_hung_up_gives_the_item_back(house: House) -> None:
    session = house.session()
    house.open(session)
    house.turn()
    session.close_read()
    session.end()
    house.failing_turn()
    assert house.waiting() == [b"a", b"b", b"c"]


def test_an_abort_that_cannot_be_written_leaves_the_read_open(house: House) -> None:
    session = house.session()
    house.open(session)
    house.turn()
    session.abort_read()
    house.put(b"d")
    house.failing_turn()
    with pytest.raises(ClientError):
        session.require_none_open()
    assert house.waiting() == [b"b", b"c"]
    session.end()
    assert house.waiting() == [b"a", b"b", b"c"]


def test_a_failed_abort_of_a_client_that_hung_up_leaves_the_item_waiting(house: House) -> None:
    session = house.session()
    house.open(session)
    house.turn()
    session.abort_read()
    session.end()
    house.put(b"d")
    house.failing_turn()
    assert session.open_read is None
    assert house.waiting() == [b"a", b"b", b"c"]


def test_what_others_took_after_a_failed_abort_comes_back_to_who_had_it(house: House) -> None:
    first, second = house.session(), house.session()
    house.open(first)
    house.turn()
    first.abort_read()
    assert house.open(second) == b"a"
    house.put(b"d")
    house.failing_turn()
    second.require_none_open()
    with pytest.raises(ClientError):
        first.require_none_open()
    first.close_read()
    house.turn()
    assert house.waiting() == [b"b", b"c"]


def test_a_read_opened_in_a_failed_turn_is_not_held(house: House) -> None:
    session = house.session()
    assert house.open(session) == b"a"
    house.put(b"d")
    house.failing_turn()
    session.require_none_open()
    assert house.waiting() == [b"a", b"b", b"c"]


def test_closing_one_and_opening_the_next_fails_as_one(house: House) -> None:
    session = house.session()
    assert house.open(session) == b"a"
    house.turn()
    session.close_read()
    assert house.open(session) == b"b"
    house.failing_turn()
    with pytest.raises(ClientError):
        session.require_none_open()
    assert house.waiting() == [b"b", b"c"]
    session.close_read()
    house.turn()
    assert house.waiting() == [b"b", b"c"]


def test_opening_and_closing_within_a_failed_turn_leaves_all_as_it_was(house: House) -> None:
    session = house.session()
    for _ in range(3):
        house.open(session)
        session.close_read()
    house.failing_turn()
    session.require_none_open()
    assert house.waiting() == [b"a", b"b", b"c"]
    house.restart()
    assert house.waiting() == [b"a", b"b", b"c"]


def test_a_turn_that_was_written_is_not_undone_by_the_next_that_fails(house: House) -> None:
    session = house.session()
    house.open(session)
    session.close_read()
    house.turn()
    assert house.open(session) == b"b"
    house.turn()
    house.put(b"d")
    house.failing_turn()
    with pytest.raises(ClientError):
        session.require_none_open()
    assert house.waiting() == [b"c"]
    session.end()
    assert house.waiting() == [b"b", b"c"]


# -- several reads at a time


def test_a_session_of_several_reads_holds_one_of_each_queue_and_more(house: House) -> None:
    session = house.many()
    house.put(b"x", queue=b"other")
    assert [house.open(session), house.open(session, b"other"), house.open(session)] == [b"a", b"x", b"b"]
    assert (session.open_reads(b"q"), session.open_reads(b"other"), session.open_reads(b"none")) == (2, 1, 0)
    assert not session.holds_nothing
    assert house.waiting() == [b"c"]


def test_close_and_abort_act_on_the_oldest_of_the_queue_that_is_named(house: House) -> None:
    session = house.many()
    house.put(b"x", queue=b"other")
    house.open(session, b"other")
    house.open(session)
    house.open(session)
    session.close_read(b"q")
    session.abort_read(b"none")
    session.close_read(b"none")
    house.turn()
    assert (session.open_reads(b"q"), session.open_reads(b"other")) == (1, 1)
    session.abort_read(b"q")
    house.turn()
    assert house.waiting() == [b"b", b"c"]
    session.end()
    assert house.waiting(b"other") == [b"x"]


def test_so_many_of_the_oldest_are_closed_or_none(house: House) -> None:
    session = house.many()
    for _ in range(3):
        house.open(session)
    assert not session.close_oldest(b"q", 4)
    assert not session.close_oldest(b"other", 1)
    assert session.close_oldest(b"q", 2)
    house.turn()
    assert session.open_reads(b"q") == 1
    session.end()
    house.turn()
    house.restart()
    assert house.waiting() == [b"c"]


def test_what_cannot_be_closed_whole_is_not_closed_in_part(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = house.registry.queues[b"q"]
    queue.put(Blob(1, 5000), 0, 0)
    house.turn()
    session = house.many()
    for _ in range(4):
        read = queue.open()
        assert read is not None
        session.hold(read)

    def refuse(number: int) -> int:
        raise StorageError("cannot be read")

    with monkeypatch.context() as broken:
        broken.setattr(house.storage, "next_blob", refuse)
        with pytest.raises(StorageError):
            session.close_oldest(b"q", 4)
    assert session.open_reads(b"q") == 4
    assert queue.open_reads == 4
    assert session.close_oldest(b"q", 4)
    assert queue.open_reads == 0


def test_no_more_reads_of_a_queue_than_are_allowed(house: House) -> None:
    session = house.many()
    session.require_room(b"q", 1)
    house.open(session)
    with pytest.raises(ClientError, match="close a read first: 1 items of queue q are open"):
        session.require_room(b"q", 1)
    session.require_room(b"q", 2)
    session.require_room(b"other", 1)
    session.close_read(b"q")
    session.require_room(b"q", 1)


def test_what_a_client_of_several_reads_held_comes_back_in_order(house: House) -> None:
    session, other = house.many(), house.many()
    house.open(other)
    house.open(session)
    house.open(session)
    other.abort_read(b"q")
    assert house.open(session) == b"a"  # the youngest of its reads, and the oldest of its items
    waiters = [house.registry.join_line(b"q", b"", False) for _ in range(4)]
    session.end()
    assert [waiter.got and waiter.got.queue.item_of(waiter.got)[0] for waiter in waiters] == [b"a", b"b", b"c", None]
    assert session.holds_nothing


def test_reads_of_a_queue_that_was_deleted_are_let_go_of_in_peace(house: House) -> None:
    session = house.many()
    house.open(session)
    house.open(session)
    house.registry.delete(b"q")
    house.put(b"new")
    assert house.open(session) == b"new"
    session.close_read(b"q")
    session.abort_read(b"q")
    house.turn()
    session.close_read(b"q")
    house.turn()
    assert session.holds_nothing
    assert house.waiting() == []


def test_several_reads_are_as_they_were_when_a_turn_fails(house: House) -> None:
    session = house.many()
    house.open(session)
    house.open(session)
    house.turn()
    session.close_read(b"q")
    session.abort_read(b"q")
    house.open(session)
    house.put(b"d")
    house.failing_turn()
    assert session.open_reads(b"q") == 2
    assert session.close_oldest(b"q")
    house.turn()
    session.end()
    assert house.waiting() == [b"b", b"c"]


def test_what_was_handed_over_in_an_earlier_turn_is_not_held_when_the_turn_of_its_reply_fails(house: House) -> None:
    session, queue = house.many(), house.registry.queues[b"q"]
    read = queue.open()
    assert read is not None
    house.turn()
    session.hold(read)
    house.put(b"d")
    house.failing_turn()
    assert session.holds_nothing
    assert house.waiting() == [b"a", b"b", b"c"]


# -- what was open for too long has been given back


@pytest.mark.parametrize("kind", [Session, ManyReads])
def test_a_close_that_comes_too_late_does_nothing_to_the_item(house: House, kind: type[Session]) -> None:
    session, other = kind(house.journal), house.session()
    house.open(session)
    house.give_back()
    house.turn()
    assert not session.holds_nothing
    assert house.open(other) == b"a"
    session.close_read(b"q")
    house.turn()
    assert session.holds_nothing
    other.end()
    assert house.waiting() == [b"a", b"b", b"c"]


@pytest.mark.parametrize("kind", [Session, ManyReads])
def test_an_abort_that_comes_too_late_and_cannot_be_written_takes_nothing_from_who_has_it_now(
    house: House, kind: type[Session]
) -> None:
    late, holder = kind(house.journal), kind(house.journal)
    house.open(late)
    house.give_back()
    assert house.open(holder) == b"a"
    house.turn()
    holder.abort_read(b"q")
    late.abort_read(b"q")
    house.put(b"d")
    house.failing_turn()
    late.end()
    assert house.waiting() == [b"b", b"c"]
    holder.close_read(b"q")
    house.turn()
    holder.end()
    assert house.waiting() == [b"b", b"c"]


# -- several reads against a plain model


@dataclass
class PlainQueue:
    bodies: dict[int, bytes] = field(default_factory=dict)  # of all that is stored
    open: dict[int, int] = field(default_factory=dict)  # which read of an item is the one that counts
    next_id: int = 1
    life: int = 0  # a queue that is deleted and made again has another

    @property
    def waiting(self) -> list[int]:
        return sorted(self.bodies.keys() - self.open.keys())


Held = tuple[bytes, int, int, int]  # queue, its life, item, read


@dataclass
class Plain:
    queues: dict[bytes, PlainQueue] = field(default_factory=dict)
    held: dict[int, list[Held]] = field(default_factory=dict)  # by session, the oldest first
    count: int = 0  # of all that ever was

    def lives(self, held: Held) -> bool:
        name, life, item_id, read = held
        queue = self.queues.get(name)
        return queue is not None and queue.life == life and queue.open.get(item_id) == read

    def give_back(self, held: Held) -> None:
        if self.lives(held):
            del self.queues[held[0]].open[held[2]]


NAMES = st.sampled_from([b"a", b"b"])
WHO = st.integers(0, 2)


class ReadsOfSeveral(RuleBasedStateMachine):
    """Sessions of several reads, turns that fail, queues that are deleted, reads that last too long, crashes."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.house = House(lambda: Storage(str(Path(self.directory.name) / "data"), **SMALL))
        self.plain = Plain()
        self.sessions: list[ManyReads] = []
        self.connect()

    def connect(self) -> None:
        self.sessions = [self.new_session(who) for who in range(3)]
        self.plain.held = {who: [] for who in range(3)}
        self.begin_turn()

    def new_session(self, who: int) -> ManyReads:
        session = self.house.many()
        if who == 2:
            session.find(b"a", 1)  # its client names items by their ids from now on
        return session

    def begin_turn(self) -> None:
        self.before = copy.deepcopy(self.plain)
        self.too_late: list[Held] = []
        self.gone: list[Held] = []

    def teardown(self) -> None:
        self.house.storage.close()
        self.directory.cleanup()

    def oldest(self, who: int, name: bytes, count: int = 1) -> list[Held]:
        return [held for held in self.plain.held[who] if held[0] == name][:count]

    @rule(name=NAMES)
    def put(self, name: bytes) -> None:
        self.plain.count += 1
        queue = self.plain.queues.setdefault(name, PlainQueue(life=self.plain.count))
        body = b"%d" % self.plain.count
        queue.bodies[queue.next_id] = body
        queue.next_id += 1
        self.house.put(body, queue=name)

    @rule(who=WHO, name=NAMES)
    def open(self, who: int, name: bytes) -> None:
        queue = self.plain.queues.get(name)
        body = self.house.open(self.sessions[who], name)
        if queue is None or not queue.waiting:
            assert body is None
            return
        self.plain.count += 1
        item_id = queue.waiting[0]
        assert body == queue.bodies[item_id]
        queue.open[item_id] = self.plain.count
        self.plain.held[who].append((name, queue.life, item_id, self.plain.count))

    @rule(name=NAMES)
    def take(self, name: bytes) -> None:
        queue, found = self.plain.queues.get(name), self.house.registry.queues.get(name)
        if queue is not None and found is not None and queue.waiting:
            item = found.take()
            assert isinstance(item, tuple)
            assert item[0] == queue.bodies.pop(queue.waiting[0])

    @rule(who=WHO, name=NAMES, count=st.integers(0, 3))
    def close(self, who: int, name: bytes, count: int) -> None:
        oldest = self.oldest(who, name, count)
        assert self.sessions[who].close_oldest(name, count) == (len(oldest) == count)
        for held in oldest if len(oldest) == count else []:
            self.plain.held[who].remove(held)
            if self.plain.lives(held):
                del self.plain.queues[name].open[held[2]]
                del self.plain.queues[name].bodies[held[2]]

    @rule(name=NAMES, data=st.data())
    def close_by_id(self, name: bytes, data: st.DataObject) -> None:
        """The latest read of the item, which is the one that may count. In a turn of its own: if it failed, the read
        would be the oldest."""
        held = self.oldest(2, name, len(self.plain.held[2]))
        if held:
            item_id = data.draw(st.sampled_from(held))[2]
            self.end_turn()
            read = self.sessions[2].find(name, item_id)
            assert read is not None
            self.sessions[2].close_found(read)
            one = [one for one in held if one[2] == item_id][-1]
            self.plain.held[2].remove(one)
            if self.plain.lives(one):
                del self.plain.queues[name].open[item_id]
                del self.plain.queues[name].bodies[item_id]
            self.end_turn()

    @rule(who=WHO, name=NAMES)
    def abort(self, who: int, name: bytes) -> None:
        self.sessions[who].abort_read(name)
        for held in self.oldest(who, name):
            self.plain.held[who].remove(held)
            self.plain.give_back(held)

    @rule(who=WHO)
    def hang_up(self, who: int) -> None:
        self.sessions[who].end()
        for held in self.plain.held[who]:
            self.plain.give_back(held)
        self.plain.held[who] = []
        self.sessions[who] = self.new_session(who)
        self.gone += self.before.held[who]  # if the turn fails, nobody holds it any more
        self.before.held[who] = []

    @rule(name=NAMES, data=st.data())
    def last_too_long(self, name: bytes, data: st.DataObject) -> None:
        held = [one for reads in self.plain.held.values() for one in reads if one[0] == name and self.plain.lives(one)]
        if held:
            one = data.draw(st.sampled_from(held))
            queue = self.house.registry.queues[name]
            queue.give_back(queue.outstanding[one[2]])
            self.plain.give_back(one)
            self.too_late.append(one)

    @rule(name=NAMES)
    def delete(self, name: bytes) -> None:
        self.house.registry.delete(name)
        self.plain.queues.pop(name, None)

    @rule()
    def end_turn(self) -> None:
        self.house.turn()
        self.begin_turn()

    @rule()
    def fail_turn(self) -> None:
        """As it was, but for who has gone and what was open for too long."""
        self.house.put(b"", queue=b"c")  # something is written
        self.house.failing_turn()
        count, self.plain = self.plain.count, self.before
        self.plain.count = count
        for held in self.gone + self.too_late:
            self.plain.give_back(held)
        self.begin_turn()

    @rule()
    def crash(self) -> None:
        self.house.restart()
        self.plain = self.before
        for queue in self.plain.queues.values():
            queue.open.clear()
        self.connect()

    @invariant()
    def what_waits_waits_in_order(self) -> None:
        registry = self.house.registry
        assert registry.queues.keys() == self.plain.queues.keys()
        for name, plain in self.plain.queues.items():
            queue = registry.queues[name]
            ids = [*sorted(queue.returned), *range(queue.next_id, queue.tail)]
            assert [queue.log.read_one(item_id)[0] for item_id in ids] == [plain.bodies[i] for i in plain.waiting]
            assert queue.open_reads == len(plain.open)

    @invariant()
    def each_session_holds_what_it_has_opened(self) -> None:
        for who in range(3):
            session, held = self.sessions[who], self.plain.held[who]
            for name in (b"a", b"b"):
                reads = list(session._reads.get(name, ()))
                expected = [one for one in held if one[0] == name]
                assert [read.id for read in reads] == [item_id for _, _, item_id, _ in expected]
                assert [read.queue.holds(read) for read in reads] == [self.plain.lives(one) for one in expected]
            assert session.holds_nothing == (not held)


def test_several_reads_agree_with_a_plain_model_whatever_is_done_and_goes_wrong() -> None:
    run_state_machine_as_test(
        ReadsOfSeveral,
        settings=settings(
            max_examples=10,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )


def test_many_open_reads_are_given_back_and_confirmed_in_slices(
    open_storage: OpenStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "READS_AT_ONCE", 2)
    house = House(open_storage)
    house.put(b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"8")
    house.turn()
    queue, session = house.registry.queues[b"q"], house.many()
    for _ in range(8):
        session.hold(opened(queue))
    house.turn()
    steps = 0
    for _ in session.close_in_slices(b"q", 3):
        steps += 1
        assert session.open_reads(b"q") == 6
        house.turn()
    assert (steps, session.open_reads(b"q")) == (1, 5)
    house.turn()
    slices = session.close_in_slices(b"q", 4)
    next(slices)
    session.unclose(queue.outstanding[6])  # as if the turn had been undone
    with pytest.raises(StorageError, match="only some"):
        next(slices)
    session.close_read(b"q")
    session.end()
    assert queue.open_reads > 0
    while house.journal.slices:
        for _ in house.journal.slices.popleft():
            pass
    assert queue.open_reads == 0
