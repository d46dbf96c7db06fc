"""Jobs that are delivered once at most (RETRY 0) and have been. The items are gone, but clients may still ask about
them, or acknowledge them. In memory alone, and not for ever.
"""

from collections import OrderedDict
from itertools import islice
from typing import Final, NamedTuple

from darner_core.engines.contract import Item, Read
from darner_core.protocols.resp.session import RespSession

MOST_TAKEN: Final = 100_000


class TakenJob(NamedTuple):
    queue_number: int
    queue: bytes
    item_id: int
    body: bytes  # b"" if it is large
    body_bytes: int
    added_at_ms: int
    expires_at_ms: int


class TakenJobs:
    """By the numbers of their queues and their ids there, the oldest first."""

    def __init__(self, most_bytes: int) -> None:
        """`most_bytes`: of all bodies together."""
        self._jobs: OrderedDict[tuple[int, int], TakenJob] = OrderedDict()
        self._most_bytes = most_bytes
        self._bytes = 0

    def take(self, session: RespSession, queue_number: int, read: Read, item: Item) -> None:
        """The job that this client has open is gone from its queue, and known here. Raises StorageError, with nothing
        changed."""
        queue, body = read.queue, item[0]
        queue.close(read)
        kept = body if isinstance(body, bytes) else b""
        self.add(TakenJob(queue_number, queue.name, read.id, kept, read.body_bytes, item[3], item[2]))
        session.undoes(self.remove, (queue_number, read.id))

    def acknowledge(self, session: RespSession, queue_number: int, item_id: int) -> bool:
        """The client has dealt with the job. False: it is not known."""
        job = self._jobs.get((queue_number, item_id))
        if job is None:
            return False
        self.remove((queue_number, item_id))
        session.undoes(self.add, job)
        return True

    def add(self, job: TakenJob) -> None:
        key = job.queue_number, job.item_id
        self.remove(key)
        self._jobs[key] = job
        self._bytes += len(job.body)
        while len(self._jobs) > MOST_TAKEN or self._bytes > self._most_bytes:
            self.remove(next(iter(self._jobs)))

    def find(self, queue_number: int, item_id: int, now_ms: int) -> TakenJob | None:
        job = self._jobs.get((queue_number, item_id))
        if job is not None and job.expires_at_ms and job.expires_at_ms <= now_ms:
            self.remove((queue_number, item_id))
            return None
        return job

    def some(self, most: int) -> list[TakenJob]:
        """The newest, up to `most`."""
        return list(islice(reversed(self._jobs.values()), most))

    def remove(self, key: tuple[int, int]) -> None:
        """Nothing happens if there is no such job."""
        job = self._jobs.pop(key, None)
        if job is not None:
            self._bytes -= len(job.body)

    def __len__(self) -> int:
        return len(self._jobs)
