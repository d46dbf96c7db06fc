"""What a session holds of a queue, several items at a time: with a deadline, touched, and given back.

For sessions with several open reads. See `client` for the two forms of an operation: here one function gives both, an
answer or a function of the Client. Those functions switch greenlets, nothing else here does.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from darner_core.engines.contract import Engine, Read
from darner_core.errors import ServerError, StorageError
from darner_core.operations.client import Client
from darner_core.operations.jobs import JobOperations
from darner_core.operations.session import FAILURES_AT_ONCE, READS_AT_ONCE, ManyReads, Session
from darner_core.operations.taking import Settle

# Makes the reply from the number of items that were given back; None: fewer are open, and nothing has changed.
Answer = Callable[[int | None], Any]


class Holding:
    def __init__(self, engine: Engine, jobs: JobOperations) -> None:
        self._leases = engine.leases
        self._jobs = jobs

    def settle(self, session: Session, ttr_ms: int | None, read: Read) -> Settle:
        """How the session is to hold this open read: for up to `ttr_ms`; 0: for as long as its item and queue say;
        None: without a deadline. Raises ServerError if no more items may have one; the item has been given back
        then."""
        if ttr_ms is None:
            return session.hold
        try:
            self._jobs.require_room(read.queue.name)
        except ServerError:
            read.queue.give_back(read)
            raise
        return partial(self._jobs.hold, session, ttr_ms)

    def touch_all_then(self, session: ManyReads, queue: bytes, lasts_ms: int, answer: Callable[[int], Any]) -> Any:
        """Everything that the session has open of this queue may stay so for `lasts_ms` from now; 0: as long as at
        first. `answer` is told how many items are open still."""
        reads = session.all_open(queue)
        if len(reads) <= READS_AT_ONCE:
            return answer(self._touch(reads, lasts_ms))

        def wait_touch(client: Client) -> Any:
            touched = 0
            for start in range(0, len(reads), READS_AT_ONCE):
                if start:
                    client.wait_turn()
                touched += self._touch(reads[start : start + READS_AT_ONCE], lasts_ms)
            return answer(touched)

        return wait_touch

    def _touch(self, reads: list[Read], lasts_ms: int) -> int:
        return sum(self._leases.touch(read, lasts_ms) for read in reads)

    def abort_oldest_then(
        self, session: ManyReads, queue: bytes, count: int, delay_ms: int | None, pri: int | None, answer: Answer
    ) -> Any:
        """Give back the `count` oldest items that the session has open of this queue. See `Jobs.fail`. Raises
        ServerError or StorageError, with nothing changed; if that is met behind the first item, those before it are
        counted."""

        def abort(read: Read) -> None:
            if delay_ms is None and pri is None:
                session.abort_found(read)
            else:
                self._jobs.abort(session, read, delay_ms, pri)

        return _each_oldest_then(session, queue, count, abort, answer)

    def reject_oldest_then(self, session: ManyReads, queue: bytes, count: int, answer: Answer) -> Any:
        """As `abort_oldest_then`, but they are dead letters."""
        return _each_oldest_then(session, queue, count, partial(self._jobs.reject, session), answer)


def _each_oldest_then(
    session: ManyReads, queue: bytes, count: int, let_go: Callable[[Read], object], answer: Answer
) -> Any:
    if session.open_reads(queue) < count:
        return answer(None)
    parts = _each_oldest(session, queue, count, let_go)
    if count <= FAILURES_AT_ONCE:
        return answer(sum(parts))

    def wait_each(client: Client) -> Any:
        done = 0
        for some in parts:
            done += some
            if done < count:
                client.wait_turn()
        return answer(done)

    return wait_each


def _each_oldest(session: ManyReads, queue: bytes, count: int, let_go: Callable[[Read], object]) -> Iterator[int]:
    """How many it was in each turn. Raises StorageError if a part of them could not be written."""
    left = session.open_reads(queue) - count
    for start in range(0, count, FAILURES_AT_ONCE):
        if session.open_reads(queue) != left + count - start:  # the turn before was undone
            raise StorageError("only some of the items are given back: a part could not be written")
        for done in range(min(FAILURES_AT_ONCE, count - start)):
            read = session.find(queue)
            assert read is not None
            try:
                let_go(read)
            except (ServerError, StorageError):
                if not start + done:
                    raise
                yield done
                return
        yield min(FAILURES_AT_ONCE, count - start)
