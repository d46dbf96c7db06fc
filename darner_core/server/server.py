"""The server: built from its parts, started, told to read its files again, and stopped.

A client's requests are served in turns of the event loop, see `turn`: what a turn changes is written before anybody is
sent a reply. `background` and `disk` do what goes on beside the clients.

Names that begin with wait_ may switch greenlets; callbacks run in the hub and never do.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import gevent
from gevent.event import Event

from darner_core import NAME
from darner_core.access import access
from darner_core.access.access import Access
from darner_core.config.listeners import HTTP
from darner_core.config.options import Config, differences
from darner_core.config.queues import QUEUE_TABLES
from darner_core.config.values import SYNC_ALWAYS
from darner_core.engines.local.engine import LocalEngine
from darner_core.engines.local.sampling import Sampling
from darner_core.errors import ConfigError, ServerError, StorageError
from darner_core.operating_system import trim_heap
from darner_core.operations.availability import Availability
from darner_core.operations.history import STEP_S, History
from darner_core.operations.operations import Operations
from darner_core.operations.stats import Stats
from darner_core.operations.status import READONLY, ServerStatus
from darner_core.protocols.vocabularies import Vocabularies
from darner_core.repeated import Repeated
from darner_core.server.acceptor import Acceptor
from darner_core.server.background import Background, SyncGroup, wait_attempt
from darner_core.server.backups import Backups
from darner_core.server.careful import cut_off
from darner_core.server.connection import Connection
from darner_core.server.disk import Disk
from darner_core.server.http_connection import HttpConnection
from darner_core.server.listeners import Listener
from darner_core.server.measuring import MeasuredTurn, timed, wait_lag
from darner_core.server.overview import Overview
from darner_core.server.poller import make_poller
from darner_core.server.service_manager import ServiceManager
from darner_core.server.tls import make_context
from darner_core.server.turn import Turn
from darner_core.shared_memory import WHOLE_BYTES, BodyMemory, PipelineMemory
from darner_core.storage import records
from darner_core.storage.storage import Storage
from darner_core.waiters import wait_round

log = logging.getLogger(NAME)

# Stopping takes at most 5 s: this long for clients to be answered, the rest for the last fsync.
STOP_S = 3.5
TICK_S = 1.0
SERVING = "serves clients"  # as `systemctl status` shows it
# What `reload` takes over, by the names of Config's fields.
RELOADED = {"debug", "admin_from", "auth_file", "tls_cert", "tls_key", "tls_ca", "users", "rules", "aliases"}


class Server:
    """The server over an open data directory. `start`, then `wait_stopped`."""

    def __init__(
        self,
        config: Config,
        storage: Storage,
        read_again: Callable[[], Config],
        manager: ServiceManager | None = None,
    ) -> None:
        """`read_again` reads the options again, for a reload; raises ConfigError.

        Raises StorageError if the queues cannot be read back, StartError if an address cannot be listened on, or a
        file about who may come in cannot be used."""
        self.config = config
        self.access = Access(config.access_options(), make_context)
        self.stats = Stats()
        self.body_memory = BodyMemory(config.body_memory_bytes, trim_heap)
        self.whole_memory = BodyMemory(WHOLE_BYTES, trim_heap)
        self.pipeline_memory = PipelineMemory(config.pipeline_memory_bytes)
        self.availability = Availability()
        self._hub = gevent.get_hub()
        self._engine = LocalEngine(config, storage, self.body_memory, self._run_after)
        self.journal, self.registry = self._engine.journal, self._engine.registry
        self.operations = Operations(self._engine, self.stats, config, self.pipeline_memory, self.availability, self)
        sync = storage.sync
        if any(listener.dialect == HTTP for listener in config.listeners):
            self.operations.observe()
        if self.operations.measures is not None:
            sync = timed(sync, self.operations.measures)
        self.sync_group = SyncGroup(sync, self._synced)
        self._read_again = read_again
        self._manager = manager or ServiceManager({})
        self._take_over_names(config)
        for _ in self._make_named():
            pass
        self._storage = storage
        if storage.met_damage:
            storage.reopen()  # or the first compaction that meets it would stop all writes
        self._backups = Backups(config.data, config.backup_dir)
        self.disk = Disk(
            storage, self.journal, self.registry, self.stats, config.min_free_bytes, self._refuse_sets,
            self._wait_make_named, sync,
        )  # fmt: skip
        self.vocabularies = Vocabularies(self.operations, config)
        self._repeated = Repeated(log)
        self._background = Background()
        self._stopped = Event()
        self.turn = (Turn if self.operations.measures is None else MeasuredTurn)(
            self._hub.loop, make_poller(config.poller, self._hub.loop), self.stats, self.journal, self.disk,
            self.pipeline_memory,
            syncs=config.sync == SYNC_ALWAYS,
            tells_heard=bool(config.idle_timeout_s or config.client_timeout_s),
        )  # fmt: skip
        self.acceptor = Acceptor(self, config, self.access, self._manager.take_sockets())
        for listener in self.acceptor.listeners:
            if listener.dialect != HTTP:
                self.vocabularies.of(listener.dialect)
        self.overview = Overview(self.acceptor.connections, self.acceptor.listeners, RELOADED)
        self.status = ServerStatus(config, self._forbid, self._run_after)
        self._tell_damage()

    def start(self) -> None:
        self.disk.look_for_room()
        self.turn.start()
        self.acceptor.start()
        log.addFilter(self._repeated)
        if any(listener.dialect == HTTP for listener in self.acceptor.listeners):
            self.overview.start()
        every = self._background.every
        every(TICK_S, "log", self._repeated.tell)
        every(TICK_S, "upkeep", self.disk.wait_upkeep)
        if self.config.expiration_timer_s:
            every(self.config.expiration_timer_s, "sweep", self._wait_sweep)
            every(self.config.expiration_timer_s, "leases", self._wait_look_at_leases)
        else:
            # Without sweeps, too, two things have to be done: a large item that a get has found expired is moved after
            # the turn of that get, and what is left of items that have been taken is removed.
            every(TICK_S, "sweep", self._engine.sweeper.wait_moves)
        every(TICK_S, "timeouts of clients", self.acceptor.wait_look_for_silent)
        every(lambda: self._sync_ms / 1000 or TICK_S, "sync", self._wait_sync)
        if self._manager.watchdog_s:
            every(self._manager.watchdog_s / 3, "watchdog", self._manager.alive)
        self._measure()
        self._manager.ready(SERVING)

    def _measure(self) -> None:
        """Begin to take the samples that somebody may ask for."""
        measures, history, turn, every = (
            self.operations.measures, self.operations.history, self.turn, self._background.every,
        )  # fmt: skip
        if measures is None or history is None or not isinstance(turn, MeasuredTurn):
            return
        sampling = Sampling(self.journal, measures.queued.observe, measures.held.observe)
        turn.measure(measures, sampling, self.sync_group)
        every(TICK_S, "measuring", turn.look)
        every(0.0, "loop lag", partial(wait_lag, measures))
        every(STEP_S, "history", partial(_wait_sample, history))

    def _tell_damage(self) -> None:
        for torn in self._storage.torn:
            log.warning("%s", torn)
        for damage in self._storage.damage:
            log.error("damaged: %s; %s", damage, records.REPAIR_ADVICE)
        for queue in self.registry.damaged:
            log.error("%s", queue.damage)

    def _run_after(self, seconds: float, call: Callable[[], None]) -> Any:
        """Call once, in the hub. Returns a timer; to close it cancels the call."""
        timer = self._hub.loop.timer(seconds, ref=False)
        timer.start(call)
        return timer

    def wait_backup(self, name: str) -> tuple[int, int]:
        """Raises ServerError."""
        return self._backups.wait_save(name)

    def wait_reload(self) -> None:
        """Read the files again. Raises ConfigError or StorageError, and tells the log; then nothing has changed."""
        self._manager.reloading()
        try:
            self._wait_take_over(self._read_again())
        except (ConfigError, StorageError) as error:
            log.error("not reloaded: %s", error)
            raise
        finally:
            self._manager.ready(SERVING)

    def _wait_take_over(self, config: Config) -> None:
        """Take over who may come in, what they may do, and what queues are told to do. Connections stay. Raises
        ConfigError, or StorageError while the database cannot be used; then nothing has changed.

        Users, rights, aliases, and what holds for queues that are made from now on, change in one turn. After it the
        queues that exist get their options, each queue all of them in one turn. When this returns, all queues have
        them. If the files are read once more meanwhile, both reloads go on with what was read last.
        """
        self._storage.require_open()  # the age of items is looked at, and queues are made
        if not self.registry.has_room_for(config.rules):
            said = f"[queues.NAME] make more queues than max_queues = {self.config.max_queues}"
            raise config.complaint(QUEUE_TABLES, said)
        self.access.reload(config.access_options())  # the last that can fail
        self.acceptor.rejudge()
        changes = self.registry.set_rules(config.rules)
        self._take_over_names(config)
        for name in differences(self.config, config):
            if name not in RELOADED:
                log.warning("reload: %s has changed, and takes effect after a restart", name)
        self.operations.in_effect.take_over(config, RELOADED)
        for _ in changes:
            wait_round()
        self._wait_make_named()
        logging.getLogger().setLevel(level_of(config))
        log.info("reloaded: users, rights, admin_from, certificates, log level, queues, aliases")

    def _wait_make_named(self) -> None:
        for _ in self._make_named():
            wait_round()

    def _make_named(self) -> Iterator[None]:
        """Make the queues that the configuration names, in slices. What a failed turn undoes is made again later."""
        try:
            yield from self.registry.make_named()
        except (ServerError, StorageError) as error:
            log.error("not all queues that the configuration names could be made: %s", error)

    def _take_over_names(self, config: Config) -> None:
        """Take over the aliases, and how often the disk is synced."""
        self._engine.routing.set_aliases(config.aliases)
        # One fsync is for all queues, so the queue that wants it most often decides.
        every_ms = [sync for sync in (self.config.sync, *config.rules.syncs) if isinstance(sync, int)]
        self._sync_ms = min(every_ms, default=0)

    def _forbid(self, no_writes: str, no_reads: str) -> None:
        """From now on no client may write, or read, for these reasons; with "" for a reason it may."""
        self.availability.no_writes, self.availability.no_reads = no_writes, no_reads
        self.vocabularies.refuse()
        if no_reads:
            self.acceptor.end_waits()

    def _refuse_sets(self, why: str) -> None:
        self.availability.no_room = why

    def _synced(self, connections: list[Connection | HttpConnection], error: StorageError | None) -> None:
        if error is not None:
            self.disk.sync_failed(error)
        for connection in connections:
            connection.synced(error)

    # -- in the background

    def _wait_sweep(self) -> None:
        self._engine.sweeper.wait_expire_queues()
        self._engine.sweeper.wait_sweep()

    def _wait_look_at_leases(self) -> None:
        for _ in self._engine.leases.look():
            wait_round()

    def _wait_sync(self) -> None:
        if self._sync_ms:
            self.disk.wait_sync()

    # -- stopping

    @property
    def stopping(self) -> bool:
        return self.availability.stopping

    @property
    def drained_by_signal(self) -> bool:
        """Whether operators of one of the protocols that are spoken drain servers by a signal."""
        return any(traits.drained_by_signal for traits in self.vocabularies.spoken())

    def drain(self) -> None:
        """Take no more items until an operator says `status up`, or the server ends. A stricter status stays."""
        if self.status.shown.strictness < READONLY.strictness:
            self.status.change(READONLY)

    def request_stop(self) -> None:
        """Begin to stop. Nothing happens if that has begun already."""
        if not self.stopping:
            self.availability.stopping = True
            gevent.spawn(self._wait_stop)

    def _wait_stop(self) -> None:
        log.info("stopping")
        self._manager.stopping()
        connections = self.acceptor.connections
        try:
            self.acceptor.close()
        except Exception:
            log.exception("stopping: not all addresses could be closed")
        for connection in list(connections):
            self._hub.loop.run_callback(connection.stop)
        with gevent.Timeout(STOP_S, False):
            while connections:
                gevent.sleep(0.01)
        for connection in list(connections):
            self._hub.loop.run_callback(cut_off, connection)
        gevent.sleep(0.01)
        self._stopped.set()

    def wait_stopped(self) -> None:
        """Serve until stopped; then sync and close the storage."""
        self._stopped.wait()
        self._background.wait_closed()
        self.status.close()
        self.turn.close()
        for wait_step in (self.disk.wait_write_last, self._storage.close):
            wait_attempt("stopping", wait_step)
        self._repeated.tell(all_of_them=True)
        log.removeFilter(self._repeated)
        self.overview.stop()


def on_signals(signals: Iterable[int], first: Callable[[], None], again: Callable[[], None]) -> None:
    """Call `first` at the first of these signals, and `again` at any after it."""
    seen: list[int] = []

    def handle() -> None:
        seen.append(1)
        (first if len(seen) == 1 else again)()

    for number in signals:
        gevent.signal_handler(number, handle)


def _wait_sample(history: History) -> None:
    for _ in history.sample():
        wait_round()


def level_of(config: Config) -> int:
    """How much the log tells."""
    return logging.DEBUG if config.debug else logging.INFO


def warn(config: Config, listeners: Iterable[Listener]) -> None:
    for line in access.warnings(config.access_options(), listeners):
        log.warning(line)
