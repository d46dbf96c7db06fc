"""How many items come into a queue and leave it, between two looks at its figures. Numbers in, numbers out."""

from dataclasses import dataclass, field

from darner_core.ctl.client import QueueFigures


@dataclass(frozen=True)
class Rates:
    """Items a second."""

    come: float
    leave: float  # acknowledged, expired, dropped, or moved to another queue


@dataclass
class Sampler:
    """Remembers the last look."""

    _at_s: float = 0
    _seen: dict[bytes, tuple[int, int]] = field(default_factory=dict)  # put, and gone, since the server's start

    def look(self, now_s: float, queues: list[QueueFigures]) -> dict[bytes, Rates]:
        """The rates since the last look. A queue that was not there then, or that was made anew, has none."""
        passed_s, self._at_s = now_s - self._at_s, now_s
        before, self._seen = self._seen, {one.name: _totals(one) for one in queues}
        if passed_s <= 0:
            return {}
        return {
            name: Rates((put - before[name][0]) / passed_s, max(0, gone - before[name][1]) / passed_s)
            for name, (put, gone) in self._seen.items()
            if name in before and put >= before[name][0]
        }


def _totals(one: QueueFigures) -> tuple[int, int]:
    """What was there at the server's start is not counted as put, so what is gone may be below zero: only its change
    means something."""
    return one.put_total, one.put_total - one.held
