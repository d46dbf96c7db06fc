"""All operations on a registry and a journal of a test, without a server."""

from typing import Any

from darner_core.config.options import Config
from darner_core.engines.local.engine import LocalEngine
from darner_core.operations.availability import Availability
from darner_core.operations.operations import Operations
from darner_core.operations.stats import Stats
from darner_core.protocols.memcache.items import Items
from darner_core.shared_memory import BodyMemory, PipelineMemory


def operations_on(house: Any, config: Config | None = None, host: Any = None) -> Operations:
    """`house`: it has a registry and a journal. Nothing is called after a time."""
    config = config or Config()
    memory = BodyMemory(config.body_memory_bytes, lambda: None)
    engine = LocalEngine(house.registry, house.journal, config.chunk_bytes, memory, lambda *_: house)
    pipeline_memory = PipelineMemory(config.pipeline_memory_bytes)
    availability, budget = Availability(), house.registry._budget
    return Operations(engine, budget, Stats(), config, memory, pipeline_memory, availability, host)


def items_on(house: Any, config: Config | None = None) -> Items:
    """The memcache commands that put and take."""
    return Items(operations_on(house, config), config or Config())
