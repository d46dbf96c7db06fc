"""Kestrel's other two protocols, each at a port of its own: made when there is a listener that speaks them, so that a
server without one has nothing of them in memory.
"""

from collections.abc import Callable
from typing import Any

from darner_core.commands import Commands
from darner_core.config import Config
from darner_core.errors import StartError
from darner_core.journal import Journal
from darner_core.listener_options import TEXT
from darner_core.pending_reads import PendingReads
from darner_core.protocol import Vocabulary
from darner_core.registry import Registry
from darner_core.stats import Stats
from darner_core.text_commands import ServerStatus, TextCommands


def vocabulary(
    dialect: str,
    commands: Commands,
    registry: Registry,
    journal: Journal,
    stats: Stats,
    config: Config,
    request_stop: Callable[[], None],
    run_after: Callable[[float, Callable[[], None]], Any],
    status: ServerStatus | None = None,
) -> Vocabulary:
    """What the clients of `dialect`, TEXT or THRIFT, can ask. Raises StartError if a library is missing."""
    if dialect == TEXT:
        return TextCommands(commands, registry, journal, stats, config, request_stop, status).vocabulary()
    try:
        from darner_core.thrift_service import ThriftService
    except ImportError as error:
        raise StartError(f'a listener with dialect = "thrift" needs the package thriftpy2: {error}') from error
    pending = PendingReads(journal, run_after)
    return ThriftService(commands, registry, journal, stats, config, pending, status).vocabulary()
