"""Reading and checking the tables of the file that are about queues: [default], [queues.NAME] and [aliases].

    [default]                        every queue
    [queues.mail]                    this queue, which exists from the start
    [queues."mail.*"]                all queues that match; patterns are written as in `rights`
    [queues."mail+archive"]          a fanout child of mail
    [aliases]
    both = ["mail", "news"]          a put into `both` goes to each of these

Tables that contradict each other are refused with a BadOption. Aliases of aliases are resolved here, to queues.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from darner_core.access.rights import is_for_children
from darner_core.config.queues import (
    CHECKS,
    DEFAULT_TABLE,
    QUEUE_TABLES,
    TARGETS,
    Level,
    QueueRules,
    parent_of,
)
from darner_core.config.values import BadOption, Keys, bad_value, queue_name, show_table
from darner_core.nearest import did_you_mean
from darner_core.showing import show

ALIAS_TABLE = "aliases"

Aliases = Mapping[bytes, tuple[bytes, ...]]

NO_ALIASES: Aliases = {}

# Options of which the first must not be larger than the second, if that is not 0, and why.
ORDERED = (
    ("retry_delay_s", "max_retry_delay_s", "that is how long the wait may get"),
    ("default_ttr_s", "max_hold_s", "that is how long a reader may keep an item"),
)

# Of each of TARGETS: what items must not come back to.
CIRCLES = {
    "expire_to_queue": "items must not come back to the queue that they expired in",
    "dead_letter_queue": "dead letters must not come back to the queue that they failed in",
}


# -- [default] and [queues.NAME]


def read_rules(tables: Mapping[str, Any]) -> QueueRules:
    """The rules in a file with these tables. Raises BadOption."""
    default = _read_options((DEFAULT_TABLE,), tables.get(DEFAULT_TABLE, {}))
    written = tables.get(QUEUE_TABLES, {})
    if not isinstance(written, dict):
        raise BadOption((), f"{QUEUE_TABLES} = {written!r}: must be tables [{QUEUE_TABLES}.NAME]", QUEUE_TABLES)
    queues = {}
    for text, table in written.items():
        keys = (QUEUE_TABLES, text)
        try:
            name = queue_name(text)
        except ValueError as error:
            raise BadOption(keys, f"must have {error}") from None
        settings = _read_options(keys, table)
        if is_for_children(name):
            _check_child(keys, name, settings)
        for option in TARGETS:
            if settings.get(option) == name:
                raise _bad_target(keys, option, name, "another queue than itself")
        queues[name] = settings
    rules = QueueRules(default, queues)
    for level in rules.every:
        _check_levels([level])
    for name in rules.named:
        _check_levels(rules.levels(name))
        _check_levels(rules.levels(name, parent_of(name)))
    return rules


def _check_levels(levels: list[Level]) -> None:
    """Raises BadOption if what these levels say, in the order in which they are applied, contradicts itself."""
    _check_durable(levels)
    for less, more, why in ORDERED:
        said = {option: level for level in levels for option in (less, more) if option in level.settings}
        if len(said) < 2:
            continue
        low, high = said[less].settings[less], said[more].settings[more]
        if 0 < high < low:
            last = max(said, key=lambda option: max(n for n, level in enumerate(levels) if level is said[option]))
            value, other = said[last].settings[last], less if last == more else more
            known = f"{other} = {said[other].settings[other]}"
            where = "" if said[other] is said[last] else f" in {show_table(said[other].keys)}"
            bound = f"at least {low}" if last == more else f"at most {high}"
            raise bad_value(said[last].keys, last, value, f"{bound}, because {known}{where}: {why}")


def _read_options(keys: Keys, table: Any) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise BadOption(keys, "must be a table of options of queues")
    settings = {}
    for option, value in table.items():
        if option not in CHECKS:
            near = did_you_mean(option, CHECKS, f"one of {', '.join(CHECKS)}")
            said = f"unknown option {show(option)}: {near}"
            if isinstance(value, dict) and keys != (DEFAULT_TABLE,):
                dotted = show(".".join([str(keys[-1]), option]))
                said += f'; a queue with a dot in its name is written [{QUEUE_TABLES}."{dotted}"]'
            raise BadOption(keys, said, option)
        try:
            settings[option] = CHECKS[option](value)
        except ValueError as error:
            raise bad_value(keys, option, value, error) from None
    return settings


def _check_child(keys: Keys, name: bytes, settings: Mapping[str, Any]) -> None:
    parent, _, child = name.partition(b"+")
    if not parent or not child:
        raise BadOption(keys, "a name with + is that of a fanout child, PARENT+CHILD: neither may be empty")
    if settings.get("fanout_only"):
        raise BadOption(keys, "fanout_only = true: must not be set for a fanout child, which has none", "fanout_only")
    for option in TARGETS:
        if settings.get(option) == parent:
            raise _bad_target(keys, option, parent, "another queue than its own parent, from which it would come back")


def _bad_target(keys: Keys, option: str, target: bytes, allowed: str) -> BadOption:
    return bad_value(keys, option, show(target), allowed)


def _check_durable(levels: list[Level]) -> None:
    """Raises BadOption if fsyncs are asked for a queue that is in memory only. Levels that are applied before the one
    that says `durable = false` may ask for them. `levels` stand in the order in which they are applied."""
    said = [number for number, level in enumerate(levels) if "durable" in level.settings]
    if not said or levels[said[-1]].settings["durable"]:
        return
    table = show_table(levels[said[-1]].keys)
    for level in levels[said[-1] :]:
        if sync := level.settings.get("sync"):
            raise BadOption(
                level.keys,
                f"sync = {sync!r}: must not be set for a queue in memory only, as durable = false in {table} says",
                "sync",
            )


# -- [aliases]


def read_aliases(tables: Mapping[str, Any]) -> Aliases:
    """The queues that each alias leads to, also by way of other aliases. Raises BadOption."""
    written = tables.get(ALIAS_TABLE, {})
    if not isinstance(written, dict):
        raise BadOption((), f"{ALIAS_TABLE} = {written!r}: must be a table [{ALIAS_TABLE}]", ALIAS_TABLE)
    aliases = {}
    for text, destinations in written.items():
        try:
            alias = queue_name(text)
        except ValueError as error:
            raise BadOption((ALIAS_TABLE,), f"{show(text)}: an alias must have {error}", text) from None
        aliases[alias] = _read_destinations(text, destinations)
    order, loop = walk(aliases, lambda name: aliases.get(name, ()))
    if loop:
        raise _loop((ALIAS_TABLE,), loop, "an alias must not lead to itself", loop[0].decode())
    for alias in order:
        if alias in aliases:  # the aliases that it leads to came before it
            found = [queue for name in aliases[alias] for queue in aliases.get(name, (name,))]
            aliases[alias] = tuple(dict.fromkeys(found))
    return aliases


def _read_destinations(alias: str, written: Any) -> tuple[bytes, ...]:
    try:
        if not isinstance(written, list) or not written:
            raise ValueError('a list of queues, as in ["a", "b"], that is not empty')
        destinations = tuple(queue_name(name) for name in written)
        if len(set(destinations)) < len(destinations):
            raise ValueError("queues that differ")
    except ValueError as error:
        raise bad_value((ALIAS_TABLE,), alias, written, error) from None
    return destinations


# -- both


def check_together(rules: QueueRules, aliases: Aliases) -> None:
    """Raises BadOption if rules and aliases contradict each other."""
    for alias in aliases:
        if alias in rules.named:
            raise BadOption(
                (QUEUE_TABLES, alias.decode()),
                "is an alias, too: nobody could reach the queue behind it; remove one of the two",
            )

    for option, rule in CIRCLES.items():
        _check_circle(rules, aliases, option, rule)


def _check_circle(rules: QueueRules, aliases: Aliases, option: str, rule: str) -> None:
    def after(name: bytes) -> list[bytes]:
        return list(aliases[name]) if name in aliases else [target for target, _ in _leads(rules, name, option)]

    targets = {target for level in rules.every for target in [level.settings.get(option)] if target}
    _, loop = walk(sorted(targets), after)
    if loop:
        name = next(name for name in loop if name not in aliases)
        target = loop[loop.index(name) + 1]
        keys = next(level.keys for found, level in _leads(rules, name, option) if found == target)
        raise _loop(keys, loop, rule, option)


def _leads(rules: QueueRules, name: bytes, option: str) -> Iterator[tuple[bytes, Level]]:
    """(queue, level): each queue to which this one of TARGETS moves items of queue `name` or of one of its children,
    and the level that says so."""
    parent = parent_of(name)
    for above in {b"", parent}:
        level = rules.set_by(name, above).get(option)
        if level is not None and level.settings[option]:
            yield level.settings[option], level
    if not parent:
        for level in rules.for_children(name):
            target = level.settings.get(option)
            if target and target != name:
                yield target, level


def _loop(table: Keys, loop: list[bytes], rule: str, option: str) -> BadOption:
    return BadOption(table, f"{option} leads in a circle, {' -> '.join(map(show, loop))}: {rule}", option)


def walk(starts: Iterable[bytes], after: Callable[[bytes], Iterable[bytes]]) -> tuple[list[bytes], list[bytes]]:
    """Follow `after` from each of `starts`. Returns all names that were met, each behind those that it leads to, and
    the first circle that was found, with its first name again at its end; [] if there is none."""
    done: dict[bytes, None] = {}
    for start in starts:
        path: dict[bytes, Iterator[bytes]] = {}
        name = start
        if name in done:
            continue
        path[name] = iter(after(name))
        while path:
            name = next(reversed(path))
            for following in path[name]:
                if following in path:
                    names = list(path)
                    return list(done), [*names[names.index(following) :], following]
                if following not in done:
                    path[following] = iter(after(following))
                    break
            else:
                del path[name]
                done[name] = None
    return list(done), []
