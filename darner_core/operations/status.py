"""The server's status: what it is willing to do, as an operator says it, in Kestrel's words.

A stricter status is shown at once and in force after a grace period, so that who looks at it (a load balancer, a
client library) has time to turn elsewhere before anything is refused. Pure, but for the two functions that read and
write the file which keeps the status over a restart: a clock comes in, and what a status forbids is known elsewhere.

Source: Kestrel 2.4's guide, "Server status".
"""

from collections.abc import Callable
from dataclasses import dataclass

from darner_core import files
from darner_core.nearest import did_you_mean

MOST_FILE_BYTES = 100  # a file with more in it is not one of ours


@dataclass(frozen=True)
class Status:
    word: str  # as clients are told it
    stored: str  # as the file has it
    strictness: int
    blocks_writes: bool = False
    blocks_reads: bool = False


UP = Status("UP", "Up", 1)
WRITEAVOID = Status("WRITEAVOID", "WriteAvoid", 2)  # forbids nothing; well-meaning clients put elsewhere
READONLY = Status("READONLY", "ReadOnly", 3, blocks_writes=True)
QUIESCENT = Status("QUIESCENT", "Quiescent", 4, blocks_writes=True, blocks_reads=True)

# Kestrel's fifth, DOWN, is that of a server that does not run.
STATUSES = {status.word: status for status in (UP, WRITEAVOID, READONLY, QUIESCENT)}


def status_of(word: str) -> Status:
    """The status of that name, in any case. Raises ValueError saying which there are."""
    status = STATUSES.get(word.upper()) if word.isascii() else None
    if status is None:
        names = [name.lower() for name in STATUSES]
        near = did_you_mean(word, names)
        raise ValueError(f"one of {', '.join(names)}{near and '; '}{near}")
    return status


class ServerStatus:
    """`shown` is what clients are told, `enforced` what is in force. They differ during a grace period only, and then
    `shown` is the stricter."""

    def __init__(
        self, first: Status, grace_s: float, clock: Callable[[], float], enforce: Callable[[Status], None]
    ) -> None:
        """`clock` only runs forward. `enforce(status)` is called whenever another one comes into force."""
        self.shown = self.enforced = first
        self._grace_s = grace_s
        self._clock = clock
        self._enforce = enforce
        self._due_at = 0.0
        self.pending = False  # a stricter one is not in force yet

    def change(self, new: Status) -> bool:
        """Show `new`, and see when it comes into force. False: it is ignored, because a change to one as strict or
        stricter is pending already."""
        old = self.shown
        if self.pending and new.strictness >= old.strictness:
            return False
        self.shown = new
        self.pending = new.strictness > old.strictness and self._grace_s > 0
        if self.pending:
            self._due_at = self._clock() + self._grace_s
        else:
            self._take_effect()
        return True

    @property
    def due_in_s(self) -> float:
        """How long until `look` will find that the grace period is over."""
        return max(0.0, self._due_at - self._clock())

    def look(self) -> None:
        """See whether the grace period is over."""
        if self.pending and self._clock() >= self._due_at:
            self.pending = False
            self._take_effect()

    def _take_effect(self) -> None:
        if self.enforced is not self.shown:
            self.enforced = self.shown
            self._enforce(self.shown)


def read_status(path: str) -> Status | None:
    """What the file says; None if there is none. Raises ValueError saying what is wrong with it."""
    try:
        with open(path, "rb") as file:
            text = file.read(MOST_FILE_BYTES).decode("utf-8", "backslashreplace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error
    try:
        return status_of(text)
    except ValueError as allowed:
        raise ValueError(f"holds {text!r}, not {allowed}") from None


def write_status(path: str, status: Status) -> None:
    """Put `status` in the place of what the file says, whole or not at all. Raises OSError."""
    files.write_atomically(path, f"{status.stored}\n".encode())
