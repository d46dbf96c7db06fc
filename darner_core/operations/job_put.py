"""Putting several jobs with the same options: what `Putting.put_several` asks for each of them. No call here switches
greenlets.
"""

from darner_core.engines.jobs import JobOptions, Outcome
from darner_core.operations.jobs import JobOperations
from darner_core.operations.putting import LargePut
from darner_core.operations.session import Session


class JobPut:
    """Puts jobs into one queue: a `PutOne`. `key_taken`: the last was refused because the queue has an item with its
    key."""

    def __init__(self, jobs: JobOperations, name: bytes, options: JobOptions, as_child: bool = False) -> None:
        self.key_taken = False
        self._jobs = jobs
        self._names = (name,)
        self._options = options
        self._as_child = as_child

    def is_refused(self, session: Session) -> bool:
        placed = self._jobs.answer_of_key(session, self._names, self._options.key, self._as_child)
        self.key_taken = placed is not None and placed.outcome is Outcome.KEY_TAKEN
        return placed is not None

    def __call__(self, session: Session, body: bytes, expires_at_ms: int, large: LargePut | None) -> bool:
        names, options = self._names, self._options
        if large is not None:
            outcome = self._jobs.put_large(session, names, large, 0, expires_at_ms, options).outcome
        else:
            outcome = self._jobs.put(session, names, body, 0, expires_at_ms, options, self._as_child).outcome
        self.key_taken = outcome is Outcome.KEY_TAKEN
        return outcome is Outcome.STORED
