"""The options of queues, and how each queue gets its own.

Levels are applied as in Kestrel: what is built in, then [default], then [queues.NAME], then for a fanout child
[queues."NAME+CHILD"]. A later level changes only what it names. NAME may be a pattern, with the same signs as in
`rights`. Patterns are applied before the exact name, shorter patterns before longer ones, and patterns of the same
length in the order of the file.

A table with a `+` in its name is about children, and is applied after all that a child has from its parent.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from darner_core.access.rights import is_for_children, matcher
from darner_core.config.values import (
    Keys,
    flag,
    optional_queue_name,
    queue_sync,
    show_table,
    size,
    whole_number,
)

BUILT_IN_LEVEL = "built in"
DEFAULT_TABLE, QUEUE_TABLES = "default", "queues"

MOST_ITEMS = 10**12
MOST_BYTES = 1 << 50
MOST_S = 100 * 365 * 86_400
MOST_DELIVERIES = 65_535  # what the record of a job counts to
MOST_BACKOFF = 1000

# What becomes of items that a queue does not keep: no level may send them back to the queue from which they come.
TARGETS = ("expire_to_queue", "dead_letter_queue")

# The number of combinations of levels whose options are kept. Patterns that overlap make any number of combinations.
MAX_KEPT = 4096


def _option(default: Any, check: Any, about: str) -> Any:
    return field(default=default, metadata={"check": check, "about": about})


@dataclass(frozen=True)
class QueueOptions:
    """The options of one queue that are in effect. For a number, 0 means no limit, never, or none."""

    # fmt: off
    max_items: int = _option(0, whole_number(0, MOST_ITEMS), "a put into a queue that holds this many items, open ones"
        " counted, is refused")
    max_bytes: int = _option(0, size(0, MOST_BYTES), "a put that would bring the bodies of its items above this size is"
        " refused; open ones count")
    max_item_bytes: int = _option(0, size(0, MOST_BYTES), "a larger item is refused")
    max_age_s: int = _option(0, whole_number(0, MOST_S), "an item expires at this age, whatever expiry it was put with")
    discard_old_when_full: bool = _option(False, flag, "a full queue drops its oldest items instead of refusing a new"
        " one")
    sync: str | int = _option("", queue_sync, '"always": a put is answered after an fsync; a number of milliseconds'
        ' between fsyncs; "": as the server\'s sync')
    expire_to_queue: bytes = _option(b"", optional_queue_name, "the queue that expired items move to")
    max_expire_sweep: int = _option(0, whole_number(0, MOST_ITEMS), "at most this many items expire in one sweep")
    fanout_only: bool = _option(False, flag, "stores nothing itself: what is put goes to its fanout children alone")
    max_queue_age_s: int = _option(0, whole_number(0, MOST_S), "the queue is deleted when it is empty and has not been"
        " used for this long")
    open_transaction_timeout_s: int = _option(0, whole_number(0, MOST_S), "an item that one client has had open for"
        " this long goes to others")
    # The default is that of Kestrel's shipped configurations.
    max_open_reads: int = _option(100, whole_number(1, 1_000_000), "a client that has this many items open is refused"
        " one more, in dialects in which it can have several")
    max_leases: int = _option(0, whole_number(0, 10_000_000), "this many of its items can be open with a deadline of"
        " their own; a get that would open one more is refused")
    durable: bool = _option(True, flag, "false: its items are kept in memory only, and a restart loses them")
    max_deliveries: int = _option(0, whole_number(0, MOST_DELIVERIES), "an item whose readers have failed this often"
        " is a dead letter")
    dead_letter_queue: bytes = _option(b"", optional_queue_name, "the queue that dead letters move to; without one they"
        " are buried")
    retry_delay_s: int = _option(0, whole_number(0, MOST_S), "an item whose reader has failed is handed out again after"
        " this long; 0: at once")
    retry_backoff: int = _option(1, whole_number(1, MOST_BACKOFF), "each further failure multiplies that time by this")
    max_retry_delay_s: int = _option(0, whole_number(0, MOST_S), "and it never gets longer than this")
    default_ttr_s: int = _option(0, whole_number(0, MOST_S), "how long a reader that asks for a deadline may keep an"
        " item that was put without one")
    max_hold_s: int = _option(0, whole_number(0, MOST_S), "the longest that a reader may keep an item by touching it")
    unique_s: int = _option(0, whole_number(0, MOST_S), "a key stays taken for this long when its item is gone")
    trace: bool = _option(False, flag, "each put, get, open, close, abort, expiry and discard is a line in the log")
    # fmt: on


BUILT_IN = QueueOptions()
CHECKS = {option.name: option.metadata["check"] for option in fields(QueueOptions)}


class Level(NamedTuple):
    """A table of the file: the keys that lead to it, and what it sets."""

    keys: Keys
    settings: Mapping[str, Any]


class _Pattern(NamedTuple):
    matches: Any
    number: int
    is_for_children: bool


def is_pattern(name: bytes) -> bool:
    return any(sign in name for sign in (b"*", b"?", b"["))


def parent_of(name: bytes) -> bytes:
    """The queue whose fanout child `name` is in the kestrel dialect; b"" if it is none. The parent of `a+b+c` is a."""
    parent, _, child = name.partition(b"+")
    return parent if child else b""


class QueueRules:
    """The options of each queue. Never changed once made."""

    def __init__(
        self, default: Mapping[str, Any] | None = None, queues: Mapping[bytes, Mapping[str, Any]] | None = None
    ) -> None:
        """`default` is what the table [default] sets, and `queues` what the tables [queues.NAME] set, by name and in
        the file's order. All values have been checked."""
        queues = queues or {}
        self._tables = (dict(default or {}), list(queues.items()))
        self._levels = [Level((DEFAULT_TABLE,), self._tables[0])]
        self._exact: dict[bytes, int] = {}
        patterns: list[tuple[int, _Pattern]] = []
        for name, settings in queues.items():
            number = len(self._levels)
            self._levels.append(Level((QUEUE_TABLES, name.decode()), settings))
            if is_pattern(name):
                matches = matcher([name.decode()]).match
                patterns.append((len(name), _Pattern(matches, number, is_for_children(name))))
            else:
                self._exact[name] = number
        self._patterns = [pattern for _, pattern in sorted(patterns, key=lambda one: one[0])]
        self._is_empty = not queues and not default
        self._kept: dict[tuple[int, ...], QueueOptions] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, QueueRules) and other._tables == self._tables

    __hash__ = None  # type: ignore[assignment]

    @property
    def named(self) -> tuple[bytes, ...]:
        """The queues that are named exactly: they exist from the start."""
        return tuple(self._exact)

    def of(self, name: bytes, parent: bytes = b"") -> QueueOptions:
        """The options of queue `name`. `parent` is given for a fanout child, whose name is PARENT+CHILD."""
        if self._is_empty:
            return BUILT_IN
        applied = self._applied(name, parent)
        options = self._kept.get(applied)
        if options is None:
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            values = {option: level.settings[option] for option, level in self._set_by(applied).items()}
            options = self._kept[applied] = QueueOptions(**values)
        return options

    def set_by(self, name: bytes, parent: bytes = b"") -> dict[str, Level]:
        """The level that has set each option for this queue, by the option's name. Options that are missing have their
        built-in values."""
        return self._set_by(self._applied(name, parent))

    def describe(self, name: bytes, parent: bytes = b"") -> Iterator[tuple[str, Any, str]]:
        """Each option of the queue: name, value in effect, and the level that has set it."""
        set_by = self.set_by(name, parent)
        for option, value in vars(self.of(name, parent)).items():
            yield option, value, show_table(set_by[option].keys) if option in set_by else BUILT_IN_LEVEL

    @property
    def syncs(self) -> list[str | int]:
        """All values of `sync` that are set on any level."""
        return [level.settings["sync"] for level in self._levels if "sync" in level.settings]

    @property
    def every(self) -> list[Level]:
        """All levels, in no particular order."""
        return self._levels

    def levels(self, name: bytes, parent: bytes = b"") -> list[Level]:
        """The levels that apply to a queue, in the order in which they are applied."""
        return [self._levels[applied_level // 4] for applied_level in self._applied(name, parent)[1:]]

    def for_children(self, parent: bytes) -> Iterator[Level]:
        """The levels that may apply to children of `parent`."""
        for (name, _), level in zip(self._tables[1], self._levels[1:], strict=True):
            head = name.partition(b"+")[0]
            if is_for_children(name) and matcher([head.decode()]).match(parent):
                yield level

    def _applied(self, name: bytes, parent: bytes) -> tuple[int, ...]:
        """1 for a child and 0 for another queue, followed by the levels that apply, in order: each is its number times
        4, plus the bits of those TARGETS that it would send back here."""
        numbers = [0]
        if parent:
            numbers += self._chain(parent)
            numbers += [
                pattern.number for pattern in self._patterns if pattern.is_for_children and pattern.matches(name)
            ]
            if name in self._exact:
                numbers.append(self._exact[name])
        else:
            numbers += self._chain(name)
        return (
            1 if parent else 0,
            *(4 * number + self._leads_back(number, name, parent) for number in numbers),
        )

    def _chain(self, name: bytes) -> list[int]:
        numbers = [pattern.number for pattern in self._patterns if pattern.matches(name)]
        if name in self._exact:
            numbers.append(self._exact[name])
        return numbers

    def _leads_back(self, number: int, name: bytes, parent: bytes) -> int:
        """The bits of those TARGETS by which this level would send items back to the queue from which they come.
        [default] does that to a queue that collects what expires in all others."""
        settings = self._levels[number].settings
        return sum(1 << bit for bit, option in enumerate(TARGETS) if settings.get(option) in (name, parent or name))

    def _set_by(self, applied: tuple[int, ...]) -> dict[str, Level]:
        is_child, *numbers = applied
        found = {}
        for applied_level in numbers:
            number, back = divmod(applied_level, 4)
            level = self._levels[number]
            for option in level.settings:
                if option in TARGETS and back & 1 << TARGETS.index(option):
                    continue
                if option == "fanout_only" and is_child:  # a child stores what comes to it
                    continue
                found[option] = level
        return found
