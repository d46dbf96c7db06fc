"""The jobs of one queue of the engine against the plain model, reached from its head and by their ids: turns that fail,
crashes, and time that passes."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from darner_core.config.queues import QueueOptions
from darner_core.engines.items import Seen, State
from darner_core.engines.jobs import Failure, Outcome
from darner_core.storage.storage import Storage
from tests.support import plain_jobs as plain
from tests.support.job_bench import JobBench

FAILURES = {Failure.ABORTED: plain.NACK, Failure.TIMED_OUT: plain.TIMEOUT, Failure.LOST: plain.LOSS}
DEEDS = [*["put", "put_job", "open", "take", "fail", "open_id"] * 4, "close", "close", "give_back", "reject", "kick",
    "flush", "remove_id", "remove_id", "kick_id", "bury", "postpone", "hold", "look", "look", "pass_time", "fail_turn",
    "fail_turn", "crash"]  # fmt: skip
STATES = {State.READY: plain.READY, State.DELAYED: plain.DELAYED, State.BURIED: plain.BURIED}


class Machine:
    def __init__(self, open_storage: Callable[[], Storage], seed: int, durable: bool) -> None:
        self.random = random.Random(seed)
        self.durable = durable
        options: dict[str, Any] = self.random.choice([{}, {"max_deliveries": 2}, {"max_deliveries": 2, "unique_s": 3}])
        delays: dict[str, Any] = self.random.choice([{}, {"retry_delay_s": 2, "retry_backoff": 2}])
        dead = self.random.choice([b"", b"dead"])
        q = QueueOptions(durable=durable, dead_letter_queue=dead, **options, **delays)
        self.bench = JobBench(open_storage, q=q, dead=QueueOptions(durable=durable))
        self.plain = plain.JobQueue(
            rules=plain.Rules(
                q.max_deliveries, bool(dead), q.retry_delay_s * 1000, q.retry_backoff, 0, q.unique_s * 1000
            )
        )
        self.counts = bool(q.max_deliveries or dead or q.retry_delay_s)
        self.bodies = 0
        self.reads: dict[bytes, Any] = {}
        self.plain.now_ms = self.now_ms
        self.begin_turn()

    @property
    def now_ms(self) -> int:
        return int(self.bench.now_s * 1000)

    def begin_turn(self) -> None:
        self.before = self.plain.copy()
        self.held: list[Any] = []
        self.undone: list[Any] = []  # what such a turn must leave open, if it fails
        self.reads_before = dict(self.reads)

    def end_turn(self) -> None:
        self.bench.end_turn()
        self.begin_turn()

    def body(self) -> bytes:
        self.bodies += 1
        return b"%d" % self.bodies

    def plain_read(self, body: bytes) -> plain.Read:
        return next(read for read in self.plain.reads if read.job.body == body)

    def put(self) -> None:
        body = self.body()
        assert self.bench.put(b"q", body)
        self.plain.put(body)

    def put_job(self) -> None:
        choose = self.random.choice
        pri, delay_ms, key = choose([1024, 5, 2000]), choose([0, 0, 1000, 3000]), choose([b"", b"", b"a", b"b"])
        body = self.body()
        outcome = self.bench.put_job(b"q", body, pri=pri, delay_ms=delay_ms, key=key)
        put, _ = self.plain.put_job(body, pri, delay_ms, key=key)
        assert (outcome is Outcome.STORED) == (put is not None)

    def open(self) -> None:
        queue = self.bench.registry.queues.get(b"q")
        read: Any = queue.open() if queue is not None else None
        expected = self.plain.open()
        assert (read is None) == (expected is None)
        if read is not None and expected is not None:
            assert self.bench.body(read) == expected.job.body
            self.reads[expected.job.body] = read

    def take(self) -> None:
        expected = self.plain.open()
        assert self.bench.take() == (expected.job.body if expected is not None else None)
        if expected is not None:
            self.plain.close(expected)

    def a_read(self) -> tuple[Any, plain.Read] | None:
        if not self.reads:
            return None
        body = self.random.choice(sorted(self.reads))
        return self.reads.pop(body), self.plain_read(body)

    def close(self) -> None:
        if found := self.a_read():
            found[0].queue.close(found[0])
            self.plain.close(found[1])

    def give_back(self) -> None:
        if found := self.a_read():
            found[0].queue.give_back(found[0])
            self.plain.give_back(found[1])

    def fail(self) -> None:
        if found := self.a_read():
            read, expected = found
            why, delay_ms = self.random.choice(list(FAILURES)), self.random.choice([None, None, 0, 1500])
            pri = self.random.choice([None, None, 7])
            terms = self.plain.terms
            if self.counts or delay_ms or (pri is not None and pri != terms.pri):
                expected.job.in_line = False  # so the next put may give the line other terms
            self.bench.jobs.fail(read, why, b"c", delay_ms, pri)
            self.plain.fail(expected, FAILURES[why], "c", delay_ms, pri)

    def reject(self) -> None:
        if found := self.a_read():
            self.bench.jobs.reject(found[0])
            found[1].job.in_line = False
            if self.plain.rules.has_dead_letters:
                self.plain.close(found[1])
                self.plain.dead_letters.append(found[1].job)
            else:
                self.plain.bury(found[1])

    # -- by their ids

    def ids(self) -> dict[bytes, int]:
        """Of all jobs, by their bodies."""
        items = self.bench.engine.items
        found: dict[bytes, int] = {}
        for state in State:
            for seen in items.look(b"q", state, most=10_000):
                item = items.item(b"q", seen.id)
                assert item is not None
                found[bytes(item[0])] = seen.id  # type: ignore[arg-type]
        assert sorted(found) == sorted(job.body for job in self.plain.jobs)
        return found

    def a_job(self) -> tuple[int, plain.Job] | None:
        if not self.plain.jobs:
            return None
        job = self.random.choice(self.plain.jobs)
        return self.ids()[job.body], job

    def open_id(self) -> None:
        if found := self.a_job():
            item_id, job = found
            read: Any = self.bench.engine.items.open(b"q", item_id)
            assert (read is None) == job.is_open
            if read is not None:
                job.in_line = job.in_line and not self.is_aside(item_id)
                self.plain.open_job(job)
                self.reads[job.body] = read

    def is_aside(self, item_id: int) -> bool:
        return item_id not in self.bench.queue().outstanding

    def remove_id(self) -> None:
        if found := self.a_job():
            item_id, job = found
            assert self.bench.engine.items.remove(b"q", item_id)
            assert not self.bench.engine.items.remove(b"q", item_id)
            self.plain.remove(job)
            read = self.reads.pop(job.body, None)
            assert read is None or not read.queue.holds(read)
            if read is not None:
                self.let_go_exactly((read, plain.Read(job)))

    def kick_id(self) -> None:
        if found := self.a_job():
            assert self.bench.engine.items.kick(b"q", found[0]) == self.plain.kick_job(found[1])

    def bury(self) -> None:
        if found := self.a_read():
            pri = self.random.choice([None, 7])
            self.let_go_exactly(found)
            self.bench.engine.items.bury(found[0], pri)
            found[1].job.in_line = False
            self.plain.bury(found[1], pri)

    def postpone(self) -> None:
        if found := self.a_read():
            delay_ms = self.random.choice([1500, 4000])
            self.let_go_exactly(found)
            self.bench.engine.items.postpone(found[0], self.now_ms + delay_ms)
            found[1].job.in_line = False
            self.plain.release(found[1], delay_ms)

    def let_go_exactly(self, found: tuple[Any, plain.Read]) -> None:
        if self.reads_before.get(found[1].job.body) is found[0] and found[0] not in self.held:
            self.undone.append(found[0])

    def hold(self) -> None:
        """And end that at once, which leaves it open, unless the turn fails."""
        if self.reads:
            read = self.reads[self.random.choice(sorted(self.reads))]
            items = self.bench.engine.items
            if not read.counted:
                items.hold(read, 1_000_000)
                self.held.append(read)
                held: Any = items.held(b"q", read.id)
                assert self.bench.engine.leases.end(held) is read

    def look(self) -> None:
        """Page by page, forward or backward."""
        state = self.random.choice(list(STATES))
        backwards, most = self.random.random() < 0.5, self.random.choice([1, 3, 50])
        seen, position = list[Seen](), None
        while page := self.bench.engine.items.look(b"q", state, position, most, backwards):
            seen += page
            position = page[-1].position
            assert all(self.bench.engine.items.find(b"q", one.id) == one for one in page)
        expected = self.plain.waiting(STATES[state])
        if backwards:
            expected.reverse()
        bodies = {item_id: body for body, item_id in self.ids().items()}
        assert [bodies[one.id] for one in seen] == [job.body for job in expected]
        for one, job in zip(seen, expected, strict=True):
            assert (one.pri, one.buries, one.kicks, one.key) == (job.pri, job.buries, job.kicks, job.key)
            if self.counts:  # else failures in the line are forgotten
                assert (one.nacks, one.timeouts, one.losses) == (job.nacks, job.timeouts, job.losses)

    def kick(self) -> None:
        assert self.bench.jobs.kick(b"q", 2) == self.plain.kick(2)

    def flush(self) -> None:
        self.bench.registry.flush(b"q")
        self.plain.flush()

    def pass_time(self) -> None:
        self.bench.pass_time(self.random.choice([0.5, 2, 5]))
        self.plain.pass_to(self.now_ms)
        self.begin_turn()

    def fail_turn(self) -> None:
        """What was open before is open again or has come back; here it comes back."""
        if not self.bench.fails():
            self.begin_turn()
            return
        self.bench.registry.recheck()
        self.bench.end_turn()
        assert all(read.queue.holds(read) for read in self.undone)
        open_before = self.reads_before
        now_ms = self.plain.now_ms
        self.plain = self.before
        self.plain.pass_to(now_ms)
        self.reads = {}
        for body, read in open_before.items():
            read.queue.give_back(read)
            self.plain.give_back(self.plain_read(body))
        self.bench.end_turn()
        self.bench.pass_time(0)
        self.begin_turn()

    def crash(self) -> None:
        if not self.durable:
            return
        self.end_turn()
        self.bench.crash()
        self.plain.restart()
        self.reads = {}
        self.bench.pass_time(0)
        self.begin_turn()

    def check(self) -> None:
        queue = self.bench.registry.queues.get(b"q")
        if queue is None:
            return
        assert queue.waiting_items == len(self.plain.waiting(plain.READY))
        assert queue.open_reads == len(self.plain.reads)
        assert queue.stored_items == len(self.plain.jobs)
        figures = self.bench.figures()
        ready = [job for job in self.plain.waiting(plain.READY) if job.pri < plain.NEUTRAL]
        assert figures.get("urgent", 0) == len(ready)
        assert queue.all_bytes() == sum(len(job.body) for job in self.plain.jobs)


@pytest.mark.parametrize("durable", [True, False], ids=["on disk", "in memory"])
@pytest.mark.parametrize("seed", [*range(12), 198, 1048, 1059, 1063])
def test_the_engine_does_what_the_plain_model_does(
    open_storage: Callable[[], Storage], seed: int, durable: bool
) -> None:
    machine = Machine(open_storage, seed, durable)
    for _ in range(250):
        getattr(machine, machine.random.choice(DEEDS))()
        machine.check()
        if machine.random.random() < 0.5:
            machine.end_turn()
    machine.end_turn()
    machine.bench.pass_time(0)
    assert machine.bench.drain(b"dead") == [job.body for job in machine.plain.dead_letters]
