"""The table of commands: which verbs there are, how each is read, what it does, and who may. The only place that knows
the verbs; the server knows none by name.
"""

from functools import partial

from darner_core.access.rights import ADMIN, ADMIN_ALL, FREE, GET, PUT
from darner_core.config.options import Config
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.registry import Registry
from darner_core.engines.local.routing import Delivery
from darner_core.engines.local.sweeper import Sweeper
from darner_core.engines.local.tracing import Traces
from darner_core.operating_system import trim_heap
from darner_core.operations.administering import Administering, as_admin
from darner_core.operations.monitoring import Monitoring
from darner_core.operations.operating import Operating
from darner_core.operations.putting import Storing
from darner_core.operations.stats import Stats
from darner_core.operations.taking import Reading
from darner_core.operations.watching import Watching
from darner_core.protocols.memcache import lines
from darner_core.protocols.memcache.dialects import Dialect
from darner_core.protocols.memcache.reader import Command
from darner_core.shared_memory import WHOLE_BYTES, BodyMemory, PipelineMemory
from darner_core.waiters import wait_round

# What `help` says of each verb.
USAGE = {
    b"set": "set <queue>[/sync] <flags> <expiry> <bytes> [noreply], and the item in the next line",
    b"get": "get <queue>[/open][/close][/abort][/peek][/t=<ms>]",
    b"gets": "gets <queue>..., as get, with the item's id",
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
    b"shutdown": "shutdown",
    b"watch": "watch <queue>",
    b"version": "version",
    b"help": "help",
    b"quit": "quit",
}

# What clients of memcached may send and a queue has no use for. Behind a line of the first nothing follows, behind one
# of the others an item does.
OF_MEMCACHED = (b"touch", b"gat", b"gats", b"incr", b"decr", b"verbosity", b"mg", b"md", b"ma", b"me", b"mn")
STORING_OF_MEMCACHED = (b"add", b"replace", b"append", b"prepend", b"cas", b"ms")

# The verbs that a status can forbid, as in Kestrel, whose READONLY lets flush_all_expired pass. What closes a read is
# never forbidden, confirm and a get's /close and /abort among it.
WRITES = frozenset((b"set", b"delete", b"flush", b"flush_all", b"flush_expired"))
READS = frozenset((b"get", b"gets", b"monitor"))


class Commands:
    """All commands, bound to what they work on."""

    def __init__(self, registry: Registry, journal: Journal, stats: Stats, config: Config) -> None:
        self.body_memory = BodyMemory(config.body_memory_bytes, trim_heap)
        self.whole_memory = BodyMemory(WHOLE_BYTES, trim_heap)
        self.pipeline_memory = PipelineMemory(config.pipeline_memory_bytes)
        self.delivery = Delivery(registry, journal)
        self.storing = Storing(registry, self.delivery, journal, stats, config, self.body_memory)
        self.reading = Reading(registry, journal, stats, config, self.pipeline_memory)
        self.monitoring = Monitoring(registry, self.reading)
        self.sweeper = Sweeper(registry, self.delivery, journal, self.body_memory, config.chunk_bytes, wait_round)
        self.administering = Administering(registry, self.delivery, stats, self.sweeper, config, self.pipeline_memory)
        self.operating = Operating(registry, self.delivery, stats, config, self.pipeline_memory)
        self.traces = Traces(registry, journal, lambda queue: queue.options.trace)
        self.watching = Watching(self.traces, lambda: self.reading.stopping, self.pipeline_memory)
        self._get_timeout_ms = config.get_timeout_ms

    def table(self, dialect: Dialect) -> dict[bytes, Command]:
        """The verbs of `dialect`."""
        storing, reading, administering = self.storing, self.reading, self.administering
        operating, monitoring = self.operating, self.monitoring
        flush_all = administering.flush_all_with(dialect.flushed_all)
        parse_reading = partial(lines.parse_reading, exclusive=dialect.exclusive)
        get = Command(parse_reading, reading.get, GET, reading.get_placed)
        if dialect.gets_open:
            parse_opening = partial(lines.parse_opening, wait_ms=self._get_timeout_ms)
            get = Command(parse_opening, reading.get, GET, reading.get_first)
        table = {
            b"set": Command(lines.parse_storing, storing.set, PUT, storing.set_placed),
            b"get": get,
            b"gets": get,
            b"monitor": Command(lines.parse_monitor, monitoring.monitor, GET, monitoring.monitor_placed),
            b"confirm": Command(lines.parse_confirm, monitoring.confirm, GET),
            b"delete": Command(lines.parse_naming, administering.delete_with(dialect.deleted), ADMIN),
            b"flush": Command(lines.parse_naming, administering.flush, ADMIN),
            b"flush_expired": Command(lines.parse_naming, administering.flush_expired, ADMIN),
            b"flush_all_expired": Command(lines.parse_bare, administering.flush_all_expired, ADMIN_ALL),
            b"flush_all": Command(lines.parse_flush_all, flush_all, ADMIN_ALL),
            b"stats": Command(lines.parse_stats, administering.stats, FREE),
            b"dump_stats": Command(lines.parse_naming_several, operating.dump_stats, FREE),
            b"dump_config": Command(lines.parse_describing, operating.dump_config, ADMIN_ALL),
            b"status": Command(lines.parse_status, operating.status, ADMIN_ALL),  # to ask for it is free
            b"reload": Command(lines.parse_bare, operating.reload, ADMIN_ALL),
            b"shutdown": Command(lines.parse_bare, operating.shutdown, ADMIN_ALL),
            b"watch": Command(lines.parse_naming, self.watching.watch, ADMIN),
            b"version": Command(lines.parse_bare, administering.version, FREE),
            b"quit": Command(lines.parse_bare, administering.quit, FREE),
        }
        if dialect.gets_open:
            table[b"delete"] = Command(lines.parse_naming, reading.acknowledge, GET)
        table = {verb: as_admin(command) for verb, command in table.items() if verb not in dialect.lacks}
        usage = [USAGE[verb] for verb in table] + [USAGE[b"help"]]
        table[b"help"] = table[b"?"] = Command(lines.parse_any, administering.help_with(usage), FREE)
        refuse = administering.refuse_of_memcached
        for verb in OF_MEMCACHED:
            table[verb] = Command(lines.parse_of_memcached, refuse, FREE, only_refused=True)
        for verb in STORING_OF_MEMCACHED:
            table[verb] = Command(lines.parse_storing_of_memcached, refuse, FREE, only_refused=True)
        return table
