"""A clock that stands still until the test moves it."""

from darner_core.engines.local.journal import Journal


class MovedClock:
    """The clock of a bench with a journal. To move it begins a turn, because the journal reads the time once a turn."""

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
