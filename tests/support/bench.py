"""The queues, routing and sweeper on a data directory, without a server: the test ends the turns."""

from collections.abc import Callable
from typing import Any

from darner_core.config.options import Config
from darner_core.config.queues import BUILT_IN, QueueOptions, QueueRules
from darner_core.engines.large_items import Large
from darner_core.engines.local.engine import LocalEngine
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.registry import Registry
from darner_core.errors import StorageError
from darner_core.shared_memory import BodyMemory
from darner_core.storage.records import Blob
from darner_core.storage.storage import Storage
from tests.support.moved_clock import MovedClock

CHUNK_BYTES = 400  # of the large items here


def never(*_: object) -> Any:
    """No timer: nothing is called after a time."""


def opened(queue: Any) -> Any:
    """Hand out the next item of this queue, which has one."""
    read = queue.open()
    assert read is not None
    return read


def items_put(registry: Registry) -> int:
    """Since the start, into queues that have been deleted too."""
    return registry.total_items_of_deleted + sum(queue.total_items for queue in registry)


class Rules(QueueRules):
    """Options by queue. A child without options has its parent's."""

    def __init__(self, options: dict[bytes, QueueOptions]) -> None:
        self.options = options

    def of(self, name: bytes, parent: bytes = b"") -> QueueOptions:
        return self.options.get(name, self.options.get(parent, BUILT_IN) if parent else BUILT_IN)

    @property
    def named(self) -> tuple[bytes, ...]:
        return tuple(self.options)


class Bench(MovedClock):
    """Begins at 1,000 s after 1970. Queues come into being as clients make them."""

    def __init__(self, open_storage: Callable[[], Storage], **options: QueueOptions) -> None:
        """`options` by queue."""
        self._open_storage = open_storage
        self.rules = Rules({name.encode(): queue_options for name, queue_options in options.items()})
        self.now_s = 1000.0
        self.turns = 0
        self.storage: Storage | None = None
        self.wait: Callable[[float], object] = lambda _: self.end_turn()  # what the sweeper does between its turns
        self.start()

    def start(self) -> None:
        self.storage = self._open_storage()
        self.config = Config(window_bytes=1 << 20, chunk_bytes=CHUNK_BYTES, rules=self.rules)
        memory = BodyMemory(1 << 20, lambda: None)
        self.engine = engine = LocalEngine(
            self.config, self.storage, memory, self.run_after, lambda: self.now_s, lambda: self.now_s, self._wait
        )
        self.journal, self.registry, self.routing = engine.journal, engine.registry, engine.routing
        self.sweeper = engine.sweeper

    def run_after(self, seconds: float, call: Callable[[], None]) -> Any:
        """No timer here."""
        return never(seconds, call)

    def _wait(self, seconds: float) -> None:
        self.wait(seconds)

    def crash(self) -> None:
        """Forget all that is in memory, and start again from what is on disk."""
        assert self.storage is not None
        self.storage.close()
        self.start()

    def end_turn(self) -> None:
        self.turns += 1
        self.journal.commit()
        self.journal.begin()

    def fail_turn(self) -> None:
        """Let the write of the turn fail."""
        assert self.fails()

    def fails(self) -> bool:
        """Let the write of the turn fail. False: it had nothing to write."""

        def refuse(*_: object) -> None:
            raise StorageError("no space left on device")

        assert self.storage is not None
        whole = self.storage.write, self.storage.put
        self.storage.write = refuse  # type: ignore[assignment]
        self.storage.put = refuse  # type: ignore[assignment]
        try:
            self.journal.commit()
        except StorageError:
            return True
        finally:
            self.storage.write, self.storage.put = whole
            self.journal.begin()
        return False

    def sweep(self) -> None:
        self.sweeper.wait_sweep()
        self.end_turn()

    def queue(self, name: bytes = b"q") -> MessageQueue:
        return self.registry.queues[name]

    def put(self, name: bytes, *bodies: bytes, expires_in_s: float = 0) -> bool:
        """Put these one by one, in one turn; whether all were taken."""
        expires_at_ms = max(1, int((self.now_s + expires_in_s) * 1000)) if expires_in_s else 0
        names = tuple(name.split(b",")) if b"," in name else (name,)
        stored = [self.routing.put(names, body, 0, expires_at_ms) for body in bodies]
        return None not in stored

    def put_large(self, name: bytes, body: bytes, expires_in_s: float = 0) -> None:
        """What a set does with the body of a large item."""
        expires_at_ms = int((self.now_s + expires_in_s) * 1000) if expires_in_s else 0
        for target in self.routing.targets((name,), len(body)) or ():
            upload = target.queue.large_items.receive(CHUNK_BYTES, BodyMemory(1 << 20, lambda: None))
            rest = body
            while rest:
                piece, rest = rest[: upload.room_bytes], rest[upload.room_bytes :]
                upload.add(piece)
            upload.finish()
            target.queue.put_until(Blob(upload.blob, len(body)), 0, expires_at_ms)
        self.end_turn()

    def take(self, name: bytes = b"q") -> bytes | None:
        """What a plain get answers."""
        queue = self.registry.queues.get(name)
        item = queue.take() if queue is not None else None
        if isinstance(item, Large):
            assert queue is not None
            read = queue.open()
            assert read is not None
            blob = queue.item_of(read)[0]
            assert isinstance(blob, Blob)
            download, body = queue.large_items.send(blob), b""
            while download.missing_bytes:
                body += download.next(CHUNK_BYTES)
            read.queue.close(read)
            return body
        if item is None:
            return None
        assert isinstance(item[0], bytes)
        return item[0]

    def drain(self, name: bytes = b"q") -> list[bytes]:
        """The answers to gets until the queue is empty. Ends the turn."""
        found = []
        while (body := self.take(name)) is not None:
            found.append(body)
        self.end_turn()
        return found
