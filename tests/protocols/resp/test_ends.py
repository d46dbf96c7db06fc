"""Both ends of a list serve, in the order that LRANGE shows, whoever pushes and pops where: as Redis's lists do."""

from collections import deque
from typing import ClassVar

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from darner_core.protocols.resp.ends import LEFT, OTHER, RIGHT
from tests.support.resp_clients import Failed, RespClient, RespServer


def drain(client: RespClient, pop: str, key: str = "k") -> list[bytes]:
    return client.do(pop, key, 1000) or []


@pytest.mark.parametrize(("push", "pop"), [("LPUSH", "LPOP"), ("RPUSH", "RPOP")])
def test_a_list_can_be_a_stack(client: RespClient, push: str, pop: str) -> None:
    client.do(push, "k", "a", "b")
    client.do(push, "k", "c")
    assert client.do(pop, "k") == b"c"
    client.do(push, "k", "d", "e")
    assert drain(client, pop) == [b"e", b"d", b"b", b"a"]


def test_a_list_that_was_pushed_at_both_ends_before_anybody_popped(client: RespClient) -> None:
    client.do("LPUSH", "k", "a")
    client.do("RPUSH", "k", "b")
    client.do("LPUSH", "k", "c", "d", "e")
    assert client.do("LRANGE", "k", 0, -1) == [b"e", b"d", b"c", b"a", b"b"]
    assert client.do("BRPOP", "k", 0) == [b"k", b"b"]
    assert client.do("BLPOP", "k", 0) == [b"k", b"e"]
    assert drain(client, "RPOP") == [b"a", b"c", b"d"]


def test_what_other_protocols_put_is_taken_in_its_order_at_the_end_of_the_first_pop(server: RespServer) -> None:
    client, memcache = server.resp(), server.client()
    for pop in ("LPOP", "RPOP"):
        for value in (b"a", b"b", b"c"):
            memcache.set(pop, value)
        assert client.do(pop, pop) == b"a"
        assert drain(client, pop, pop) == [b"b", b"c"]


@pytest.mark.parametrize(("push", "pop"), [("LPUSH", "RPOP"), ("RPUSH", "LPOP"), ("LPUSH", "LPOP"), ("RPUSH", "RPOP")])
def test_a_crash_does_not_turn_a_list_round(server: RespServer, push: str, pop: str) -> None:
    client = server.resp()
    client.do(push, "k", "a", "b", "c", "d")
    before = client.do("LRANGE", "k", 0, -1)
    server.kill()
    server.start()
    client = server.resp()
    assert client.do("LRANGE", "k", 0, -1) == before
    assert drain(client, pop) == (before if pop == "LPOP" else before[::-1])


def test_what_is_popped_from_the_tail_is_gone_after_a_crash(server: RespServer) -> None:
    client = server.resp()
    client.do("RPUSH", "k", *range(10), "x" * 100_000, "y" * 100_000)
    assert client.do("RPOP", "k") == b"y" * 100_000
    assert client.do("RPOP", "k", 5) == [b"x" * 100_000]
    assert client.do("RPOP", "k", 3) == [b"9", b"8", b"7"]
    assert client.do("BRPOP", "k", 0) == [b"k", b"6"]
    assert client.do("LMOVE", "k", "m", "RIGHT", "LEFT") == b"5"
    assert client.do("LMOVE", "k", "k", "RIGHT", "LEFT") == b"4"
    server.kill()
    server.start()
    client = server.resp()
    assert client.do("LRANGE", "k", 0, -1) == [b"4", b"0", b"1", b"2", b"3"]
    assert client.do("LRANGE", "m", 0, -1) == [b"5"]
    assert drain(client, "RPOP") == [b"3", b"2", b"1", b"0", b"4"]


def test_a_long_list_is_popped_from_its_tail(client: RespClient) -> None:
    values = [b"%d" % number for number in range(20_000)]
    for start in range(0, len(values), 1000):
        client.do("RPUSH", "k", *values[start : start + 1000])
    found = []
    for _ in range(20):
        found += client.do("RPOP", "k", 1000)
    assert found == values[::-1]


