"""What lies aside of a line, against the plain model of jobs: failed turns, crashes and short memory included."""

import os
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from darner_core.engines.local import aside as aside_module
from darner_core.engines.local import aside_failures, aside_flushing, aside_keys, aside_leaving, aside_moves
from darner_core.engines.local import aside_log as aside_log_module
from darner_core.engines.local import order as order_module
from darner_core.engines.local.aside import Aside
from darner_core.engines.local.job_rules import JobRules
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.reads import OpenRead
from darner_core.storage.storage import Storage
from tests.conftest import SMALL
from tests.support import plain_jobs as plain
from tests.support.asides import Bench, counts, in_order
from tests.support.plain_jobs import JobQueue, Rules

HOWS = [plain.NACK, plain.TIMEOUT, plain.LOSS]

PHASES = [Phase.generate, *([Phase.shrink] if os.environ.get("SHRINK") else [])]

DEEDS = [
    *["put"] * 8, *["open"] * 4, *["close", "fail", "release", "take", "advance"] * 2, "give_back", "bury", "kick",
    "open_one", "kick_one", "remove_one", "expire_one", "flush", *["fail_turn"] * 4, "crash", "forget_windows",
    "change_room",
]  # fmt: skip


class Client:
    """Holds reads; is told when closing one has failed."""

    def __init__(self) -> None:
        self.told: list[OpenRead] = []

    def unclose(self, read: OpenRead) -> None:
        self.told.append(read)


