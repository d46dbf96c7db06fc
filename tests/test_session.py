"""What one connection holds, over a real journal: closing confirms, hanging up gives back, a failed write undoes."""

from collections.abc import Callable

import pytest

from darner_core.errors import ClientError, StorageError
from darner_core.journal import Journal
from darner_core.registry import Registry
from darner_core.session import Session
from darner_core.storage import Storage
from darner_core.window import WindowBudget

OpenStorage = Callable[[], Storage]


class House:
    """A server without its sockets: queues, sessions, turns."""

    def __init__(self, open_storage: OpenStorage) -> None:
        self._open = open_storage
        self.storage = open_storage()
        self._start()

    def _start(self) -> None:
        self.journal = Journal(self.storage)
        self.registry = Registry(self.journal, WindowBudget(1 << 20))

    def restart(self) -> None:
        self.storage.close()
        self.storage = self._open()
        self._start()

    def session(self) -> Session:
        return Session(self.journal)

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
