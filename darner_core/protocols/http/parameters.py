"""The parameters of a query: which there are, how each is read, and what is said of one that is wrong. Pure."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from darner_core.engines.jobs import MAX_DELAY_MS, MAX_KEY_BYTES, MAX_PRI
from darner_core.nearest import did_you_mean
from darner_core.protocols.grammar import MAX_WAIT_MS, excerpt
from darner_core.protocols.http.contract import Parameter, Problem
from darner_core.protocols.http.names import queue_of


def read(query: str, known: Mapping[str, Parameter]) -> dict[str, Any]:
    """What the query says. Raises Problem for what is unknown, or wrong, or stands there twice."""
    told: dict[str, Any] = {}
    for part in query.split("&"):
        if not part:
            continue
        word, _, value = part.partition("=")
        name = unquote_to_bytes(word).decode("latin-1")
        parameter = known.get(name)
        if parameter is None:
            allowed = ", ".join(known) or "none"
            near = did_you_mean(name, known, f"allowed: {allowed}")
            raise Problem(HTTPStatus.BAD_REQUEST, f'unknown parameter "{excerpt(name.encode("latin-1"))}": {near}')
        text = unquote_to_bytes(value.replace("+", " ")).decode("latin-1")
        try:
            found = parameter.read(text)
        except ValueError as error:
            shown = excerpt(text.encode("latin-1"))
            raise Problem(HTTPStatus.BAD_REQUEST, f'parameter {name} = "{shown}": must be {error}') from None
        if parameter.several:
            told[name] = (*told.get(name, ()), found)
        elif name in told:
            raise Problem(HTTPStatus.BAD_REQUEST, f"parameter {name} stands there twice: once is allowed")
        else:
            told[name] = found
    return told


# -- kinds of values


def whole(lowest: int, highest: int, unit: str = "") -> tuple[Callable[[str], int], Mapping[str, Any]]:
    """A whole number."""

    def read_number(text: str) -> int:
        if text.isascii() and text.isdigit() and len(text) <= 20 and lowest <= int(text) <= highest:
            return int(text)
        raise ValueError(f"a whole number {unit}{unit and ' '}from {lowest} to {highest}")

    return read_number, {"type": "integer", "minimum": lowest, "maximum": highest}


def choice(*words: str) -> tuple[Callable[[str], str], Mapping[str, Any]]:
    def read_word(text: str) -> str:
        if text in words:
            return text
        near = did_you_mean(text, words)
        raise ValueError(f"one of {', '.join(words)}{near and '; '}{near}")

    return read_word, {"type": "string", "enum": list(words)}


def _key(text: str) -> bytes:
    key = text.encode("latin-1")
    if not 1 <= len(key) <= MAX_KEY_BYTES:
        raise ValueError(f"1 to {MAX_KEY_BYTES} bytes")
    return key


def _text(text: str) -> bytes:
    return text.encode("latin-1")


def _queue(text: str) -> bytes:
    from urllib.parse import quote_from_bytes

    return queue_of(quote_from_bytes(text.encode("latin-1"), safe=""))


def number(about: str, lowest: int, highest: int, unit: str = "") -> Parameter:
    reads, schema = whole(lowest, highest, unit)
    return Parameter(reads, about, schema)


def word(about: str, *words: str) -> Parameter:
    reads, schema = choice(*words)
    return Parameter(reads, about, schema)


def text(about: str) -> Parameter:
    return Parameter(_text, about, {"type": "string"})


# -- those that several endpoints have

DELAY: Final = number("Not handed out before so many ms have passed.", 0, MAX_DELAY_MS, "of ms")
PRI: Final = number("0 goes first; 1024 without it.", 0, MAX_PRI)
TTR: Final = number("How long a reader may keep it, in ms.", 1, MAX_DELAY_MS, "of ms")
TTL: Final = number("It expires after so many ms.", 1, MAX_DELAY_MS, "of ms")
KEY: Final = Parameter(_key, "Unique in its queue while the item exists.", {"type": "string", "minLength": 1})
WAIT: Final = number("Wait up to so many ms for an item.", 0, MAX_WAIT_MS, "of ms")
QUEUES: Final = Parameter(_queue, "The name of a queue.", {"type": "string"}, several=True)
