"""Opening RocksDB: its settings, and what to do when it finds the directory damaged.

A database is opened so that any damage RocksDB can see while it opens stops it. Only then is it looked at more closely
and opened in the way that keeps most:

- A write-ahead log that ends in the middle of a write, or has a gap that was never written, is what a crash leaves: all
  before it is taken, what follows was never synced.
- After a loss of power, a whole log may stand behind one whose end is missing, because RocksDB begins a new one before
  it syncs the old. The new one is not read: it was never synced, and would make queues with holes.
- A log that is damaged, with writes behind the damage that can be read: these are kept, only what cannot be read is
  left out. The queues notice what is missing of them by their items' numbers.
- A table file that cannot be opened: the database is opened without it, so only what lies in its column family fails.

Whatever was done is told in `found`. Imported by `storage` alone.
"""

import fcntl
import os
import re
from collections.abc import Callable
from contextlib import suppress
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

from darner_core import wal

# Blocks of 16 KiB: items are read in order, a few hundred at a time, hardly ever singly.
BLOCK_BYTES = 16 << 10
# RocksDB keeps one file a level-0 run and one table reader a file; queues are read at their head only.
LEVEL0_FILES = 4
SLOW_LEVEL0_FILES = 64
MAX_FILE_BYTES = 32 << 20
INFO_LOG_BYTES = 1 << 20
INFO_LOG_FILES = 2

DROPPED = ".dropped"  # behind the name of a log that must not be read

DAMAGE = "Corruption"  # begins RocksDB's message wherever bytes are not what they were


class Settings(NamedTuple):
    block_cache_bytes: int
    write_buffer_bytes: int
    max_wal_bytes: int
    max_open_files: int


class Opened(NamedTuple):
    db: Rdict
    found: list[str]  # what is damaged
    torn: list[str]  # what a crash has left
    salvaged: bool  # records may be missing in the middle


def is_damage(error: Exception | str) -> bool:
    """Whether RocksDB says that bytes are not what they were, or that a file is gone."""
    text = str(error)
    return DAMAGE in text or ("No such file or directory" in text and ".sst" in text)


def one_line(error: Exception | str) -> str:
    return " ".join(str(error).split())


# How a database is opened.
START = "start"  # nothing is known of it
POWER_LOST = "power lost"  # the server that had it open ended with the machine
AGAIN = "again"  # this process had it open, and a write failed
SALVAGE = "salvage"  # damage is known, and must not stop what is whole


def open_database(
    path: str, names: list[str], settings: Settings, how: str, quiet: set[str], note: Callable[[list[str]], None]
) -> Opened:
    """Open the column families `names`, made if they are missing; raises RocksDB's error. `note` is called with what is
    damaged before RocksDB drops what it cannot read.

    RocksDB does not compact the families `quiet`: it would fail once a second.
    """
    cache = Cache(settings.block_cache_bytes)

    def attempt(mode: Any, strict: bool) -> Rdict:
        families = {}
        for name in names:
            families[name] = _options(settings, cache, mode, strict)
            families[name].set_disable_auto_compactions(name in quiet)
        return Rdict(path, _options(settings, cache, mode, strict), families)

    skip = DBRecoveryMode.skip_any_corrupted_record()
    behind_loss = _put_aside_behind_gap(path) if how == POWER_LOST else []
    if how == SALVAGE:
        return Opened(attempt(skip, False), [], [], True)
    try:
        return Opened(attempt(DBRecoveryMode.absolute_consistency(), True), [], behind_loss, False)
    except Exception as error:
        if not is_damage(error):
            raise
        first = error.with_traceback(None)  # which would keep this frame, and so itself, alive
    if how == AGAIN:
        # The write that failed may stand there in part. To examine the log would hold up everybody for seconds.
        return Opened(attempt(DBRecoveryMode.point_in_time(), True), [], [], False)
    logs = wal.examine(path)
    if how == POWER_LOST:
        logs = [damage.after_loss_of_power() for damage in logs]
    torn = [str(damage) for damage in logs if damage.torn]
    found = [str(damage) for damage in logs if not damage.torn]
    torn = behind_loss + torn
    if not found:
        with suppress(Exception):
            return Opened(attempt(DBRecoveryMode.point_in_time(), True), [], torn, False)
    elif len(torn):
        found, torn = behind_loss + [str(damage) for damage in logs], []
    if found:
        note(found)
    try:
        with suppress(Exception):
            return Opened(attempt(skip, True), found, torn, True)
        return Opened(attempt(skip, False), [*found, file_named(first)], torn, True)
    except Exception:
        raise first from None


