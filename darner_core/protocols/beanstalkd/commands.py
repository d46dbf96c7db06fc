"""beanstalkd's protocol, bound to the operations: its table of commands, and those about tubes."""

from collections.abc import Callable
from typing import Any, Final

from darner_core.access.rights import FREE, GET
from darner_core.config.listeners import BEANSTALKD
from darner_core.config.options import Config
from darner_core.engines.contract import Turn
from darner_core.engines.jobs import Pause
from darner_core.errors import ServerError
from darner_core.operations.client import Client, HangUp
from darner_core.operations.operations import Operations
from darner_core.operations.session import Failures
from darner_core.protocols.beanstalkd import reader, replies
from darner_core.protocols.beanstalkd.jobs import Jobs
from darner_core.protocols.beanstalkd.reader import JobReader, TubeRequest
from darner_core.protocols.beanstalkd.replies import NOT_FOUND, NOT_IGNORED, PAUSED, error_reply
from darner_core.protocols.beanstalkd.statistics import Statistics
from darner_core.protocols.beanstalkd.tubes import DEFAULT, Tubes, TubeSession
from darner_core.protocols.contract import READS, WRITES, Command, Reply, Require, Traits

_HANDS_OVER: Final = b"RESERVED "


class Beanstalkd:
    """The protocol, bound to the operations. `tubes` is shared by all of its connections."""

    traits = Traits(
        BEANSTALKD,
        error_reply=error_reply,
        hands_over=lambda reply: reply.startswith(_HANDS_OVER),
        receives_whole=False,
        drained_by_signal=True,
    )

    def __init__(self, operations: Operations, config: Config) -> None:
        self._operations = operations
        self._config = config
        self.tubes = Tubes()
        self._jobs = Jobs(operations, config, self.tubes)
        self._statistics = Statistics(operations, config, self.tubes)

    def new_reader(self, table: dict[bytes, Command], kept_lines: dict[bytes, TubeRequest]) -> JobReader:
        config = self._config
        return JobReader(table, kept_lines, min(config.max_job_bytes, config.max_item_bytes), config.chunk_bytes)

    def new_session(self, journal: Turn, failures: Failures, require: Require) -> TubeSession:
        operations = self._operations
        exists = operations.queues.__contains__
        return TubeSession(journal, failures, require, self.tubes, operations.items.left_ms, exists)

    def receive_large(self, request: TubeRequest, client: Client) -> bytes:
        self._statistics.commands[request.verb] += 1
        return self._jobs.receive_large(request, client)

    def table(self) -> dict[bytes, Command]:
        """What ends a reservation is never refused. Rights to a tube are asked for by the commands, which alone know
        it."""
        jobs, tell = self._jobs, self._statistics
        parse_job, parse_bare, parse_naming = reader.parse_job, reader.parse_bare, reader.parse_naming
        entries: dict[bytes, tuple[Callable[..., None], Callable[..., Any], str]] = {
            b"put": (reader.parse_put, jobs.put, WRITES),
            b"reserve": (parse_bare, jobs.reserve, READS),
            b"reserve-with-timeout": (reader.parse_waiting, jobs.reserve_with_timeout, READS),
            b"reserve-job": (parse_job, jobs.reserve_job, READS),
            b"delete": (parse_job, jobs.delete, ""),
            b"release": (reader.parse_release, jobs.release, ""),
            b"bury": (reader.parse_bury, jobs.bury, ""),
            b"touch": (parse_job, jobs.touch, ""),
            b"kick": (reader.parse_kick, jobs.kick, WRITES),
            b"kick-job": (parse_job, jobs.kick_job, WRITES),
            b"peek": (parse_job, jobs.peek, READS),
            b"peek-ready": (parse_bare, jobs.peek_ready, READS),
            b"peek-delayed": (parse_bare, jobs.peek_delayed, READS),
            b"peek-buried": (parse_bare, jobs.peek_buried, READS),
            b"use": (parse_naming, self.use, ""),
            b"watch": (parse_naming, self.watch, ""),
            b"ignore": (parse_naming, self.ignore, ""),
            b"pause-tube": (reader.parse_pausing, self.pause_tube, ""),
            b"stats-job": (parse_job, tell.stats_job, ""),
            b"stats-tube": (parse_naming, tell.stats_tube, ""),
            b"stats": (parse_bare, tell.stats, ""),
            b"list-tubes": (parse_bare, tell.list_tubes, ""),
            b"list-tube-used": (parse_bare, tell.list_tube_used, ""),
            b"list-tubes-watched": (parse_bare, tell.list_tubes_watched, ""),
            b"quit": (reader.parse_any, quit_, ""),
        }
        return {
            verb: Command(parse, tell.counting(verb, run), FREE, kind=kind)
            for verb, (parse, run, kind) in entries.items()
        }

    def refused(self, verb: bytes, command: Command, why: str, by_status: bool) -> Command:
        said = f"{verb.decode()} is refused: {why}"

        def refuse(request: TubeRequest, body: Any, session: TubeSession) -> bytes:
            if by_status and verb == b"put":
                return replies.DRAINING
            raise ServerError(said)

        return command._replace(run=refuse, refusal=said)

    # -- tubes

    def use(self, request: TubeRequest, body: None, session: TubeSession) -> bytes:
        session.use(request.queue, request.tube)
        return b"USING %b\r\n" % request.tube

    def watch(self, request: TubeRequest, body: None, session: TubeSession) -> bytes:
        session.require(GET, request.queue)
        return b"WATCHING %d\r\n" % session.watch(request.queue, request.tube)

    def ignore(self, request: TubeRequest, body: None, session: TubeSession) -> bytes:
        left = session.ignore(request.queue)
        return b"WATCHING %d\r\n" % left if left else NOT_IGNORED

    def pause_tube(self, request: TubeRequest, body: None, session: TubeSession) -> Reply:
        session.require_admin(request, request.queue)
        tube = self.tubes.find(request.queue)
        is_held = request.queue == DEFAULT or (tube is not None and tube.is_held)
        if not is_held and request.queue not in self._operations.queues:
            return NOT_FOUND
        if request.seconds:
            self._operations.jobs.pause(request.queue, Pause.OUT, request.seconds, make=True)
        else:
            self._resume(request.queue)
        self.tubes.of(request.queue, request.tube).pauses += 1
        return PAUSED

    def _resume(self, queue: bytes) -> None:
        """Hand jobs out again. A pause of puts, which clients of other protocols have begun, goes on."""
        jobs = self._operations.jobs
        pause, _ = jobs.paused(queue)
        if pause in (Pause.OUT, Pause.ALL):
            jobs.pause(queue, Pause.IN if pause is Pause.ALL else Pause.NONE, 0)


def quit_(request: TubeRequest, body: None, session: TubeSession) -> bytes:
    raise HangUp


def speak(operations: Operations, config: Config, dialect: str, reply_key: str) -> Beanstalkd:
    return Beanstalkd(operations, config)
