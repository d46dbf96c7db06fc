"""Opening RocksDB: its settings, and what to do when it finds the directory damaged.

A database is first opened so that any damage that RocksDB can see makes opening fail. If it does, the files are looked
at more closely, and the database is opened in the way that keeps most:

- A crash leaves a write-ahead log that ends in the middle of a write, or that has a gap where nothing was ever written.
  All that stands before the gap is taken; what follows was never synced.
- After a loss of power, a whole log may follow one whose end is missing, because RocksDB begins a new log before it
  syncs the old. The new one is not read: it was never synced, and would leave queues with holes.
- A damaged log, with writes behind the damage that can be read, is written anew without what cannot be read. The old
  log is kept beside it. The queues notice what is missing by the numbers of their items.
- If a table file cannot be opened, the database is opened without it, so that only its column family suffers.

`Opened.found` and `Opened.torn` tell what was found and done.
"""

import os
import re
import shutil
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    DBRecoveryMode,
    Env,
    Options,
    Rdict,
)

from darner_core import files
from darner_core.storage import manifest, wal

# Names of the column families that hold no queues.
DEFAULT, CHUNKS = "default", "chunks"
STATES, ORDER, KEYS, JOBS, ASIDES = "states", "order", "keys", "jobs", "asides"
ASIDE_TABLES = (STATES, ORDER, KEYS, JOBS, ASIDES)
NOT_QUEUES = (*ASIDE_TABLES, DEFAULT, CHUNKS)  # as `rocks` numbers them, from the last

# Blocks of 16 KiB: items are read in order, a few hundred at a time, hardly ever singly.
BLOCK_BYTES = 16 << 10
# A level-0 run is one file with one table reader. Few are enough: queues are read at their heads only.
LEVEL0_FILES = 4
SLOW_LEVEL0_FILES = 64
MAX_FILE_BYTES = 32 << 20
INFO_LOG_BYTES = 1 << 20
INFO_LOG_FILES = 2

MAX_MANIFEST_BYTES = 4 << 20  # it is read twice at a start

# Endings of logs that are kept but must not be read: one that follows a gap after a loss of power, one that was mended.
DROPPED, DAMAGED = ".dropped", ".damaged"

PROGRESS_S = 2.0  # between two lines about a long job

DAMAGE = "Corruption"  # RocksDB's messages begin with it if bytes have changed


class Settings(NamedTuple):
    block_cache_bytes: int
    write_buffer_bytes: int
    max_wal_bytes: int
    max_open_files: int


class Opened(NamedTuple):
    db: Rdict
    found: list[str]  # what is damaged, in lines for a person
    torn: list[str]  # what a crash has cut off, likewise
    salvaged: bool  # records may be missing in the middle


def is_full(error: Exception | str) -> bool:
    """Whether RocksDB says that the disk is full."""
    return "No space left" in str(error)


def is_damage(error: Exception | str) -> bool:
    """Whether RocksDB says that bytes have changed, or that a table file is gone."""
    text = str(error)
    return DAMAGE in text or ("No such file or directory" in text and ".sst" in text)


def one_line(error: Exception | str) -> str:
    return " ".join(str(error).split())


# Ways of opening a database.
NEW = "new"  # it does not exist yet, and is made; with all other ways it has to exist
START = "start"  # nothing is known of it
POWER_LOST = "power lost"  # the server that had it open ended with the machine
AGAIN = "again"  # this process had it open, and a write failed
SALVAGE = "salvage"  # damage is known, and is left out


