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
