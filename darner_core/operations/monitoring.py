"""Monitoring a queue: items are opened and sent as they come, and the client confirms some of the oldest at a time.

For sessions with several open reads. An item that was sent is open like any other read: when the client hangs up, at
whatever moment, it goes to the next. See `client` for the two forms of an operation.
"""

import time
from collections.abc import Callable
from typing import Any

from darner_core.access.rights import GET
from darner_core.engines.contract import Read
from darner_core.errors import ClientError, RequestError, StorageError
from darner_core.operations.availability import Availability
from darner_core.operations.client import LATER, RIGHTS_GONE, Client, Pieces
from darner_core.operations.session import READS_AT_ONCE, ManyReads
from darner_core.operations.taking import Taking
from darner_core.shared_memory import PipelineMemory

# Items that wait already are sent in pieces of up to 8 KiB. Sent one by one, a seventh as many items of 64 bytes went
# out.
SEND_BYTES = 8 << 10

# The reply with an item that has just been opened: bytes, or, for a large item, a function that sends it.
Answer = Callable[[Read], bytes | Callable[[Client], bytes]]


class Monitoring:
    def __init__(self, taking: Taking, pipeline_memory: PipelineMemory, availability: Availability) -> None:
        self._taking = taking
        self._pipeline_memory = pipeline_memory
        self._availability = availability

    def wait_monitor(
        self, client: Client, name: bytes, wait_ms: int, most: int, answer: Answer, takes_all: bool = False
    ) -> None:
        """Open items and send them by `answer`, until the time is over, `most` have come, no more may be open, or
        clients may wait no longer. `takes_all`: what is there is taken although the time is over. Raises StorageError
        behind what could be sent, ClientError if the client has lost the right, and what `answer` raises."""
        session, taking, until = client.session, self._taking, time.monotonic() + wait_ms / 1000
        assert isinstance(session, ManyReads)
        unsent = Pieces(client, self._pipeline_memory, SEND_BYTES)
        try:
            for _ in range(most):
                if (not takes_all and time.monotonic() >= until) or self._availability.waits_end:
                    break
                if not session.has_room(name, taking.most_open(name)):
                    break
                read = taking.open((name,), 1)
                if read is LATER:
                    unsent.wait_sent()
                    read = taking.wait_open(client, (name,), until)
                if read is None:
                    break
                if not client.may(GET, name):
                    read.queue.give_back(read)
                    raise ClientError(RIGHTS_GONE)
                reply = answer(read)
                if not isinstance(reply, bytes):
                    try:
                        unsent.wait_sent()
                    except BaseException:
                        read.queue.give_back(read)
                        raise
                    reply = reply(client)
                unsent.wait_add(reply)
        except (RequestError, StorageError):
            unsent.wait_sent()  # the client has these open
            raise
        unsent.wait_sent()

    # -- confirming

    def confirm_then(self, session: ManyReads, name: bytes, count: int, answer: Callable[[bool], Any]) -> Any:
        """Close the `count` oldest items of this queue that the session has open, in several turns if they are many.
        Returns `answer(True)`; or `answer(False)` if fewer are open, and then nothing is changed. If that has to wait,
        a function of the Client that does it. Raises StorageError, with nothing changed or, in that function, with some
        items closed."""

        def wait_confirm(client: Client) -> Any:
            for _ in session.close_in_slices(name, count):
                client.wait_turn()
            return answer(True)

        if count > READS_AT_ONCE and session.open_reads(name) >= count:
            return wait_confirm
        return answer(session.close_oldest(name, count))