def open_database(
    path: str,
    names: list[str],
    settings: Settings,
    how: str,
    quiet: set[str],
    note: Callable[[list[str]], None],
    say: Callable[[str], None],
) -> Opened:
    """Open the column families `names`, and make those that are missing. Raises RocksDB's error.

    `note` is told what is damaged, before RocksDB drops what it cannot read; `say` is told what takes long. The
    families `quiet` are not compacted: where there is damage, RocksDB would try and fail once a second.
    """
    cache = Cache(settings.block_cache_bytes)

    def attempt(mode: Any, strict: bool) -> Rdict:
        families = {}
        for name in names:
            families[name] = _options(settings, cache, mode, strict)
            families[name].set_disable_auto_compactions(name in quiet)
        options = _options(settings, cache, mode, strict)
        options.create_if_missing(how == NEW)
        return Rdict(path, options, families)

    whole, up_to_damage = DBRecoveryMode.absolute_consistency(), DBRecoveryMode.point_in_time()
    if how == SALVAGE:
        return Opened(attempt(DBRecoveryMode.skip_any_corrupted_record(), False), [], [], True)
    first: Exception | None = None
    holed = how in (START, POWER_LOST) and has_hole(path)
    try:
        if not holed:
            return Opened(attempt(whole, True), [], [], False)
    except Exception as error:
        if not is_damage(error):
            raise
        first = error.with_traceback(None)  # which would keep this frame, and so itself, alive
    if how == AGAIN:
        # A part of the write that failed may be in the log. Examining the log would make all clients wait for seconds.
        return Opened(attempt(up_to_damage, True), [], [], False)
    logs = _examine_log(path, say)
    if how == POWER_LOST:
        logs = [damage.after_loss_of_power() for damage in logs]
    found = [str(damage) for damage in logs if not damage.torn]
    torn = [str(damage) for damage in logs if damage.torn]
    if found:
        found, torn = [str(damage) for damage in logs], []
        note(found)
        for damage in logs:
            _mend_log(path, damage.name)
    elif holed:  # RocksDB would not stop at the hole
        torn += _cut_log(path, logs[0])
    mode = up_to_damage if torn else whole
    try:
        return Opened(attempt(mode, True), found, torn, False)
    except Exception as error:
        if not is_damage(error):
            raise
        table = file_named(error)
    try:
        return Opened(attempt(mode, False), [*found, table], torn, True)
    except Exception as error:
        raise (first or error) from None


def has_hole(path: str) -> bool:
    """Whether there are zeros in the log that RocksDB would pass over silently."""
    return any(wal.has_hole(os.path.join(path, name)) for name in wal.files(path, first_log(path)))


def first_log(path: str) -> int:
    """The number of the first log that RocksDB reads."""
    try:
        return manifest.read(path).first_log
    except manifest.Damaged:
        return 0


def _examine_log(path: str, say: Callable[[str], None]) -> list[wal.Damage]:
    """What is wrong with the logs that RocksDB reads."""
    told = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told > PROGRESS_S:
            told = time.monotonic()
            say(f"examining the write-ahead log: {done / total:.0%} of {total / (1 << 20):,.0f} MiB")

    return wal.examine(path, progress, first_log(path))


def _cut_log(path: str, damage: wal.Damage) -> list[str]:
    """Let RocksDB read this log up to the damage, and no later log; what is to be told about the later ones."""
    _mend_log(path, damage.name, damage.offset)
    return put_aside_behind_gap(path, first_log(path))


def _mend_log(path: str, name: str, end: int | None = None) -> None:
    """Write a log anew without what cannot be read, up to the byte `end`, and keep the old one under another name."""
    log = os.path.join(path, name)
    kept, new = _free_name(log + DAMAGED), f"{log}.new"
    wal.mend(log, new, end)
    try:
        os.link(log, kept)
    except OSError:
        shutil.copyfile(log, kept)
    os.replace(new, log)
    files.sync_folder(path)


def put_aside_behind_gap(path: str, first_log: int) -> list[str]:
    """After a loss of power, rename the logs that follow one whose end is missing, so that RocksDB does not read them;
    what is to be told about it."""
    first = wal.gap_between(path, first_log)
    if first is None:
        return []
    names = wal.files(path)
    for name in names[names.index(first) :]:
        os.rename(os.path.join(path, name), _free_name(os.path.join(path, name + DROPPED)))
    files.sync_folder(path)
    return [f"{wal.FINDING}{first}: writes before it are missing, after a loss of power; it is kept as *{DROPPED}"]


def _free_name(path: str) -> str:
    number, name = 1, path
    while os.path.exists(name):
        number, name = number + 1, f"{path}.{number}"
    return name


