"""What the data directory is called, for protocols in which servers have names: random, and the same over restarts."""

import secrets

from darner_core.engines.local.journal import Journal
from darner_core.storage.number_records import NAME_BYTES, SECRET_BYTES


class Identity:
    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._known: tuple[bytes, bytes] | None = None

    def of_directory(self) -> tuple[bytes, bytes]:
        """(name, secret), made in this turn if there is none. Raises StorageError."""
        if self._known is None:
            storage = self._journal.storage
            self._known = storage.numbers.identity()
            if self._known is None:
                name, secret = self._known = secrets.token_bytes(NAME_BYTES), secrets.token_bytes(SECRET_BYTES)
                self._journal.undo.append((self._forget,))
                self._journal.also.append(lambda batch: storage.numbers.put_identity(batch, name, secret))
        return self._known

    def _forget(self) -> None:
        self._known = None
