"""Thrift messages, encoded and decoded by the library, which no other module knows. It reads the IDL and works from
memory to memory, without sockets. It is given only what `reader` has found sound.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import thriftpy2
from thriftpy2.protocol.cybin import TCyBinaryProtocol
from thriftpy2.thrift import TApplicationException
from thriftpy2.transport.memory import TCyMemoryBuffer

from darner_core.config.listeners import THRIFT
from darner_core.errors import MalformedRequest, RequestError
from darner_core.protocols.contract import Request, Traits
from darner_core.protocols.thrift.reader import EXCEPTION, REPLY

IDL = Path(__file__).with_name("kestrel.thrift")

INTERNAL_ERROR = TApplicationException.INTERNAL_ERROR
PROTOCOL_ERROR = TApplicationException.PROTOCOL_ERROR
UNKNOWN_METHOD = TApplicationException.UNKNOWN_METHOD


@dataclass(slots=True)
class ThriftRequest(Request):
    sequence: int = 0
    arguments: Any = None


class Encoded(bytes):
    """A frame that is the reply, or the rest of one that has been sent in part."""


# Stands in a reply for the body of a large item while the reply is encoded; nothing else in such a reply looks like it.
BODY = b"\x00the large item\x00"


def load_idl() -> Any:
    """What the library makes of the IDL: its module, with a class for each struct."""
    return thriftpy2.load(str(IDL), module_name="kestrel_thrift")


def encode(method: str | bytes, kind: int, sequence: int, struct: Any) -> bytes:
    """A message in its frame."""
    buffer = TCyMemoryBuffer()
    protocol = TCyBinaryProtocol(buffer)
    protocol.write_message_begin(method, kind, sequence)
    protocol.write_struct(struct)
    message: bytes = buffer.getvalue()
    return len(message).to_bytes(4, "big") + message


class Idl:
    """kestrel.thrift, by which calls are decoded and replies encoded."""

    def __init__(self) -> None:
        self.module = load_idl()
        self.service = self.module.Kestrel

    def arguments(self, method: bytes) -> Any:
        """The struct for the arguments of a call, empty."""
        return getattr(self.service, f"{method.decode()}_args")()

    def reply(self, request: ThriftRequest, value: Any) -> Encoded:
        """The frame that answers `value`, unless that is a frame already."""
        if isinstance(value, Encoded):
            return value
        result = getattr(self.service, f"{request.verb.decode()}_result")()
        if value is not None:
            result.success = value
        return Encoded(encode(request.verb, REPLY, request.sequence, result))

    def around(self, request: ThriftRequest, value: Any, size: int) -> tuple[bytes, Encoded]:
        """The frame that answers `value`, in which BODY stands for a body of `size` bytes: what comes before the body,
        and what comes behind it."""
        before, _, after = self.reply(request, value).partition(BODY)
        frame_bytes = len(before) - 4 + size + len(after)
        return frame_bytes.to_bytes(4, "big") + before[4:-4] + size.to_bytes(4, "big"), Encoded(after)


def decode(data: bytes, struct: Any) -> None:
    """Fill `struct` from `data`, which `reader.check_arguments` has judged to be sound."""
    TCyBinaryProtocol(TCyMemoryBuffer(data), decode_response=False).read_struct(struct)


def exception(kind: int, text: str, method: bytes, sequence: int) -> bytes:
    """The frame that answers a call with an exception."""
    return encode(method, EXCEPTION, sequence, TApplicationException(kind, text))


def error_reply(error: RequestError, method: bytes = b"", sequence: int = 0) -> bytes:
    kind = PROTOCOL_ERROR if isinstance(error, MalformedRequest) else INTERNAL_ERROR
    return exception(kind, str(error), method, sequence)


# Replies with items, as their frames begin behind the length: version and kind, the length of the name, the name.
_GOT = (b"\x80\x01\x00\x02\x00\x00\x00\x03get", b"\x80\x01\x00\x02\x00\x00\x00\x08get_jobs")


def hands_over(reply: bytes) -> bool:
    return reply.startswith(_GOT, 4)


TRAITS = Traits(THRIFT, error_reply=error_reply, hands_over=hands_over)
