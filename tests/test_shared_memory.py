"""The bounds on what all clients together have in memory: who gives up, and when."""

from darner_core.shared_memory import TRIM_BYTES, BodyMemory, PipelineMemory


class Holder:
    def __init__(self, memory: BodyMemory) -> None:
        self.spilled = 0
        self._memory = memory

    def holds(self, size: int) -> None:
        self._memory.account(self, size)

    def spill(self) -> None:
        self.spilled += 1


def no_trim() -> None:
    raise AssertionError("not enough was freed for that")


def test_within_the_budget_nobody_gives_up() -> None:
    memory = BodyMemory(100, no_trim)
    holders = [Holder(memory) for _ in range(10)]
    for holder in holders:
        holder.holds(10)
    assert [holder.spilled for holder in holders] == [0] * 10
    assert memory.used_bytes == 100


def test_over_it_who_has_received_nothing_for_longest_gives_up() -> None:
    memory = BodyMemory(100, no_trim)
    stalled, sending, new = (Holder(memory) for _ in range(3))
    sending.holds(30)
    stalled.holds(40)
    sending.holds(50)
    new.holds(20)
    assert (stalled.spilled, sending.spilled, new.spilled) == (1, 0, 0)
    assert memory.used_bytes == 70
    stalled.holds(10)  # goes on
    assert memory.used_bytes == 80


def test_as_many_give_up_as_it_takes_the_last_included() -> None:
    memory = BodyMemory(100, no_trim)
    holders = [Holder(memory) for _ in range(4)]
    for holder in holders:
        holder.holds(25)
    holders[3].holds(101)
    assert [holder.spilled for holder in holders] == [1, 1, 1, 1]
    assert memory.used_bytes == 0


def test_who_needs_nothing_any_more_counts_no_more() -> None:
    memory = BodyMemory(100, no_trim)
    done, other = Holder(memory), Holder(memory)
    done.holds(90)
    done.holds(0)
    other.holds(90)
    assert (done.spilled, other.spilled, memory.used_bytes) == (0, 0, 90)


def test_what_was_freed_is_given_back_when_it_is_much() -> None:
    trims = []
    memory = BodyMemory(100, lambda: trims.append(1))
    for _ in range(4):
        memory.freed(TRIM_BYTES // 2)
    assert len(trims) == 2


def test_a_large_reply_counts_while_it_is_put_together_and_not_beside_what_would_not_fit() -> None:
    memory = PipelineMemory(100)
    memory.used_bytes, memory.turn_bytes = 10, 20
    assert memory.has_room(70)
    assert not memory.has_room(71)
    try:
        with memory.reserved(70):
            assert not memory.has_room(1)
            raise ValueError
    except ValueError:
        pass
    assert memory.used_bytes == 10


def test_pipelines_are_scarce_over_their_budget_only() -> None:
    memory = PipelineMemory(100)
    memory.used_bytes += 100
    assert not memory.scarce
    memory.used_bytes += 1
    assert memory.scarce
    memory.used_bytes -= 1
    assert not memory.scarce
