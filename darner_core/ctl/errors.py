"""What can go wrong in a command, each with the exit status that it ends with.

0    done
1    refused by the server, or failed          CtlError
2    the command line is wrong                 click's UsageError
3    no server answers, or it hung up          NoServer
4    there is no such queue or item            NothingThere
130  Ctrl-C
"""

from typing import Final

from darner_core.errors import DarnerError

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NO_SERVER: Final = 3
NOTHING_THERE: Final = 4
INTERRUPTED: Final = 130  # by the shells' convention


class CtlError(DarnerError):
    """str() is one line that says what to do."""

    status = FAILED


class Refused(CtlError):
    """The server's own words."""


class NoServer(CtlError):
    status = NO_SERVER


class NothingThere(CtlError):
    status = NOTHING_THERE
