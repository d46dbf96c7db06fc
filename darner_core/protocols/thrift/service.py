"""Kestrel's thrift service as a protocol: its table of calls, how they are decoded, and how errors are answered.

Imported only when there is a thrift listener, because it needs the library. An error is answered as a
TApplicationException to the call, and the connection goes on. One that ends the connection, and one that takes the
place of a reply whose turn could not be written, does not know the call: it has no name and the sequence number 0.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from darner_core.access.rights import ADMIN, ADMIN_ALL, FREE, GET, PUT
from darner_core.config.options import Config
from darner_core.engines.contract import Turn
from darner_core.errors import MalformedRequest, RequestError, ServerError, StorageError
from darner_core.nearest import did_you_mean
from darner_core.operations.client import Client
from darner_core.operations.operations import Operations
from darner_core.operations.session import Failures, Session
from darner_core.protocols.contract import READS, WRITES, Command, Reply, Request, Require, answered, told
from darner_core.protocols.grammar import excerpt, read_child, require_name
from darner_core.protocols.guard import require_admin
from darner_core.protocols.thrift.calls import Calls
from darner_core.protocols.thrift.job_calls import JobCalls
from darner_core.protocols.thrift.messages import (
    TRAITS,
    UNKNOWN_METHOD,
    Encoded,
    Idl,
    ThriftRequest,
    decode,
    error_reply,
    exception,
)
from darner_core.protocols.thrift.reader import CALL, FrameReader, check_arguments, read_message


class ThriftService:
    """The protocol, bound to the operations."""

    traits = TRAITS

    def __init__(self, operations: Operations) -> None:
        self._idl = Idl()
        self._calls = Calls(operations, self._idl)
        self._jobs = JobCalls(operations, self._idl, self._calls)

    def new_reader(self, table: dict[bytes, Command], kept_lines: dict[bytes, Any]) -> FrameReader:
        return FrameReader(partial(self.decode, table=table))

    def new_session(self, journal: Turn, failures: Failures, require: Require) -> Session:
        return Session(journal, failures)

    def receive_large(self, request: Request, client: Client) -> NoReturn:
        raise AssertionError("nothing is received in pieces")

    def table(self) -> dict[bytes, Command]:
        """What decides on an open item is never refused."""
        calls, jobs = self._calls, self._jobs
        entries: dict[str, tuple[Callable[..., Any], str, str]] = {
            "put": (calls.put, PUT, WRITES),
            "get": (calls.get, GET, READS),
            "confirm": (calls.confirm, GET, ""),
            "abort": (calls.abort, GET, ""),
            "peek": (calls.peek, GET, READS),
            "flush_queue": (calls.flush_queue, ADMIN, WRITES),
            "flush_all_queues": (calls.flush_all_queues, ADMIN_ALL, WRITES),
            "delete_queue": (calls.delete_queue, ADMIN, WRITES),
            "current_status": (calls.current_status, FREE, ""),
            "set_status": (calls.set_status, ADMIN_ALL, ""),
            "get_version": (calls.get_version, FREE, ""),
            "put_jobs": (jobs.put_jobs, PUT, WRITES),
            "put_unique": (jobs.put_unique, PUT, WRITES),
            "get_jobs": (jobs.get_jobs, GET, READS),
            "touch": (jobs.touch, GET, ""),
            "abort_later": (jobs.abort_later, GET, ""),
            "reject": (jobs.reject, GET, ""),
            "kick": (jobs.kick, ADMIN, WRITES),
            "pause": (jobs.pause, ADMIN, ""),
            "peek_jobs": (jobs.peek_jobs, GET, READS),
        }
        assert sorted(entries) == sorted(self._idl.service.thrift_services)
        table = {
            name.encode(): Command(_no_line, partial(self._run, call, right), right, kind=kind)
            for name, (call, right, kind) in entries.items()
        }
        table[b""] = Command(_no_line, partial(self._run, self._unknown, FREE), FREE)  # answers unknown methods
        return table

    def refused(self, verb: bytes, command: Command, why: str, by_status: bool) -> Command:
        why = f"{verb.decode()} is refused: {why}"
        return command._replace(run=partial(self._run, partial(_refuse, why), FREE), refusal=why)

    # -- decoding

    def decode(self, frame: bytes, table: dict[bytes, Command]) -> Request:
        """The call in `frame`, or a request that answers what is wrong with its arguments. Raises MalformedRequest if
        it is no message of a call."""
        method, kind, sequence, at = read_message(frame)
        if kind != CALL:
            raise MalformedRequest(f"a message of kind {kind}: only calls that wait for their reply are expected")
        command = table.get(method) if method else None
        if command is None:
            return ThriftRequest(table[b""].run, b"", key=method, sequence=sequence)
        arguments = self._idl.arguments(method)
        try:
            check_arguments(frame, at, arguments.thrift_spec)
        except MalformedRequest as error:
            return answered(error_reply(MalformedRequest(f"{method.decode()}: {error}"), method, sequence))
        decode(frame[at:], arguments)
        request = ThriftRequest(command.run, method, sequence=sequence, arguments=arguments)
        name = getattr(arguments, "queue_name", None)
        if name is not None:
            request.key = request.queue = name  # judged by it, whether a queue can be called that or not
            read_child(request)
        return request

    # -- running a call

    def _run(self, call: Callable[..., Any], right: str, request: ThriftRequest, body: None, session: Session) -> Reply:
        try:
            self._require_all(request)
            if right in (ADMIN, ADMIN_ALL):
                require_admin(request, session)
            reply = call(request, session)
        except (RequestError, StorageError) as error:
            return _exception(request, error, session)
        return partial(self._wait_run, request, reply) if callable(reply) else bytes(self._idl.reply(request, reply))

    def _wait_run(self, request: ThriftRequest, task: Callable[[Client], Any], client: Client) -> bytes:
        try:
            reply = task(client)
        except (RequestError, StorageError) as error:
            return _exception(request, error, client.session)
        return bytes(self._idl.reply(request, reply))

    @staticmethod
    def _require_all(request: ThriftRequest) -> None:
        """Raises RequestError if an argument is missing, or no queue can have that name."""
        if request.arguments is None:
            return
        for _, name, *_ in request.arguments.thrift_spec.values():
            if getattr(request.arguments, name) is None:
                raise MalformedRequest(f"{request.verb.decode()}: {name} is missing")
        if hasattr(request.arguments, "queue_name"):
            require_name(request.queue)

    def _unknown(self, request: ThriftRequest, session: Session) -> Any:
        methods = sorted(self._idl.service.thrift_services)
        near = did_you_mean(excerpt(request.key), methods, ", ".join(methods))
        message = f'unknown method "{excerpt(request.key)}": {near}'
        return Encoded(exception(UNKNOWN_METHOD, message, request.key, request.sequence))


def speak(operations: Operations, config: Config, dialect: str, reply_key: str) -> ThriftService:
    return ThriftService(operations)


def _refuse(why: str, request: ThriftRequest, session: Session) -> NoReturn:
    raise ServerError(why)


def _exception(request: ThriftRequest, error: RequestError | StorageError, session: Session) -> bytes:
    return error_reply(told(error, session.origin), request.verb, request.sequence)


def _no_line(request: Request, words: list[bytes]) -> None:
    """There are no lines in thrift."""
