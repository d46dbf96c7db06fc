"""A large item's body on its way from a client: received in pieces, stored as it comes, or read and dropped. In the
protocols that announce a body's size, CR LF follows it.

Calls whose names begin with wait_ switch greenlets.
"""

from contextlib import suppress

from darner_core.errors import ServerError
from darner_core.operations.client import Client
from darner_core.operations.putting import LargePut

CRLF = b"\r\n"


class ArrivingBody:
    """What has not been taken yet of the body and the CR LF behind it."""

    def __init__(self, body_bytes: int, client: Client, chunk_bytes: int) -> None:
        self._body_bytes = body_bytes
        self._client = client
        self._chunk_bytes = chunk_bytes
        self._missing_bytes = body_bytes + len(CRLF)

    def _wait_next(self, most_bytes: int) -> bytes:
        data = self._client.wait_body(most_bytes)
        self._missing_bytes -= len(data)
        return data

    def wait_store(self, item: LargePut) -> bool:
        """Store all of it. False: it does not end with CR LF; all of it has been taken. Raises ServerError or
        StorageError."""
        if self._body_bytes <= self._chunk_bytes:  # memory is short: what has come of it must not wait there
            item.wait_add(self._client, self._wait_next(self._body_bytes))
            item.wait_store(self._client)
        while wanted_bytes := item.wanted_bytes:
            # What has come gets no name: it would be kept while the next is waited for.
            item.wait_add(self._client, self._wait_next(wanted_bytes))
        end = b""
        while self._missing_bytes:
            end += self._wait_next(self._missing_bytes)
        if end != CRLF:
            return False
        item.wait_store(self._client)
        item.require_queues()
        return True

    def wait_skip(self) -> None:
        """Read and drop what has not been taken, of an item that is refused."""
        while self._missing_bytes:
            # A turn that fails meanwhile is told here, before anything is taken. An error is answered anyhow, but
            # what is left of the item must not be read as commands.
            with suppress(ServerError):
                self._wait_next(min(self._missing_bytes, self._chunk_bytes))
