"""What may go wrong in a load test.

LoadTestError
├── AnswerError    the server answered what the protocol does not allow here, or an error
├── Refused        the server answered that it has failed: nothing was done
├── RequestLost    the connection ended, or no answer came in time: nobody knows whether the request was done
└── Violation      the server broke a promise

Their text is the one line that a program shows before it ends with status 1.
"""


class LoadTestError(Exception):
    """Anything that ends a run; its text is the one line shown to the user."""


class AnswerError(LoadTestError):
    """The server answered, but not with what the protocol allows here."""

    def __init__(self, line: bytes) -> None:
        """line: the offending reply's first line."""
        super().__init__(line.decode("ascii", "replace")[:200])


class Refused(LoadTestError):
    """The server has answered with an error: the request was not done."""


class RequestLost(LoadTestError):
    """The connection ended or an answer did not come in time."""


class Violation(LoadTestError):
    """A promise was broken: what, and in which queue."""