def _put_aside_behind_gap(path: str) -> list[str]:
    """Rename the logs behind one whose end is missing, so that RocksDB does not read them; what is to be said of it."""
    with open(os.path.join(path, "LOCK"), "ab") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as RocksDB does; closing gives it back
        except OSError:
            return []  # in use: opening will say so
        first = wal.gap_between(path)
        if first is None:
            return []
        names = wal.files(path)
        for name in names[names.index(first) :]:
            os.rename(os.path.join(path, name), _free_name(os.path.join(path, name + DROPPED)))
    return [f"{wal.FINDING}{first}: writes before it are missing, after a loss of power; it is kept as *{DROPPED}"]


def _free_name(path: str) -> str:
    number, name = 1, path
    while os.path.exists(name):
        number, name = number + 1, f"{path}.{number}"
    return name


def open_read_only(path: str, log_folder: str, max_open_files: int, lenient: bool) -> Rdict:
    """Open all there is, and change nothing in the directory. Raises RocksDB's error."""
    settings = Settings(8 << 20, 16 << 20, 64 << 20, max_open_files)
    options = _options(settings, Cache(8 << 20), DBRecoveryMode.skip_any_corrupted_record(), not lenient)
    options.set_db_log_dir(log_folder)
    options.create_if_missing(False)
    names = Rdict.list_cf(path, options)
    return Rdict(path, options, dict.fromkeys(names, options), AccessType.read_only())


_BLOCK = re.compile(r"block checksum mismatch: .*?([^/]+\.sst) offset (\d+) size (\d+)")


def file_named(error: Exception | str) -> str:
    """RocksDB's message with the file first, and without what it says besides: it suspects the MANIFEST whenever a
    table file cannot be opened."""
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
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    options.set_wal_recovery_mode(mode)
    options.set_paranoid_checks(strict)
    table = BlockBasedOptions()
    table.set_block_cache(cache)
    table.set_block_size(BLOCK_BYTES)
    # Index blocks of a large backlog would else be held for every file, outside of any limit.
    table.set_cache_index_and_filter_blocks(True)
    options.set_block_based_table_factory(table)
    options.set_compression_type(DBCompressionType.none())
    options.set_db_write_buffer_size(settings.write_buffer_bytes)
    options.set_write_buffer_size(settings.write_buffer_bytes // 2)
    # With two, a write waited for the flush of the one before when the disk was slower than the clients: up to 90 ms.
    options.set_max_write_buffer_number(4)
    options.set_max_total_wal_size(settings.max_wal_bytes)
    options.set_max_open_files(settings.max_open_files)
    options.set_level_zero_file_num_compaction_trigger(LEVEL0_FILES)
    # RocksDB makes writers wait while compaction lags behind, and the only writer is the loop. Many level-0 files cost
    # readers some microseconds each.
    options.set_level_zero_slowdown_writes_trigger(SLOW_LEVEL0_FILES)
    options.set_level_zero_stop_writes_trigger(2 * SLOW_LEVEL0_FILES)
    # Files that a compaction has replaced are deleted in the background, not by the reader that used them last: that
    # took the loop 20 to 60 ms.
    options.set_avoid_unnecessary_blocking_io(True)
    options.set_target_file_size_base(MAX_FILE_BYTES)
    options.set_max_background_jobs(2)
    # Compaction can wait, clients cannot: it took the loop's core for milliseconds. Flushes keep theirs.
    env = Env()
    env.lower_thread_pool_cpu_priority()
    options.set_env(env)
    options.set_bytes_per_sync(1 << 20)
    # One thread writes, so the machinery for many only costs (5 % of a batch).
    options.set_allow_concurrent_memtable_write(False)
    options.set_max_log_file_size(INFO_LOG_BYTES)
    options.set_keep_log_file_num(INFO_LOG_FILES)
    options.set_stats_dump_period_sec(0)
    options.set_stats_persist_period_sec(0)
    # Opening must not take longer for more files.
    options.set_skip_stats_update_on_db_open(True)
    return options


def family_names(path: str) -> list[str]:
    """The column families of the database at `path`; none if there is none. Raises RocksDB's error."""
    if not os.path.exists(os.path.join(path, "CURRENT")):
        return []
    return list(Rdict.list_cf(path, Options(raw_mode=True)))


def rebuild(path: str) -> None:
    """Let RocksDB make a new MANIFEST from the table files that it can read. Raises RocksDB's error."""
    Rdict.repair(path, Options(raw_mode=True))
