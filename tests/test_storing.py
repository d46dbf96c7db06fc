"""Putting items, as a client sees it, beyond the recorded conversations of tests/wire."""

from collections.abc import Callable

import pytest

from darner_core.commands import Commands
from darner_core.config import Config
from darner_core.dialects import DIALECTS
from darner_core.protocol import RequestReader
from darner_core.queue_options import QueueRules
from darner_core.stats import Stats
from darner_core.storage import Storage
from tests.harness import Client
from tests.test_session import House

Connect = Callable[[], Client]


def test_flags_come_back_whatever_they_are(connect: Connect) -> None:
    client = connect()
    for flags in (0, 1, 65535, 2**32 - 1, 0):
        client.set("q", b"x", flags)
        client.ask(b"get q\r\n", b"VALUE q %d 1\r\nx\r\nEND\r\n" % flags)


def test_an_expiry_is_taken_in_every_form_memcached_has(connect: Connect) -> None:
    client = connect()
    for expiry in (b"0", b"60", b"999999", b"1893456000", b"99999999999"):
        client.ask(b"set q 0 " + expiry + b" 1\r\nx\r\n", b"STORED\r\n")
        assert client.get("q") == b"x"
    for expiry in (b"-1", b"-9223372036854775808", b"1000000", b"1600000000"):
        client.ask(b"set q 0 " + expiry + b" 1\r\nx\r\n", b"STORED\r\n")
        assert client.get("q") is None


@pytest.mark.parametrize(
    ("dialect", "name", "waits"),
    [
        ("darner", b"plain", False),
        ("darner", b"plain/sync", True),
        ("darner", b"safe", True),
        ("darner", b"everyone", True),
        ("kestrel", b"parent", True),
        ("kestrel", b"parent+other", False),
        ("siberite", b"plain+other", False),
        ("siberite", b"plain+safe", True),
    ],
)
def test_a_set_waits_for_the_disk_if_a_queue_that_it_goes_into_says_so(
    open_storage: Callable[[], Storage], dialect: str, name: bytes, waits: bool
) -> None:
    house = House(open_storage)
    house.registry.set_rules(QueueRules(queues={b"safe": {"sync": "always"}, b"parent+kept": {"sync": "always"}}))
    house.registry.create_named()
    commands = Commands(house.registry, house.journal, Stats(), Config())
    commands.delivery.set_aliases({b"everyone": (b"plain", b"safe")})
    reader = RequestReader(commands.table(DIALECTS[dialect]), {}, 1000, 1000, DIALECTS[dialect])
    for _ in range(2):  # the first makes queues
        session = house.session()
        for request, body in reader.feed(b"set %b 0 0 1\r\nx\r\n" % name):
            assert request.run(request, body, session) == b"STORED\r\n"
        house.turn()
        assert session.needs_sync == waits
