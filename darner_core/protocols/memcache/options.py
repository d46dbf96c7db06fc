"""The options behind a queue's name that have a value, or are about jobs: each has a form, limits, and others that it
needs. Pure: words in, values or a RequestError out.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from darner_core.engines.jobs import MAX_DELAY_MS, MAX_KEY_BYTES, MAX_PRI, JobOptions
from darner_core.errors import ClientError, MalformedRequest
from darner_core.nearest import did_you_mean
from darner_core.protocols.grammar import MAX_WAIT_MS, excerpt

MAX_READS = 2**31 - 1  # in one batch, monitor or confirm
MAX_ID = 2**53 - 1

# The options that have a number, and from which to which.
NUMBERS = {
    b"t": (0, MAX_WAIT_MS),
    b"delay": (0, MAX_DELAY_MS),
    b"ttr": (0, MAX_DELAY_MS),
    b"pri": (0, MAX_PRI),
    b"n": (1, MAX_READS),
    b"id": (1, MAX_ID),
}
SHOWN = {b"t": "/t=<ms>", b"delay": "/delay=<ms>", b"ttr": "/ttr=<ms>", b"pri": "/pri=<n>", b"n": "/n=<count>"}

PUT_OPTIONS = (b"sync", b"delay", b"pri", b"ttr", b"key")
READ_OPTIONS = (b"open", b"close", b"abort", b"reject", b"peek", b"t", b"ttr", b"n", b"id", b"delay", b"pri")

# What makes sense only beside one of these.
NEEDS = {
    b"ttr": (b"open",),
    b"n": (b"open", b"close"),
    b"id": (b"close", b"abort", b"reject"),
    b"delay": (b"abort",),
    b"pri": (b"abort",),
}

Options = dict[bytes, bytes]  # what stands behind each "="; without one b"", and b"0" for /ttr alone


class ReadOptions(NamedTuple):
    """What a get says of a job, or of several items."""

    ttr_ms: int | None = None  # how long the item may stay open; 0: as long as the item says; None: no deadline
    most: int = 0  # how many items are opened or closed; 0: one
    item_id: int = 0  # which item is closed, aborted or rejected; 0: the oldest
    delay_ms: int | None = None  # when what is aborted comes again; None: as the queue says
    pri: int | None = None  # its priority then; None: as before
    rejects: bool = False


def shown(option: bytes) -> str:
    return SHOWN.get(option, {b"key": "/key=<text>", b"id": "/id=<n>"}.get(option, f"/{option.decode()}"))


def _listed(options: Iterable[bytes], joint: str) -> str:
    *some, last = map(shown, options)
    return f"{', '.join(some)} {joint} {last}" if some else last


def split(words: Iterable[bytes], allowed: tuple[bytes, ...], verb: bytes) -> Options:
    """The options of one key. Raises RequestError for one that is unknown, or stands there twice."""
    found: Options = {}
    for word in words:
        name, equals, value = word.partition(b"=")
        name = name.lower()
        takes_value = name in NUMBERS or name == b"key"
        if name not in allowed or (equals and not takes_value):
            near = listed = _listed(allowed, "and")
            if name not in PUT_OPTIONS and name not in READ_OPTIONS:  # else it is spelled right
                near = did_you_mean(f"/{excerpt(name)}", [f"/{option.decode()}" for option in allowed], listed)
            raise MalformedRequest(f'unknown option "/{excerpt(word)}" for {verb.decode()}: {near}')
        if takes_value and not equals:
            if name != b"ttr" or b"open" not in allowed:
                raise MalformedRequest(f'bad option "/{excerpt(word)}" for {verb.decode()}: it is {shown(name)}')
            value = b"0"
        if name in found and takes_value:
            raise ClientError(f'"/{excerpt(word)}" and another /{name.decode()} in one {verb.decode()}: one is allowed')
        found[name] = value
    return found


def number(word: bytes, what: str, highest: int, lowest: int = 0) -> int:
    """Raises MalformedRequest if `word` is no number from `lowest` to `highest`."""
    # isdigit() first: int() also takes "1_000", " 1" and digits of other scripts.
    digits = word[1:] if lowest < 0 and word[:1] == b"-" else word
    if digits.isdigit() and len(digits) <= 20:
        found = int(word)
        if lowest <= found <= highest:
            return found
    raise MalformedRequest(f'bad {what} "{excerpt(word)}": a number from {lowest} to {highest}')


def value_of(options: Options, option: bytes) -> int | None:
    """The number of this option; None: it is not there. Raises MalformedRequest."""
    word = options.get(option)
    if word is None:
        return None
    lowest, highest = NUMBERS[option]
    what = "timeout" if option == b"t" else f"/{option.decode()}"
    return number(word, what, highest, lowest)


def put_options(options: Options) -> JobOptions | None:
    """What a set or add says of its job; None: nothing. Raises RequestError."""
    if not options or options.keys() == {b"sync"}:
        return None
    key = options.get(b"key")
    if key is not None and not 1 <= len(key) <= MAX_KEY_BYTES:
        raise ClientError(f'bad /key "{excerpt(key)}" of {len(key)} bytes: 1 to {MAX_KEY_BYTES}')
    given = {name: value_of(options, name) for name in (b"delay", b"pri", b"ttr")}
    asked = {f"{name.decode()}{_UNITS[name]}": value for name, value in given.items() if value is not None}
    return JobOptions(**asked, key=key or b"")


_UNITS = {b"delay": "_ms", b"pri": "", b"ttr": "_ms"}


def read_options(options: Options) -> ReadOptions | None:
    """What a get says of a job, or of several items; None: nothing. Raises MalformedRequest."""
    if not any(option in options for option in (*NEEDS, b"reject")):
        return None
    ttr_ms, delay_ms, pri = (value_of(options, option) for option in (b"ttr", b"delay", b"pri"))
    most, item_id = value_of(options, b"n") or 0, value_of(options, b"id") or 0
    return ReadOptions(ttr_ms, most, item_id, delay_ms, pri, b"reject" in options)


def require_together(options: Mapping[bytes, bytes], exclusive: Iterable[tuple[bytes, bytes]]) -> None:
    """Raises ClientError for options of a get that contradict each other, or lack another."""
    for pair in exclusive:
        if all(option in options for option in pair):
            raise ClientError(f"cannot {pair[0].decode()} and {pair[1].decode()} in one get")
    for option, needed in NEEDS.items():
        if option in options and not any(one in options for one in needed):
            raise ClientError(f"/{option.decode()} without {_listed(needed, 'or')}: it says something about that")
    if b"n" in options and b"id" in options:
        raise ClientError("cannot have /n and /id in one get: /id is one item")
    if b"n" in options and b"open" in options and b"close" in options:
        raise ClientError("cannot close and open with /n in one get: send two")
