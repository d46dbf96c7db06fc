"""The server: a gevent StreamServer, one greenlet per client, and the turn of the event loop.

A turn: every client whose socket is readable is read, its whole requests are applied in memory, and its replies
are gathered. Before the loop sleeps, the journal writes what the turn changed, once, and only then is each client
sent its replies, with one call. So no reply leaves before its change is in the write-ahead log.

Names that begin with wait_ may switch greenlets; callbacks run in the hub and never do.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import gevent
from gevent.event import Event

from darner_core import NAME, VERSION
from darner_core.access import access
from darner_core.access.access import Access
from darner_core.config.listeners import DARNER
from darner_core.config.options import Config, differences
from darner_core.config.queues import QUEUE_TABLES
from darner_core.config.values import SYNC_ALWAYS
from darner_core.engines.local.compaction import Upkeep
from darner_core.engines.local.engine import LocalEngine
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.read_timeouts import ReadTimeouts
from darner_core.engines.local.registry import Registry
from darner_core.engines.local.window import WindowBudget
from darner_core.errors import ServerError, StorageError
from darner_core.operating_system import trim_heap
from darner_core.operations.availability import Availability
from darner_core.operations.operations import Operations
from darner_core.operations.stats import Stats
from darner_core.operations.status import ServerStatus
from darner_core.protocols.vocabularies import Vocabularies
from darner_core.repeated import BY_FORM, Repeated
from darner_core.server import acceptor
from darner_core.server.acceptor import Reception
from darner_core.server.connection import Connection
from darner_core.server.listeners import Listener
from darner_core.server.poller import make_poller
from darner_core.server.tls import make_context
from darner_core.server.turn import Turn
from darner_core.shared_memory import WHOLE_BYTES, BodyMemory, PipelineMemory
from darner_core.storage import records
from darner_core.storage.storage import Storage
from darner_core.waiters import SyncGroup, wait_in_thread, wait_round

log = logging.getLogger(NAME)

# Stopping takes at most 5 s: this long for clients to be answered, the rest for the last fsync.
STOP_S = 3.5
TICK_S = 1.0
# Between two looks at the room on the disk, where less is kept free than eight times that.
LOOK_BYTES = 1 << 20
# libev's lowest: the turn ends after gevent has run all that is ready.
LAST_PRIORITY = -2

# What `reload` takes over, by the names of Config's fields.
RELOADED = {"debug", "admin_from", "auth_file", "tls_cert", "tls_key", "tls_ca", "users", "rules", "aliases"}


class Server:
    """The server over an open data directory. `start`, then `wait_stopped`."""

    def __init__(self, config: Config, storage: Storage) -> None:
        """Raises StorageError if the queues cannot be read back, StartError if an address cannot be listened on, or a
        file about who may come in cannot be used."""
        self.config = config
        self.access = Access(config.access_options(), make_context)
        self.stats = Stats()
        budget = WindowBudget(config.window_bytes)
        self.journal = Journal(storage)
        self.registry = Registry(self.journal, budget, config.max_queues, config.rules)
        self.body_memory = BodyMemory(config.body_memory_bytes, trim_heap)
        self.whole_memory = BodyMemory(WHOLE_BYTES, trim_heap)
        self.pipeline_memory = PipelineMemory(config.pipeline_memory_bytes)
        self.availability = Availability()
        self._hub = gevent.get_hub()
        self._engine = LocalEngine(self.registry, self.journal, config.chunk_bytes, self.body_memory, self._run_after)
        self.operations = Operations(
            self._engine, budget, self.stats, config, self.body_memory, self.pipeline_memory, self.availability, self
        )
        self.sync_group = SyncGroup(storage.sync, self._synced)
        self.wait_reload: Callable[[], None] = _nothing  # reads the files again; raises ConfigError
        self._take_over_names(config)
        for _ in self._make_named():
            pass
        self._storage = storage
        if storage.met_damage:
            storage.reopen()  # or the first compaction that meets it would stop all writes
        self._upkeep = Upkeep(self.registry, self.journal, config.min_free_bytes)
        self._read_timeouts = ReadTimeouts(self.registry, self.operations.taking.sending, time.monotonic)
        self.vocabularies = Vocabularies(self.operations, config)
        self._disk_failed = False
        self._look_again_at_bytes = 0
        self._repeated = Repeated(log)
        self._background: list[gevent.Greenlet] = []
        self._stopped = Event()
        self._hub = gevent.get_hub()
        poller = make_poller(config.poller, self._hub.loop)
        tells_heard = bool(config.idle_timeout_s or config.client_timeout_s)
        self.turn = Turn(self._hub.loop, poller, self.stats, self._end_turn, tells_heard)
        self.reception = Reception(self, config, self.access)
        for listener in self.reception.listeners:
            self.vocabularies.of(listener.dialect)
        self.status = ServerStatus(config, self._forbid, self._run_after)
        self._turn_end = self._hub.loop.prepare(ref=False)
        self._turn_end.priority = LAST_PRIORITY
        self._tell_damage()

    def start(self) -> None:
        self._look_for_room()
        self._turn_end.start(self._end_turn)
        self.reception.start()
        log.addFilter(self._repeated)
        self._repeat(TICK_S, "log", self._repeated.tell)
        self._repeat(TICK_S, "upkeep", self._wait_upkeep)
        if self.config.expiration_timer_s:
            self._repeat(self.config.expiration_timer_s, "sweep", self._wait_sweep)
            self._repeat(self.config.expiration_timer_s, "read timeouts", self._wait_read_timeouts)
        else:
            self._repeat(TICK_S, "sweep", self._wait_moves)
        if self.reception.looks_for_silent:
            self._repeat(acceptor.TICK_S, "timeouts of clients", self.reception.wait_look_for_silent)
        self._background.append(gevent.spawn(self._wait_syncs))

    def _repeat(self, every_s: float, name: str, wait_job: Callable[[], None]) -> None:
        """Do the job every so often, whatever has gone wrong with it before."""
        self._background.append(gevent.spawn(self._wait_repeat, every_s, name, wait_job))

    def _wait_repeat(self, every_s: float, name: str, wait_job: Callable[[], None]) -> None:
        while True:
            gevent.sleep(every_s)
            self._wait_once(name, wait_job)

    def _wait_once(self, name: str, wait_job: Callable[[], None]) -> None:
        try:
            wait_job()
        except (StorageError, OSError) as error:  # what was not done is there the next time
            log.error(f"{name}: %s", error, extra=BY_FORM)
        except Exception:
            log.exception(f"{name}: went wrong", extra=BY_FORM)

    def _tell_damage(self) -> None:
        for cut_off in self._storage.torn:
            log.warning("%s", cut_off)
        for damage in self._storage.damage:
            log.error("damaged: %s; %s", damage, records.REPAIR_ADVICE)
        for queue in self.registry.damaged:
            log.error("%s", queue.damage)

    def _run_after(self, seconds: float, call: Callable[[], None]) -> Any:
        """Call once, in the hub; what can be closed to have it not called."""
        timer = self._hub.loop.timer(seconds, ref=False)
        timer.start(call)
        return timer

    def wait_take_over(self, config: Config) -> None:
        """Take over who may come in, what they may do, and what queues are told to do. Connections stay. Raises
        ConfigError, or StorageError while the database cannot be used; then nothing has changed.

        Users, rights, aliases, and what holds for queues that are made from now on, change in one turn. The queues that
        exist get their options after it, each all of its options in one turn; when this returns all have them. If the
        files are read once more meanwhile, both go on with what was read last.
        """
        self._storage.require_open()  # the age of items is looked at, and queues are made
        if not self.registry.has_room_for(config.rules):
            said = f"[queues.NAME] make more queues than max_queues = {self.config.max_queues}"
            raise config.complaint(QUEUE_TABLES, said)
        self.access.reload(config.access_options())  # the last that can fail
        self.reception.rejudge()
        self.registry.rules = config.rules
        self._take_over_names(config)
        for name in differences(self.config, config):
            if name not in RELOADED:
                log.warning("reload: %s has changed, and takes effect after a restart", name)
        self.operations.in_effect.take_over(config, RELOADED)
        for _ in self.registry.apply_rules():
            wait_round()
        for _ in self._make_named():
            wait_round()

    def _make_named(self) -> Iterator[None]:
        """Make the queues that the configuration names, in slices. Those of a turn that fails are made later."""
        try:
            yield from self.registry.make_named()
        except (ServerError, StorageError) as error:
            log.error("not all queues that the configuration names could be made: %s", error)

    def _take_over_names(self, config: Config) -> None:
        """The aliases are these from now on, and so often the disk is synced."""
        self._engine.delivery.set_aliases(config.aliases)
        # One fsync is for all queues: the most frequent is for them all.
        every_ms = [sync for sync in (self.config.sync, *config.rules.syncs) if isinstance(sync, int)]
        self._sync_ms = min(every_ms, default=0)

    def _forbid(self, no_writes: str, no_reads: str) -> None:
        """From now on no client may write, or read, for these reasons; "": it may."""
        self.availability.no_writes, self.availability.no_reads = no_writes, no_reads
        self.vocabularies.refuse()
        if no_reads:
            self.reception.end_waits()

    # -- the end of a turn

    def _end_turn(self) -> None:
        wrote = False
        try:
            wrote = self.journal.commit()
        except StorageError as error:
            self._turn_failed(error)
        except Exception:
            # Nobody knows what memory holds now, but the disk holds what was answered: as after kill -9.
            log.critical("the end of a turn went wrong; ending at once", exc_info=True)
            logging.shutdown()
            os._exit(1)
        # From here on nothing is raised: each client is one by itself, and what is called belongs to all of them.
        if self.turn.served or self.turn.special:
            self.turn.send(sync=wrote and self.config.sync == SYNC_ALWAYS)
            self.pipeline_memory.turn_bytes = 0
        if self.stats.bytes_read >= self._look_again_at_bytes:
            self._look_for_room()
        if self.journal.slices:
            self._go_on()

    def _go_on(self) -> None:
        """What is too much for one turn goes on, in the next."""
        slices = self.journal.slices
        for _ in range(len(slices)):
            piece = slices.popleft()
            try:
                for _ in piece:
                    slices.append(piece)
                    break
            except Exception:
                log.exception("what was too much for one turn did not come to its end")
        self.turn.stir()

    def _look_for_room(self) -> None:
        """See whether sets have to be refused: in the background once a second, and after so many bytes, because a
        second's sets may be more than all the room that is kept."""
        step = max(LOOK_BYTES, self.config.min_free_bytes // 8)
        self._look_again_at_bytes = self.stats.bytes_read + step
        if self._disk_failed:
            return
        try:
            self.availability.no_room = self._upkeep.no_room()
        except StorageError as error:  # what is known of the room stands until the next look
            log.error("cannot see how much room there is: %s", error, extra=BY_FORM)
        except Exception:
            log.exception("cannot see how much room there is", extra=BY_FORM)

    def _turn_failed(self, error: StorageError) -> None:
        log.error("cannot write: %s", error, extra=BY_FORM)
        self._disk_failed = True
        self.availability.no_room = f"cannot write: {error}"
        self.turn.fail(error)

    def _synced(self, connections: list[Connection], error: StorageError | None) -> None:
        if error is not None:
            log.error("cannot sync: %s", error, extra=BY_FORM)
            self._disk_failed = True  # what the system could not write it may forget: write all of it again
        for connection in connections:
            connection.synced(error)

    # -- in the background

    def _wait_upkeep(self) -> None:
        if self._disk_failed or (self._storage.met_damage and not self._storage.salvages):
            self._wait_recover()
        self._look_for_room()
        for job in self._upkeep.tick():
            wait_in_thread(job)

    def _wait_sweep(self) -> None:
        self._engine.sweeper.wait_expire_queues()
        self._engine.sweeper.wait_sweep()

    def _wait_moves(self) -> None:
        """Without sweeps: a large item that a get has found expired does not go elsewhere in the turn of that get, and
        what is left of items that have been taken goes all the same."""
        self._engine.sweeper.wait_moves()

    def _wait_recover(self) -> None:
        """RocksDB writes nothing more after an error; opened again, it does. Raises StorageError."""
        if self._storage.is_open and not self._upkeep.room_to_reopen():
            return  # it would fail half-way; until there is room, what only reads goes on
        self._storage.reopen()
        self.registry.recheck()
        if self._disk_failed:
            log.info("writing again")
        self._disk_failed = False
        for _ in self._make_named():  # a reload may have made them in a turn that could not be written
            wait_round()

    def _wait_read_timeouts(self) -> None:
        for _ in self._read_timeouts.look():
            wait_round()

    def _wait_syncs(self) -> None:
        while True:
            gevent.sleep(self._sync_ms / 1000 if self._sync_ms else TICK_S)
            if self.journal.unsynced and self._sync_ms:
                self._wait_once("sync", self._wait_sync)

    def _wait_sync(self) -> None:
        self.journal.unsynced = False
        try:
            wait_in_thread(self._storage.sync)
        except Exception:
            self.journal.unsynced = self._disk_failed = True
            raise

    # -- stopping

    @property
    def stopping(self) -> bool:
        return self.availability.stopping

    def request_stop(self) -> None:
        """Begin to stop. Nothing happens if that has begun already."""
        if not self.stopping:
            self.availability.stopping = True
            gevent.spawn(self._wait_stop)

    def _wait_stop(self) -> None:
        log.info("stopping")
        connections = self.reception.connections
        try:
            self.reception.close()
        except Exception:
            log.exception("stopping: not all addresses could be closed")
        for connection in list(connections):
            self._hub.loop.run_callback(connection.stop)
        with gevent.Timeout(STOP_S, False):
            while connections:
                gevent.sleep(0.01)
        for connection in list(connections):
            self._hub.loop.run_callback(connection.cut)
        gevent.sleep(0.01)
        self._stopped.set()

    def wait_stopped(self) -> None:
        """Serve until stopped; then sync and close the storage."""
        self._stopped.wait()
        gevent.killall(self._background)
        self._turn_end.stop()
        self.status.close()
        self.turn.close()
        for wait_step in (self._write_last, self._storage.close):
            self._wait_once("stopping", wait_step)
        self._repeated.tell(all_of_them=True)
        log.removeFilter(self._repeated)

    def _write_last(self) -> None:
        self.registry.record_all()
        self.journal.commit()
        self._storage.sync()
        self._storage.note_synced()


def _nothing() -> None:
    pass


def on_signals(signals: Iterable[int], first: Callable[[], None], again: Callable[[], None]) -> None:
    """Call `first` at the first of these signals, and `again` at any after it."""
    seen: list[int] = []

    def handle() -> None:
        seen.append(1)
        (first if len(seen) == 1 else again)()

    for number in signals:
        gevent.signal_handler(number, handle)


def describe(config: Config) -> Iterator[str]:
    """What the log says before anything is done."""
    yield f"{NAME}: queue server"
    yield f"version: {VERSION}"
    yield f"data dir: {os.path.abspath(config.data)}"
    yield "starting up"


def recovered(server: Server) -> str:
    """What the log says when the queues have been read back."""
    queues = server.registry.queues.values()
    items, size = sum(queue.waiting_items for queue in queues), sum(queue.waiting_bytes for queue in queues)
    damaged = f", {len(server.registry.damaged)} queues are damaged" if server.registry.damaged else ""
    return f"recovered: {len(queues):,} queues, {items:,} items, {size:,} bytes{damaged}"


def listening(config: Config, listeners: Iterable[Listener]) -> Iterator[str]:
    """What the log says of the addresses."""
    for listener in listeners:
        tls = ", TLS" if config.tls_cert and not listener.is_unix else ""
        dialect = f", {listener.dialect}" if listener.dialect != DARNER else ""
        yield f"listening on: {listener}{tls}{dialect}"


def warn(config: Config, listeners: Iterable[Listener]) -> None:
    for line in access.warnings(config.access_options(), listeners):
        log.warning(line)
