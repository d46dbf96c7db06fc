"""How many clients the file descriptors leave room for. What comes of it: tests/test_limits.py."""

import resource

import pytest

from darner_core.errors import StartError
from darner_core.server.descriptors import MAX_KNOCKING, MAX_TURNED_AWAY, RESERVED_DESCRIPTORS, room_for_clients

FILES = 100
BESIDE = FILES + RESERVED_DESCRIPTORS + MAX_TURNED_AWAY + MAX_KNOCKING
Limits = tuple[int, int]


class Process:
    """Stands for this process and its limits."""

    def __init__(self, limits: Limits, monkeypatch: pytest.MonkeyPatch) -> None:
        self.limits = limits
        monkeypatch.setattr(resource, "getrlimit", lambda _: self.limits)
        monkeypatch.setattr(resource, "setrlimit", self._set)

    def _set(self, _: int, limits: Limits) -> None:
        assert limits[0] <= limits[1] or limits[1] == resource.RLIM_INFINITY
        self.limits = limits


@pytest.mark.parametrize(
    ("limits", "room", "soft"),
    [
        ((BESIDE + 50, BESIDE + 50), 50, BESIDE + 50),
        ((50, BESIDE + 50), 50, BESIDE + 50),  # raised as far as it may be
        ((50, BESIDE + 5000), 1000, BESIDE + 1000),  # and as far as is needed
        ((50, resource.RLIM_INFINITY), 1000, BESIDE + 1000),
        ((BESIDE + 5000, BESIDE + 5000), 1000, BESIDE + 5000),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), 1000, resource.RLIM_INFINITY),
    ],
)
def test_clients_get_what_the_disk_does_not_need(
    limits: Limits, room: int, soft: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(limits, monkeypatch)
    assert room_for_clients(1000, FILES) == room
    assert process.limits[0] == soft


def test_no_room_at_all_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    Process((50, BESIDE), monkeypatch)
    with pytest.raises(StartError, match=f"too few file descriptors: {BESIDE}, .*ulimit -n.*max_open_files"):
        room_for_clients(1000, FILES)
