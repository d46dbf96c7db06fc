"""How each program of the load tests runs and ends: with one line that says why, and with no server left behind.

A program ends its servers when their `with` blocks end. So every signal that ends a program by default, as the closing
of its terminal does, has to leave these blocks like Ctrl-C.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from loadtest.errors import LoadTestError

INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(name: str, main: Callable[[], int | None]) -> NoReturn:
    """Run `main`, and exit with its status; or with status 1 and a line that begins with `name`."""
    for number in INTERRUPTS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, _interrupt)
    try:
        sys.exit(main())
    except LoadTestError as error:
        sys.exit(f"{name}: {error}")
    except OSError as error:
        if error.filename is None:
            raise  # not about a file that was named on the command line: show where it comes from
        sys.exit(f"{name}: {error.filename} {error.strerror}")
    except KeyboardInterrupt:
        sys.exit(f"{name}: interrupted")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """Leave all `with` blocks. A second signal must not cut that short: each takes a moment at most."""
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
