"""Who is served when, of clients that want more than there is, by a clock of our own."""

import pytest

from darner_core.server.shares import CROWDED_RECV_BYTES, MOST_DEBT_S, RECV_BYTES, SHARE_S, TURN_S, Shares


class Clock:
    """Moves only when somebody is served."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Flooder:
    """Always wants more, and takes `cost_s` each time."""

    def __init__(self, shares: Shares, clock: Clock, cost_s: float, served: "list[Flooder]") -> None:
        self.used_s = self.last_share_s = 0.0
        self.shares, self.clock, self.cost_s, self.order = shares, clock, cost_s, served

    def serve_share(self) -> None:
        self.order.append(self)
        self.clock.now += self.cost_s
        self.shares.join(self)

    def hang_up(self) -> None:
        raise AssertionError


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shares(clock: Clock) -> Shares:
    return Shares(lambda: None, clock)


def test_shares_end_with_the_turn_and_go_on_in_the_next_with_who_was_served_least(shares: Shares, clock: Clock) -> None:
    order: list[Flooder] = []
    peers = [Flooder(shares, clock, 0.3 * TURN_S, order) for _ in range(8)]
    for peer in peers:
        shares.join(peer)
    shares.serve()
    assert order == peers[:4]
    shares.serve()
    assert order == peers


def test_who_asks_seldom_comes_before_those_that_always_do(shares: Shares, clock: Clock) -> None:
    order: list[Flooder] = []
    for cost_s in (SHARE_S, 20 * SHARE_S):
        shares.join(Flooder(shares, clock, cost_s, order))
    for _ in range(100):
        shares.serve()
    heavy = sum(peer.cost_s == 20 * SHARE_S for peer in order)
    assert len(order) - heavy >= 15 * heavy  # equal time, not equal turns
    seldom = Flooder(shares, clock, SHARE_S, order)
    shares.join(seldom)
    before = len(order)
    shares.serve()
    assert order[before] is seldom


def test_who_asks_anew_does_not_wait_for_all_others_to_catch_up(shares: Shares, clock: Clock) -> None:
    order: list[Flooder] = []
    for _ in range(3):
        shares.join(Flooder(shares, clock, MOST_DEBT_S, order))
    shares.serve()
    before = len(order)
    once_greedy = Flooder(shares, clock, MOST_DEBT_S, order)
    once_greedy.used_s = 100.0
    shares.join(once_greedy, asks_anew=True)
    shares.serve()
    assert once_greedy in order[before : before + 7]


def test_whose_requests_take_long_waits_for_the_others_to_catch_up(shares: Shares, clock: Clock) -> None:
    order: list[Flooder] = []
    heavy = Flooder(shares, clock, 2 * TURN_S, order)
    others = [Flooder(shares, clock, 0.2 * TURN_S, order) for _ in range(3)]
    shares.join(heavy, asks_anew=True)
    shares.serve()
    shares.waiting.clear()
    shares.join(heavy, asks_anew=True)
    for other in others:
        shares.join(other, asks_anew=True)
    shares.serve()
    assert order[1:4] == others


def test_a_share_can_be_had_at_once_only_while_nobody_waits_and_the_turn_lasts(shares: Shares, clock: Clock) -> None:
    assert shares.ends() == clock() + SHARE_S
    clock.now += TURN_S
    assert shares.ends() <= clock()
    shares.turn_ends = 0.0
    assert shares.ends() > clock()
    shares.join(Flooder(shares, clock, SHARE_S, []))
    assert shares.ends() <= clock()
    assert shares.recv_bytes == CROWDED_RECV_BYTES < RECV_BYTES


def test_as_much_is_read_as_ever_when_nobody_waits_any_more(shares: Shares, clock: Clock) -> None:
    class Last(Flooder):
        def serve_share(self) -> None:
            self.clock.now += self.cost_s

    shares.join(Last(shares, clock, SHARE_S, []))
    shares.serve()
    assert shares.recv_bytes == RECV_BYTES
