"""The jobs of one queue of the engine against the plain model: turns that fail, crashes, and time that passes."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from darner_core.config.queues import QueueOptions
from darner_core.engines.jobs import Failure, Outcome
from darner_core.storage.storage import Storage
from tests.support import plain_jobs as plain
from tests.support.job_bench import JobBench

FAILURES = {Failure.ABORTED: plain.NACK, Failure.TIMED_OUT: plain.TIMEOUT, Failure.LOST: plain.LOSS}
DEEDS = [*["put", "put_job", "open", "take", "fail"] * 4, "close", "close", "give_back", "reject", "kick", "flush",
    "pass_time", "fail_turn", "fail_turn", "crash"]  # fmt: skip


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
        self.bodies = 0
        self.reads: dict[bytes, Any] = {}
        self.plain.now_ms = self.now_ms
        self.begin_turn()

    @property
    def now_ms(self) -> int:
        return int(self.bench.now_s * 1000)

    def begin_turn(self) -> None:
        self.before = self.plain.copy()
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
            rules, terms = self.plain.rules, self.plain.terms
            counts = rules.max_deliveries or rules.has_dead_letters or (rules.retry_delay_ms and delay_ms is None)
            if counts or delay_ms or (pri is not None and pri != terms.pri):
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
        assert queue.all_bytes() == sum(len(job.body) for job in self.plain.jobs)


@pytest.mark.parametrize("durable", [True, False], ids=["on disk", "in memory"])
@pytest.mark.parametrize("seed", range(12))
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
