"""The line's promise: the longest waiting first, and exactly one outcome for each.

Waiting is done in real greenlets. Who waits "for ever" waits for a minute, which no test takes; who waits for nothing
waits for a millisecond and is awaited itself, so that no time is measured.
"""

import time
from typing import Any

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from darner_core.waiters import Waiter, WaitingLine

FOR_EVER_MS = 60_000
BRIEFLY_MS = 1


@pytest.fixture
def line() -> WaitingLine:
    return WaitingLine()


def wait(waiter: Waiter, wait_ms: int = FOR_EVER_MS) -> "gevent.Greenlet[..., Any]":
    """A greenlet that waits. It has begun to when this returns."""
    greenlet = gevent.spawn(waiter.wait_for, wait_ms)
    gevent.sleep(0)
    return greenlet


def outcome(greenlet: "gevent.Greenlet[..., Any]") -> Any:
    """What a wait that is over, or is about to be, came to."""
    greenlet.join(10)
    assert greenlet.ready(), "it still waits"
    return greenlet.get()


# -- the line


def test_the_longest_waiting_is_next(line: WaitingLine) -> None:
    waiters = [line.join() for _ in range(4)]
    assert len(line) == 4
    assert [line.next() for _ in range(4)] == waiters
    assert len(line) == 0


def test_nobody_is_next_in_an_empty_line(line: WaitingLine) -> None:
    with pytest.raises(KeyError):
        line.next()
    line.join().cancel()
    with pytest.raises(KeyError):
        line.next()


def test_who_peeks_stands_in_the_same_line(line: WaitingLine) -> None:
    assert [line.join(peeks).peeks for peeks in (True, False)] == [True, False]
    assert [line.next().peeks, line.next().peeks] == [True, False]


def test_who_could_not_be_served_is_next_again(line: WaitingLine) -> None:
    waiters = [line.join() for _ in range(3)]
    line.rejoin(line.next())
    assert len(line) == 3
    assert [line.next() for _ in range(3)] == waiters


def test_who_leaves_is_not_waited_for(line: WaitingLine) -> None:
    first, second, third = (line.join() for _ in range(3))
    second.cancel()
    line.leave(first)
    line.leave(first)
    assert len(line) == 1
    assert line.next() is third


# -- one outcome


def test_a_waiter_sleeps_until_it_is_handed_something(line: WaitingLine) -> None:
    greenlet = wait(line.join())
    assert not greenlet.ready()
    line.next().hand("item")
    assert outcome(greenlet) == "item"


def test_what_was_handed_over_before_the_wait_is_there_at_once(line: WaitingLine) -> None:
    waiter = line.join()
    line.next().hand("item")
    assert waiter.wait_for(FOR_EVER_MS) == "item"
    assert waiter.got == "item"


def test_who_has_waited_long_enough_gets_nothing_and_stands_in_line_no_more(line: WaitingLine) -> None:
    waiters = [line.join() for _ in range(2)]
    assert waiters[0].wait_for(BRIEFLY_MS) is None
    assert len(line) == 1
    assert line.next() is waiters[1]


def test_a_wait_of_no_time_is_over_at_once(line: WaitingLine) -> None:
    waiter = line.join()
    assert waiter.wait_for(0) is None
    assert len(line) == 0
    waiter = line.join()
    line.next().hand("item")
    assert waiter.wait_for(0) == "item"


def test_who_is_cancelled_wakes_up_with_nothing_and_stands_in_line_no_more(line: WaitingLine) -> None:
    first, second = line.join(), line.join()
    greenlets = [wait(first), wait(second)]
    first.cancel()
    assert outcome(greenlets[0]) is None
    assert not greenlets[1].ready()
    line.next().hand("item")
    assert outcome(greenlets[1]) == "item"


def test_what_was_handed_over_stays_so_though_the_waiter_is_cancelled_before_it_wakes_up(line: WaitingLine) -> None:
    waiter = line.join()
    greenlet = wait(waiter)
    line.next().hand("item")
    waiter.cancel()
    assert outcome(greenlet) == "item"


def test_what_was_handed_over_stays_so_though_the_time_is_over_before_the_waiter_wakes_up(line: WaitingLine) -> None:
    """Both timers run out while the hub is kept from running them; the one that hands something over comes first."""
    hand_over = gevent.get_hub().loop.timer(BRIEFLY_MS / 1000)
    hand_over.start(lambda: line.next().hand("item"))
    greenlet = wait(line.join(), BRIEFLY_MS)
    time.sleep(0.02)  # the whole thread, hub and all
    assert outcome(greenlet) == "item"


def test_who_was_cancelled_is_not_handed_anything_later(line: WaitingLine) -> None:
    waiters = [line.join() for _ in range(3)]
    greenlets = [wait(waiter) for waiter in waiters]
    waiters[0].cancel()
    waiters[1].cancel()
    line.next().hand("item")
    assert [outcome(greenlet) for greenlet in greenlets] == [None, None, "item"]


def test_waiters_wake_up_in_the_order_in_which_they_were_served(line: WaitingLine) -> None:
    woken: list[str] = []
    greenlets = [wait(line.join()) for _ in range(3)]
    for number, greenlet in enumerate(greenlets):
        greenlet.link(lambda _, number=number: woken.append(f"waiter {number}"))
    for number in range(3):
        line.next().hand(number)
    gevent.joinall(greenlets)
    gevent.sleep(0)
    assert woken == ["waiter 0", "waiter 1", "waiter 2"]


