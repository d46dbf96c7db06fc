"""What becomes of a job that fails, as its queue's options say. Numbers in, numbers out."""

from typing import TYPE_CHECKING, NamedTuple

from darner_core.engines.jobs import MAX_DELAY_MS
from darner_core.showing import show
from darner_core.storage.job_records import MAX_COUNT, MAX_NOTE_BYTES, Job

if TYPE_CHECKING:
    from darner_core.engines.local.message_queue import MessageQueue

# How a job fails: its reader says so, says nothing for too long, or is gone.
NACK, TIMEOUT, LOSS = "nack", "timeout", "loss"
REJECT = "reject"  # or it says that nobody will ever deal with it

MAX_CLIENT_BYTES = 60  # of a client's name in a history


class JobRules(NamedTuple):
    """The options of a queue that are about jobs. 0: off."""

    max_deliveries: int = 0
    retry_delay_ms: int = 0
    retry_backoff: float = 1
    max_retry_delay_ms: int = 0
    unique_ms: int = 0  # a key stays taken for so long when its job is gone

    def is_last(self, failures: int) -> bool:
        """Whether a job that has failed so often is not handed out again."""
        return 0 < self.max_deliveries <= failures

    def delay_ms(self, failures: int) -> int:
        """Before the next delivery, after so many failures."""
        if not self.retry_delay_ms:
            return 0
        most = self.max_retry_delay_ms or MAX_DELAY_MS
        delay_ms: float = min(self.retry_delay_ms, most)
        for _ in range(failures - 1):
            if delay_ms >= most or self.retry_backoff == 1:
                break
            delay_ms = min(delay_ms * self.retry_backoff, most)
        return int(delay_ms)


def of_options(queue: "MessageQueue") -> JobRules:
    """What the options of this queue say of jobs."""
    options = queue.options
    return JobRules(
        options.max_deliveries, options.retry_delay_s * 1000, options.retry_backoff,
        options.max_retry_delay_s * 1000, options.unique_s * 1000,
    )  # fmt: skip


def failed(job: Job, how: str) -> Job:
    """`job` after one failure more."""
    if how == NACK:
        return job._replace(nacks=min(job.nacks + 1, MAX_COUNT))
    if how == TIMEOUT:
        return job._replace(timeouts=min(job.timeouts + 1, MAX_COUNT))
    return job._replace(losses=min(job.losses + 1, MAX_COUNT))


def history(queue: bytes, item_id: int, job: Job, how: str, client: str, added_at_ms: int) -> bytes:
    """The note of a dead letter: from where, how often, why last, which client, when first put (ms since 1970)."""
    who = _cut(client, MAX_CLIENT_BYTES)
    ending = b" id=%d failures=%d last=%b client=%b put=%d" % (item_id, job.failures, how.encode(), who, added_at_ms)
    return _cut(f"from={show(queue)}", MAX_NOTE_BYTES - len(ending)) + ending


def _cut(text: str, most_bytes: int) -> bytes:
    """The beginning of the text in UTF-8, of up to `most_bytes` bytes; no letter is cut in two."""
    return text.encode("utf-8", "backslashreplace")[:most_bytes].decode("utf-8", "ignore").encode()
