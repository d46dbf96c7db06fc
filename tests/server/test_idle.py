"""Who has been silent for too long, by a clock of our own."""

from operator import attrgetter
from typing import Any, cast

import pytest

from darner_core.server import idle
from darner_core.server.idle import Timeouts

BODY_S, IDLE_S = 10, 100


class Client:
    def __init__(self, fd: int = 5) -> None:
        self.fd = fd
        self.silence: int | None = 0
        self.progress: int | None = None
        self.idle = True


@pytest.fixture(autouse=True)
def shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """What these clients show, they have as attributes."""
    for sign, attribute in (("progress", "progress"), ("is_idle", "idle"), ("silence", "silence")):
        monkeypatch.setattr(idle, sign, attrgetter(attribute))


class Watch:
    """The timeouts, at a time that we tell."""

    def __init__(self, body_timeout_s: int = BODY_S, idle_timeout_s: int = IDLE_S, client_timeout_s: int = 0) -> None:
        self._now_s = 0.0
        self._timeouts = Timeouts(body_timeout_s, idle_timeout_s, client_timeout_s, lambda: self._now_s)
        self.forget = self._timeouts.forget

    def at(self, now_s: float, *clients: Client, heard: tuple[int, ...] = ()) -> tuple[list[Client], list[Client]]:
        self._now_s = now_s
        stalled, idle, self.silent = self._timeouts.look(cast(Any, clients), heard)
        return cast("tuple[list[Client], list[Client]]", (stalled, idle))


def test_who_stops_half_way_is_named_after_its_time() -> None:
    watch, client = Watch(), Client()
    client.progress = 7
    assert watch.at(0, client) == ([], [])
    assert watch.at(9.9, client) == ([], [])
    assert watch.at(10, client) == ([client], [])


def test_a_byte_is_enough_to_go_on() -> None:
    watch, client = Watch(), Client()
    for second in range(0, 100, 9):
        client.progress = second
        assert watch.at(second, client) == ([], [])


def test_who_has_ended_its_request_begins_anew_with_the_next() -> None:
    watch, client = Watch(), Client()
    client.progress = 7
    watch.at(0, client)
    client.progress = None
    watch.at(9, client)
    client.progress = 7
    assert watch.at(11, client) == ([], [])
    assert watch.at(21, client) == ([client], [])


def test_who_is_silent_and_idle_is_named_after_its_time() -> None:
    watch, client, busy = Watch(), Client(), Client(6)
    busy.idle = False
    watch.at(0, client, busy)
    assert watch.at(99, client, busy) == ([], [])
    assert watch.at(100, client, busy) == ([], [client])


def test_who_asks_or_waits_meanwhile_is_not() -> None:
    watch, asks, waits = Watch(), Client(5), Client(6)
    watch.at(0, asks, waits)
    waits.idle = False
    assert watch.at(60, asks, waits, heard=(5, 9)) == ([], [])
    waits.idle = True
    assert watch.at(120, asks, waits) == ([], [])
    assert watch.at(220, asks, waits) == ([], [asks, waits])


def test_never_is_never() -> None:
    client = Client()
    client.progress = 7
    watch = Watch(0, 0)
    watch.at(0, client)
    assert watch.at(1e9, client) == ([], [])


def test_a_client_that_is_forgotten_is_a_new_one() -> None:
    watch, client = Watch(), Client()
    watch.at(0, client)
    watch.forget(cast(Any, client))
    assert watch.at(100, client) == ([], [])


def test_who_is_silent_is_named_whatever_it_holds() -> None:
    watch, holder, asks = Watch(0, 0, 50), Client(5), Client(6)
    holder.idle = asks.idle = False
    for second in range(0, 50, 7):
        watch.at(second, holder, asks, heard=(6,))
        assert cast(Any, watch.silent) == []
    watch.at(50, holder, asks)
    assert cast(Any, watch.silent) == [holder]
    watch.at(99, asks)
    assert cast(Any, watch.silent) == []
    watch.at(100, asks)
    assert cast(Any, watch.silent) == [asks]


def test_who_waits_for_the_server_or_takes_what_it_is_sent_is_not_silent() -> None:
    watch, waits, takes = Watch(0, 0, 50), Client(5), Client(6)
    waits.silence = None
    for second in range(0, 300, 10):
        takes.silence = 1000 - second
        watch.at(second, waits, takes)
        assert cast(Any, watch.silent) == []
    waits.silence = 0
    watch.at(300, waits)
    watch.at(349, waits)
    assert cast(Any, watch.silent) == []
    watch.at(350, waits)
    assert cast(Any, watch.silent) == [waits]
