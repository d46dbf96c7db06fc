"""The service without a server: what reaches the library of what clients send."""

import random
import struct
from collections.abc import Callable

from darner_core.access.rights import ADMIN
from darner_core.errors import MalformedRequest
from darner_core.protocols.thrift.service import ThriftService
from darner_core.storage.storage import Storage
from tests.operations.test_session import House
from tests.protocols.thrift.test_calls import call, name
from tests.protocols.thrift.test_reader import field, text
from tests.support.operations_on import operations_on


def test_each_call_needs_the_right_that_its_like_needs(open_storage: Callable[[], Storage]) -> None:
    table = ThriftService(operations_on(House(open_storage))).table()
    for like, names in {
        b"put": (b"put_jobs", b"put_unique"),
        b"get": (b"get_jobs", b"peek_jobs"),
        b"abort": (b"touch", b"abort_later", b"reject"),
        b"delete_queue": (b"kick",),
    }.items():
        for call_name in names:
            assert (table[call_name].right, table[call_name].kind) == (table[like].right, table[like].kind)
    assert (table[b"pause"].right, table[b"pause"].kind) == (ADMIN, "")


def test_what_has_been_judged_sound_is_decoded_from_the_frame_alone(open_storage: Callable[[], Storage]) -> None:
    """The library believes every length: of a frame that is cut or changed nothing must reach it that makes it fail, or
    hand out memory that was never sent."""
    service = ThriftService(operations_on(House(open_storage)))
    good = call("put", name("queue") + field(15, 2, b"\x0b" + struct.pack(">i", 2) + text(b"one") + text(b"two")))[4:]
    chance = random.Random(2)
    decoded = 0
    for _ in range(20_000):
        bad = bytearray(good[: chance.choice([len(good), chance.randrange(len(good))])])
        for _ in range(chance.randrange(4)):
            if bad:
                bad[chance.randrange(len(bad))] = chance.choice([0, 1, 2, 11, 15, 127, 255, chance.randrange(256)])
        try:
            request = service.decode(bytes(bad), service.table())
        except MalformedRequest:
            continue
        arguments = getattr(request, "arguments", None)
        if arguments is not None:
            decoded += 1
            for found in [getattr(arguments, "queue_name", None) or b"", *(getattr(arguments, "items", None) or [])]:
                assert found in bad
    assert decoded > 1000
