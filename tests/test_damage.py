"""Damage: bytes turned over in every kind of file. Whatever is served are bytes that were put in, in order; what is
whole is served; and a repair saves all that can be read."""

import random
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from darner_core.engines.large_items import Large
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.registry import Registry
from darner_core.engines.local.window import WindowBudget
from darner_core.errors import DataDirError, StorageError
from darner_core.storage.records import Blob
from darner_core.storage.storage import DEFAULT_FAMILY, Storage
from darner_core.storage.wal import BLOCK_BYTES
from darner_core.tools.check import check
from darner_core.tools.repair import repair
from tests.conftest import SMALL
from tests.support.damaged import CHUNK_BYTES, ITEMS, NAMES, POPPED, bodies, body, copy_of, make_directory, turn_over
from tests.support.harness import RunningServer, run_darner
from tests.support.spoiled import WAYS, make_random, spoil
from tests.tools.test_repair import quiet

KINDS = ["*.sst", "*.log", "MANIFEST-*", "CURRENT", "OPTIONS-*", "IDENTITY", "LOG", "FORMAT", "RUNNING"]
Serve = Callable[..., RunningServer]
WHOLE = range(1 + POPPED, ITEMS + 1)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("damage") / "base"
    make_directory(path)
    return path


@pytest.fixture
def serve() -> Iterator[Callable[..., RunningServer]]:
    """Start servers on a directory; they are stopped when the test ends."""
    servers: list[RunningServer] = []

    def start(directory: Path, *options: str) -> RunningServer:
        servers.append(RunningServer(directory, "--max-column-families", "4", *options))
        return servers[-1]

    yield start
    for server in servers:
        server.end()


def places(base: Path, kind: str, seed: int) -> Iterator[tuple[str, int]]:
    """(file, offset): of every file of a kind a byte somewhere, of the largest the first and the last, too."""
    chance = random.Random(f"{kind} {seed}")
    files = sorted((path.stat().st_size, path.name) for path in base.glob(kind))
    for size, name in files:
        yield name, chance.randrange(size)
    if kind in ("*.sst", "*.log", "MANIFEST-*"):
        yield name, 0
        yield name, size - 8


