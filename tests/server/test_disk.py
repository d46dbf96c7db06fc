"""The disk as the server sees it. What comes of it in a server: test_server, test_failing_disk, test_full_disk."""

from collections.abc import Callable
from typing import Any

import pytest

from darner_core.config.queues import QueueRules
from darner_core.engines.local.journal import Journal
from darner_core.engines.local.registry import Registry
from darner_core.engines.local.window import WindowBudget
from darner_core.errors import StorageError
from darner_core.operations.stats import Stats
from darner_core.server.disk import LOOK_BYTES, Disk
from darner_core.storage.storage import Storage


class House:
    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.journal = Journal(storage)
        self.stats = Stats()
        self.refused = ""
        self.made = 0
        registry = Registry(self.journal, WindowBudget(1 << 20), 100, QueueRules())
        self.disk = Disk(storage, self.journal, registry, self.stats, 1, self._refuse, self._make)

    def _refuse(self, why: str) -> None:
        self.refused = why

    def _make(self) -> None:
        self.made += 1


@pytest.fixture
def house(open_storage: Callable[[], Storage]) -> House:
    return House(open_storage())


def test_sets_are_refused_from_a_failed_write_until_the_database_has_been_opened_again(house: House) -> None:
    house.disk.write_failed(StorageError("no space"))
    assert house.refused == "cannot write: no space"
    house.disk.look_for_room()
    assert house.refused == "cannot write: no space"
    house.disk.wait_upkeep()
    assert (house.refused, house.made) == ("", 1)
    house.disk.wait_upkeep()
    assert house.made == 1


def test_what_could_not_be_synced_is_synced_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []

    def sync() -> None:
        synced.append(1)
        if len(synced) == 1:
            raise StorageError("no")

    monkeypatch.setattr(house.storage, "sync", sync)
    house.disk.wait_sync()
    assert synced == []  # nothing was written
    house.journal.unsynced = True
    with pytest.raises(StorageError):
        house.disk.wait_sync()
    assert house.journal.unsynced
    house.disk.wait_sync()
    assert (len(synced), house.journal.unsynced) == (2, False)


@pytest.mark.parametrize("error", [StorageError("no such file"), ZeroDivisionError()])
def test_what_is_known_of_the_room_stands_if_nobody_can_look(
    house: House, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any) -> int:
        raise error

    house.refused = "no room"
    monkeypatch.setattr(house.storage, "free_bytes", fail)
    house.disk.look_for_room()
    assert house.refused == "no room"
    assert house.disk.look_at_bytes == house.stats.bytes_read + LOOK_BYTES
