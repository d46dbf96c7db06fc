"""HTTP requests that wait to be served."""

from collections.abc import Callable
from typing import Any

from darner_core.server.http_lane import Lane


class Loop:
    """Calls what it is told to when `go_round` is called."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def timer(self, after_s: float, ref: bool) -> "Loop":
        return self

    priority = 0

    def start(self, call: Callable[[], None]) -> None:
        self.calls.append(call)

    run_callback = start

    def close(self) -> None:
        self.calls.clear()

    def go_round(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class Bench:
    """A lane, with a clock that goes on by `takes_s` with each client."""

    def __init__(self, takes_s: float, others: bool) -> None:
        self.now, self.log, self.loop = 0.0, list[str](), Loop()
        self.served = [1] if others else []
        self.takes_s = takes_s
        self.lane = Lane(self, self.loop, lambda: self.now)

    def stir(self) -> None: ...

    def end(self) -> None:
        self.log.append("end")
        self.served.clear()

    def come(self, *names: str) -> None:
        for name in names:
            self.lane.join(Client(self, name))


class Client:
    def __init__(self, bench: Bench, name: str) -> None:
        self.bench, self.name = bench, name

    def serve_share(self) -> None:
        self.bench.now += self.bench.takes_s
        self.bench.log.append(self.name)
        if self.name == "bad":
            raise ValueError

    def hang_up(self) -> None:
        self.bench.log.append("hung up")


def test_others_have_their_replies_first_and_then_a_few_are_served() -> None:
    bench = Bench(0.00015, others=True)
    bench.come("a", "b", "c", "d", "e")
    bench.loop.go_round()
    assert bench.log == ["end", "a", "b"]
    bench.served = [1]
    bench.loop.go_round()
    assert bench.log == ["end", "a", "b", "end", "c", "d"]


def test_all_are_served_if_nobody_else_asks() -> None:
    bench = Bench(0.00015, others=False)
    bench.come("a", "b", "c", "d", "e")
    bench.loop.go_round()
    assert bench.log == ["a", "b", "c", "d", "e"]
    bench.come("f")
    bench.loop.go_round()
    assert bench.log[-1] == "f"


def test_one_that_cannot_be_served_costs_the_others_nothing(caplog: Any) -> None:
    bench = Bench(0, others=False)
    bench.come("bad", "good")
    bench.loop.go_round()
    assert bench.log == ["bad", "hung up", "good"]
