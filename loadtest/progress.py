"""The progress bar of all load tests."""

from __future__ import annotations

import sys
from time import perf_counter

BAR_WIDTH = 30
BAR_AFTER_S = 1.0  # what is done sooner needs no bar
BAR_EVERY_S = 0.1


class Bar:
    """A progress bar on standard error, only for terminals and for what takes longer than a moment."""

    def __init__(self, what: str, total: float, unit: str, quiet: bool) -> None:
        """total: how much there is to do, in unit."""
        self.what, self.total, self.unit = what, total, unit
        self.wanted = sys.stderr.isatty() and not quiet
        self.next_at = perf_counter() + BAR_AFTER_S
        self.width = 0  # of what stands on the terminal

    def show(self, done: float) -> None:
        """Redraw if it is time to; cheap enough to call often."""
        if not self.wanted or (now := perf_counter()) < self.next_at:
            return
        self.next_at = now + BAR_EVERY_S
        share = min(done / self.total, 1.0) if self.total else 1.0
        filled = int(share * BAR_WIDTH)
        number = f"{done:,.1f}" if self.unit == "s" else f"{done:,.0f}"
        line = f"{self.what} [{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {share:4.0%}  {number}/{self.total:,.0f} "
        line += self.unit
        sys.stderr.write("\r" + line.ljust(self.width))
        sys.stderr.flush()
        self.width = len(line)

    def clear(self) -> None:
        """Leave no trace."""
        if self.width:
            sys.stderr.write("\r" + " " * self.width + "\r")
            sys.stderr.flush()
            self.width = 0
