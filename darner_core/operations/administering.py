"""Looking after queues and the server: delete, flush, and what is in effect of the configuration.

Calls whose names begin with wait_ switch greenlets, nothing else here does. See `client` for the two forms of an
operation.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from darner_core.config.options import OPTIONS, Config
from darner_core.config.queues import parent_of
from darner_core.engines.contract import Engine, Queue
from darner_core.errors import DamagedError, ServerError
from darner_core.operations.client import Client
from darner_core.operations.stats import QUEUES_A_TURN, Statistics
from darner_core.showing import show
from darner_core.slicing import slices

Options = Iterable[tuple[str, Any, str]]  # an option, its value, and what has set it


class Administering:
    """The operations that empty and remove queues."""

    def __init__(self, engine: Engine, statistics: Statistics) -> None:
        self._registry = engine.registry
        self._queues = engine.registry.queues
        self._sweeper = engine.sweeper
        self._statistics = statistics

    def make(self, name: bytes) -> bool:
        """Make a queue that nothing has been put into. False: there is one of that name. Raises ServerError."""
        if name in self._registry.aliases:
            raise ServerError(f"{show(name)} is an alias: puts go to other queues")
        if name in self._queues:
            return False
        self._registry.create(name)
        return True

    def delete(self, name: bytes, cursor: bytes = b"") -> None:
        """Remove a queue, or a cursor of it. Nothing happens if there is none. Raises StorageError."""
        if cursor:
            self._registry.cursors.delete(name, cursor)
        else:
            self._registry.delete(name)

    def flush(self, name: bytes, cursor: bytes = b"") -> None:
        """Empty a queue, or put a cursor of it back to the queue's head. Nothing happens if there is none. Raises
        StorageError."""
        if cursor:
            self._registry.cursors.flush(name, cursor)
        else:
            self._registry.flush(name)

    def wait_flush_all(self, client: Client) -> None:
        """Empty all queues. If some are damaged, the others are emptied, and then DamagedError is raised. Raises
        ServerError or StorageError half-way if the disk refuses."""
        damaged: list[tuple[bytes, DamagedError]] = []
        for names in slices(self._queues, QUEUES_A_TURN):
            for name in names:
                queue = self._queues.get(name)
                try:
                    if queue is not None:
                        queue.flush()
                except DamagedError as error:
                    damaged.append((name, error))
            client.wait_turn()
        if damaged:
            name, first = min(damaged, key=lambda one: one[0])
            others = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
            raise DamagedError(f"all queues were flushed except {show(name)}{others}: {first}")

    def wait_flush_expired(self, name: bytes) -> int:
        """Remove what has expired of one queue; how many items those were."""
        queue = self._queues.get(name)
        if queue is None:
            return 0
        before = queue.expired_items
        self._sweeper.wait_sweep(queue)
        return queue.expired_items - before

    def wait_flush_all_expired(self, client: Client) -> int:
        """Remove what has expired of all queues; how many items those were."""
        before = self._statistics.wait_totals(client).expired_items
        self._sweeper.wait_sweep()
        return max(0, self._statistics.wait_totals(client).expired_items - before)  # some may have been deleted


class InEffect:
    """The options in effect, of the server and of each queue."""

    def __init__(self, config: Config, queues: Mapping[bytes, Queue]) -> None:
        self._config = config
        self._queues = queues

    def take_over(self, config: Config, names: Iterable[str]) -> None:
        """The files have been read again: of `config`, the options and tables of these names are in effect now."""
        taken: dict[str, Any] = {name: getattr(config, name) for name in names}
        taken["levels"] = {
            **{name: level for name, level in self._config.levels.items() if name not in taken},
            **{name: level for name, level in config.levels.items() if name in taken},
        }
        self._config = replace(self._config, **taken)

    @property
    def aliases(self) -> Mapping[bytes, tuple[bytes, ...]]:
        return self._config.aliases

    def of_server(self) -> Options:
        return [
            (option.name, getattr(self._config, option.name), self._config.level(option.name)) for option in OPTIONS
        ]

    def of_queue(self, name: bytes, parent: bytes = b"") -> Options:
        """The options of a queue with this name, which need not exist. `parent`: whose fanout child it is."""
        queue = self._queues.get(name)
        if queue is not None and queue.is_child:
            parent = parent_of(name)
        return self._as_made(self._config.rules.describe(name, parent), queue)

    @staticmethod
    def _as_made(options: Options, queue: Queue | None) -> Iterator[tuple[str, Any, str]]:
        """`options`, but for `durable`: whether a queue is on disk was decided when it was made."""
        for option, value, level in options:
            if option == "durable" and queue is not None and value != queue.durable:
                yield option, not value, "as the queue was made"
            else:
                yield option, value, level
