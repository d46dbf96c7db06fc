"""How large a reply of RESP may be."""

from pathlib import Path

import pytest

from darner_core.protocols.resp.room import SCARCE_REPLY_BYTES, ReplyRoom
from darner_core.shared_memory import PipelineMemory
from tests.support.harness import wait_until
from tests.support.resp_clients import RespServer, said


def test_a_reply_is_as_large_as_is_asked_or_small_while_memory_is_short() -> None:
    memory = PipelineMemory(10_000)
    room = ReplyRoom(memory)
    assert room.most(1 << 20) == 1 << 20
    memory.used_bytes = 10_001
    assert (room.most(1 << 20), room.most(100)) == (SCARCE_REPLY_BYTES, 100)


@pytest.mark.long
@pytest.mark.parametrize("ask", ["LRANGE v 0 124", "LINDEX v -100", "LPOS v x COUNT 0", "QPEEK v 10", "EXEC"])
def test_clients_that_do_not_take_large_replies_share_a_bounded_memory(tmp_path: Path, ask: str) -> None:
    """Each asks for up to 7.5 MB, and takes nothing."""
    server = RespServer(tmp_path / "data", "--pipeline-memory-bytes", "16 MiB", "--max-connections", "300")
    try:
        client = server.resp()
        for _ in range(125):
            client.do("RPUSH", "v", "x" * 60_000)
        request = said("MULTI") + said("LRANGE", "v", 0, 124) + said("EXEC") if ask == "EXEC" else said(*ask.split())
        before = server.resident_bytes()
        stalled = [server.resp() for _ in range(100)]
        for one in stalled:
            one.send(request)
        assert client.do("LLEN", "v") == 125
        highest = 0
        for _ in range(50):
            client.do("LPUSH", "w", "a")
            highest = max(highest, server.resident_bytes() - before)
        assert highest < 120 << 20
        for one in stalled:
            one.close()
        wait_until(lambda: len(client.do("LRANGE", "v", 0, 9)) == 10)
    finally:
        server.end()
