"""Feeding a reader, as a connection does."""

from typing import Any

from darner_core.protocols.contract import Reader


def feed(reader: Reader, data: bytes) -> list[tuple[Any, bytes | None]]:
    """The requests that `data` completes, each with its body or None. The reader's `error` and `large` tell the
    rest."""
    return list(reader.requests(data))
