"""Jobs that are delivered once at most (RETRY 0) and have been. The items are gone, but clients may still ask about
them, or acknowledge them. In memory alone, and not for ever.
"""

from collections import OrderedDict
from typing import Final, NamedTuple

MOST_TAKEN: Final = 100_000


class TakenJob(NamedTuple):
    queue: bytes
    item_id: int
    body: bytes  # b"" if it is large
    body_bytes: int
    added_at_ms: int
    expires_at_ms: int


class TakenJobs:
    """By their ids, the oldest first."""

    def __init__(self, most_bytes: int) -> None:
        """`most_bytes`: of all bodies together."""
        self._jobs: OrderedDict[bytes, TakenJob] = OrderedDict()
        self._most_bytes = most_bytes
        self._bytes = 0

    def add(self, job_id: bytes, job: TakenJob) -> None:
        self.remove(job_id)
        self._jobs[job_id] = job
        self._bytes += len(job.body)
        while len(self._jobs) > MOST_TAKEN or self._bytes > self._most_bytes:
            self.remove(next(iter(self._jobs)))

    def find(self, job_id: bytes, now_ms: int) -> TakenJob | None:
        job = self._jobs.get(job_id)
        if job is not None and job.expires_at_ms and job.expires_at_ms <= now_ms:
            self.remove(job_id)
            return None
        return job

    def remove(self, job_id: bytes) -> bool:
        """False: it is not known."""
        job = self._jobs.pop(job_id, None)
        if job is not None:
            self._bytes -= len(job.body)
        return job is not None

    def __len__(self) -> int:
        return len(self._jobs)
