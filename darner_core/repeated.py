"""Log lines that may come very often, as when the disk is full: one is written, then how many more there were.

The call that writes such a line marks it:  log.error("cannot write: %s", error, extra=BY_FORM).  Of equal lines, the
first is written at once. Those of the next EVERY_S are counted, and the last of them is written with their number when
that time is over. No other line is touched.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

# For `extra`: lines are equal that have the same form, whatever is filled in; or only those with the same text.
BY_FORM: Mapping[str, object] = {"repeats": "form"}
BY_TEXT: Mapping[str, object] = {"repeats": "text"}

EVERY_S = 10.0

# Up to this many different lines are remembered: 1 MB. Further ones are written as often as they come.
MOST_KNOWN = 1000


@dataclass(slots=True)
class _Line:
    until: float  # when the next may be written
    level: int
    left_out: int = 0
    last: str = ""  # of those that were left out


class Repeated(logging.Filter):
    """A filter for one logger. Its `tell` has to be called about once a second."""

    def __init__(self, log: logging.Logger, every_s: float = EVERY_S, clock: Callable[[], float] = time.monotonic):
        super().__init__()
        self._log = log
        self._every_s = every_s
        self._clock = clock
        self._known: dict[str, _Line] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        kind = getattr(record, "repeats", "")
        if not kind:
            return True
        text = record.getMessage()
        key = str(record.msg) if kind == "form" else text
        line = self._known.get(key)
        if line is not None:
            line.left_out += 1
            line.last = text
            return False
        if len(self._known) < MOST_KNOWN:
            self._known[key] = _Line(self._clock() + self._every_s, record.levelno)
        return True

    def tell(self, all_of_them: bool = False) -> None:
        """Write how many lines were left out, of the kinds whose time is over, or of all kinds."""
        now = self._clock()
        for key, line in [(key, line) for key, line in self._known.items() if all_of_them or line.until <= now]:
            if not line.left_out:
                del self._known[key]
                continue
            self._known[key] = _Line(now + self._every_s, line.level)
            self._log.log(line.level, "%s (%d such lines in %g s)", line.last, line.left_out, self._every_s)
