"""A queue as JSON shows it. Pure reading: nothing here changes a queue, or switches."""

from typing import Any, Final

from darner_core.operations.operations import Operations
from darner_core.protocols.http.names import path_of, shown

_PAUSED: Final = {0: "none", 1: "in", 2: "out", 3: "all"}

# What the history of a queue knows, see `History`.
UNKNOWN: Final[dict[str, Any]] = {"rate_in": None, "rate_out": None, "spark": None}

FIELDS: Final = (
    "name", "path", "items", "bytes", "waiting", "open", "delayed", "buried", "failures", "age_ms", "waiters",
    "put_total", "taken_total", "dead_lettered", "paused", "rate_in", "rate_out", "spark", "damaged",
)  # fmt: skip


class QueueFigures:
    def __init__(self, operations: Operations) -> None:
        self._queues = operations.queues
        self._jobs = operations.jobs
        self._statistics = operations.statistics
        self._history = operations.history

    def of(self, name: bytes) -> dict[str, Any] | None:
        """None: there is no such queue."""
        queue: Any = self._queues.get(name)
        if queue is None:
            return None
        about = {"name": shown(name), "path": path_of(name)}
        if queue.unreadable:
            return {**dict.fromkeys(FIELDS), **about, "damaged": True}
        jobs = self._jobs.figures(name)
        delayed, buried = jobs.get(b"delayed", 0), jobs.get(b"buried", 0)
        return {
            **about,
            "items": queue.waiting_items + queue.open_reads + delayed + buried,
            "bytes": queue.waiting_bytes,
            "waiting": queue.waiting_items,
            "open": queue.open_reads,
            "delayed": delayed,
            "buried": buried,
            "failures": jobs.get(b"failures", 0),
            "age_ms": self._statistics.age_ms(queue),
            "waiters": self._statistics.waiters(name),
            "put_total": queue.total_items,
            "taken_total": self._history.gone(name) if self._history is not None else None,
            "dead_lettered": jobs.get(b"dead_lettered", 0),
            "paused": _PAUSED.get(jobs.get(b"paused", 0), "all"),
            **(self._history.figures(name) if self._history is not None else UNKNOWN),
            "damaged": bool(queue.damage),
        }

    def value(self, name: bytes, field: str) -> Any:
        """One figure, to sort by: as in `of`, but nothing else is read for it. 0: it is not known."""
        queue: Any = self._queues.get(name)
        if queue is None or queue.unreadable:
            return 0
        cheap = _CHEAP.get(field)
        if cheap is not None:
            return cheap(queue)
        if field == "age_ms":
            return self._statistics.age_ms(queue)
        if field == "waiters":
            return self._statistics.waiters(name)
        found = self.of(name)
        return (found or {}).get(field) or 0


_CHEAP: Final[dict[str, Any]] = {
    "bytes": lambda queue: queue.waiting_bytes,
    "waiting": lambda queue: queue.waiting_items,
    "open": lambda queue: queue.open_reads,
    "put_total": lambda queue: queue.total_items,
    "damaged": lambda queue: bool(queue.damage),
}
