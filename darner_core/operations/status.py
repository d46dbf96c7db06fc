"""The server's status: what it is willing to do, as an operator says it, in Kestrel's words.

A stricter status is shown at once and in force after a grace period, so that whatever looks at it (a load balancer, a
client library) has time to turn elsewhere before anything is refused. A file keeps it over a restart. What a status in
force refuses is done elsewhere: `forbid` is told what is refused, and why.

Names that begin with wait_ may switch greenlets; nothing else here does.

Source: Kestrel 2.4's guide, "Server status".
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from darner_core import NAME, files
from darner_core.config.options import Config
from darner_core.errors import StorageError
from darner_core.nearest import did_you_mean
from darner_core.operations.client import Client
from darner_core.waiters import Timer, wait_in_thread

log = logging.getLogger(NAME)

MOST_FILE_BYTES = 100  # a file with more in it is not one of ours


@dataclass(frozen=True)
class Status:
    word: str  # as clients are told it
    stored: str  # as the file has it
    strictness: int
    blocks_writes: bool = False
    blocks_reads: bool = False


UP = Status("UP", "Up", 1)
WRITEAVOID = Status("WRITEAVOID", "WriteAvoid", 2)  # forbids nothing; well-meaning clients put elsewhere
READONLY = Status("READONLY", "ReadOnly", 3, blocks_writes=True)
QUIESCENT = Status("QUIESCENT", "Quiescent", 4, blocks_writes=True, blocks_reads=True)

# Kestrel's fifth, DOWN, is that of a server that does not run.
STATUSES = {status.word: status for status in (UP, WRITEAVOID, READONLY, QUIESCENT)}


def status_of(word: str) -> Status:
    """The status of that name, in any case. Raises ValueError saying which there are."""
    status = STATUSES.get(word.upper()) if word.isascii() else None
    if status is None:
        names = [name.lower() for name in STATUSES]
        near = did_you_mean(word, names)
        raise ValueError(f"one of {', '.join(names)}{near and '; '}{near}")
    return status


class ServerStatus:
    """`shown` is what clients are told, `enforced` what is in force. They differ during a grace period only, and then
    `shown` is the stricter."""

    def __init__(
        self,
        config: Config,
        forbid: Callable[[str, str], None],
        run_after: Callable[[float, Callable[[], None]], Timer],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`forbid(why nobody may write, why nobody may read)` is called whenever another status comes into force, also
        for the first; "" for what is allowed. `run_after(seconds, call)` calls once, in the loop."""
        self._path = config.status_file
        self._grace_s = config.status_change_grace_period_s
        self._forbid = forbid
        self._run_after = run_after
        self._clock = clock
        self._writing = threading.Lock()  # the file
        self._due_at: float | None = None  # when `shown` comes into force; None: it is
        self._timer: Timer | None = None
        self.shown = self.enforced = self._first(status_of(config.default_status))
        self._enforce()

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

    def change(self, new: Status) -> bool:
        """Show `new`, and see when it comes into force. False: it is ignored, because a change to one that is at least
        as strict is pending already."""
        old = self.shown
        if self._due_at is not None and new.strictness >= old.strictness:
            log.warning("status %s is ignored: %s comes into force soon", new.word, old.word)
            return False
        log.info("status %s, it was %s", new.word, old.word)
        self.shown = new
        self._due_at = self._clock() + (self._grace_s if new.strictness > old.strictness else 0)
        self._look()
        return True

    def change_then(self, new: Status, reply: Any) -> Any:
        """Change to `new`; `reply`, or a function of the Client that writes the file first. Raises StorageError."""

        def wait_kept(client: Client) -> Any:
            self.wait_kept()
            return reply

        return wait_kept if self.change(new) else reply

    def _look(self) -> None:
        """Put into force what is due, and come back when the rest is."""
        self.close()
        if self._due_at is None:
            return
        rest_s = self._due_at - self._clock()
        if rest_s > 0:
            self._timer = self._run_after(rest_s, self._look)
            return
        self._due_at = None
        if self.enforced is not self.shown:
            self.enforced = self.shown
            self._enforce()

    def _enforce(self) -> None:
        status = self.enforced
        log.debug("status %s is in force", status.word)
        why = f"the server is {status.word}"
        self._forbid(why if status.blocks_writes else "", why if status.blocks_reads else "")

    def close(self) -> None:
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    # -- the file

    def wait_kept(self) -> None:
        """Write what is shown to the file, if there is to be one. Raises StorageError."""
        if self._path:
            wait_in_thread(self._keep)

    def _keep(self) -> None:
        """Runs in a thread. When several clients change the status, the file has the last one that was shown."""
        with self._writing:
            status = self.shown
            try:
                write_status(self._path, status)
            except OSError as error:
                raise StorageError(
                    f"the status is {status.word} now, but {self._path} cannot be written: {error.strerror}; the next"
                    " start will not know of it"
                ) from error


def read_status(path: str) -> Status | None:
    """What the file says; None if there is none. Raises ValueError saying what is wrong with it."""
    try:
        with open(path, "rb") as file:
            text = file.read(MOST_FILE_BYTES).decode("utf-8", "backslashreplace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error
    try:
        return status_of(text)
    except ValueError as allowed:
        raise ValueError(f"holds {text!r}, not {allowed}") from None


def write_status(path: str, status: Status) -> None:
    """Put `status` in the place of what the file says, whole or not at all. Raises OSError."""
    files.write_atomically(path, f"{status.stored}\n".encode())
