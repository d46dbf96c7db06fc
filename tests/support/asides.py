"""A queue with an aside in a data directory, without sockets: the test ends the turns."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from darner_core.engines.local import aside_flushing
from darner_core.engines.local.aside import Aside
from darner_core.engines.local.job_rules import JobRules
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.order import Order
from darner_core.engines.local.registry import Registry
from darner_core.engines.local.window import WindowBudget
from darner_core.errors import StorageError
from darner_core.storage.job_records import AsideRecord, Job
from darner_core.storage.records import Item
from darner_core.storage.rocks import ASIDE_FAMILY, JOB_FAMILY, KEY_FAMILY, ORDER_FAMILY, STATE_FAMILY
from darner_core.storage.storage import Storage

NUMBER = 1000
FAMILIES = (ASIDE_FAMILY, JOB_FAMILY, KEY_FAMILY, ORDER_FAMILY, STATE_FAMILY)


class Noted:
    """Keeps what it is told of times."""

    def __init__(self) -> None:
        self.times: list[int] = []

    def note(self, aside: Aside, due_ms: int) -> None:
        self.times.append(due_ms)

    def forget(self, aside: Aside) -> None: ...


@contextmanager
def refusing(storage: Storage, lands: bool = False) -> Iterator[None]:
    """A disk that refuses what is written. With `lands`, it is there all the same afterwards."""
    whole = storage.write, storage.put
    refused: list[Any] = []

    def refuse(batch: Any, *_: Any) -> None:
        refused.append(batch)
        raise StorageError("no space left on device")

    storage.write = refuse
    storage.put = refuse  # type: ignore[assignment]
    try:
        yield
    finally:
        storage.write, storage.put = whole
        for batch in refused if lands else ():
            storage.write(batch)


def in_order(order: Order) -> list[int]:
    """The ids of all that waits in it."""
    found = []
    place = order.first()
    while place is not None:
        found.append(place[2])
        place = order.next_behind(place)
    return found


def counts(bench: "Bench") -> list[int]:
    """Of records, by family."""
    return [len(list(bench.storage._rocks.scan(family, b"", b"\xff" * 40))) for family in FAMILIES]


class Bench:
    """The queue `q` with its aside. The time begins at 1,000 s after 1970."""

    def __init__(
        self,
        open_storage: Callable[[], Storage],
        rules: JobRules | None = None,
        durable: bool = True,
        window_bytes: int = 1 << 20,
    ) -> None:
        self._open_storage = open_storage
        self._window_bytes = window_bytes
        self.rules = rules or JobRules()
        self.durable = durable
        self.now_s = 1000.0
        self.puts = 0
        self.dead: list[tuple[Item, Job]] = []
        self.expired: list[Item] = []
        self.served = 0
        self.has_room = True
        self.has_dead_letters = False
        self.storage = open_storage()
        self.start()

    def start(self) -> None:
        self.journal = Journal(self.storage, lambda: self.now_s)
        self.noted = Noted()
        self.registry = Registry(self.journal, WindowBudget(self._window_bytes))
        self.queue = self.registry.queues.get(b"q") or self.registry.create(b"q")
        if not self.storage.jobs.asides():
            self.journal.also.append(lambda batch: self.storage.jobs.add_aside(batch, b"q", AsideRecord(NUMBER, 1)))
        self.aside = self.read_aside(self.journal)
        self.end_turn()

    def read_aside(self, journal: Journal) -> Aside:
        """As a restart would."""
        state = self.storage.jobs.state(NUMBER) if self.durable else None
        aside = Aside(
            self.queue, AsideRecord(NUMBER, 1), state, journal, self.noted, self.rules, self._serve,
            self._dead_letter if self.has_dead_letters else None, self._expire_to,
        )  # fmt: skip
        aside_flushing.read_back(aside, self.storage.jobs.flush(NUMBER))
        return aside

    def _serve(self) -> None:
        self.served += 1

    def _dead_letter(self, aside: Aside, item: Item, job: Job) -> bool:
        if self.has_room:
            self.dead.append((item, job))
            self.journal.undo.append((self.dead.pop,))
        return self.has_room

    def _expire_to(self, aside: Aside, item: Item) -> None:
        self.expired.append(item)
        self.journal.undo.append((self.expired.pop,))

    @property
    def now_ms(self) -> int:
        return int(self.now_s * 1000)

    def end_turn(self) -> None:
        self.journal.commit()
        self.journal.begin()

    def fail_turn(self, lands: bool = False) -> None:
        """The turn cannot be written, and the database is opened again."""
        self.journal.also.append(lambda batch: batch.put(b"x", b"x", self.storage.handles[0]))
        with refusing(self.storage, lands), pytest.raises(StorageError):
            self.journal.commit()
        self.journal.begin()
        batch = self.storage.batch()
        self.aside.log.recheck(batch)
        self.storage.write(batch)
        self.aside.log.rechecked()
        self.end_turn()

    def crash(self) -> None:
        self.storage.close()
        self.storage = self._open_storage()
        self.start()

    def do_slice(self) -> None:
        """At the end of a turn: a step of what takes many."""
        self.end_turn()
        for _ in range(len(self.journal.slices)):
            piece = self.journal.slices.popleft()
            for _ in piece:
                self.journal.slices.append(piece)
                break

    def do_slices(self) -> None:
        self.do_slice()
        while self.journal.slices:
            self.do_slice()
        self.end_turn()

    # -- shorter

    def put(self, body: bytes, pri: int = 1024, delay_ms: int = 0, key: bytes = b"", expires_ms: int = 0) -> int:
        self.puts += 1
        return self.aside.put(body, 0, expires_ms, pri, 2 * self.puts, delay_ms, 60_000, key)

    def opened(self) -> Any:
        read = self.aside.open()
        assert read is not None
        return read

    def bodies(self, order: Order) -> list[Any]:
        return [self.aside.log.item(item_id)[0] for item_id in in_order(order)]
