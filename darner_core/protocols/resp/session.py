"""What a connection of RESP has beside its requests: the version of the protocol, a name, a transaction that it has
begun, and the items that it has open.

No call here switches greenlets.
"""

import time
from collections.abc import Callable
from typing import Any

from darner_core.engines.contract import Read, Turn
from darner_core.errors import ClientError
from darner_core.operations.session import Failures, ManyReadsById
from darner_core.protocols.contract import Require, everything_allowed
from darner_core.protocols.resp.replies import NIL, NIL_3, NIL_ARRAY, NotAllowed, RespError
from darner_core.protocols.resp.transactions import MOST_LOOKED_AT, Transaction


class RespSession(ManyReadsById):
    """The items that it has open are those of GETJOB BOUND: all others belong to whoever knows the job's id."""

    __slots__ = (
        "number",
        "since",
        "version",
        "name",
        "library",
        "transaction",
        "executes",
        "_looks_left",
        "_require",
        "_ended",
    )

    def __init__(
        self,
        journal: Turn,
        failures: Failures,
        require: Require,
        number: int = 0,
        ended: "Callable[[RespSession], None] | None" = None,
    ) -> None:
        """`number`: of the connection, its own as long as the server runs. `ended`: is told when the session ends."""
        super().__init__(journal, failures)
        self._require = require
        self._ended = ended
        self.number = number
        self.since = time.monotonic()
        self.version = 2
        self.name = b""
        self.library = {b"lib-name": b"", b"lib-ver": b""}
        self.transaction: Transaction | None = None  # since MULTI; None: there was none
        self.executes = False  # EXEC is going on: no command may wait
        self._looks_left = 0

    def execute(self) -> None:
        """EXEC begins: from now on no command may wait, and all together can look at MOST_LOOKED_AT values."""
        self.executes, self._looks_left = True, MOST_LOOKED_AT

    def look(self, values: int = 0) -> None:
        """A command has looked at so many values, or is going to look. Raises RespError if a transaction has looked at
        too many."""
        if self.executes:
            self._looks_left -= values
            if self._looks_left < 0:
                raise RespError(
                    f"the commands of a transaction can look at {MOST_LOOKED_AT} values together: ask without MULTI"
                )

    def require(self, right: str, queue: bytes) -> None:
        """Raises NotAllowed."""
        if self._require is everything_allowed:
            return
        try:
            self._require(right, queue)
        except ClientError as error:
            raise NotAllowed(str(error)) from None

    @property
    def nil(self) -> bytes:
        return NIL if self.version == 2 else NIL_3

    @property
    def nil_array(self) -> bytes:
        return NIL_ARRAY if self.version == 2 else NIL_3

    def undoes(self, step: Callable[..., Any], *arguments: Any) -> None:
        """Have this called if the turn cannot be written."""
        self._journal.undo.append((step, *arguments))

    # -- what it has open

    def bound(self, queue: bytes, item_id: int) -> Read | None:
        """The read of this item that the client has open; None: it has none, or has no longer."""
        read = self.find(queue, item_id) if queue and item_id else None
        if read is None or read.queue.holds(read):
            return read
        self._forget(read)
        return None

    def bound_room(self, queue: bytes, max_open_reads: int) -> int:
        """How many items more of `queue` it may have open."""
        if not self.has_room(queue, max_open_reads):
            for read in self.all_open(queue):  # others may have acknowledged some by their ids
                if not read.queue.holds(read):
                    self._forget(read)
        return max_open_reads - self.open_reads(queue)

    # -- its end

    def end_transaction(self) -> Transaction | None:
        """The transaction that was begun, which has ended."""
        transaction, self.transaction = self.transaction, None
        if transaction is not None:
            transaction.end()
        return transaction

    def end(self) -> None:
        self.end_transaction()
        if self._ended is not None and not self.ended:
            self._ended(self)
        super().end()
