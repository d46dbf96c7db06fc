"""Bodies in chunks, over a real storage: what is kept, what goes, and what a crash leaves behind."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from darner_core.engines.local import large_items
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.large_items import LargeItems
from darner_core.engines.local.registry import Registry
from darner_core.engines.local.window import WindowBudget
from darner_core.errors import StorageError
from darner_core.storage.storage import Storage

QUEUE, OTHER = 7, 8  # two queues' numbers

OpenStorage = Callable[[], Storage]


class Disk:
    """One data directory, and the turn that changes it."""

    def __init__(self, open_storage: OpenStorage) -> None:
        self._open = open_storage
        self.storage = open_storage()
        self.journal = Journal(self.storage)

    def restart(self) -> None:
        """As after a crash: what was not committed is lost."""
        self.storage.close()
        self.storage = self._open()
        self.journal = Journal(self.storage)

    def large_items(self, number: int = QUEUE) -> LargeItems:
        return LargeItems(self.journal, number)

    def receive(self, items: LargeItems, *chunks: bytes, number: int = QUEUE) -> int:
        """Begin a large item and store these chunks of it; its blob."""
        blob = items.start()
        for index, chunk in enumerate(chunks):
            self.storage.put_chunk(number, blob, index, chunk)
        return blob

    def stored(self, items: LargeItems, *chunks: bytes, number: int = QUEUE) -> int:
        """A large item that was received and committed; its blob."""
        blob = self.receive(items, *chunks, number=number)
        items.finish(blob)
        self.journal.commit()
        return blob

    def chunks(self, blob: int, number: int = QUEUE) -> list[bytes]:
        """What is on disk of this large item."""
        found: list[bytes] = []
        while True:
            try:
                found.append(self.storage.chunk(number, blob, len(found)))
            except StorageError:
                return found

    @contextmanager
    def failing(self, call: str) -> Iterator[None]:
        """The disk refuses this call of the storage."""

        def refuse(*_: object) -> None:
            raise StorageError("no space left on device")

        with pytest.MonkeyPatch.context() as broken:
            broken.setattr(self.storage, call, refuse)
            yield


@pytest.fixture
def disk(open_storage: OpenStorage) -> Disk:
    return Disk(open_storage)


# -- receiving


def test_what_was_received_is_there_after_a_restart_and_no_longer_noted_as_coming(disk: Disk) -> None:
    items = disk.large_items()
    blob = disk.receive(items, b"one", b"two")
    assert disk.storage.unfinished_uploads() == [(QUEUE, blob)]
    items.finish(blob)
    disk.journal.commit()
    disk.restart()
    assert disk.chunks(blob) == [b"one", b"two"]
    assert disk.storage.unfinished_uploads() == []


def test_every_large_item_has_a_blob_of_its_own_also_after_a_restart(disk: Disk) -> None:
    items = disk.large_items()
    blobs = [disk.stored(items, b"x"), disk.stored(items, b"x"), disk.receive(items, b"x")]
    disk.restart()
    blobs += [disk.large_items().start()]
    assert len(set(blobs)) == 4
    assert min(blobs) >= 1  # 0 says "not large" of an open read


def test_queues_number_their_blobs_apart(disk: Disk) -> None:
    items, others = disk.large_items(), disk.large_items(OTHER)
    ours, theirs = disk.stored(items, b"ours"), disk.stored(others, b"theirs", number=OTHER)
    items.remove(ours, ours + 1, 4)
    disk.journal.commit()
    assert disk.chunks(ours) == []
    assert disk.chunks(theirs, OTHER) == [b"theirs"]


def test_a_crash_before_the_end_leaves_a_note_by_which_the_next_start_cleans_up(disk: Disk) -> None:
    items = disk.large_items()
    whole = disk.stored(items, b"whole")
    cut_off = disk.receive(items, b"half")
    disk.restart()
    assert disk.storage.unfinished_uploads() == [(QUEUE, cut_off)]
    assert disk.chunks(cut_off) == [b"half"]
    Registry(disk.journal, WindowBudget(1 << 20))
    disk.journal.commit()
    assert disk.chunks(cut_off) == []
    assert disk.chunks(whole) == [b"whole"]
    assert disk.storage.unfinished_uploads() == []


def test_a_crash_before_the_turn_of_the_last_chunk_is_written_is_a_crash_before_the_end(disk: Disk) -> None:
    items = disk.large_items()
    blob = disk.receive(items, b"all of it")
    items.finish(blob)
    disk.restart()
    assert disk.storage.unfinished_uploads() == [(QUEUE, blob)]


def test_what_a_client_does_not_finish_is_dropped_at_once(disk: Disk) -> None:
    items = disk.large_items()
    kept, dropped, coming = disk.stored(items, b"kept"), disk.receive(items, b"half"), disk.receive(items, b"some")
    items.drop(dropped, 4)
    disk.journal.commit()
    assert disk.chunks(dropped) == []
    assert disk.chunks(kept) == [b"kept"]
    assert disk.chunks(coming) == [b"some"]
    assert disk.storage.unfinished_uploads() == [(QUEUE, coming)]


# -- removing


def test_nothing_is_removed_before_the_turn_is_written(disk: Disk) -> None:
    items = disk.large_items()
    blob = disk.stored(items, b"x")
    items.remove(blob, blob + 1, 1)
    assert disk.chunks(blob) == [b"x"]
    disk.journal.commit()
    assert disk.chunks(blob) == []


def test_a_range_is_removed_without_its_end(disk: Disk) -> None:
    items = disk.large_items()
    first, second, third = (disk.stored(items, b"a", b"b") for _ in range(3))
    items.remove(first, third, 4)
    disk.journal.commit()
    assert [disk.chunks(blob) for blob in (first, second, third)] == [[], [], [b"a", b"b"]]


@pytest.mark.parametrize("keep", [[], [0], [5], [0, 5], [4, 5], [0, 1, 2, 3, 4, 5], [2]])
def test_all_go_but_those_that_are_kept_and_those_that_are_coming(disk: Disk, keep: list[int]) -> None:
    items = disk.large_items()
    blobs = [disk.stored(items, b"%d" % number) for number in range(3)]
    coming = disk.receive(items, b"coming")
    blobs += [disk.stored(items, b"%d" % number) for number in range(3, 6)]
    # The 0 is what an open read of a small item says of its blob.
    items.remove_all_but({0} | {blobs[index] for index in keep}, 6)
    disk.journal.commit()
    assert [index for index, blob in enumerate(blobs) if disk.chunks(blob)] == keep
    assert disk.chunks(coming) == [b"coming"]
    assert disk.storage.unfinished_uploads() == [(QUEUE, coming)]


def test_one_that_has_come_is_removed_like_all_others(disk: Disk) -> None:
    items = disk.large_items()
    blob = disk.stored(items, b"x")
    items.remove_all_but(set(), 1)
    disk.journal.commit()
    assert disk.chunks(blob) == []


def test_what_comes_after_everything_was_removed_is_kept(disk: Disk) -> None:
    items = disk.large_items()
    disk.stored(items, b"x")
    items.remove_all_but(set(), 1)
    blob = disk.stored(items, b"new")
    assert disk.chunks(blob) == [b"new"]
    disk.restart()
    assert disk.chunks(blob) == [b"new"]


def test_removed_chunks_are_reported_as_space_to_be_given_back(disk: Disk) -> None:
    items, others = disk.large_items(), disk.large_items(OTHER)
    first, second = disk.stored(items, b"x"), disk.stored(items, b"y")
    theirs = disk.stored(others, b"z", number=OTHER)
    items.remove(first, first + 1, 100)
    items.remove(second, second + 1, 200)
    others.remove(theirs, theirs + 1, 50)
    disk.journal.commit()
    assert sorted(dead.dead_bytes for dead in disk.journal.dead.ranges.values()) == [50, 300]


def test_a_dropped_item_is_reported_as_space_to_be_given_back_too(disk: Disk) -> None:
    items = disk.large_items()
    blob = disk.receive(items, bytes(50_000), bytes(50_000))
    items.drop(blob, 100_000)
    disk.journal.commit()
    assert sum(dead.dead_bytes for dead in disk.journal.dead.ranges.values()) >= 100_000


# -- a disk that fails


def test_a_removal_that_cannot_be_written_has_not_happened(disk: Disk) -> None:
    items = disk.large_items()
    blob = disk.stored(items, b"x")
    items.remove(blob, blob + 1, 1)
    with disk.failing("write"), pytest.raises(StorageError):
        disk.journal.commit()
    disk.journal.commit()
    assert disk.chunks(blob) == [b"x"]


def test_an_item_whose_end_cannot_be_written_is_cleaned_up_by_the_next_start(disk: Disk) -> None:
    items = disk.large_items()
    blob = disk.receive(items, b"x")
    items.finish(blob)
    with disk.failing("write"), pytest.raises(StorageError):
        disk.journal.commit()
    assert disk.storage.unfinished_uploads() == [(QUEUE, blob)]


def test_an_item_that_cannot_be_begun_is_refused_and_the_next_is_not(disk: Disk) -> None:
    items = disk.large_items()
    with disk.failing("start_upload"), pytest.raises(StorageError):
        items.start()
    blob = disk.stored(items, b"x")
    assert disk.chunks(blob) == [b"x"]


def test_who_writes_very_much_waits_until_the_disk_has_caught_up_but_not_for_ever() -> None:
    behind = [True, True, False]
    waits: list[float] = []
    storage: Any = SimpleNamespace(is_behind=lambda: behind.pop(0))
    large_items.wait_not_behind(storage, waits.append)
    assert len(waits) == 2
    storage.is_behind = lambda: True
    waits.clear()
    large_items.wait_not_behind(storage, waits.append)
    assert 1 < sum(waits) < 3
