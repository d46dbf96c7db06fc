"""RESP, bound to the operations: its table of commands, and transactions.

Between MULTI and EXEC commands are kept. EXEC does them one after the other in one turn, so they are written together,
and no other client sees some of them alone. What would have to wait does not wait there. As in Redis, one that fails
does not undo the others.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final, NoReturn

from darner_core.access.rights import FREE
from darner_core.config.listeners import RESP
from darner_core.config.options import Config
from darner_core.engines.contract import Turn
from darner_core.errors import RequestError, StorageError
from darner_core.operations.client import Client
from darner_core.operations.operations import Operations
from darner_core.operations.session import Failures
from darner_core.protocols.contract import Command, Reply, Request, Require, Traits, told
from darner_core.protocols.resp import replies
from darner_core.protocols.resp.acting import Acting
from darner_core.protocols.resp.adding import Adding
from darner_core.protocols.resp.connection import ConnectionCommands
from darner_core.protocols.resp.entries import Entry
from darner_core.protocols.resp.getting import Getting
from darner_core.protocols.resp.ids import JobIds
from darner_core.protocols.resp.keys import Keys
from darner_core.protocols.resp.lists import Ends, Lists
from darner_core.protocols.resp.login import read_login
from darner_core.protocols.resp.queues import Queues
from darner_core.protocols.resp.reader import RespReader, RespRequest, takes
from darner_core.protocols.resp.replies import OK, QUEUED, RespError, error_reply
from darner_core.protocols.resp.session import MAX_QUEUED, RespSession
from darner_core.protocols.resp.taken import TakenJobs
from darner_core.protocols.resp.views import Views

# Done at once between MULTI and EXEC, too.
NOT_QUEUED: Final = (b"multi", b"exec", b"discard", b"watch", b"quit", b"reset")


def _hands_over(reply: bytes) -> bool:
    """An item is a bulk, alone or in an array."""
    return reply.startswith((b"$", b"*")) and reply not in (replies.NIL, replies.NIL_ARRAY, replies.EMPTY)


class Resp:
    """The protocol, bound to the operations."""

    traits = Traits(RESP, error_reply=error_reply, hands_over=_hands_over, read_login=read_login)

    def __init__(self, operations: Operations, config: Config) -> None:
        self._config = config
        ids = JobIds(*operations.items.identity)
        taken = TakenJobs(config.window_bytes)
        acting, ends = Acting(operations, ids, taken), Ends(operations)
        self._groups = (
            ConnectionCommands(operations, config),
            Adding(operations, config, ids),
            Getting(operations, ids, taken),
            acting,
            Queues(operations, ids, acting),
            Lists(operations, config, ends),
            Views(operations, ends),
            Keys(operations, ends),
        )
        self._connections = 0

    def new_reader(self, table: dict[bytes, Command], kept_lines: dict[bytes, Any]) -> RespReader:
        return RespReader(table, self._refuse, self._config.max_item_bytes)

    def new_session(self, journal: Turn, failures: Failures, require: Require) -> RespSession:
        self._connections += 1
        return RespSession(journal, failures, require, self._connections)

    def receive_large(self, request: Request, client: Client) -> NoReturn:
        raise AssertionError("nothing is received in pieces")

    def table(self) -> dict[bytes, Command]:
        """What acknowledges an item or gives one back is never refused."""
        entries: dict[bytes, Entry] = {
            b"multi": Entry(self.multi, 0, 0),
            b"exec": Entry(self.execute, 0, 0),
            b"discard": Entry(self.discard, 0, 0),
            b"watch": Entry(self.watch, 1),
            b"unwatch": Entry(lambda *_: OK, 0, 0),
        }
        for group in self._groups:
            entries.update(group.entries())
        return {
            verb: Command(
                takes(entry.least, entry.most),
                entry.run if verb in NOT_QUEUED else partial(self._run_or_queue, entry.run),
                FREE,  # the commands ask for rights, because they know which queues they are about
                kind=entry.kind,
            )
            for verb, entry in entries.items()
        }

    def refused(self, verb: bytes, command: Command, why: str, by_status: bool) -> Command:
        said = f"{verb.decode()} is refused: {why}"

        def refuse(request: RespRequest, body: None, session: RespSession) -> NoReturn:
            session.spoiled = True
            raise RespError(said, "READONLY")

        return command._replace(run=refuse, refusal=said)

    def _refuse(self, error: RespError) -> Callable[..., Any]:
        message, word = str(error), error.word

        def refuse(request: RespRequest, body: None, session: RespSession) -> NoReturn:
            session.spoiled = True
            raise RespError(message, word)

        return refuse

    # -- transactions

    @staticmethod
    def _run_or_queue(run: Callable[..., Any], request: RespRequest, body: None, session: RespSession) -> Reply:
        if session.queued is None:
            reply: Reply = run(request, body, session)
            return reply
        if len(session.queued) >= MAX_QUEUED:
            session.spoiled = True
            raise RespError(f"too many commands in one transaction: at most {MAX_QUEUED}")
        session.queued.append((run, request))
        return QUEUED

    def multi(self, request: RespRequest, body: None, session: RespSession) -> bytes:
        if session.queued is not None:
            raise RespError("MULTI calls can not be nested")
        session.begin()
        return OK

    def discard(self, request: RespRequest, body: None, session: RespSession) -> bytes:
        if session.queued is None:
            raise RespError("DISCARD without MULTI")
        session.discard()
        return OK

    def execute(self, request: RespRequest, body: None, session: RespSession) -> bytes:
        if session.queued is None:
            raise RespError("EXEC without MULTI")
        spoiled = session.spoiled
        queued = session.discard()
        if spoiled:
            raise RespError("Transaction discarded because of previous errors.", "EXECABORT")
        session.executes = True
        try:
            return replies.array(self._answer(run, one, session) for run, one in queued)
        finally:
            session.executes = False

    @staticmethod
    def _answer(run: Callable[..., Any], request: Request, session: RespSession) -> bytes:
        try:
            reply = run(request, None, session)
        except (RequestError, StorageError) as error:
            return error_reply(told(error, session.origin))
        assert isinstance(reply, bytes), f"{request.verb!r} must not wait in a transaction"
        return reply

    def watch(self, request: RespRequest, body: None, session: RespSession) -> NoReturn:
        raise RespError("WATCH is not supported: what others do between WATCH and EXEC would not be noticed here")


def speak(operations: Operations, config: Config, dialect: str, reply_key: str) -> Resp:
    return Resp(operations, config)
