"""A clock that stands still until the test moves it."""

from darner_core.engines.local.journal import Journal


class MovedClock:
    """For a bench with a journal: to move its clock begins a turn, because time is told once a turn."""

    journal: Journal
    _now_s: float

    @property
    def now_s(self) -> float:
        return self._now_s

    @now_s.setter
    def now_s(self, now_s: float) -> None:
        self._now_s = now_s
        if hasattr(self, "journal"):
            self.journal.begin()
