"""All operations on the engine of a test, without a server."""

from typing import Any

from darner_core.operations.availability import Availability
from darner_core.operations.operations import Operations
from darner_core.operations.stats import Stats
from darner_core.protocols.memcache.items import Items
from darner_core.shared_memory import PipelineMemory


def operations_on(house: Any, host: Any = None) -> Operations:
    """`house`: it has an engine, and the configuration of it."""
    pipeline_memory = PipelineMemory(house.config.pipeline_memory_bytes)
    return Operations(house.engine, Stats(), house.config, pipeline_memory, Availability(), host)


def items_on(house: Any) -> Items:
    """The memcache commands that put and take."""
    return Items(operations_on(house), house.config)
