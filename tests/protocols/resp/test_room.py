"""How large a reply of RESP may be."""

from darner_core.protocols.resp.room import SCARCE_REPLY_BYTES, ReplyRoom
from darner_core.shared_memory import PipelineMemory


def test_a_reply_is_as_large_as_is_asked_or_small_while_memory_is_short() -> None:
    memory = PipelineMemory(10_000)
    room = ReplyRoom(memory)
    assert room.most(1 << 20) == 1 << 20
    memory.used_bytes = 10_001
    assert (room.most(1 << 20), room.most(100)) == (SCARCE_REPLY_BYTES, 100)
