"""Watching a queue: `monitor`, which opens items as they come and sends each at once, and `confirm`, which closes the
oldest of them. For dialects with several open reads; see `client` for what a command is.

What a monitor has sent is open like any other read: it goes to the next when the client hangs up, in whatever moment.

No call here switches greenlets, except through the Client's wait_... calls.
"""

import time
from functools import partial

from darner_core.client import Client, Reply
from darner_core.message_queue import OpenRead
from darner_core.protocol import MAX_READS, Request
from darner_core.reading import Reading
from darner_core.registry import Registry
from darner_core.replies import END, NOT_THAT_MANY_OPEN
from darner_core.session import ManyReads


class Monitoring:
    """These commands, bound to what they work on."""

    def __init__(self, registry: Registry, reading: Reading) -> None:
        self._queues = registry.queues
        self._reading = reading

    def monitor(self, request: Request, body: None, session: ManyReads) -> Reply:
        if not request.wait_ms:
            return END
        return partial(self._wait_monitor, request)

    def _wait_monitor(self, request: Request, client: Client) -> bytes:
        """Until the time is over, so many have come, no more may be open, or the server stops."""
        until = time.monotonic() + request.wait_ms / 1000
        for _ in range(request.most or MAX_READS):
            read = self._wait_for_next(request, client, int((until - time.monotonic()) * 1000))
            if read is None:
                break
            reply = self._reading.answer_with(request, client.session, read)
            client.wait_sent(reply if isinstance(reply, bytes) else reply(client))
        return END

    def _wait_for_next(self, request: Request, client: Client, wait_ms: int) -> OpenRead | None:
        session = client.session
        assert isinstance(session, ManyReads)
        if wait_ms <= 0 or self._reading.stopping:
            return None
        queue = self._queues.get(request.queue)
        if queue is not None:
            if not session.has_room(request.queue, queue.options.max_open_reads):
                return None
            read = queue.open()
            if read is not None:
                return read
        return self._reading.wait_for_read((request.queue,), client, wait_ms)

    def confirm(self, request: Request, body: None, session: ManyReads) -> bytes:
        return END if session.close_oldest(request.queue, request.most) else NOT_THAT_MANY_OPEN
