"""The engines that the tests of the contract are run against. Another engine is one more of ENGINES."""

from collections.abc import Callable
from typing import Protocol

from darner_core.config.queues import QueueOptions
from darner_core.engines.contract import Engine, Queue, Read, Registry, Routing, Turn
from darner_core.storage.storage import Storage
from tests.support.job_bench import JobBench

Q = b"q"


class World(Protocol):
    """An engine with a queue `q` that may be made, and the turns of the loop around it."""

    @property
    def engine(self) -> Engine: ...

    @property
    def registry(self) -> Registry: ...

    @property
    def routing(self) -> Routing: ...

    @property
    def turn(self) -> Turn: ...

    def end_turn(self) -> None: ...

    def fail_turn(self) -> None:
        """Nothing of this turn has happened."""

    def pass_time(self, seconds: float) -> None: ...


class Local(JobBench):
    """The engine of this process."""

    @property
    def turn(self) -> Turn:
        return self.journal

    def fail_turn(self) -> None:
        self.registry.create(b"durable")  # so that there is something to write, which cannot be
        super().fail_turn()
        assert b"durable" not in self.registry.queues


ENGINES: dict[str, Callable[[Callable[[], Storage]], World]] = {
    "local, durable": Local,
    "local, in memory": lambda open_storage: Local(open_storage, q=QueueOptions(durable=False)),
}


def put(world: World, *bodies: bytes, expires_at_ms: int = 0) -> Queue:
    for body in bodies:
        assert world.routing.put((Q,), body, 0, expires_at_ms)
    world.end_turn()
    return world.registry.queues[Q]


def opened(queue: Queue) -> Read:
    read = queue.open()
    assert read is not None
    return read


def take_all(world: World) -> list[object]:
    queue = world.registry.queues[Q]
    found: list[object] = []
    while (item := queue.take()) is not None:
        assert isinstance(item, tuple)
        found.append(item[0])
    world.end_turn()
    return found
