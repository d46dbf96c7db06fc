"""What comes and goes, between two looks."""

from darner_core.ctl.client import QueueFigures
from darner_core.ctl.rates import Rates, Sampler


def queue(put: int, waiting: int, opened: int = 0, name: bytes = b"q") -> QueueFigures:
    return QueueFigures(name, {"total_items": f"{put}", "items": f"{waiting}", "open_transactions": f"{opened}"})


def test_what_is_open_has_not_left() -> None:
    sampler = Sampler()
    assert sampler.look(10, [queue(100, 50)]) == {}
    assert sampler.look(12, [queue(120, 60, 10)]) == {b"q": Rates(10, 0)}
    assert sampler.look(13, [queue(120, 60)]) == {b"q": Rates(0, 10)}


def test_what_was_there_at_the_servers_start_leaves_as_well() -> None:
    sampler = Sampler()
    sampler.look(1, [queue(0, 50)])
    assert sampler.look(2, [queue(0, 40)]) == {b"q": Rates(0, 10)}


def test_a_new_queue_and_a_new_server_have_no_rates_yet() -> None:
    sampler = Sampler()
    sampler.look(1, [queue(100, 0)])
    assert sampler.look(2, [queue(5, 0), queue(1, 1, name=b"new")]) == {}
