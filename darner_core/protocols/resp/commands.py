"""RESP, bound to the operations: its table of commands, and transactions.

Between MULTI and EXEC commands are kept, see `transactions`. What would have to wait does not wait there. As in Redis,
one that fails does not undo the others.
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
from darner_core.protocols.resp.administering import ServerCommands
from darner_core.protocols.resp.clients import Clients
from darner_core.protocols.resp.cluster import Cluster
from darner_core.protocols.resp.connection import ConnectionCommands
from darner_core.protocols.resp.ends import Ends
from darner_core.protocols.resp.getting import Getting
from darner_core.protocols.resp.ids import JobIds
from darner_core.protocols.resp.information import Information
from darner_core.protocols.resp.keys import Keys
from darner_core.protocols.resp.lists import Lists
from darner_core.protocols.resp.login import read_login
from darner_core.protocols.resp.pushes import Pushes
from darner_core.protocols.resp.queues import Queues
from darner_core.protocols.resp.reader import Entry, RespReader, RespRequest, takes
from darner_core.protocols.resp.replies import OK, QUEUED, RespError, error_reply
from darner_core.protocols.resp.room import ReplyRoom
from darner_core.protocols.resp.session import RespSession
from darner_core.protocols.resp.taken import TakenJobs
from darner_core.protocols.resp.transactions import QueuedMemory, Transaction
from darner_core.protocols.resp.views import Views

# Done at once between MULTI and EXEC, too.
NOT_QUEUED: Final = (b"multi", b"exec", b"discard", b"watch", b"quit", b"reset")

# Behind so many bytes of a transaction's reply no more items are handed out: they stay where they are.
MAX_EXECUTED_BYTES: Final = 8 << 20

# What ADDJOB is answered by a node of Disque that leaves.
LEAVES: Final = (
    "Not enough reachable nodes for the requested replication level, since I'm unable to hold a copy of the message for"
    " the following reason: I'm leaving the cluster"
)


def _hands_over(reply: bytes) -> bool:
    """An item is a bulk, alone or in an array."""
    return (reply.startswith(b"$") and reply != replies.NIL) or (reply.startswith(b"*") and b"\r\n$" in reply)


class Resp:
    """The protocol, bound to the operations."""

    traits = Traits(RESP, error_reply=error_reply, hands_over=_hands_over, read_login=read_login)

    def __init__(self, operations: Operations, config: Config) -> None:
        self._config = config
        ids = JobIds(*operations.items.identity)
        taken = TakenJobs(config.window_bytes)
        acting, ends = Acting(operations, ids, taken), Ends(operations)
        pushes = Pushes(operations, config, ends)
        cluster, keys = Cluster(operations, config, ids), Keys(operations, ends)
        self._clients = Clients()
        self._entries: dict[bytes, Entry] = {}
        groups: tuple[Any, ...] = (
            ConnectionCommands(cluster),
            self._clients,
            cluster,
            Information(operations, config, cluster),
            ServerCommands(operations, config, self._entries, keys.flush_all),
            Adding(operations, config, ids),
            Getting(operations, ids, taken),
            acting,
            Queues(operations, ids, acting, taken),
            pushes,
            Lists(operations, ends, pushes.push_one),
            Views(operations, ends),
            keys,
        )
        for group in groups:
            self._entries.update(group.entries())
        self._entries.update(self._own_entries())
        self._queued_memory = QueuedMemory()
        self._room = ReplyRoom(operations.pipeline_memory)
        self._executed_bytes = 0  # of the reply to the EXEC that is going on

    def new_reader(self, table: dict[bytes, Command], kept_lines: dict[bytes, Any]) -> RespReader:
        return RespReader(table, self._refuse, self._config.max_item_bytes)

    def new_session(self, journal: Turn, failures: Failures, require: Require) -> RespSession:
        session = RespSession(journal, failures, require, self._clients.next_number, self._clients.left)
        self._clients.joined(session)
        return session

    def receive_large(self, request: Request, client: Client) -> NoReturn:
        raise AssertionError("nothing is received in pieces")

    def _own_entries(self) -> dict[bytes, Entry]:
        return {
            b"multi": Entry(self.multi, 0, 0),
            b"exec": Entry(self.execute, 0, 0),
            b"discard": Entry(self.discard, 0, 0),
            b"watch": Entry(self.watch, 1),
            b"unwatch": Entry(lambda *_: OK, 0, 0),
        }

    def table(self) -> dict[bytes, Command]:
        """What acknowledges an item or gives one back is never refused."""
        table = {verb: self._command(verb, entry) for verb, entry in self._entries.items()}
        # An empty word; and for the guard, which looks up what is refused anyhow.
        table[b""] = Command(takes(0), self._no_command, FREE)
        return table

    def _command(self, verb: bytes, entry: Entry) -> Command:
        run = entry.run if verb in NOT_QUEUED else self._running_or_queueing(entry.run, entry.returns_items)
        # The commands ask for rights, because they know which queues they are about.
        return Command(takes(entry.least, entry.most), run, FREE, kind=entry.kind)

    def refused(self, verb: bytes, command: Command, why: str, by_status: bool) -> Command:
        said, word = f"{verb.decode()} is refused: {why}", "READONLY"
        if verb == b"addjob" and by_status:
            said, word = LEAVES, "NOREPL"

        def refuse(request: RespRequest, body: None, session: RespSession) -> NoReturn:
            _spoil(session)
            raise RespError(said, word)

        return command._replace(run=refuse, refusal=said)

    def _refuse(self, error: RespError) -> Callable[..., Any]:
        message, word = str(error), error.word

        def refuse(request: RespRequest, body: None, session: RespSession) -> NoReturn:
            _spoil(session)
            raise RespError(message, word)

        return refuse

    @staticmethod
    def _no_command(request: RespRequest, body: None, session: RespSession) -> NoReturn:
        _spoil(session)
        raise RespError("unknown command ''")

    # -- transactions

    def _running_or_queueing(self, run: Callable[..., Any], returns_items: bool) -> Callable[..., Any]:
        in_transaction = partial(self._run_if_room, run) if returns_items else run

        def run_or_queue(request: RespRequest, body: None, session: RespSession) -> Reply:
            transaction = session.transaction
            if transaction is None:
                reply: Reply = run(request, body, session)
                return reply
            transaction.queue(in_transaction, request, request.words)
            return QUEUED

        return run_or_queue

    def multi(self, request: RespRequest, body: None, session: RespSession) -> bytes:
        if session.transaction is not None:
            raise RespError("MULTI calls can not be nested")
        session.transaction = Transaction(self._queued_memory)
        return OK

    def discard(self, request: RespRequest, body: None, session: RespSession) -> bytes:
        if session.end_transaction() is None:
            raise RespError("DISCARD without MULTI")
        return OK

    def execute(self, request: RespRequest, body: None, session: RespSession) -> bytes:
        transaction = session.end_transaction()
        if transaction is None:
            raise RespError("EXEC without MULTI")
        if transaction.spoiled:
            raise RespError("Transaction discarded because of previous errors.", "EXECABORT")
        found: list[bytes] = []
        session.execute()
        self._executed_bytes = 0
        try:
            for run, one in transaction.commands:
                found.append(self._answer(run, one, session))
                self._executed_bytes += len(found[-1])
        finally:
            session.executes = False
        return replies.array(found)

    def _run_if_room(self, run: Callable[..., Any], request: RespRequest, body: None, session: RespSession) -> Any:
        """In a transaction, a command whose reply has items."""
        if self._executed_bytes > self._room.most(MAX_EXECUTED_BYTES):
            raise RespError(f"the reply to this transaction has {self._executed_bytes} bytes: too many", "OOM")
        return run(request, body, session)

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


def _spoil(session: RespSession) -> None:
    if session.transaction is not None:
        session.transaction.spoiled = True


def speak(operations: Operations, config: Config, dialect: str, reply_key: str) -> Resp:
    return Resp(operations, config)
