"""The files that stand beside RocksDB's in a data directory, and what a start has to know before RocksDB opens it.

- `FORMAT` says that the directory is ours, and which version of `records` it is written in.
- `RUNNING` is there while a server runs. What is left of it tells a kill from a loss of power.
- `DAMAGED` keeps what was ever found damaged, one line each, until the directory is repaired.

RocksDB says nothing when a log that it needs is gone, and removes tables that its MANIFEST does not list. So a start
takes the lock, looks over the files, and refuses a directory that opening would make worse. This module reads and
writes files, opens no database, and never switches greenlets.
"""

import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

from darner_core import files, operating_system
from darner_core.errors import DataDirError, StorageError
from darner_core.storage import manifest, opening, records, wal

OPEN_BYTES = 1 << 20  # of free space that opening needs, beside the size of the log, which is written to tables
TOLD_BYTES = 1 << 20  # a log of this size takes so long to read that a line says so
PROBE_BYTES = 4096  # a block of most file systems
MOST_FORMAT_BYTES = 100

_MADE_BY_START = re.compile(r"\d+\.(sst|log|dbtmp)|MANIFEST-\d+|OPTIONS-\d+(\.dbtmp)?")


# -- the lock


def take_lock(lock: IO[Any], kind: int = fcntl.LOCK_EX) -> bool:
    """Lock the open file LOCK, as RocksDB does; closing the file gives the lock back. False: another process has it."""
    try:
        fcntl.lockf(lock, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def locked(path: str) -> Iterator[bool]:
    """Keep servers out of a directory. False: one has it open."""
    name = os.path.join(path, "LOCK")
    if _is_open_here(name):  # closing it here would give back the lock that this process has
        yield False
        return
    with open(name, "ab") as lock:
        yield take_lock(lock)


def _is_open_here(path: str) -> bool:
    with suppress(FileNotFoundError):
        wanted = os.stat(path)
        for descriptor in os.listdir("/dev/fd"):
            with suppress(OSError):
                if os.path.samestat(os.fstat(int(descriptor)), wanted):
                    return True
    return False


# -- what the files say


def read_format(path: str) -> bytes:
    """What FORMAT holds. Raises OSError."""
    with open(os.path.join(path, records.FORMAT_FILE), "rb") as file:
        return file.read(MOST_FORMAT_BYTES)


def require_readable_format(path: str, found: bytes) -> None:
    """Raises DataDirError if FORMAT names a version that this server does not know."""
    if found not in records.READABLE_FORMATS and records.is_format(found):
        raise DataDirError(
            f"data directory {path}: of format {found.decode().strip()!r}, which this server cannot read"
        )


def earlier_damage(path: str) -> list[str]:
    """What earlier starts found damaged, one line each. Raises OSError."""
    try:
        with open(os.path.join(path, records.DAMAGE_FILE), errors="backslashreplace") as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []


def power_was_lost(path: str) -> bool:
    """Whether the server that had the directory ended with the machine. After kill -9 alone, the system still has what
    was written."""
    left = _left_running(path)
    return left != b"" and not left.startswith(operating_system.boot_id())


def losses(path: str, found: manifest.Manifest) -> tuple[list[str], list[str]]:
    """(what damage has taken of the write-ahead log, what a crash may have taken), in lines for a person."""
    damage, torn = [], []
    left = _left_running(path)
    marked = int((re.search(records.MARKED_LOG + rb"(\d+)\n$", left) or [0, 0])[1])
    for loss in manifest.lost_logs(path, found):
        why = f"{loss.why}; what was in it is lost"
        if not loss.newest:
            damage.append(why)
        elif loss.empty and not marked:
            continue  # a server that ends leaves its newest log empty
        elif left and not power_was_lost(path) and (not loss.empty or loss.empty == marked):
            damage.append(why)
        else:
            torn.append(f"{loss.why}: it had just been begun, or it was emptied since" if loss.empty else why)
    return damage, torn


def shown_few(names: list[str]) -> str:
    """The first three names of files, and how many more there are, for a line in the log."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _left_running(path: str) -> bytes:
    """What RUNNING holds; b"" if the server that had the directory ended well."""
    try:
        with open(os.path.join(path, records.RUNNING_FILE), "rb") as file:
            return file.read() or b"?"
    except FileNotFoundError:
        return b""


# -- the directory of a running server


class DataDirectory:
    """`damage` is all that this start and earlier ones have found damaged; `torn` is what a crash had cut off before
    this start. Both are lines for a person."""

    def __init__(self, path: str, say: Callable[[str], None]) -> None:
        """`say` is told what takes long. Nothing is read or written yet."""
        self.path = path
        self.damage: list[str] = []
        self.torn: list[str] = []
        self._say = say

    # -- before RocksDB opens it

    def prepare(self) -> str:
        """Make the directory if it is missing, and see that it is ours or empty, and that RocksDB may open it. Returns
        in which of the ways of `opening` to open it. Raises DataDirError."""
        try:
            os.makedirs(self.path, exist_ok=True)
            names = set(os.listdir(self.path)) - {"lost+found", records.FORMAT_FILE + files.NEW}
            traces = records.traces(names)
            if records.FORMAT_FILE in names:
                self._check_format(read_format(self.path))
            elif traces and _may_hold_queues(self.path):
                raise self._refusal(
                    f"{_missing(records.FORMAT_FILE, traces)}; if these are queues, --repair saves them"
                )
            elif names:
                raise self._refusal("holds other files and no queues; give an empty or a new directory")
            else:
                self._write(records.FORMAT_FILE, records.FORMAT)
            self.damage += earlier_damage(self.path)
            if not traces:
                return opening.NEW
            if manifest.CURRENT not in names:
                raise self._refusal(f"{_missing(manifest.CURRENT, traces)}; {records.REPAIR_ADVICE}")
        except FileExistsError as error:
            raise self._refusal("is a file") from error
        except OSError as error:
            raise self._refusal(str(error.strerror)) from error
        return opening.POWER_LOST if power_was_lost(self.path) else opening.START

    def _check_format(self, found: bytes) -> None:
        if found in records.READABLE_FORMATS:
            return
        ours = repr(records.FORMAT.decode().strip())
        if not records.is_format(found):
            damaged = f"if the file {records.FORMAT_FILE} is damaged, --repair writes a new one"
        else:
            damaged = (
                f"if no other server ever had it, the file {records.FORMAT_FILE} is damaged: write the line "
                f"{ours} into it"
            )
        raise self._refusal(
            f"of format {' '.join(found.decode('ascii', 'replace').split())!r}, this "
            f"server reads {ours}; drain it with the server that wrote it, and start "
            f"with a new directory; {damaged}"
        )

    def look_over(self, how: str) -> None:
        """See that no file is missing that RocksDB needs, and that there is room to open it. Raises DataDirError."""
        path = self.path
        with locked(path) as is_free:
            if not is_free:
                return  # opening says that it is in use
            try:
                found = manifest.read(path)
            except manifest.Damaged as error:
                raise self._refusal(f"{error}; {records.REPAIR_ADVICE}") from error
            if how == opening.POWER_LOST:
                self.torn += opening.put_aside_behind_gap(path, found.first_log)
            damage, torn = losses(path, found)
            self.torn += torn
            missing = sorted(manifest.missing_tables(path, found))
            unlisted = sorted(manifest.unlisted_tables(path, found))
            if unlisted and (damage or missing):
                # RocksDB would remove these tables.
                gone = damage[0] if damage else f"{shown_few(missing)}: missing"
                raise self._refusal(
                    f"{gone}, and {found.name} does not list {shown_few(unlisted)}, where items may be;"
                    f" {records.REPAIR_ADVICE}"
                )
            if damage:
                self.note_damage(damage)
            names = wal.files(path, found.first_log)
            log_bytes = sum(os.path.getsize(os.path.join(path, name)) for name in names)
            if log_bytes >= TOLD_BYTES:
                self._say(f"reading the write-ahead log: {log_bytes / (1 << 20):,.1f} MiB in {len(names)} files")
            free, needed = self.free_bytes(), log_bytes + OPEN_BYTES
            if free < needed:
                raise self._refusal(_no_space(free, needed))

    def why_not_open(self, error: Exception) -> DataDirError:
        """RocksDB has not opened the directory because of `error`: what a person can do about it."""
        message = str(error)
        if "lock hold by" in message or "While lock file" in message:
            return self._refusal("in use by another server")
        if opening.is_full(message):
            return self._refusal(_no_space(self.free_bytes()))
        advice = f"; {records.REPAIR_ADVICE}" if opening.is_damage(message) else ""
        return self._refusal(f"{opening.file_named(message)}{advice}")

    def remove_what_start_made(self, before: set[str]) -> None:
        """Remove the files that a failed start has made, as on a full disk. `before`: the names of earlier files."""
        with suppress(OSError, manifest.Damaged), locked(self.path) as is_free:
            if not is_free:
                return
            found = manifest.read(self.path)
            for name in set(os.listdir(self.path)) - before:
                path = os.path.join(self.path, name)
                is_needed = name in found.tables or name == found.name
                is_log = name.endswith(wal.SUFFIX) and os.path.getsize(path)
                if _MADE_BY_START.fullmatch(name) and not is_needed and not is_log:
                    os.unlink(path)

    # -- what is noted in it. All raise OSError

    def note_format(self) -> None:
        """The directory has the newest format from now on. To be called when it is locked."""
        if read_format(self.path) != records.FORMAT:
            self._write(records.FORMAT_FILE, records.FORMAT)

    def note_running(self, mark: bytes = b"") -> None:
        """A server has the directory, and the newest log is not empty if `mark` names it."""
        self._write(records.RUNNING_FILE, operating_system.boot_id() + mark)

    def note_ended(self) -> None:
        """The server has ended, and all it has written is synced."""
        os.unlink(os.path.join(self.path, records.RUNNING_FILE))

    def note_damage(self, found: list[str]) -> None:
        """Records may be missing. Each start tells of it until the directory is repaired, and numbers are drawn at
        random until then. Raises StorageError."""
        self.damage += [finding for finding in found if finding not in self.damage]
        try:
            self._write(records.DAMAGE_FILE, "".join(f"{line}\n" for line in self.damage).encode())
        except OSError as error:
            raise StorageError(f"{self.path}/{records.DAMAGE_FILE}: {error.strerror}") from error

    def _write(self, name: str, content: bytes) -> None:
        files.write_atomically(os.path.join(self.path, name), content)

    # -- room

    def wal_bytes(self) -> int:
        """Bytes of write-ahead log on disk. Raises StorageError."""
        try:
            with os.scandir(self.path) as entries:
                return sum(_bytes_of(entry) for entry in entries if entry.name.endswith(wal.SUFFIX))
        except OSError as error:
            raise StorageError(f"data directory {self.path}: {error.strerror}") from error

    def free_bytes(self) -> int:
        """Bytes that may still be written to the file system of the directory. Raises StorageError."""
        try:
            return operating_system.free_bytes(self.path)
        except OSError as error:
            raise StorageError(f"data directory {self.path}: {error.strerror}") from error

    def takes_writes(self) -> bool:
        """Whether the file system has room for what is still in memory, and takes a write."""
        probe = os.path.join(self.path, records.RUNNING_FILE + files.NEW)
        try:
            if self.free_bytes() < self.wal_bytes():
                return False
            with open(probe, "wb") as file:
                file.write(bytes(PROBE_BYTES))
            os.unlink(probe)
        except (OSError, StorageError):
            with suppress(OSError):
                os.unlink(probe)
            return False
        return True

    def is_there(self) -> bool:
        """False while the directory is missing, as it is while its file system is not mounted."""
        return os.path.exists(os.path.join(self.path, records.FORMAT_FILE))

    def _refusal(self, why: str) -> DataDirError:
        return DataDirError(f"data directory {self.path}: {why}")


def _missing(name: str, traces: list[str]) -> str:
    return f"the file {name} is missing, {shown_few(traces)} {'is' if len(traces) == 1 else 'are'} there"


def _may_hold_queues(path: str) -> bool:
    """Whether this may be a data directory, though the file FORMAT is missing."""
    try:
        return opening.CHUNKS in manifest.read(path).families
    except manifest.Damaged:
        return True


def _bytes_of(entry: os.DirEntry[str]) -> int:
    """0 for a file that RocksDB has removed since the directory was read."""
    try:
        return entry.stat().st_size
    except FileNotFoundError:
        return 0


def _no_space(free: int, needed: int = 0) -> str:
    enough = f", about {needed / (1 << 20):,.1f} MiB are needed to open it" if needed else ""
    return f"no space left on device: {free / (1 << 20):,.1f} MiB are free{enough}; make room and start again"
