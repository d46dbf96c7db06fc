"""A flush is one decision, though it may take many turns to remove what has gone."""

from collections.abc import Callable
from typing import Any

import pytest

from darner_core.config.queues import QueueOptions
from darner_core.engines.jobs import Failure
from darner_core.engines.local import aside_failures, aside_flushing, aside_moves
from darner_core.engines.local.aside_flushing import flush, owner_of_key
from darner_core.errors import StorageError
from darner_core.shared_memory import BodyMemory
from darner_core.storage.records import Blob
from darner_core.storage.rocks import CHUNK_FAMILY, STATE_FAMILY
from darner_core.storage.storage import Storage
from tests.engines.local.test_aside_leaving import put_large
from tests.support.asides import Bench, in_order
from tests.support.job_bench import JobBench

OpenStorage = Callable[[], Storage]


@pytest.fixture
def bench(open_storage: OpenStorage, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(aside_flushing, "FLUSHED_AT_ONCE", 5)
    monkeypatch.setattr(aside_moves, "FLUSHED_AT_ONCE", 5)
    return Bench(open_storage)


def fill(bench: Bench, items: int = 23) -> None:
    """Also with one that is buried, and one that is open."""
    bench.put(b"buried")
    aside_failures.bury(bench.aside, bench.opened())
    bench.put(b"open", pri=3)
    bench.opened()
    for number in range(items):
        bench.put(b"%d" % number, pri=number % 3, delay_ms=60_000 * (number % 2), key=b"key %d" % bench.puts)
    bench.end_turn()


def flush_all(bench: Bench) -> None:
    flush(bench.aside, 2 * bench.puts + 2)


def all_bodies(bench: Bench) -> list[Any]:
    return [body for order in bench.aside.orders[:3] for body in bench.bodies(order)]


def state_records(bench: Bench) -> int:
    return len(list(bench.storage._rocks.scan(STATE_FAMILY, b"", b"\xff" * 9)))


def test_what_waits_goes_in_slices_and_what_is_open_or_buried_or_comes_meanwhile_stays(bench: Bench) -> None:
    fill(bench)
    flush_all(bench)
    slices = 0
    while slices == 0 or bench.journal.slices:
        slices += 1
        bench.put(b"new", pri=1)
        bench.put(b"new", pri=1, delay_ms=50_000)
        bench.do_slice()
    bench.end_turn()
    assert slices > 5
    assert bench.bodies(bench.aside.ready) == [b"new"] * slices
    assert bench.bodies(bench.aside.delayed) == [b"new"] * slices
    assert bench.bodies(bench.aside.buried) == [b"buried"]
    assert bench.aside.open_reads == 1
    assert state_records(bench) == 1


@pytest.mark.parametrize("slices", range(8))
def test_after_a_crash_it_goes_on(bench: Bench, slices: int) -> None:
    fill(bench)
    flush_all(bench)
    bench.end_turn()
    for _ in range(slices):
        bench.do_slice()
    bench.put(b"new")
    bench.end_turn()
    bench.crash()
    assert bench.aside.item_of(bench.opened())[0] == b"open"
    bench.crash()
    bench.do_slices()
    assert all_bodies(bench) == [b"open", b"new", b"buried"]
    assert state_records(bench) == 1
    bench.crash()
    assert all_bodies(bench) == [b"open", b"new", b"buried"]


def test_little_goes_at_once(bench: Bench) -> None:
    fill(bench, items=5)
    flush_all(bench)
    bench.end_turn()
    assert not bench.journal.slices
    assert state_records(bench) == 1
    bench.crash()
    assert all_bodies(bench) == [b"open", b"buried"]


def release_what_was_open(bench: Bench) -> None:
    for held in list(bench.aside.outstanding.values()):  # a turn that failed has let it wait
        aside_failures.fail(bench.aside, held.read, "nack", delay_ms=0)


def kick(bench: Bench) -> None:
    assert aside_moves.kick(bench.aside, 1) == 1


def release_what_was_buried(bench: Bench) -> None:
    read = bench.aside.open_id(bench.aside.buried.first()[2])  # type: ignore[index]
    assert read is not None
    aside_failures.release(bench.aside, read)


def put(bench: Bench) -> None:
    bench.put(b"x")


@pytest.mark.parametrize("deed", [release_what_was_open, kick, release_what_was_buried, put])
@pytest.mark.parametrize("crashes", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_what_becomes_ready_meanwhile_stays(
    bench: Bench, deed: Callable[[Bench], None], crashes: bool, fails: bool
) -> None:
    fill(bench)
    flush_all(bench)
    bench.do_slice()
    if fails:
        deed(bench)
        bench.fail_turn(lands=True)
    deed(bench)
    bench.end_turn()
    if crashes:
        bench.crash()
    elif deed is not release_what_was_open:
        release_what_was_open(bench)
    bench.do_slices()
    assert sorted(all_bodies(bench)) == [b"buried", b"open", *[b"x"] * (deed is put)]
    assert bench.aside.buried.entries == (deed in (put, release_what_was_open))


@pytest.mark.parametrize("lands", [False, True])
@pytest.mark.parametrize("slices", range(8))
def test_a_turn_that_fails_is_made_up_for(bench: Bench, slices: int, lands: bool) -> None:
    fill(bench)
    flush_all(bench)
    bench.end_turn()
    for _ in range(slices):
        bench.do_slice()
    bench.fail_turn(lands)
    bench.do_slices()
    assert all_bodies(bench) == [b"buried"]
    bench.crash()
    assert all_bodies(bench) == [b"open", b"buried"]
    assert state_records(bench) == 1


@pytest.mark.parametrize("lands", [False, True])
def test_a_flush_that_cannot_be_written_has_not_happened(bench: Bench, lands: bool) -> None:
    fill(bench)
    before = all_bodies(bench)
    flush_all(bench)
    bench.fail_turn(lands)
    bench.do_slices()
    assert all_bodies(bench) == before
    bench.crash()
    bench.do_slices()
    assert sorted(all_bodies(bench)) == sorted([*before, b"open"])


def test_a_second_flush_takes_what_the_first_left(bench: Bench) -> None:
    fill(bench)
    flush_all(bench)
    bench.do_slice()
    kick(bench)
    fill(bench)
    release_what_was_open_first(bench)
    flush_all(bench)
    bench.end_turn()
    bench.crash()
    bench.do_slices()
    assert all_bodies(bench) == [b"open", b"buried"]


def release_what_was_open_first(bench: Bench) -> None:
    bench.aside.give_back(next(iter(bench.aside.outstanding.values())).read)


def test_what_has_gone_cannot_be_kicked_or_opened_and_has_no_key(bench: Bench) -> None:
    fill(bench)
    release_what_was_buried(bench)
    first_id = in_order(bench.aside.delayed)[0]
    flush_all(bench)
    bench.end_turn()
    assert bench.aside.open_id(first_id) is None
    assert not aside_moves.kick_id(bench.aside, first_id)
    assert aside_moves.kick(bench.aside, 3) == 0
    assert owner_of_key(bench.aside, b"key 23") == 0
    bench.put(b"again", key=b"key 23", delay_ms=1)
    bench.end_turn()
    assert owner_of_key(bench.aside, b"key 23") != 0
    bench.crash()
    assert owner_of_key(bench.aside, b"key 22") == 0
    bench.do_slices()
    assert all_bodies(bench).count(b"again") == 1


def test_a_disk_that_cannot_be_read_holds_it_up_until_it_can(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(bench)
    flush_all(bench)
    bench.do_slice()
    with monkeypatch.context() as patched:
        patched.setattr(bench.storage.jobs, "item", lambda *_: raise_it())
        bench.do_slices()
    assert bench.noted.times[-1] == bench.now_ms + aside_flushing.RETRY_MS
    aside_moves.move_due(bench.aside, 10)
    bench.do_slices()
    assert all_bodies(bench) == [b"buried"]


def raise_it() -> None:
    raise StorageError("it cannot be read")


def test_the_chunks_of_a_large_item_go_with_it(bench: Bench) -> None:
    put_large(bench)
    flush_all(bench)
    bench.end_turn()
    assert bench.storage.first_chunk() is None
    assert bench.aside.is_empty


def blobs(bench: JobBench) -> set[int]:
    """Of which there are chunks."""
    assert bench.storage is not None
    return {int.from_bytes(key[4:12]) for key, _ in bench.storage._rocks.scan(CHUNK_FAMILY, b"", b"\xff" * 40)}


class Large:
    """A queue with large items: in its line one that waits, one that is open and one on its way, and aside of it one
    that is ready and one that is buried; and a small one that is buried, too."""

    def __init__(self, open_storage: OpenStorage) -> None:
        self.bench = JobBench(open_storage, q=QueueOptions(max_deliveries=2))
        self.bench.put_large(b"q", b"open" * 300)
        self.bench.put_large(b"q", b"buried" * 200)
        self.bench.put_large(b"q", b"ready" * 300)
        self.open = self.bench.opened()
        buried, failed = self.bench.opened(), self.bench.opened()
        self.bench.jobs.reject(buried)
        self.bench.jobs.fail(failed, Failure.ABORTED)
        self.bench.put_large(b"q", b"waits" * 300)
        for number in range(9):
            self.bench.put_job(b"q", b"%d" % number, pri=5)
            self.bench.jobs.reject(self.bench.opened())
        self.bench.end_turn()
        targets = self.bench.routing.targets((b"q",), 900)
        assert targets is not None
        (self.target,) = targets
        self.upload = self.target.queue.large_items.receive(400, BodyMemory(1 << 20, lambda: None))
        self.upload.add(b"c" * 400)
        self.bench.end_turn()

    def finish_upload(self) -> None:
        self.upload.add(b"c" * 400)
        self.upload.add(b"c" * 100)
        self.upload.finish()
        self.bench.queue().put_until(Blob(self.upload.blob, 900), 0, 0)

    def slice(self) -> None:
        self.bench.end_turn()
        for _ in range(len(self.bench.journal.slices)):
            piece = self.bench.journal.slices.popleft()
            for _ in piece:
                self.bench.journal.slices.append(piece)
                break


@pytest.mark.parametrize("crashes_after", [None, 0, 1, 2, 3])
def test_the_chunks_of_large_items_of_the_line_go_in_slices(
    open_storage: OpenStorage, monkeypatch: pytest.MonkeyPatch, crashes_after: int | None
) -> None:
    monkeypatch.setattr(aside_flushing, "FLUSHED_AT_ONCE", 4)
    monkeypatch.setattr(aside_flushing, "RANGES_AT_ONCE", 1)
    large = Large(open_storage)
    bench = large.bench
    assert blobs(bench) == {1, 2, 3, 4, 5}  # open, buried, ready, waiting, coming
    bench.registry.flush(b"q")
    bench.end_turn()
    assert bench.journal.slices
    large.slice()
    large.finish_upload()
    bench.put_large(b"q", b"new" * 400)
    bench.jobs.fail(large.open, Failure.ABORTED)  # it goes aside
    if crashes_after is not None:
        for _ in range(crashes_after):
            large.slice()
        bench.end_turn()
        bench.crash()
        bench.put_large(b"q", b"newer" * 300)
    bench.do_slices()
    assert blobs(bench) == {1, 2, 5, 6, *([7] if crashes_after is not None else [])}
    assert bench.registry.asides.by_queue[bench.queue()].flushing is None


def test_numbers_of_large_items_are_not_used_again_before_a_flush_has_ended(open_storage: OpenStorage) -> None:
    bench = JobBench(open_storage)
    bench.put_job(b"q", b"buried", pri=1)
    bench.jobs.reject(bench.opened())
    bench.put_large(b"q", b"x" * 900)
    bench.put_large(b"q", b"y" * 900)
    for _ in range(2):
        read = bench.opened()
        read.queue.close(read)
    bench.registry.flush(b"q")
    bench.end_turn()
    bench.crash()
    bench.put_large(b"q", b"new" * 400)
    bench.do_slices()
    read = bench.opened()
    assert blobs(bench) == {read.blob}


def test_a_queue_in_memory_is_flushed_likewise(open_storage: OpenStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside_flushing, "FLUSHED_AT_ONCE", 5)
    bench = Bench(open_storage, durable=False)
    fill(bench)
    flush_all(bench)
    bench.do_slice()
    bench.fail_turn()
    bench.do_slices()
    assert all_bodies(bench) == [b"buried"]
    assert state_records(bench) == 0
