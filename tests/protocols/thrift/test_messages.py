"""What the thrift library makes of our messages, read back by its other implementation, the one in Python."""

from typing import Any

import pytest
from thriftpy2.protocol.binary import TBinaryProtocol
from thriftpy2.thrift import TApplicationException
from thriftpy2.transport.memory import TMemoryBuffer

from darner_core.errors import MalformedRequest, RequestError, ServerError
from darner_core.protocols.thrift.messages import decode, encode, error_reply, hands_over, load_idl
from darner_core.protocols.thrift.reader import REPLY

IDL = load_idl()


def read(frame: bytes, struct: Any) -> tuple[str, int, int]:
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    protocol = TBinaryProtocol(TMemoryBuffer(frame[4:]))
    name, kind, sequence = protocol.read_message_begin()
    struct.read(protocol)
    return name, kind, sequence


def test_a_reply_is_read_back() -> None:
    got = IDL.Kestrel.get_result(success=[IDL.Item(data=b"\0\xff", id=2**60), IDL.Item(data=b"", id=0)])
    found = IDL.Kestrel.get_result()
    frame = encode(b"get", REPLY, 7, got)
    assert read(frame, found) == ("get", 2, 7)
    assert [(item.data, item.id) for item in found.success] == [(b"\0\xff", 2**60), (b"", 0)]
    assert hands_over(frame)
    assert hands_over(encode(b"get_jobs", REPLY, 7, IDL.Kestrel.get_jobs_result(success=[])))
    assert not hands_over(encode(b"get_version", REPLY, 7, IDL.Kestrel.get_version_result(success="1")))
    assert not hands_over(encode(b"put", REPLY, 7, IDL.Kestrel.put_result(success=1)))
    assert not hands_over(error_reply(ServerError("no"), b"get", 7))


@pytest.mark.parametrize(("error", "kind"), [(MalformedRequest("é"), 7), (ServerError("é"), 6)])
def test_an_error_is_read_back(error: RequestError, kind: int) -> None:
    found = TApplicationException()
    assert read(error_reply(error, b"put", 3), found) == ("put", 3, 3)
    assert (found.type, found.message) == (kind, "é")
    assert read(error_reply(error), TApplicationException()) == ("", 3, 0)


def test_arguments_are_decoded_as_bytes() -> None:
    sent = TMemoryBuffer()
    IDL.Kestrel.put_args(queue_name="q", items=[b"a", b"\xff"], expiration_msec=5).write(TBinaryProtocol(sent))
    found = IDL.Kestrel.put_args()
    decode(sent.getvalue(), found)
    assert (found.queue_name, found.items, found.expiration_msec) == (b"q", [b"a", b"\xff"], 5)


def test_what_kestrels_clients_know_is_written_as_ever() -> None:
    """They have their own copy of the IDL."""
    item, info = IDL.Item(data=b"a", id=5), IDL.QueueInfo(items=1, bytes=2, journal_bytes=3, age=4, waiters=5)
    asked, end = bytes.fromhex("0b00010000000171"), "00"
    written = {
        "put": (asked.hex() + "0f00020b000000010000000161" + "08000300000005", "080000" + "00000001"),
        "get": (asked.hex() + "08000200000003" + "08000300000004" + "08000400000005",
                "0f00000c00000001" + "0b00010000000161" + "0a00020000000000000005" + end),
        "confirm": (asked.hex() + "0e00020a000000010000000000000005", "08000000000001"),
        "abort": (asked.hex() + "0e00020a000000010000000000000005", "08000000000001"),
        "peek": (asked.hex(), "0c0000" + "0a0002" + "01".zfill(16) + "0a0003" + "02".zfill(16) + "0a0004"
                 + "03".zfill(16) + "0a0005" + "04".zfill(16) + "080006" + "05".zfill(8) + end),
        "flush_queue": (asked.hex(), ""),
        "delete_queue": (asked.hex(), ""),
        "set_status": ("08000100000002", ""),
        "current_status": ("", "08000000000003"),
    }  # fmt: skip
    values: dict[str, dict[str, Any]] = {
        "put": {"items": [b"a"], "expiration_msec": 5},
        "get": {"max_items": 3, "timeout_msec": 4, "auto_abort_msec": 5},
        "confirm": {"ids": {5}},
        "abort": {"ids": {5}},
        "set_status": {"status": IDL.Status.READ_ONLY},
    }
    answers = {"put": 1, "get": [item], "confirm": 1, "abort": 1, "peek": info, "current_status": IDL.Status.UP}
    for method, (call, reply) in written.items():
        named = {} if "status" in method else {"queue_name": "q"}
        arguments = getattr(IDL.Kestrel, f"{method}_args")(**named, **values.get(method, {}))
        success = {"success": answers[method]} if method in answers else {}
        result = getattr(IDL.Kestrel, f"{method}_result")(**success)
        for kind, struct, expected in ((1, arguments, call), (REPLY, result, reply)):
            head = f"800100{kind:02x}{len(method):08x}{method.encode().hex()}{7:08x}"
            assert encode(method, kind, 7, struct)[4:].hex() == head + expected + end
