"""Items that any client decides on by the ids of their leases: held, confirmed, given back, rejected, touched.

Each call that decides answers how many of the ids are those of items that are open, of that queue. If that has to be
done in several turns, it answers a function of the Client, which switches greenlets; nothing else here does.
"""

from collections.abc import Callable, Iterable
from functools import partial

from darner_core.engines.contract import Engine, Read
from darner_core.engines.jobs import Failure
from darner_core.operations.client import Client
from darner_core.operations.session import FAILURES_AT_ONCE, Session
from darner_core.operations.taking import Taking

Count = int | Callable[[Client], int]

_Decide = Callable[[bytes, Iterable[int]], int]


class Lending:
    def __init__(self, engine: Engine, taking: Taking) -> None:
        self._leases = engine.leases
        self._jobs = engine.jobs
        self._queues = engine.registry.queues
        self._taking = taking

    # -- handing out

    def room(self, session: Session, queue: bytes) -> int:
        """How many items more of this queue may be lent to this client; 0 or less: none."""
        opened = self._leases.opened_by(session, queue)
        return min(self._taking.most_open(queue) - opened, self._leases.room(queue))

    def next_ids(self, count: int) -> range:
        return self._leases.next_ids(count)

    def lasts_ms(self, read: Read, otherwise_ms: int) -> int:
        """How long an item may be open by its own terms, or those of its queue; `otherwise_ms`: if these have none."""
        return self._jobs.ttr_ms(read) or otherwise_ms

    def hold(self, session: Session, lease_id: int, lasts_ms: int, read: Read) -> None:
        """The client knows this read by `lease_id` from now on."""
        client, most_ms = session.origin.name, self._jobs.most_hold_ms(read)
        self._leases.hold(lease_id, read, session, lasts_ms, client, most_ms)

    # -- deciding

    def confirm(self, queue: bytes, ids: Iterable[int]) -> Count:
        """Remove these items. Raises StorageError, with nothing changed, or, in several turns, with some removed."""
        return self._in_parts(queue, ids, self._leases.confirm, self._leases.at_once)

    def abort(self, queue: bytes, ids: Iterable[int]) -> Count:
        """Let these items wait again; where failures count, each is one."""
        found = self._queues.get(queue)
        fails = found is not None and found.counts_failures
        at_once = self._leases.aborted_at_once if fails else self._leases.at_once
        return self._in_parts(queue, ids, self._leases.abort, at_once)

    def abort_later(self, queue: bytes, ids: Iterable[int], delay_ms: int | None, pri: int | None) -> Count:
        """Give these items back, see `Jobs.fail`. Raises ServerError or StorageError, with nothing changed; if that is
        met behind the first item, those before it are counted."""

        def fail(read: Read, client: bytes) -> None:
            self._jobs.fail(read, Failure.ABORTED, client, delay_ms, pri)

        return self._in_parts(queue, ids, partial(self._hand_back, fail), FAILURES_AT_ONCE)

    def reject(self, queue: bytes, ids: Iterable[int]) -> Count:
        """As `abort_later`, but they are dead letters."""
        return self._in_parts(queue, ids, partial(self._hand_back, self._jobs.reject), FAILURES_AT_ONCE)

    def _hand_back(self, give_back: Callable[[Read, bytes], object], queue: bytes, ids: Iterable[int]) -> int:
        return self._leases.hand_back(queue, ids, give_back)

    def touch(self, queue: bytes, ids: Iterable[int], lasts_ms: int) -> Count:
        """These items may be open for `lasts_ms` from now; 0: as long as at first."""

        def touch(queue: bytes, ids: Iterable[int]) -> int:
            return self._leases.touch_known(queue, ids, lasts_ms)

        return self._in_parts(queue, ids, touch, self._leases.at_once, ends=False)

    def _in_parts(self, queue: bytes, ids: Iterable[int], decide: _Decide, at_once: int, ends: bool = True) -> Count:
        """`ends`: no item is open when it has been decided on."""
        known = list(ids)
        if len(known) <= at_once:
            return decide(queue, known)

        def wait_decide(client: Client) -> int:
            """A part in each turn, the last in that of the reply."""
            decided = 0
            for start in range(0, len(known), at_once):
                if start:
                    client.wait_turn()
                    if ends:
                        self._leases.require_decided(queue, known[start - at_once : start])
                decided += decide(queue, known[start : start + at_once])
            return decided

        return wait_decide