@pytest.mark.parametrize(("push", "values"), [("LPUSH", [b"c", b"b"]), ("RPUSH", [b"a", b"b"])])
def test_who_waits_at_an_end_gets_what_is_there_behind_the_whole_push(
    server: RespServer, push: str, values: list[bytes]
) -> None:
    other, waiting = server.resp(), [server.resp(), server.resp()]
    for each in waiting:
        each.send(b"BLPOP k 0\r\n")
        each.expect_nothing()
    assert other.do(push, "k", "a", "b", "c") == 3
    assert [each.reply() for each in waiting] == [[b"k", value] for value in values]
    assert drain(other, "LPOP") == [b"abc"[i : i + 1] for i in range(3) if b"abc"[i : i + 1] not in values]


def test_clients_that_wait_at_both_ends_are_served_in_turn(server: RespServer) -> None:
    other, waiting = server.resp(), [server.resp() for _ in range(4)]
    for each, pop in zip(waiting, ("BLPOP", "BRPOP", "BLPOP", "BRPOP"), strict=True):
        each.send(f"{pop} k 0\r\n".encode())
        each.expect_nothing()
    other.do("LPUSH", "k", *"abcdef")
    assert [each.reply()[1] for each in waiting] == [b"f", b"a", b"e", b"b"]
    assert drain(other, "LPOP") == [b"d", b"c"]


def test_a_transaction_pops_at_both_ends(client: RespClient) -> None:
    client.do("RPUSH", "k", *"abcdef")
    client.do_all(
        ("MULTI",), ("RPOP", "k"), ("LPOP", "k"), ("BRPOP", "k", 0), ("LPUSH", "k", "x"), ("RPUSH", "k", "y"),
        ("LMOVE", "k", "k", "RIGHT", "LEFT"), ("LRANGE", "k", 0, -1), ("RPOP", "k", 2),
    )  # fmt: skip
    assert client.do("EXEC") == [
        b"f", b"a", [b"k", b"e"], 4, 5, b"y", [b"y", b"x", b"b", b"c", b"d"], [b"d", b"c"],
    ]  # fmt: skip


def test_a_paused_list_serves_at_no_end(client: RespClient) -> None:
    client.do("RPUSH", "k", *"abc")
    client.do("PAUSE", "k", "out")
    assert client.do("RPOP", "k") is client.do("LPOP", "k") is client.do("BRPOP", "k", 0.01) is None
    client.do("PAUSE", "k", "none")
    assert client.do("RPOP", "k") == b"c"


def test_values_are_pushed_back_without_end(client: RespClient) -> None:
    client.do("LPUSH", "k", "a")
    for start in range(0, 3000, 1000):
        client.do("RPUSH", "k", *range(start, start + 1000))
    found = [value for _ in range(4) for value in drain(client, "RPOP")]
    assert found == [*(b"%d" % number for number in reversed(range(3000))), b"a"]


class Lists(RuleBasedStateMachine):
    """Random pushes and pops, against a list as Redis has it."""

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

    @rule(left=st.booleans(), count=st.integers(0, 3), waits=st.booleans())
    def pop(self, left: bool, count: int, waits: bool) -> None:
        end = self.model.popleft if left else self.model.pop
        expected = [end() for _ in range(min(count or 1, len(self.model)))]
        if waits and not count:
            said = self.client.do("BLPOP" if left else "BRPOP", self.name, 0.001)
            assert said == ([self.name.encode(), *expected] if expected else None)
            return
        said = self.client.do("LPOP" if left else "RPOP", self.name, *([count] if count else []))
        assert said == ((expected or None) if count else (expected[0] if expected else None))

    @rule(popped=st.booleans(), pushed=st.booleans())
    def turn_round(self, popped: bool, pushed: bool) -> None:
        said = self.client.do(
            "LMOVE", self.name, self.name, *("LEFT" if left else "RIGHT" for left in (popped, pushed))
        )
        value = (self.model.popleft if popped else self.model.pop)() if self.model else None
        if value is not None:
            (self.model.appendleft if pushed else self.model.append)(value)
        assert said == value

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


def test_lists_are_rediss(server: RespServer) -> None:
    Lists.server = server
    run_state_machine_as_test(Lists, settings=settings(max_examples=60, stateful_step_count=25, deadline=None))


def test_a_push_before_a_job_that_is_most_urgent_is_refused(client: RespClient) -> None:
    client.do("LPUSH", "k", "a")
    client.do("ADDJOB", "k", "job", 0, "PRI", 0)
    assert client.do("RPUSH", "k", "b") == Failed(
        "ERR nothing can be put before the head of queue k: its priority is 0"
    )
    assert drain(client, "RPOP") == [b"job", b"a"]


def test_the_other_end_is_the_other() -> None:
    assert OTHER[OTHER[LEFT]] == LEFT != RIGHT
