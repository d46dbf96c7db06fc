"""Puts the server's status into force: what it forbids is taken out of the vocabularies, after its grace period, and a
file keeps it over a restart.

Names that begin with wait_ may switch greenlets; nothing else here does.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from darner_core import NAME
from darner_core.config.options import Config
from darner_core.errors import StorageError
from darner_core.operations.status import ServerStatus, Status, read_status, status_of, write_status
from darner_core.protocols.refusals import Vocabularies
from darner_core.waiters import wait_in_thread

log = logging.getLogger(NAME)


class Enforcement:
    """The status, in force from the beginning."""

    def __init__(
        self, config: Config, vocabularies: Vocabularies, loop: Any, block_reads: Callable[[bool], None]
    ) -> None:
        """`block_reads` is told whether nobody may wait for an item any longer."""
        self._path = config.status_file
        self._vocabularies = vocabularies
        self._loop = loop
        self._block_reads = block_reads
        self._keeping = threading.Lock()
        self._grace = loop.timer(0, ref=False)
        first = self._first(status_of(config.default_status))
        self._status = ServerStatus(first, config.status_change_grace_period_s, time.monotonic, self._enforce)
        self._enforce(first)

    def _first(self, default: Status) -> Status:
        if not self._path:
            return default
        if not os.path.isdir(os.path.dirname(self._path) or "."):
            log.warning("status_file %s: there is no such directory, so that no status can be kept", self._path)
        try:
            return read_status(self._path) or default
        except ValueError as error:
            log.warning("status_file %s %s; the status is %s", self._path, error, default.word)
            return default

    @property
    def shown(self) -> Status:
        """What clients are told."""
        return self._status.shown

    @property
    def enforced(self) -> Status:
        """What is in force."""
        return self._status.enforced

    def change(self, status: Status) -> bool:
        """False: it is ignored, see `ServerStatus.change`."""
        before = self._status.shown
        if not self._status.change(status):
            log.warning("status %s is ignored: %s comes into force soon", status.word, before.word)
            return False
        log.info("status %s, it was %s", status.word, before.word)
        self._look()
        return True

    def _look(self) -> None:
        """Put into force what is due, and come back when the rest is."""
        self._grace.close()
        self._status.look()
        if self._status.pending:
            self._grace = self._loop.timer(self._status.due_in_s, ref=False)
            self._grace.start(self._look)

    def _enforce(self, status: Status) -> None:
        """Refuse, and refuse no longer; who waits in line is told END where nobody may get any more."""
        log.debug("status %s is in force", status.word)
        why = f"the server is {status.word}"
        self._vocabularies.refuse(why if status.blocks_writes else "", why if status.blocks_reads else "")
        self._block_reads(status.blocks_reads)

    def close(self) -> None:
        self._grace.close()

    # -- the file

    def wait_kept(self) -> None:
        """Write what is shown to the file, if there is to be one. Raises StorageError. Switches."""
        if self._path:
            wait_in_thread(self._keep)

    def _keep(self) -> None:
        """In a thread. When several clients change the status, the file has what is shown last."""
        with self._keeping:
            status = self._status.shown
            try:
                write_status(self._path, status)
            except OSError as error:
                raise StorageError(
                    f"the status is {status.word} now, but {self._path} cannot be written: {error.strerror}; the next"
                    " start will not know of it"
                ) from error
