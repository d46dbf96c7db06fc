"""The memcache protocol: the table of its commands. For each verb it says how the line is read, what the command does,
and which right it needs.

The only place that knows the verbs of this protocol; the server knows none by name.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn

from darner_core.access.rights import ADMIN, ADMIN_ALL, FREE, GET, PUT
from darner_core.config.listeners import KEY_OF_REQUEST
from darner_core.config.options import Config
from darner_core.engines.contract import Turn
from darner_core.errors import Unavailable
from darner_core.operations.client import Client
from darner_core.operations.operations import Operations
from darner_core.operations.session import Failures, ManyReads, Session
from darner_core.protocols.contract import READS, WRITES, Command, Require
from darner_core.protocols.guard import as_admin
from darner_core.protocols.memcache import lines
from darner_core.protocols.memcache.dead import DeadItems
from darner_core.protocols.memcache.dialects import DIALECTS, Dialect
from darner_core.protocols.memcache.items import Items
from darner_core.protocols.memcache.jobs import JobItems
from darner_core.protocols.memcache.operating import Operating, help_with, quit_, refuse_of_memcached, version
from darner_core.protocols.memcache.reader import LineRequest, RequestReader

# What `help` says of each verb.
USAGE = {
    b"set": "set <queue>[/sync][/delay=<ms>][/pri=<n>][/ttr=<ms>][/key=<text>] <flags> <expiry> <bytes> [noreply],"
    " and the item in the next line",
    b"add": "add <queue>/key=<text> <flags> <expiry> <bytes> [noreply], and the item in the next line",
    b"get": "get <queue>[/open][/close][/abort][/reject][/peek][/t=<ms>][/ttr=<ms>][/n=<count>]...",
    b"gets": "gets <queue>..., as get, with the item's id",
    b"touch": "touch <queue> <seconds>",
    b"history": "history <queue>[/id=<n>]",
    b"kick": "kick <queue> <most items>",
    b"dead": "dead <queue> [<most items>]",
    b"put_back": "put_back <queue>/id=<n>, or <queue> <most items>",
    b"drop": "drop <queue>/id=<n>, or <queue> <most items>",
    b"pause": "pause <queue> in, out, all or none [<seconds>]",
    b"monitor": "monitor <queue> <seconds> [<most items>]",
    b"confirm": "confirm <queue> <number of items>",
    b"delete": "delete <queue> [noreply]",
    b"flush": "flush <queue> [noreply]",
    b"flush_expired": "flush_expired <queue>",
    b"flush_all_expired": "flush_all_expired",
    b"flush_all": "flush_all [noreply]",
    b"stats": "stats",
    b"dump_stats": "dump_stats [<queue>]...",
    b"dump_config": "dump_config [<queue>]",
    b"status": "status [up, writeavoid, readonly or quiescent]",
    b"reload": "reload",
    b"backup": "backup <name>",
    b"shutdown": "shutdown",
    b"watch": "watch <queue>",
    b"version": "version",
    b"help": "help",
    b"quit": "quit",
}

# These need the right `admin` and change nothing.
LOOKS = (b"watch", b"dead", b"dump_config")

# Commands of memcached's that make no sense for a queue. No item follows a line of the first kind; one follows a line
# of the second.
OF_MEMCACHED = (b"gat", b"gats", b"incr", b"decr", b"verbosity", b"mg", b"md", b"ma", b"me", b"mn")
STORING_OF_MEMCACHED = (b"replace", b"append", b"prepend", b"cas", b"ms")


class Memcache:
    """The protocol in one of its dialects."""

    def __init__(self, operations: Operations, config: Config, dialect: Dialect) -> None:
        self.traits = dialect
        self._config = config
        self._items = Items(operations, config)
        self._jobs = JobItems(operations, config, self._items)
        self._dead = DeadItems(operations)
        self._operating = Operating(operations, config)

    def new_reader(self, table: dict[bytes, Command], kept_lines: dict[bytes, LineRequest]) -> RequestReader:
        config = self._config
        return RequestReader(table, kept_lines, config.max_line_bytes, config.chunk_bytes, self.traits)

    def new_session(self, journal: Turn, failures: Failures, require: Require) -> Session:
        return (ManyReads if self.traits.several_reads else Session)(journal, failures)

    def receive_large(self, request: LineRequest, client: Client) -> bytes:
        return self._items.receive_large(request, client)

    def table(self) -> dict[bytes, Command]:
        """The commands of this dialect by their verbs. READONLY lets flush_all_expired pass, as in Kestrel. What closes
        a read is never refused: a confirm, a get's /close and /abort, and a delete that acknowledges."""
        dialect, items, operating = self.traits, self._items, self._operating
        jobs, dead = self._jobs, self._dead
        parse_reading = partial(lines.parse_reading, exclusive=dialect.exclusive, several_reads=dialect.several_reads)
        get = Command(parse_reading, items.get, GET, items.get_placed, READS, job=jobs.get, several=jobs.get_several)
        delete = Command(lines.parse_naming, operating.delete_with(dialect.deleted), ADMIN, kind=WRITES)
        if dialect.gets_open:
            parse_opening = partial(lines.parse_opening, wait_ms=self._config.get_timeout_ms)
            get = Command(parse_opening, items.get, GET, kind=READS, job=jobs.get, several=jobs.get_several)
            delete = Command(lines.parse_naming, items.acknowledge, GET)
        flush_all = operating.flush_all_with(dialect.flushed_all)
        table = {
            b"set": Command(lines.parse_storing, items.set, PUT, items.set_placed, WRITES, job=jobs.set),
            b"add": Command(lines.parse_storing, jobs.set, PUT, kind=WRITES, job=jobs.set),
            b"get": get,
            b"gets": get,
            b"monitor": Command(lines.parse_monitor, items.monitor, GET, items.monitor_placed, READS),
            b"confirm": Command(lines.parse_confirm, items.confirm, GET),
            b"touch": Command(lines.parse_touching, jobs.touch, GET),
            b"history": Command(lines.parse_history, jobs.history, GET, kind=READS),
            b"kick": Command(lines.parse_kicking, jobs.kick, ADMIN, kind=WRITES),
            b"dead": Command(lines.parse_dead, dead.dead, ADMIN, kind=READS),
            b"put_back": Command(lines.parse_dead_change, dead.put_back, ADMIN, kind=WRITES),
            b"drop": Command(lines.parse_dead_change, dead.drop, ADMIN, kind=WRITES),
            b"pause": Command(lines.parse_pausing, jobs.pause, ADMIN),
            b"delete": delete,
            b"flush": Command(lines.parse_naming, operating.flush, ADMIN, kind=WRITES),
            b"flush_expired": Command(lines.parse_naming, operating.flush_expired, ADMIN, kind=WRITES),
            b"flush_all_expired": Command(lines.parse_bare, operating.flush_all_expired, ADMIN_ALL),
            b"flush_all": Command(lines.parse_flush_all, flush_all, ADMIN_ALL, kind=WRITES),
            b"stats": Command(lines.parse_stats, operating.stats, FREE),
            b"dump_stats": Command(lines.parse_naming_several, operating.dump_stats, FREE),
            b"dump_config": Command(lines.parse_describing, operating.dump_config, ADMIN_ALL),
            b"status": Command(lines.parse_status, operating.status, ADMIN_ALL),  # to ask for it is free
            b"reload": Command(lines.parse_bare, operating.reload, ADMIN_ALL),
            b"backup": Command(lines.parse_backup, operating.backup, ADMIN_ALL),
            b"shutdown": Command(lines.parse_bare, operating.shutdown, ADMIN_ALL),
            b"watch": Command(lines.parse_naming, operating.watch, ADMIN),
            b"version": Command(lines.parse_bare, version, FREE),
            b"quit": Command(lines.parse_bare, quit_, FREE),
        }
        table = {verb: as_admin(command, verb in LOOKS) for verb, command in table.items() if verb not in dialect.lacks}
        usage = [USAGE[verb] for verb in table] + [USAGE[b"help"]]
        table[b"help"] = table[b"?"] = Command(lines.parse_any, help_with(usage), FREE)
        for verb in OF_MEMCACHED:
            table[verb] = Command(lines.parse_of_memcached, refuse_of_memcached, FREE, only_refused=True)
        for verb in STORING_OF_MEMCACHED:
            table[verb] = Command(lines.parse_storing_of_memcached, refuse_of_memcached, FREE, only_refused=True)
        return table

    def refused(self, verb: bytes, command: Command, why: str, by_status: bool) -> Command:
        why = f"{verb.decode()} is refused: {why}"
        if command.kind == READS:
            return _without_taking(command, why)
        return Command(partial(_refuse, why), partial(_refuse, why), command.right, refusal=why)


def speak(operations: Operations, config: Config, dialect: str, reply_key: str) -> Memcache:
    return Memcache(operations, config, replace(DIALECTS[dialect], repeats_key=reply_key == KEY_OF_REQUEST))


def _refuse(why: str, *_: Any) -> NoReturn:
    raise Unavailable(why)


def _without_taking(command: Command, why: str) -> Command:
    """The entry of a verb that reads, which may not take any more: it still closes and gives back."""

    def parse(request: LineRequest, words: list[bytes]) -> None:
        command.parse(request, words)
        if not (request.closes or request.aborts):
            raise Unavailable(why)

    def only_close(run: Callable[..., Any]) -> Callable[..., Any]:
        def close(request: LineRequest, body: Any, session: Any) -> Any:
            if not request.opens:
                return run(request, body, session)
            run(replace(request, opens=False), body, session)
            raise Unavailable(why)

        return close

    return Command(
        parse,
        only_close(command.run),
        command.right,
        refusal=why,
        placed=only_close(command.placed) if command.placed is not None else None,
        job=only_close(command.job) if command.job is not None else None,
        several=only_close(command.several) if command.several is not None else None,
    )
