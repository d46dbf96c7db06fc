"""How large a reply may be at this moment: less while clients do not take the replies that they have caused."""

from typing import Final

from darner_core.shared_memory import PipelineMemory

# Of one reply while pipeline_memory_bytes are exceeded.
SCARCE_REPLY_BYTES: Final = 4 << 10


class ReplyRoom:
    def __init__(self, memory: PipelineMemory) -> None:
        self.memory = memory

    def most(self, most_bytes: int) -> int:
        """At most so many bytes, or fewer."""
        return min(most_bytes, SCARCE_REPLY_BYTES) if self.memory.scarce else most_bytes
