"""What a connection of RESP has beside its requests: the version of the protocol, a name, a transaction that it has
begun, and the items that it has open.

No call here switches greenlets.
"""

from collections.abc import Callable
from typing import Any, Final

from darner_core.engines.contract import Turn
from darner_core.errors import ClientError
from darner_core.operations.session import Failures, ManyReads
from darner_core.protocols.contract import Request, Require
from darner_core.protocols.resp.replies import NIL, NIL_3, NIL_ARRAY, NotAllowed

# How many commands one transaction may have: they are done in one turn.
MAX_QUEUED: Final = 1024


class RespSession(ManyReads):
    """The items that it has open are those of GETJOB BOUND: all others belong to whoever knows the job's id."""

    __slots__ = ("number", "version", "name", "queued", "spoiled", "executes", "_require")

    def __init__(self, journal: Turn, failures: Failures, require: Require, number: int) -> None:
        """`number`: of the connection, its own as long as the server runs."""
        super().__init__(journal, failures)
        self._require = require
        self.number = number
        self.version = 2
        self.name = b""
        self.queued: list[tuple[Callable[..., Any], Request]] | None = None  # since MULTI; None: there was none
        self.spoiled = False  # one of them was refused: EXEC will do nothing
        self.executes = False  # EXEC is going on: no command may wait

    def require(self, right: str, queue: bytes) -> None:
        """Raises NotAllowed."""
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

    def begin(self) -> None:
        self.queued, self.spoiled = [], False

    def discard(self) -> list[tuple[Callable[..., Any], Request]]:
        """The commands of the transaction, which has ended."""
        queued, self.queued, self.spoiled = self.queued or [], None, False
        return queued