@given(st.lists(st.sampled_from(["join", "hand", "cancel first", "cancel last", "try in vain", "wait"]), max_size=40))
def test_each_item_goes_to_the_longest_waiting_and_each_waiter_has_one_outcome(steps: list[str]) -> None:
    line = WaitingLine()
    everyone: list[Waiter] = []
    expected: dict[Waiter, int | None] = {}
    waiting: list[Waiter] = []
    for number, step in enumerate(steps):
        if step == "join":
            waiting.append(line.join())
            everyone.append(waiting[-1])
        elif step == "hand" and waiting:
            line.next().hand(number)
            expected[waiting.pop(0)] = number
        elif step == "cancel first" and everyone:
            everyone[0].cancel()  # it may have had its outcome
            if waiting and waiting[0] is everyone[0]:
                expected[waiting.pop(0)] = None
        elif step == "cancel last" and waiting:
            waiting[-1].cancel()
            expected[waiting.pop()] = None
        elif step == "try in vain" and waiting:
            line.rejoin(line.next())
        elif step == "wait" and waiting:
            assert waiting[-1].wait_for(0) is None
            expected[waiting.pop()] = None
        assert len(line) == len(waiting)
    for waiter in everyone:
        waiter.cancel()
    assert [waiter.wait_for(FOR_EVER_MS) for waiter in everyone] == [expected.get(waiter) for waiter in everyone]


# -- several lines


def join_all(lines: list[WaitingLine]) -> Waiter:
    waiter = lines[0].join()
    for line in lines[1:]:
        assert line.join(waiter=waiter) is waiter
    return waiter


@pytest.fixture
def lines() -> list[WaitingLine]:
    return [WaitingLine() for _ in range(3)]


def test_who_waits_in_several_lines_is_handed_one_thing_by_whichever_has_it_first(lines: list[WaitingLine]) -> None:
    waiter = join_all(lines)
    greenlet = wait(waiter)
    lines[1].next().hand("item")
    assert outcome(greenlet) == "item"


def test_who_was_handed_something_by_one_line_has_left_the_others_in_that_moment(lines: list[WaitingLine]) -> None:
    join_all(lines)
    second = lines[0].join()
    lines[2].next().hand("item")
    assert [len(line) for line in lines] == [1, 0, 0]
    assert lines[0].next() is second


def test_who_is_cancelled_leaves_all_lines(lines: list[WaitingLine]) -> None:
    waiter = join_all(lines)
    greenlet = wait(waiter)
    waiter.cancel()
    assert [len(line) for line in lines] == [0, 0, 0]
    assert outcome(greenlet) is None


def test_who_has_waited_long_enough_leaves_all_lines(lines: list[WaitingLine]) -> None:
    assert join_all(lines).wait_for(BRIEFLY_MS) is None
    assert [len(line) for line in lines] == [0, 0, 0]


def test_who_could_not_be_served_by_one_line_stands_in_all_of_them(lines: list[WaitingLine]) -> None:
    waiter = join_all(lines)
    lines[1].join()
    lines[1].rejoin(lines[1].next())
    assert [len(line) for line in lines] == [1, 2, 1]
    assert [line.next() for line in lines] == [waiter] * 3


def test_who_waits_in_several_lines_has_its_place_in_each(lines: list[WaitingLine]) -> None:
    first = lines[0].join()
    both = join_all(lines[:2])
    last = lines[1].join()
    assert [lines[0].next(), lines[1].next()] == [first, both]
    both.hand("item")
    assert [len(line) for line in lines] == [0, 1, 0]
    assert lines[1].next() is last


STEPS = st.one_of(
    st.tuples(st.just("join"), st.sets(st.integers(0, 2), min_size=1)),
    st.tuples(st.just("hand"), st.integers(0, 2)),
    st.tuples(st.just("try in vain"), st.integers(0, 2)),
    st.tuples(st.just("cancel"), st.integers(0, 20)),
)


@given(st.lists(STEPS, max_size=40))
def test_in_several_lines_each_waiter_has_one_outcome_and_each_line_its_order(steps: list[tuple[str, Any]]) -> None:
    lines = [WaitingLine() for _ in range(3)]
    model: list[list[Waiter]] = [[], [], []]
    everyone: list[Waiter] = []
    expected: dict[Waiter, int] = {}

    def leave(waiter: Waiter) -> None:
        for line in model:
            if waiter in line:
                line.remove(waiter)

    for number, (step, which) in enumerate(steps):
        if step == "join":
            waiter = join_all([lines[index] for index in sorted(which)])
            everyone.append(waiter)
            for index in which:
                model[index].append(waiter)
        elif step == "hand" and model[which]:
            waiter = lines[which].next()
            assert waiter is model[which][0]
            waiter.hand(number)
            expected[waiter] = number
            leave(waiter)
        elif step == "try in vain" and model[which]:
            lines[which].rejoin(lines[which].next())
        elif step == "cancel" and which < len(everyone):
            everyone[which].cancel()
            leave(everyone[which])
        assert [len(line) for line in lines] == [len(line) for line in model]
    assert [waiter.got for waiter in everyone] == [expected.get(waiter) for waiter in everyone]
