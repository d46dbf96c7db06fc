"""What the clients of doors.py know: which values were put, which of them are gone, and which job each id means.

What was asked and never answered may have happened. Clients are threads; each call holds the lock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from threading import RLock

from loadtest.errors import Violation

SMALL = (24, 24, 24, 200, 3000)
SIZES = (*SMALL, 4097, 20_000)  # some are large items
POOL = Random(14).randbytes(1 << 16).replace(b"\r", b"r").replace(b"\n", b"n")

NO, MAYBE, SURE = 0, 1, 2


@dataclass
class Value:
    """One that was sent."""

    body: bytes
    stored: bool = False
    gone: int = NO


class Books:
    def __init__(self) -> None:
        self.lock = RLock()
        self.alive = True
        self.values: dict[bytes, Value] = {}  # in some queue, as far as anybody knows
        self.ids: dict[bytes, bytes] = {}  # every id that was ever given, and the beginning of its job's body
        self.takers = 0  # requests under way that take values away with their answer
        self.counts: Counter[str] = Counter()
        self._serial = 0
        self._gone: set[bytes] = set()  # names of values that were removed, which never come back

    # -- what a client does

    def sending(self, rng: Random, sizes: Sequence[int] = SIZES) -> bytes:
        """A new value, which is about to be put."""
        with self.lock:
            self._serial += 1
            body = b"%08d" % self._serial
            body += POOL[: rng.choice(sizes) - len(body)]
            self.values[body] = Value(body)
            return body

    def stored(self, body: bytes, job_id: bytes = b"") -> None:
        """The put of this value was answered, perhaps with an id."""
        with self.lock:
            value = self.values.get(body)
            if value is not None:  # else somebody has removed it since
                value.stored = True
            self.counts["stored"] += 1
            if job_id and self.ids.setdefault(job_id, body[:8]) != body[:8]:
                raise Violation(f"id {job_id!r} was given to value {self.ids[job_id]!r}, and again to {body[:8]!r}")

    def came(self, body: bytes, job_id: bytes = b"") -> None:
        """A client was shown this value, or handed it."""
        with self.lock:
            if body[:8] in self._gone:
                raise Violation(f"value {body[:8]!r} was removed, and came again")
            if body not in self.values:
                raise Violation(f"nobody put {body[:40]!r}... ({len(body)} bytes)")
            known = self.ids.setdefault(job_id, body[:8]) if job_id else body[:8]
            if known != body[:8]:
                raise Violation(f"id {job_id!r} is that of value {known!r}, and {body[:8]!r} came")

    def removing(self, body: bytes) -> None:
        """Its removal is about to be asked for."""
        with self.lock:
            if body in self.values:
                self.values[body].gone = MAYBE

    def removed(self, body: bytes) -> None:
        """Its removal was answered."""
        with self.lock:
            self.counts["removed"] += 1
            self.values.pop(body, None)
            self._gone.add(body[:8])

    # -- after the server has ended

    def missing(self, body: bytes) -> None:
        """This value, which an id was given to, is not there any more."""
        with self.lock:
            value = self.values.get(body)
            if value is None or not value.stored or value.gone != NO:
                return
            if not self.takers:
                raise Violation(f"value {body[:8]!r} was stored, and its id finds nothing")
            self.takers -= 1
            del self.values[body]

    def judge(self, found: Iterable[bytes]) -> None:
        """These are all values that there are; they have been taken. Raises Violation."""
        counts = Counter(found)
        for body, count in counts.items():
            self.came(body)
            if count > 1:
                raise Violation(f"value {body[:8]!r} is there {count} times")
        lost = [
            value for value in self.values.values() if value.stored and value.gone == NO and value.body not in counts
        ]
        if len(lost) > self.takers:
            names = [value.body[:8] for value in lost[:5]]
            raise Violation(
                f"{len(lost)} stored values are lost, such as {names}; {self.takers} were perhaps under way to clients"
            )
        self._gone.update(body[:8] for body in self.values)
        self.values.clear()
        self.takers = 0
