"""Kestrel's other two protocols, each at a port of its own: made when there is a listener that speaks them, so that a
server without one has nothing of them in memory.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from darner_core.access.rights import PUT
from darner_core.config.listeners import TEXT
from darner_core.config.options import Config
from darner_core.config.values import show_text
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.pending_reads import PendingReads
from darner_core.engines.local.registry import Registry
from darner_core.errors import ServerError, StartError
from darner_core.operations.enforcement import Enforcement
from darner_core.operations.stats import Stats
from darner_core.operations.status import status_of
from darner_core.protocols.kestrel_text.commands import TextCommands
from darner_core.protocols.memcache.commands import Commands
from darner_core.protocols.memcache.reader import Vocabulary

Maker = Callable[[str, str], Vocabulary]


class _Status:
    """The server's status, as these protocols show and set it."""

    def __init__(self, enforcement: Enforcement) -> None:
        self._enforcement = enforcement

    @property
    def shown(self) -> str:
        return self._enforcement.shown.word

    def refuses(self, right: str) -> bool:
        status = self._enforcement.enforced
        return status.blocks_writes if right == PUT else status.blocks_reads

    def wait_change(self, word: str) -> None:
        try:
            status = status_of(word)
        except ValueError as allowed:
            raise ServerError(f'unknown status "{show_text(word)}": {allowed}') from None
        if self._enforcement.change(status):
            self._enforcement.wait_kept()


def maker(
    dialect: str,
    commands: Commands,
    registry: Registry,
    journal: Journal,
    stats: Stats,
    config: Config,
    request_stop: Callable[[], None],
    run_after: Callable[[float, Callable[[], None]], Any],
    enforcement: Enforcement,
) -> Maker:
    """What makes the vocabularies of `dialect`, TEXT or THRIFT: for a client that may never put, or get, for these
    reasons. Raises StartError if a library is missing."""
    status = _Status(enforcement)
    if dialect == TEXT:
        return cache(TextCommands(commands, registry, journal, stats, config, request_stop, status).vocabulary)
    try:
        from darner_core.protocols.thrift.calls import ThriftService
    except ImportError as error:
        raise StartError(f'a listener with dialect = "thrift" needs the package thriftpy2: {error}') from error
    pending = PendingReads(journal, run_after)
    return cache(ThriftService(commands, registry, journal, stats, config, pending, status).vocabulary)
