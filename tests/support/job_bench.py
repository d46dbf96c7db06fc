"""A local engine whose timers run by the test's clock, and jobs in its queues."""

from collections.abc import Callable
from typing import Any

from darner_core.config.queues import QueueOptions
from darner_core.engines.jobs import Failure, JobOptions, Outcome, Placed
from darner_core.storage.storage import Storage
from tests.support.bench import Bench


class _Timer:
    def __init__(self, due_s: float, call: Callable[[], None]) -> None:
        self.due_s = due_s
        self.call: Callable[[], None] | None = call

    def close(self) -> None:
        self.call = None


class JobBench(Bench):
    def __init__(self, open_storage: Callable[[], Storage], **options: QueueOptions) -> None:
        self._timers: list[_Timer] = []
        super().__init__(open_storage, **options)

    def start(self) -> None:
        self._timers = []
        super().start()
        self.jobs = self.engine.jobs

    def run_after(self, seconds: float, call: Callable[[], None]) -> Any:
        self._timers.append(_Timer(self.now_s + seconds, call))
        return self._timers[-1]

    def pass_time(self, seconds: float) -> None:
        """What has to be done by then is done."""
        self.end_turn()
        self.now_s += seconds
        self.journal.begin()
        for timer in self._timers:
            if timer.due_s <= self.now_s + 0.01 and timer.call is not None:
                call, timer.call = timer.call, None
                call()
        self._timers = [timer for timer in self._timers if timer.call is not None]
        self.do_slices()

    def do_slices(self) -> None:
        while self.journal.slices:
            piece = self.journal.slices.popleft()
            for _ in piece:
                self.end_turn()
        self.end_turn()

    # -- shorter

    def put_job(self, name: bytes, body: bytes, expires_in_s: float = 0, **options: Any) -> Outcome:
        return self.placed(name, body, expires_in_s, **options).outcome

    def placed(self, name: bytes, body: bytes, expires_in_s: float = 0, **options: Any) -> Placed:
        expires_at_ms = int((self.now_s + expires_in_s) * 1000) if expires_in_s else 0
        return self.jobs.put((name,), body, 0, expires_at_ms, JobOptions(**options))

    def opened(self, name: bytes = b"q") -> Any:
        read = self.registry.queues[name].open()
        assert read is not None
        return read

    def body(self, read: Any) -> Any:
        return read.queue.item_of(read)[0]

    def fail(self, name: bytes = b"q", why: Failure = Failure.ABORTED, **about: Any) -> Any:
        """Open the head and fail with it; the body that it had."""
        read = self.opened(name)
        body = self.body(read)
        self.jobs.fail(read, why, **about)
        self.end_turn()
        return body

    def figures(self, name: bytes = b"q") -> dict[str, int]:
        return {figure.decode(): number for figure, number in self.jobs.figures(name)}
