"""All operations, bound to one engine: what a protocol is handed to serve its clients with."""

from typing import Protocol

from darner_core.config.options import Config
from darner_core.engines.contract import Engine
from darner_core.operations.administering import Administering, InEffect
from darner_core.operations.availability import Availability
from darner_core.operations.dead_letters import DeadLetters
from darner_core.operations.history import History
from darner_core.operations.holding import Holding
from darner_core.operations.jobs import Comebacks, JobOperations
from darner_core.operations.lending import Lending
from darner_core.operations.measures import Measures
from darner_core.operations.monitoring import Monitoring
from darner_core.operations.putting import Putting
from darner_core.operations.stats import Statistics, Stats
from darner_core.operations.status import ServerStatus
from darner_core.operations.taking import Taking
from darner_core.operations.watching import Watching
from darner_core.shared_memory import PipelineMemory


class Host(Protocol):
    """The server, as an operator's commands see it."""

    @property
    def status(self) -> ServerStatus: ...

    def wait_reload(self) -> None:
        """Read the files again. Raises ConfigError or StorageError; then nothing has changed. Switches greenlets."""

    def wait_backup(self, name: str) -> tuple[int, int]:
        """Save all queues as they are now, below the directory for backups; how many files and bytes those are. Raises
        ServerError or StorageError; then nothing of it is left. Switches greenlets."""

    def request_stop(self) -> None: ...


class Operations:
    def __init__(
        self,
        engine: Engine,
        stats: Stats,
        config: Config,
        pipeline_memory: PipelineMemory,
        availability: Availability,
        host: Host,
    ) -> None:
        registry = engine.registry
        self.queues = registry.queues
        self.cursors = registry.cursors
        self.children_of = registry.children_of
        self.time_ms = engine.journal.time_ms
        self.free_bytes = engine.free_bytes
        self.stats = stats
        self.availability = availability
        self.host = host
        self.pipeline_memory = pipeline_memory
        self.taking = Taking(engine, stats, config, pipeline_memory, availability)
        self.putting = Putting(engine, stats, config, availability)
        self.items = engine.items
        self.comebacks = Comebacks(engine, availability)
        self.jobs = JobOperations(engine, self.comebacks)
        self.holding = Holding(engine, self.jobs)
        self.lending = Lending(engine, self.taking)
        self.monitoring = Monitoring(self.taking, pipeline_memory, availability)
        self.statistics = Statistics(stats, engine)
        self.administering = Administering(engine, self.statistics)
        self.in_effect = InEffect(config, registry.queues)
        self.dead_letters = DeadLetters(engine, self.jobs, self.putting, self.in_effect)
        self.watching = Watching(engine.traces, pipeline_memory, availability)
        # What only those who look at the server need: see `observe`.
        self.history: History | None = None
        self.measures: Measures | None = None

    def observe(self) -> None:
        """Somebody can look at the server: keep what the queues have been like, and how long things take."""
        self.history = History(self.queues, self.statistics, self.jobs)
        self.measures = Measures()
