"""Watching a queue: `monitor`, which opens items as they come and sends each at once, and `confirm`, which closes the
oldest of them. For dialects with several open reads; see `client` for what a command is.

What a monitor has sent is open like any other read: it goes to the next when the client hangs up, in whatever moment.

No call here switches greenlets, except through the Client's wait_... calls.
"""

import time
from functools import partial

from darner_core.access.rights import GET
from darner_core.engines.contract import Read, Source
from darner_core.engines.local.registry import Registry
from darner_core.errors import ClientError, StorageError
from darner_core.operations.client import RIGHTS_GONE, Client, Reply
from darner_core.operations.session import READS_AT_ONCE, ManyReads, Session
from darner_core.operations.taking import Reading
from darner_core.protocols.memcache.lines import MAX_READS
from darner_core.protocols.memcache.reader import Request
from darner_core.protocols.memcache.replies import END, NOT_THAT_MANY_OPEN

# What is there already is sent in portions of about so much: one by one it was a seventh as many items of 64 bytes.
SEND_BYTES = 8 << 10


class Monitoring:
    """These commands, bound to what they work on."""

    def __init__(self, registry: Registry, reading: Reading) -> None:
        self._registry = registry
        self._queues = registry.queues
        self._reading = reading

    def monitor(self, request: Request, body: None, session: ManyReads) -> Reply:
        if not request.wait_ms or request.queue in self._registry.aliases:
            return END
        return partial(self._wait_monitor, request)

    def monitor_placed(self, request: Request, body: None, session: ManyReads) -> Reply:
        """The same of a fanout child."""
        self._registry.child(request.queue)
        return self.monitor(request, body, session)

    def _wait_monitor(self, request: Request, client: Client) -> bytes:
        """Until the time is over, so many have come, no more may be open, or the server stops."""
        until = time.monotonic() + request.wait_ms / 1000
        unsent: list[bytes] = []
        try:
            for _ in range(request.most or MAX_READS):
                wait_ms = int((until - time.monotonic()) * 1000)
                if wait_ms <= 0 or self._reading.waits_end or not self._has_room(request, client.session):
                    break
                queue = self._queues.get(request.queue)
                read: Read | None = queue.open() if queue is not None else None
                if read is None:
                    _wait_sent(unsent, client)
                    self._reading.wait_swept(request.queue, client)
                    queue = self._queues.get(request.queue)
                    read = queue.open() if queue is not None else None
                if read is None:
                    read = self._reading.wait_for_read((request.queue,), client, wait_ms)
                    if read is None:
                        break
                if not client.may(GET, request):
                    source: Source = read.queue
                    source.give_back(read)
                    _wait_sent(unsent, client)
                    raise ClientError(RIGHTS_GONE)
                reply = self._reading.answer_with(request, client.session, read)
                if not isinstance(reply, bytes):
                    _wait_sent(unsent, client)
                    reply = reply(client)
                unsent.append(reply)
                if sum(map(len, unsent)) >= SEND_BYTES:
                    _wait_sent(unsent, client)
        except StorageError:
            _wait_sent(unsent, client)  # it has them open: with the first of them sent, it is hung up on
            raise
        _wait_sent(unsent, client)
        return END

    def _has_room(self, request: Request, session: Session) -> bool:
        assert isinstance(session, ManyReads)
        queue = self._queues.get(request.queue)
        return queue is None or session.has_room(request.queue, queue.options.max_open_reads)

    def confirm(self, request: Request, body: None, session: ManyReads) -> Reply:
        if request.most > READS_AT_ONCE and session.open_reads(request.queue) >= request.most:
            return partial(self._wait_confirm, request)
        return END if session.close_oldest(request.queue, request.most) else NOT_THAT_MANY_OPEN

    @staticmethod
    def _wait_confirm(request: Request, client: Client) -> bytes:
        assert isinstance(client.session, ManyReads)
        for _ in client.session.close_in_slices(request.queue, request.most):
            client.wait_turn()
        return END


def _wait_sent(unsent: list[bytes], client: Client) -> None:
    if unsent:
        data = b"".join(unsent)
        unsent.clear()
        client.wait_sent(data)
