"""How fast an aside is, without protocols and sockets: one process, the engine and the disk, turns of 32 operations.

    python -m loadtest.asides --items 1000000

Each line is a rate and the longest turn, in processor time of this process and on the clock. At the end: what a million
delayed items cost in memory and at the start, the first get behind very many deleted keys, and the disk after a drain.
"""

import argparse
import os
import random
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from darner_core.engines.local import aside_failures, aside_moves
from darner_core.engines.local.aside import Aside
from darner_core.engines.local.asides import find_dead
from darner_core.engines.local.compaction import Compaction
from darner_core.engines.local.due import DUE_A_TURN
from darner_core.engines.local.job_rules import NACK, JobRules
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.registry import Registry
from darner_core.engines.local.window import WindowBudget
from darner_core.storage.job_records import LOWEST, READY, AsideRecord
from darner_core.storage.storage import Storage

TURN = 32
NUMBER = 1000
BODY = b"x" * 64
SETTINGS: dict[str, Any] = {
    "max_column_families": 64,
    "block_cache_bytes": 8 << 20,
    "write_buffer_bytes": 32 << 20,
    "max_wal_bytes": 64 << 20,
    "max_open_files": 256,
}  # what a server has by default, about


class Nobody:
    """Due times are asked for here, not waited for."""

    def note(self, aside: Aside, due_ms: int) -> None: ...

    def forget(self, aside: Aside) -> None: ...


class Bench:
    def __init__(self, path: str) -> None:
        self.path = path
        self.now_s = 1e9
        self.places = 0
        self.start()

    def start(self) -> None:
        self.storage = Storage(self.path, **SETTINGS)
        self.journal = Journal(self.storage, lambda: self.now_s)
        self.registry = Registry(self.journal, WindowBudget(8 << 20))
        queue = self.registry.queues.get(b"q") or self.registry.create(b"q")
        state = self.storage.jobs.state(NUMBER)
        record = AsideRecord(NUMBER, 1)
        self.aside = Aside(queue, record, state, self.journal, Nobody(), JobRules())
        find_dead(self.journal, [self.aside])
        self.upkeep = Compaction(self.registry, self.journal, 0)
        self.end_turn()

    def end_turn(self) -> None:
        self.journal.commit()
        self.journal.begin()

    def put(self, delay_ms: int = 0, key: bytes = b"") -> None:
        self.places += 2
        self.aside.put(BODY, 0, 0, 5, self.places, delay_ms, 0, key)

    def close_one(self) -> None:
        read = self.aside.open()
        assert read is not None
        self.aside.close(read)

    def fail_one(self) -> None:
        read = self.aside.open()
        assert read is not None
        aside_failures.fail(self.aside, read, NACK, delay_ms=0)

    def rate(self, what: str, count: int, do: Callable[[], object], a_turn: int = TURN) -> None:
        begun, worked, longest = time.perf_counter(), time.process_time(), 0.0
        for _ in range(0, count, a_turn):
            turn = time.perf_counter()
            for _ in range(a_turn):
                do()
            self.end_turn()
            longest = max(longest, time.perf_counter() - turn)
        self.tell(what, count, time.perf_counter() - begun, time.process_time() - worked, longest)

    def due(self, what: str) -> None:
        self.now_s += 1000
        self.journal.begin()
        begun, worked, longest, count = time.perf_counter(), time.process_time(), 0.0, 0
        moved = 1
        while moved:
            turn = time.perf_counter()
            moved = aside_moves.move_due(self.aside, DUE_A_TURN)
            self.end_turn()
            count += moved
            longest = max(longest, time.perf_counter() - turn)
        self.tell(what, count, time.perf_counter() - begun, time.process_time() - worked, longest)

    def tell(self, what: str, count: int, took_s: float, worked_s: float, longest_s: float) -> None:
        each = f"{worked_s / count * 1e6:6.1f} us of processor each"
        print(f"{what:34}{count / took_s:10,.0f}/s   {each}   longest turn {longest_s * 1e3:6.1f} ms", flush=True)

    def compact(self) -> None:
        """What upkeep does within seconds."""
        self.aside.log.reclaim()
        self.end_turn()
        for _ in range(3):
            for job in self.upkeep.tick():
                job()
            self.end_turn()
        self.storage.flush()

    def disk_bytes(self) -> int:
        return sum(path.stat().st_size for path in Path(self.path).iterdir())


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def milliseconds(do: Callable[[], object]) -> float:
    begun = time.perf_counter()
    do()
    return (time.perf_counter() - begun) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--folder", default=None, help="where the data directory is made")
    options = parser.parse_args()
    folder = tempfile.mkdtemp(dir=options.folder)
    try:
        measure(os.path.join(folder, "data"), options.items)
    finally:
        shutil.rmtree(folder)


def measure(path: str, items: int) -> None:
    bench, chance = Bench(path), random.Random(1)
    bench.rate("put, ready", items, bench.put)
    bench.rate("open and close", items, bench.close_one)
    bench.rate("put, delayed alike", items, lambda: bench.put(1000))
    bench.due("due")
    bench.rate("take", items, bench.aside.take)
    bench.rate("put with a key", items // 4, lambda: bench.put(0, b"%d" % bench.places))
    bench.rate("open and fail", items // 4, bench.fail_one)
    bench.rate("open and close, keys", items // 4, bench.close_one)
    bench.compact()
    before = resident_bytes()
    bench.rate("put, delayed at random", items, lambda: bench.put(chance.randrange(1000, 900_000)))
    print(f"{items:,} delayed: {(resident_bytes() - before) / 1e6:.1f} MB more, with RocksDB's buffers", flush=True)
    bench.storage.flush()
    bench.storage.close()
    print(f"start with them: {milliseconds(bench.start):.0f} ms, {bench.disk_bytes() / 1e6:.0f} MB on disk", flush=True)
    print(f"earliest due: {milliseconds(lambda: aside_moves.due_ms(bench.aside)):.1f} ms", flush=True)
    bench.due("due, at random")
    bench.rate("open and close", items - 1000, bench.close_one, 100)
    bench.aside.drop_window()
    print(f"first get behind them: {milliseconds(bench.aside.peek):.2f} ms", flush=True)
    bench.storage.close()
    print(f"start: {milliseconds(bench.start):.0f} ms", flush=True)
    print(f"first get: {milliseconds(bench.aside.peek):.2f} ms", flush=True)
    from_front = milliseconds(lambda: bench.storage.jobs.places(NUMBER, READY, LOWEST, 512))
    print(f"(the first 512 places from the front: {from_front:.1f} ms)", flush=True)
    while bench.aside.take():
        pass
    bench.end_turn()
    bench.compact()
    print(f"drained: {bench.disk_bytes() / 1e6:.1f} MB on disk", flush=True)
    bench.storage.close()


if __name__ == "__main__":
    main()
