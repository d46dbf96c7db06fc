"""Which end of a list is which: what clients do says it. The list is Redis's, as long as it is a queue."""

from collections import deque
from typing import Any, ClassVar

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from darner_core.protocols.resp.ends import LEFT, OTHER, RIGHT, Ends
from darner_core.protocols.resp.replies import RespError
from tests.support.resp_clients import Failed, RespClient, RespServer

K = b"k"


class _Queue:
    unreadable = False
    waiting_items = 0


class _Operations:
    """One list, of which only the length is known."""

    def __init__(self) -> None:
        self.queue = _Queue()
        self.queues: dict[bytes, Any] = {K: self.queue}


class World:
    def __init__(self) -> None:
        operations: Any = _Operations()
        self.queue = operations.queue
        self.ends = Ends(operations)

    def push(self, end: str) -> bool:
        last = self.ends.push(K, end)
        self.queue.waiting_items += 1
        return last

    def pop(self, end: str) -> None:
        self.ends.pop(K, end)
        self.queue.waiting_items = max(0, self.queue.waiting_items - 1)


def test_the_first_push_says_it() -> None:
    world = World()
    assert world.ends.pushed(K) == LEFT  # as most clients use lists
    assert world.push(RIGHT)
    assert world.push(RIGHT)
    assert world.ends.pushed(K) == RIGHT
    assert not world.push(LEFT)
    with pytest.raises(RespError):
        world.pop(RIGHT)
    world.pop(LEFT)


def test_one_value_has_no_first_and_last() -> None:
    world = World()
    world.push(LEFT)
    assert world.push(RIGHT)
    world.pop(LEFT)
    world.pop(LEFT)
    world.push(RIGHT)
    world.pop(RIGHT)  # it is the only one


def test_who_pops_proves_it_also_for_an_empty_list() -> None:
    world = World()
    world.push(LEFT)
    world.pop(RIGHT)
    assert not world.push(RIGHT)
    assert not world.push(RIGHT)
    world.pop(RIGHT)


def test_behind_a_restart_the_first_pop_says_it_whatever_was_pushed() -> None:
    world = World()
    world.queue.waiting_items = 10
    world.push(LEFT)
    world.pop(LEFT)
    assert world.ends.pushed(K) == RIGHT


def test_what_is_known_of_lists_that_are_gone_is_bounded() -> None:
    world = World()
    for number in range(5000):
        world.ends.push(b"%d" % number, LEFT)
    assert len(world.ends._pushed) < 2000


class Lists(RuleBasedStateMachine):
    """Random pushes and pops, against a list as Redis has it. What is refused would make it a stack."""

    server: ClassVar[RespServer]
    number: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        Lists.number += 1
        self.name = f"list{Lists.number}"
        self.client = RespClient(self.server.resp_port)
        self.model: deque[bytes] = deque()
        self.values = 0

    def _value(self) -> bytes:
        self.values += 1
        return b"%d" % self.values

    @rule(left=st.booleans(), count=st.integers(1, 3))
    def push(self, left: bool, count: int) -> None:
        values = [self._value() for _ in range(count)]
        said = self.client.do("LPUSH" if left else "RPUSH", self.name, *values)
        (self.model.extendleft if left else self.model.extend)(values)
        assert said == len(self.model)

    @rule(left=st.booleans(), count=st.integers(0, 3))
    def pop(self, left: bool, count: int) -> None:
        said = self.client.do("LPOP" if left else "RPOP", self.name, *([count] if count else []))
        if isinstance(said, Failed):
            assert said.startswith("ERR queue")
            assert len(self.model) > 1
            return
        end = self.model.popleft if left else self.model.pop
        expected = [end() for _ in range(min(count or 1, len(self.model)))]
        assert said == ((expected or None) if count else (expected[0] if expected else None))

    @rule(left=st.booleans())
    def turn_round(self, left: bool) -> None:
        ends = ("LEFT", "RIGHT") if left else ("RIGHT", "LEFT")
        said = self.client.do("LMOVE", self.name, self.name, *ends)
        if isinstance(said, Failed):
            assert len(self.model) > 1
            return
        if not self.model:
            assert said is None
            return
        self.model.rotate(-1 if left else 1)
        assert said == (self.model[-1] if left else self.model[0])

    @rule(count=st.integers(-2, 2), value=st.integers(1, 20))
    def remove(self, count: int, value: int) -> None:
        there = b"%d" % value in self.model
        assert self.client.do("LREM", self.name, count, value) == int(there)
        if there:
            self.model.remove(b"%d" % value)

    @invariant()
    def shows_what_it_holds(self) -> None:
        assert self.client.do("LLEN", self.name) == len(self.model)
        assert self.client.do("LRANGE", self.name, 0, -1) == list(self.model)

    def teardown(self) -> None:
        self.client.do("DEL", self.name)
        self.client.close()


def test_lists_are_rediss_as_long_as_they_are_queues(server: RespServer) -> None:
    Lists.server = server
    run_state_machine_as_test(Lists, settings=settings(max_examples=60, stateful_step_count=25, deadline=None))


def test_the_other_end_is_the_other() -> None:
    assert OTHER[OTHER[LEFT]] == LEFT


def test_after_pushes_at_both_ends_the_first_pop_decides(client: RespClient) -> None:
    client.do_all(("LPUSH", "k", "a"), ("RPUSH", "k", "b"), ("LPUSH", "k", "c"))
    assert {client.do("RPOP", "k") for _ in range(3)} == {b"a", b"b", b"c"}
    assert client.do("RPOP", "k") is None