def open_read_only(path: str, log_folder: str, max_open_files: int, lenient: bool, torn: bool) -> Rdict:
    """Open all column families, and change nothing in the directory. Raises RocksDB's error. `torn`: take the log as
    far as it can be read; else all of it has to be readable. `lenient`: go without tables that cannot be opened."""
    settings = Settings(8 << 20, 16 << 20, 64 << 20, max_open_files)
    mode = DBRecoveryMode.point_in_time() if torn else DBRecoveryMode.absolute_consistency()
    options = _options(settings, Cache(8 << 20), mode, not lenient)
    options.set_db_log_dir(log_folder)
    names = Rdict.list_cf(path, options)
    return Rdict(path, options, dict.fromkeys(names, options), AccessType.read_only())


_BLOCK = re.compile(r"block checksum mismatch: .*?([^/]+\.sst) offset (\d+) size (\d+)")


def file_named(error: Exception | str) -> str:
    """RocksDB's message on one line, beginning with the damaged file. What it adds about the MANIFEST whenever a table
    file cannot be opened is left out."""
    text = one_line(error)
    block = _BLOCK.search(text)
    if block is not None:
        return f"{DAMAGE}: {block[1]} is damaged at byte {block[2]} (a block of {block[3]} bytes)"
    cut = text.find(" The file ")
    if cut >= 0 and ".sst" in text[:cut]:
        text = text[:cut]
    return text.replace(f"{DAMAGE}: {DAMAGE}: ", f"{DAMAGE}: ")


def _options(settings: Settings, cache: Cache, mode: Any, strict: bool) -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(False)
    options.create_missing_column_families(True)
    options.set_wal_recovery_mode(mode)
    options.set_paranoid_checks(strict)
    table = BlockBasedOptions()
    table.set_block_cache(cache)
    table.set_block_size(BLOCK_BYTES)
    # Otherwise the index blocks of all files of a large backlog would be held in memory, outside of any limit.
    table.set_cache_index_and_filter_blocks(True)
    options.set_block_based_table_factory(table)
    options.set_compression_type(DBCompressionType.none())
    options.set_db_write_buffer_size(settings.write_buffer_bytes)
    options.set_write_buffer_size(settings.write_buffer_bytes // 2)
    # With two, a write waited for the flush of the one before when the disk was slower than the clients: up to 90 ms.
    options.set_max_write_buffer_number(4)
    options.set_max_manifest_file_size(MAX_MANIFEST_BYTES)
    options.set_max_total_wal_size(settings.max_wal_bytes)
    options.set_max_open_files(settings.max_open_files)
    options.set_level_zero_file_num_compaction_trigger(LEVEL0_FILES)
    # RocksDB makes writers wait while compaction lags behind, and the only writer is the loop. Many level-0 files cost
    # readers some microseconds each.
    options.set_level_zero_slowdown_writes_trigger(SLOW_LEVEL0_FILES)
    options.set_level_zero_stop_writes_trigger(2 * SLOW_LEVEL0_FILES)
    # Files that a compaction has replaced are deleted in the background. Otherwise the last reader deletes them, which
    # took the loop 20 to 60 ms.
    options.set_avoid_unnecessary_blocking_io(True)
    options.set_target_file_size_base(MAX_FILE_BYTES)
    options.set_max_background_jobs(2)
    # Compaction can wait, clients cannot: it took the loop's core for milliseconds. Flushes are not slowed down.
    env = Env()
    env.lower_thread_pool_cpu_priority()
    options.set_env(env)
    options.set_bytes_per_sync(1 << 20)
    # Only one thread writes, and what several would need costs 5 % of a batch.
    options.set_allow_concurrent_memtable_write(False)
    options.set_max_log_file_size(INFO_LOG_BYTES)
    options.set_keep_log_file_num(INFO_LOG_FILES)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    # Otherwise opening takes longer the more files there are.
    options.set_skip_stats_update_on_db_open(True)
    return options


def family_names(path: str) -> list[str]:
    """The column families of the database at `path`. Raises RocksDB's error."""
    return list(Rdict.list_cf(path, Options(raw_mode=True)))


def rebuild(path: str) -> None:
    """Let RocksDB make a new MANIFEST from the table files that it can read. Raises RocksDB's error."""
    Rdict.repair(path, Options(raw_mode=True))
