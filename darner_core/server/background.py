"""What the server does beside serving clients: tasks that are done every so often, and fsyncs that many clients share.

Promise: whatever a task raises is one line in the log, and the task is done again the next time. Nobody waits for ever
for an fsync.

Tasks and the functions whose names begin with wait_ switch greenlets; nothing else here does.
"""

import logging
from collections.abc import Callable
from typing import Any

import gevent

from darner_core import NAME
from darner_core.errors import StorageError
from darner_core.repeated import BY_FORM
from darner_core.waiters import wait_in_thread, wait_round

log = logging.getLogger(NAME)

# How many clients that waited for an fsync are answered at a time. They ask again at once: a hundred of them would hold
# up the others for milliseconds.
TOLD_AT_ONCE = 16


def wait_attempt(name: str, wait_task: Callable[[], None]) -> None:
    """Do the task; if it fails, the log says so."""
    try:
        wait_task()
    except (StorageError, OSError) as error:  # what was not done is there the next time
        log.error(f"{name}: %s", error, extra=BY_FORM)
    except Exception:
        log.exception(f"{name}: unexpected error", extra=BY_FORM)


class Background:
    """Tasks, each in a greenlet of its own until `close`."""

    def __init__(self) -> None:
        self._greenlets: list[gevent.Greenlet] = []

    def every(self, seconds: float | Callable[[], float], name: str, wait_task: Callable[[], None]) -> None:
        """Do the task again and again with this time in between, even after it has failed."""
        self._greenlets.append(gevent.spawn(self._wait_repeat, seconds, name, wait_task))

    def _wait_repeat(self, seconds: float | Callable[[], float], name: str, wait_task: Callable[[], None]) -> None:
        while True:
            gevent.sleep(seconds() if callable(seconds) else seconds)
            wait_attempt(name, wait_task)

    def wait_closed(self) -> None:
        gevent.killall(self._greenlets)


class SyncGroup:
    """Shares fsyncs: all that ask while one runs are served by the next.

    `sync` is called in a thread, so it does not hold up the loop.
    """

    def __init__(self, sync: Callable[[], None], done: Callable[[list[Any], StorageError | None], None]) -> None:
        """`done(members, error)` is called in the hub when the fsync that covers `members` has ended; perhaps several
        times for one fsync."""
        self._sync = sync
        self._done = done
        self._members: list[Any] = []
        self._running: gevent.Greenlet | None = None

    def join(self, member: Any) -> None:
        """`member`'s writes have been committed; tell it when they are on the disk."""
        self._members.append(member)
        if self._running is None:
            self._running = gevent.spawn(self._run)

    def _run(self) -> None:
        while self._members:
            # What joins from here on may have been written after this fsync began: it goes with the next.
            members, self._members = self._members, []
            error = None
            try:
                wait_in_thread(self._sync)
            except StorageError as failure:
                error = failure
            except Exception as failure:  # of the pool of threads, too: nobody may wait for ever
                error = StorageError(f"{type(failure).__name__}: {failure}")
            gevent.spawn(self._tell, members, error)
        self._running = None

    def _tell(self, members: list[Any], error: StorageError | None) -> None:
        loop = gevent.get_hub().loop
        for start in range(0, len(members), TOLD_AT_ONCE):
            loop.run_callback(self._done, members[start : start + TOLD_AT_ONCE], error)
            wait_round()
