"""The options that stand behind a queue's name in protocols of lines: how they are written, what each may say, and what
they say together of a put. Pure: words in, values or a RequestError out.
"""

from collections.abc import Iterable
from typing import Any

from darner_core.engines.jobs import MAX_DELAY_MS, MAX_KEY_BYTES, MAX_PRI, JobOptions, Pause
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
_SHOWN = {
    b"t": "/t=<ms>",
    b"delay": "/delay=<ms>",
    b"ttr": "/ttr=<ms>",
    b"pri": "/pri=<n>",
    b"n": "/n=<count>",
    b"id": "/id=<n>",
    b"key": "/key=<text>",
}

# Those without a value, and all there are in any protocol: a word among them is spelled right.
_WITHOUT_VALUE = (b"open", b"close", b"abort", b"reject", b"peek", b"sync")
_ALL = {*_WITHOUT_VALUE, *NUMBERS, b"key"}

Options = dict[bytes, bytes]  # what stands behind each "="; without one b"", and b"0" for /ttr alone


def shown(option: bytes) -> str:
    return _SHOWN.get(option, f"/{option.decode()}")


def listed(options: Iterable[bytes], joint: str) -> str:
    *some, last = map(shown, options)
    return f"{', '.join(some)} {joint} {last}" if some else last


def split(words: Iterable[bytes], allowed: tuple[bytes, ...], verb: bytes, reads: bool = False) -> Options:
    """The options of one key. `reads`: /ttr may stand alone, and then means the item's own. Raises RequestError for one
    that is unknown, or stands there twice."""
    found: Options = {}
    for word in words:
        name, equals, value = word.partition(b"=")
        name = name.lower()
        takes_value = name in NUMBERS or name == b"key"
        if name not in allowed or (equals and not takes_value):
            near = listed(allowed, "and")
            if name not in _ALL:
                near = did_you_mean(f"/{excerpt(name)}", [f"/{option.decode()}" for option in allowed], near)
            raise MalformedRequest(f'unknown option "/{excerpt(word)}" for {verb.decode()}: {near}')
        if takes_value and not equals:
            if name != b"ttr" or not reads:
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
    asked: dict[str, Any] = {
        f"{name.decode()}{_UNITS[name]}": value for name, value in given.items() if value is not None
    }
    return JobOptions(**asked, key=key or b"")


_UNITS = {b"delay": "_ms", b"pri": "", b"ttr": "_ms"}


def pause_of(word: bytes) -> Pause:
    """Raises MalformedRequest if it is no pause."""
    states = [pause.value for pause in Pause]
    state = word.lower().decode("latin-1")
    if state not in states:
        near = did_you_mean(state, states, "in, out, all or none")
        raise MalformedRequest(f'bad pause "{excerpt(word)}": {near}')
    return Pause(state)