class Asides(RuleBasedStateMachine):
    """EXAMPLES=1000 tries for longer."""

    durable: ClassVar = True

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.bodies = 0
        self.bench: Any = None

    def teardown(self) -> None:
        if self.bench is not None:
            self.bench.storage.close()
        self.directory.cleanup()

    def _open(self) -> Storage:
        return Storage(str(Path(self.directory.name) / "data"), **{**SMALL, "max_column_families": 1})

    def start(self, data: st.DataObject) -> None:
        rules = Rules(
            data.draw(st.sampled_from([0, 2, 3])), data.draw(st.booleans()), data.draw(st.sampled_from([0, 2000])),
            data.draw(st.sampled_from([1, 3])), data.draw(st.sampled_from([0, 5000])),
            data.draw(st.sampled_from([0, 7000])),
        )  # fmt: skip
        job_rules = JobRules(
            rules.max_deliveries, rules.retry_delay_ms, rules.retry_backoff, rules.max_retry_delay_ms, rules.unique_ms
        )
        self.bench = Bench(self._open, job_rules, self.durable, window_bytes=2000)
        self.bench.has_dead_letters = rules.has_dead_letters
        self.has_dead_letters = rules.has_dead_letters
        self.bench.start()
        self.plain = JobQueue(rules=rules, now_ms=self.bench.now_ms)
        self.ids: dict[bytes, int] = {}
        self.reads: dict[bytes, OpenRead] = {}
        self.client = Client()
        self.begin_turn()

    def begin_turn(self) -> None:
        self.before = self.plain.copy()
        self.reads_before = dict(self.reads)
        self.dropped: set[bytes] = set()  # of which nobody is told if the turn fails

    @property
    def aside(self) -> Aside:
        aside: Aside = self.bench.aside
        return aside

    @rule(do=st.sampled_from(DEEDS), ends=st.sampled_from([False, False, False, True]), data=st.data())
    def step(self, do: str, ends: bool, data: st.DataObject) -> None:
        if self.bench is None:
            self.start(data)
        self.data = data
        getattr(self, do)()
        self.settle()
        self.check(self.aside, self.plain)
        if ends:
            self.end_turn()

    def choose(self, *among: Any) -> Any:
        return self.data.draw(st.sampled_from(among))

    def settle(self) -> None:
        """What is due is moved, as it would be within milliseconds."""
        while aside_moves.move_due(self.aside, 2):
            pass
        self.plain.pass_to(self.bench.now_ms)

    # -- deeds

    def put(self) -> None:
        for _ in range(self.choose(1, 1, 1, 4)):
            self.bodies += 1
            body = b"%d" % self.bodies
            pri, delay_ms = self.choose(0, 7, 1024, 1024), self.choose(0, 0, 0, 1000, 4000, 60_000)
            key, expires = self.choose(b"", b"", b"", b"a", b"b"), self.choose(0, 0, 0, 3000)
            expires_ms = self.bench.now_ms + expires if expires else 0
            if key and aside_keys.owner(self.aside, key):
                owner = aside_keys.owner(self.aside, key)
                job, arrival = self.plain.put_aside(body, pri, delay_ms, 0, key, expires_ms)
                assert job is None
                assert owner == self.arrived[arrival]
                continue
            job, arrival = self.plain.put_aside(body, pri, delay_ms, 0, key, expires_ms)
            assert job is not None
            self.ids[body] = self.aside.put(body, 0, expires_ms, pri, 2 * arrival, delay_ms, 0, key)
            self.arrived[arrival] = self.ids[body]

    @property
    def arrived(self) -> dict[int, int]:
        if not hasattr(self, "_arrived"):
            self._arrived: dict[int, int] = {}
        return self._arrived

    def open(self) -> None:
        self.opened(self.aside.open(), self.plain.open())

    def opened(self, read: OpenRead | None, expected: plain.Read | None) -> None:
        assert (read is None) == (expected is None)
        if read is not None and expected is not None:
            body = self.aside.item_of(read)[0]
            assert body == expected.job.body
            assert isinstance(body, bytes)
            assert self.aside.job_of(read).pri == expected.job.pri
            assert self.aside.job_of(read).failures == expected.job.failures
            self.reads[body] = read

    def take(self) -> None:
        item, expected = self.aside.take(), self.plain.open()
        assert (item is None) == (expected is None)
        if isinstance(item, tuple) and expected is not None:
            assert item[0] == expected.job.body
            self.plain.close(expected)

    def a_read(self) -> tuple[bytes, OpenRead, plain.Read] | None:
        """One that is open is let go."""
        if not self.reads:
            return None
        body = self.choose(*self.reads)
        read = self.reads.pop(body)
        assert self.aside.holds(read)
        return body, read, next(read for read in self.plain.reads if read.job.body == body)

    def close(self) -> None:
        if found := self.a_read():
            body, read, expected = found
            told = self.choose(True, False)
            self.aside.close(read, self.client if told else None)
            self.plain.close(expected)
            if not told:
                self.drop(body, read)

    def drop(self, body: bytes, read: OpenRead) -> None:
        """Nobody will be told of this one if the turn fails."""
        if self.reads_before.get(body) is read:  # else it was opened in this very turn
            self.dropped.add(body)

    def let_go(self, body: bytes, read: OpenRead) -> None:
        """After the read has been given back in some way."""
        if self.choose(True, True, False):
            self.bench.journal.undo.append((self.aside.take_back, read))
        else:
            self.drop(body, read)
        assert not self.aside.holds(read)
        self.aside.give_back(read)
        aside_failures.fail(self.aside, read, plain.LOSS)
        aside_failures.bury(self.aside, read)
        aside_failures.release(self.aside, read, 5)

    def give_back(self) -> None:
        if found := self.a_read():
            body, read, expected = found
            self.aside.give_back(read)
            self.plain.give_back(expected)
            self.let_go(body, read)

    def release(self) -> None:
        if found := self.a_read():
            body, read, expected = found
            delay_ms, pri = self.choose(0, 1000, 3000), self.choose(-1, 3, 2000)
            aside_failures.release(self.aside, read, delay_ms, pri)
            self.plain.release(expected, delay_ms, None if pri < 0 else pri)
            self.let_go(body, read)

    def fail(self) -> None:
        if found := self.a_read():
            body, read, expected = found
            how, delay_ms, pri = self.choose(*HOWS), self.choose(-1, -1, 0, 2500), self.choose(-1, -1, 9)
            aside_failures.fail(self.aside, read, how, "somebody", delay_ms, pri)
            self.plain.fail(expected, how, "somebody", None if delay_ms < 0 else delay_ms, None if pri < 0 else pri)
            self.let_go(body, read)

    def bury(self) -> None:
        if found := self.a_read():
            body, read, expected = found
            aside_failures.bury(self.aside, read)
            self.plain.bury(expected)
            self.let_go(body, read)

    def kick(self) -> None:
        most = self.choose(1, 3)
        assert aside_moves.kick(self.aside, most) == self.plain.kick(most)

    def a_job(self) -> plain.Job | None:
        return self.choose(*self.plain.jobs) if self.plain.jobs else None

    def open_one(self) -> None:
        if job := self.a_job():
            read = self.aside.open_id(self.ids[job.body])
            self.opened(read, None if job.is_open else self.plain.open_job(job))

    def kick_one(self) -> None:
        if job := self.a_job():
            assert aside_moves.kick_id(self.aside, self.ids[job.body]) == self.plain.kick_job(job)

    def remove_one(self) -> None:
        if job := self.a_job():
            assert aside_leaving.remove_id(self.aside, self.ids[job.body]) == (not job.is_open)
            if not job.is_open:
                self.plain.remove(job)

    def expire_one(self) -> None:
        if job := self.a_job():
            goes = not job.is_open and 0 < job.expires_ms < self.plain.now_ms
            assert aside_leaving.expire_id(self.aside, self.ids[job.body]) == goes
            if goes:
                self.plain.remove(job)

    def flush(self) -> None:
        aside_flushing.flush(self.aside, 10**9)
        self.plain.flush()
        self.bench.do_slices()
        self.end_turn()

    def advance(self) -> None:
        self.end_turn()
        self.bench.now_s += self.choose(0.5, 2, 10)
        self.bench.journal.begin()

    def forget_windows(self) -> None:
        self.aside.drop_window()

    def change_room(self) -> None:
        """Where dead letters go."""
        self.end_turn()
        self.bench.has_room = not self.bench.has_room
        has = self.has_dead_letters and self.bench.has_room
        self.plain.rules = Rules(**{**self.plain.rules.__dict__, "has_dead_letters": has})
        self.begin_turn()

    # -- turns

    def end_turn(self) -> None:
        self.bench.end_turn()
        self.begin_turn()
        self.check_disk()

    def fail_turn(self) -> None:
        now_ms, self.client.told = self.plain.now_ms, []
        self.bench.fail_turn(lands=self.choose(True, False) if self.durable else False)
        self.plain, self.reads = self.before, self.reads_before
        for body in self.dropped & self.reads.keys():
            del self.reads[body]
            self.plain.give_back(next(read for read in self.plain.reads if read.job.body == body))
        assert all(self.aside.holds(read) for read in self.reads.values())
        self.plain.pass_to(now_ms)
        self.begin_turn()
        self.settle()
        self.end_turn()

    def crash(self) -> None:
        self.bench.crash()
        self.plain = self.before
        self.plain.restart()
        if not self.durable:
            self.plain.jobs, self.plain.keys = [], {}
            self.plain.buryings = 0
        self.reads = {}
        self.begin_turn()

    # -- checks

    def check(self, aside: Aside, expected: JobQueue) -> None:
        for order, state in ((aside.ready, plain.READY), (aside.delayed, plain.DELAYED), (aside.buried, plain.BURIED)):
            found = [aside.log.item(item_id)[0] for item_id in in_order(order)]
            assert found == [job.body for job in expected.waiting(state)]
            assert order.waiting == len(found)
        assert aside.items == len(expected.jobs)
        assert aside.open_reads == len(expected.reads)
        assert aside.stored_bytes == sum(len(job.body) for job in expected.jobs)
        assert aside.open_bytes == sum(len(read.job.body) for read in expected.reads)
        for key in (b"a", b"b"):
            assert aside_keys.owner(aside, key) == self.arrived.get(expected.taken_by(key), 0)
        windows = [until_ms for _, until_ms in expected.keys.values() if until_ms > expected.now_ms]
        assert aside.key_windows.entries == len(windows)
        for job in expected.jobs:
            known = aside.find(self.ids[job.body])
            assert known is not None
            counts = job.nacks, job.timeouts, job.losses, job.buries, job.kicks
            assert (known[2].pri, known[2].place, *known[2][5:10]) == (job.pri, 2 * job.arrival, *counts)
        assert [(item[0], job.note.decode()) for item, job in self.bench.dead] == [
            (job.body, self.history(job)) for job in expected.dead_letters
        ]

    def history(self, job: plain.Job) -> str:
        name, failures, how, client, put = job.history.split()
        return f"from={name} id={self.ids[job.body]} failures={failures} last={how} client={client} put={put}"

    def check_disk(self) -> None:
        """What a crash right now would leave."""
        if not self.durable:
            return
        journal = Journal(self.bench.storage, lambda: self.bench.now_s)
        read_back = self.bench.read_aside(journal)
        expected = self.plain.copy()
        expected.restart()
        windows = read_back.key_windows.entries
        keyed = sum(bool(job.key) for job in expected.jobs)
        jobs = len(expected.jobs)
        assert counts(self.bench)[:-1] == [jobs, jobs, keyed + windows, jobs + windows]
        while aside_moves.move_due(read_back, 100):
            pass
        self.check(read_back, expected)
        read_back.drop_window()
        self.bench.registry._budget.account(read_back, 0)


class MemoryAsides(Asides):
    durable: ClassVar = False


@pytest.mark.long
@pytest.mark.parametrize("machine", [Asides, MemoryAsides])
def test_it_does_what_the_plain_model_does(machine: type[Asides], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_module, "FILL_ENTRIES", 3)
    monkeypatch.setattr(order_module, "MOST_ENTRIES", 6)
    monkeypatch.setattr(order_module, "MOST_STALE", 2)
    monkeypatch.setattr(aside_log_module, "RECLAIM_ITEMS", 4)
    monkeypatch.setattr(aside_flushing, "FLUSHED_AT_ONCE", 2)
    assert aside_module.EXPIRED_AT_ONCE > 50  # more than there will be
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    examples = int(os.environ.get("EXAMPLES", "60"))
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=60, deadline=None, suppress_health_check=checks, phases=PHASES
        ),
    )