def served(directory: Path, told: list[str] | None = None) -> dict[bytes, tuple[list[int], str]]:
    """By queue, the numbers of the items that a server serves one after the other, and the error it ends with. What it
    says of damage is added to `told`."""
    storage = Storage(str(directory), **SMALL)
    if told is not None:
        told += storage.damage + storage.torn
    try:
        journal = Journal(storage)
        registry = Registry(journal, WindowBudget(1 << 20))
        found = {}
        for name, queue in registry.queues.items():
            numbers, error = [], ""
            try:
                while (item := queue.take()) is not None:
                    if isinstance(item, Large):
                        read = queue.open()
                        assert read is not None
                        data, flags, *_ = queue.item_of(read)
                        assert isinstance(data, Blob)
                        count = -(-len(data) // CHUNK_BYTES)
                        number = queue.log.record.number
                        whole = b"".join(storage.chunk(number, data.blob, index) for index in range(count))
                        queue.close(read)
                    else:
                        whole, flags = item[0], item[1]  # type: ignore[assignment]
                    names = NAMES if name.startswith(b"recovered-") else [name]
                    assert whole in [body(of, flags) for of in names], f"{name!r} served what was never put into it"
                    numbers.append(flags)
            except StorageError as raised:
                error = str(raised)
            assert numbers == sorted(set(numbers)), f"queue {name!r} served its items out of order: {numbers}"
            found[name] = (numbers, error)
        return found
    finally:
        storage.close()


def check_served(found: dict[bytes, tuple[list[int], str]], name: str) -> None:
    log = name.endswith(".log")
    for numbers, error in found.values():
        if not error:
            begin = 1 if log else 1 + POPPED  # the last write, of what was popped, may be the one that is lost
            assert numbers == list(range(numbers[0], ITEMS + 1)) or log
            assert numbers[0] in (begin, 1 + POPPED)
        else:
            assert "--repair" in error or "missing" in error or "Corruption" in error


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_damaged_nothing_wrong_is_served_and_a_repair_saves_the_rest(
    base: Path, tmp_path: Path, kind: str
) -> None:
    tried = list(places(base, kind, 1))
    assert tried
    for name, offset in tried:
        directory = copy_of(base, tmp_path / "data")
        turn_over(directory / name, offset)
        refused = ""
        try:
            check_served(served(directory), name)
        except (DataDirError, StorageError) as error:
            refused = str(error)
        if refused:
            assert not kind.startswith(("OPTIONS", "IDENTITY", "LOG", "*.log")), refused
            assert re.search(r"\d+\.sst|MANIFEST|CURRENT|FORMAT", refused), refused
        # As found, not as a start has left it.
        directory = copy_of(base, tmp_path / "data")
        turn_over(directory / name, offset)
        repair(str(directory), 4, quiet, quiet.progress)
        storage = Storage(str(directory), **SMALL)
        saved = {queue: [number for number, _ in bodies(storage, queue)] for queue, _ in storage.queues()}
        total = 0
        for queue, _ in storage.queues():
            for number, data in bodies(storage, queue):
                assert data in {body(name, number) for name in NAMES}
                total += 1
            assert saved[queue] == sorted(set(saved[queue]))
        storage.close()
        assert len(saved) == len(NAMES)
        if kind not in ("*.sst", "*.log"):
            assert total == len(NAMES) * len(WHOLE), f"{name} at {offset}"
        else:
            assert total >= len(NAMES) * len(WHOLE) * 0.4, f"{name} at {offset}"


def table_of(base: Path, name: bytes) -> Path:
    """The table file that holds items of this queue."""
    needle = body(name, 10)
    return next(path for path in base.glob("*.sst") if needle in path.read_bytes())


@pytest.mark.parametrize("end", ["block", "footer", "gone"])
def test_a_damaged_queue_is_named_and_the_others_are_served(serve: Serve, base: Path, tmp_path: Path, end: str) -> None:
    directory = copy_of(base, tmp_path / "data")
    table = directory / table_of(base, b"c").name
    if end == "gone":
        table.unlink()
    else:
        turn_over(table, table.read_bytes().index(body(b"c", 10)) if end == "block" else table.stat().st_size - 8)
    server = serve(directory)
    client = server.client()
    for number in WHOLE:
        assert client.get("b") == body(b"b", number)
    for request in (b"get c\r\n", b"get c/open\r\n", b"get c/peek\r\n", b"get c/t=10\r\n"):
        client.send(request)
        answer = client.line()
        assert answer.startswith(b"SERVER_ERROR queue c cannot be read: ")
        assert table.name.encode() in answer
        assert b"--repair" in answer
    client.set("b", b"new")
    assert client.get("b") == b"new"
    assert client.stats()["queue_c_damaged"] == "1"
    assert client.stats()["queues_damaged"] == "1"
    assert f"queue c cannot be read: queue number 3: Corruption: {table.name}" in server.printed() or end != "block"
    assert server.printed().count("queue c cannot be read") == 1
    client.ask(b"delete c\r\n", b"DELETED\r\n")
    client.set("c", b"from new")
    assert client.get("c") == b"from new"
    assert "queue_c_damaged" not in client.stats()
    server.kill()
    server.start()
    assert server.client().get("c") is None


def test_a_damaged_write_ahead_log_is_told_at_every_start_until_it_is_repaired(
    serve: Serve, base: Path, tmp_path: Path
) -> None:
    directory = copy_of(base, tmp_path / "data")
    log = max(directory.glob("*.log"), key=lambda path: path.stat().st_size)
    turn_over(log, log.read_bytes().index(body(b"a", 300)))
    server = serve(directory)
    for _ in range(2):
        assert f"damaged: write-ahead log {log.name}: unreadable from byte " in server.printed()
        server.kill()
        server.start()
    client = server.client()
    numbers = []
    while True:
        client.send(b"get a\r\n")
        line = client.line()
        if not line.startswith(b"VALUE"):
            break
        numbers.append(int(line.split()[2]))
        assert client.read(int(line.split()[3]) + 7)[:-7] == body(b"a", numbers[-1])
    assert line.startswith(b"SERVER_ERROR queue a cannot be read")
    assert b"missing" in line
    assert numbers == list(range(1 + POPPED, numbers[-1] + 1))
    server.kill()
    done = run_darner("--repair", "--data", str(directory))
    assert done.returncode == 1, done
    server.start()
    assert "ERROR" not in server.printed()
    client = server.client()
    saved = [client.get("a") for _ in range(int(client.stats()["queue_a_items"]))]
    assert saved == [body(b"a", number) for number in WHOLE if number > numbers[-1] and body(b"a", number) in saved]
    assert saved[-1] == body(b"a", ITEMS)


def test_a_log_that_ends_in_the_middle_of_a_write_starts_and_a_line_says_so(
    serve: Serve, base: Path, tmp_path: Path
) -> None:
    directory = copy_of(base, tmp_path / "data")
    log = max(directory.glob("*.log"), key=lambda path: path.stat().st_size)
    with open(log, "r+b") as file:
        file.truncate(log.stat().st_size - 10)
    server = serve(directory)
    assert f"WARNING write-ahead log {log.name}: unreadable from byte" in server.printed()
    assert "ERROR" not in server.printed()
    assert server.client().get("a") == body(b"a", 1)


def test_a_log_with_a_gap_that_was_never_written_is_taken_up_to_it(base: Path, tmp_path: Path) -> None:
    directory = copy_of(base, tmp_path / "data")
    log = max(directory.glob("*.log"), key=lambda path: path.stat().st_size)
    data = bytearray(log.read_bytes())
    data[65536 : 65536 + 32768] = bytes(32768)
    log.write_bytes(data)
    found = served(directory)
    lengths = {numbers[-1] for numbers, error in found.values() if not error}
    assert len(found) == len(NAMES)
    assert not any(error for _, error in found.values())
    assert min(lengths) >= ITEMS // 2
    assert max(lengths) < ITEMS
    assert max(lengths) - min(lengths) <= 1


def test_an_item_that_cannot_be_read_does_not_hide_those_before_it(base: Path, tmp_path: Path) -> None:
    directory = copy_of(base, tmp_path / "data")
    table = directory / table_of(base, b"a").name
    turn_over(table, table.read_bytes().index(body(b"a", 100)))
    numbers, error = served(directory)[b"a"]
    assert "cannot be read" in error
    assert numbers[0] == 1 + POPPED
    assert len(numbers) > 10


def test_a_new_large_item_never_takes_the_place_of_one_that_is_lost(base: Path, tmp_path: Path) -> None:
    """Chunks of an item are lost, the item that points to them is not."""
    directory = copy_of(base, tmp_path / "data")
    storage = Storage(str(directory), **SMALL)
    record = dict(storage.queues())[b"f"]
    pointed = {item[0].blob for _, item in storage.items(record, 1, ITEMS + 1) if isinstance(item[0], Blob)}
    batch = storage.batch()
    storage.remove_blobs(batch, record.number, max(pointed), max(pointed) + 1)
    storage.write(batch)
    storage.close()
    (directory / "DAMAGED").write_text("write-ahead log: damaged\n")
    for _ in range(2):
        storage = Storage(str(directory), **SMALL)
        registry = Registry(Journal(storage), WindowBudget(1 << 20))
        blob = registry.queues[b"f"].large_items.start()
        assert blob not in pointed
        pointed.add(blob)
        storage.put_chunk(record.number, blob, 0, b"another")
        storage.close()


def test_a_new_queue_never_takes_the_number_of_one_that_is_lost(base: Path, tmp_path: Path) -> None:
    """The record of a queue is lost, its items are not: they must not come out of another queue."""
    directory = copy_of(base, tmp_path / "data")
    storage = Storage(str(directory), **SMALL)
    record = dict(storage.queues())[b"f"]
    batch = storage.batch()
    batch.delete(b"qf", storage.handles[DEFAULT_FAMILY])
    storage.write(batch)
    storage.close()
    (directory / "DAMAGED").write_text("write-ahead log: damaged\n")
    storage = Storage(str(directory), **SMALL)
    journal = Journal(storage)
    registry = Registry(journal, WindowBudget(1 << 20))
    assert registry.create(b"new").log.record.number > record.number
    journal.commit()
    storage.close()
    assert served(directory)[b"new"] == ([], "")


@pytest.mark.parametrize("chunk", [0, 1])
def test_a_large_item_that_cannot_be_read_is_told_and_does_not_leave_the_queue(
    serve: Serve, base: Path, tmp_path: Path, chunk: int
) -> None:
    directory = copy_of(base, tmp_path / "data")
    server = serve(directory, "--chunk-bytes", "16 KiB")
    large = random.Random(5).randbytes(100_000)
    client = server.client()
    client.set("large", large)
    client.set("large", b"behind")
    server.stop()
    place = large[chunk * 16384 + 100 :][:50]
    table = next(path for path in directory.glob("*.sst") if place in path.read_bytes())
    turn_over(table, table.read_bytes().index(place))
    server.start()
    client, other = server.client(), server.client()
    client.send(b"get large\r\n")
    if chunk:  # the reply has begun
        assert client.line() == b"VALUE large 0 100000\r\n"
        assert client.read(100_000) == large[:16384]
        client = server.client()
        client.send(b"get large\r\n")
    for _ in range(2):
        assert client.line().startswith(b"SERVER_ERROR queue large cannot be read: Corruption: " + table.name.encode())
        client.send(b"get large/open\r\n")
    assert client.line().startswith(b"SERVER_ERROR queue large cannot be read")
    assert other.get("b") == body(b"b", 1 + POPPED)
    assert other.stats()["queue_large_items"] == "2"
    other.ask(b"delete large\r\n", b"DELETED\r\n")
    other.set("large", large)
    assert other.get("large") == large


# -- each file, spoiled in each way


# RocksDB names no file when this part of a table is damaged.
NAMELESS = "properties unsorted"


def tables_in(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in directory.glob("*.sst")}


def start_spoiled(directory: Path, name: str, whole: dict[bytes, tuple[list[int], str]], checked: list[str]) -> str:
    """Serve what a spoiled directory holds: all, or a part and it is told. Raises DataDirError or StorageError."""
    told: list[str] = []
    found = served(directory, told)
    outcome = "served"
    for queue, (numbers, _) in whole.items():
        got, why = found.get(queue, ([], ""))
        if got != numbers:
            outcome = "told"
            assert why or told, f"items of {queue!r} are lost, and nobody is told"
            assert not any(line.startswith("whole") for line in checked), "a check finds nothing"
            assert set(got) <= set(numbers) or name.endswith(".log"), f"{queue!r} serves what was taken"
    lines = [*told, *(why for _, why in found.values())]
    named = any(name in line or "missing" in line or NAMELESS in line for line in lines)
    assert outcome == "served" or named, f"what is lost is told without the file: {lines}"
    return outcome


def look_at_spoiled(directory: Path, name: str, whole: dict[bytes, tuple[list[int], str]]) -> str:
    """Start on a spoiled directory, and repair a copy of it; what has come of it."""
    copy = copy_of(directory, directory.parent / "copy")
    before = tables_in(directory)
    checked: list[str] = []
    with suppress(DataDirError):
        check(str(copy), checked.append, quiet.progress)
    refused = ""
    try:
        outcome = start_spoiled(directory, name, whole, checked)
    except DataDirError as error:
        outcome, refused = "refused", str(error)
    except StorageError as error:
        outcome, refused = "refused", f"{error}; --repair"  # `main` adds that
    if refused:
        assert name in refused or NAMELESS in refused, f"refused without the file's name: {refused}"
        if "is damaged: write the line" in refused:
            return outcome  # another version's, as far as anybody can tell
        assert "--repair" in refused, f"refused without advice: {refused}"
    repair(str(copy), 4, quiet, quiet.progress)
    told: list[str] = []
    found = served(copy, told)
    assert told == [], f"told after a repair: {told}"
    if refused and tables_in(directory) != before:  # it had opened it, and compacted
        repair(str(directory), 4, quiet, quiet.progress)
        saved = sum(len(numbers) for numbers, _ in served(directory).values())  # maybe under other names
        assert saved >= sum(len(numbers) for numbers, _ in found.values()), "a refused start has lost items"
    if not name.endswith((".sst", ".log")):
        items = {queue: numbers for queue, (numbers, _) in found.items() if numbers}
        assert items == {queue: numbers for queue, (numbers, _) in whole.items() if numbers}, "a repair has lost items"
    return outcome


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
def test_each_file_spoiled_in_each_way_is_served_told_or_refused(tmp_path: Path, seed: int) -> None:
    """About 300 damages."""
    make_random(tmp_path / "base", seed)
    whole = served(copy_of(tmp_path / "base", tmp_path / "data"))
    assert not any(error for _, error in whole.values())
    chance = random.Random(seed)
    outcomes: Counter[str] = Counter()
    faults = []
    for path in sorted((tmp_path / "base").iterdir()):
        for way in WAYS:
            # A place of its own: of a database that cannot be closed RocksDB's threads may still be at work.
            place = tmp_path / f"{path.name} {way}"
            place.mkdir()
            directory = copy_of(tmp_path / "base", place / "data")
            try:
                if not spoil(directory / path.name, way, chance):
                    continue
                outcomes[look_at_spoiled(directory, path.name, whole)] += 1
            except Exception as error:
                faults.append(f"{path.name} {way}: {type(error).__name__} {error}")
            finally:
                shutil.rmtree(place, ignore_errors=True)
    assert not faults, "\n".join([str(outcomes), *faults])
    assert outcomes.keys() == {"served", "told", "refused"}
    print(dict(outcomes))


def test_zeros_where_a_write_begins_are_told(tmp_path: Path) -> None:
    """RocksDB takes them for the end of a block."""
    storage = Storage(str(tmp_path / "made"), **SMALL)
    (log,) = (tmp_path / "made").glob("*.log")
    for number in range(4):  # a block each
        left = BLOCK_BYTES - log.stat().st_size % BLOCK_BYTES
        storage.put(0, b"%012d" % number, bytes([number + 1]) * (left - 37))
        assert log.stat().st_size % BLOCK_BYTES == 0
    directory = copy_of(tmp_path / "made", tmp_path / "data")
    storage.close()
    spoiled = directory / log.name
    data = spoiled.read_bytes()
    spoiled.write_bytes(data[: 2 * BLOCK_BYTES] + bytes(BLOCK_BYTES) + data[3 * BLOCK_BYTES :])
    storage = Storage(str(directory), **SMALL)
    assert [line for line in storage.torn if f"{log.name}: unreadable from byte {2 * BLOCK_BYTES} of" in line]
    assert [int(key) for key, _ in storage._rocks.scan(0, b"", b"\xff")] == [0, 1]
    storage.close()
