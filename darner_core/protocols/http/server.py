"""The server: who asks it, and what its state is. Endpoints may switch."""

import time
from collections.abc import Sequence
from typing import Any

from darner_core import VERSION
from darner_core.access.rights import ADMIN_ALL
from darner_core.config.options import Config
from darner_core.operations.operations import Operations
from darner_core.protocols.http.admission import Admission
from darner_core.protocols.http.contract import Answer, Asked, Endpoint


class ServerPart:
    def __init__(self, operations: Operations, config: Config, admission: Admission, host: Any) -> None:
        self._operations = operations
        self._admission = admission
        self._host = host

    def endpoints(self) -> Sequence[Endpoint]:
        return (
            Endpoint("GET", "/api/v1/session", self.session, "Who asks, and what a page needs to know to begin with.",
                answers={200: "The user, the token that changes need, and the server's state."}),
        )  # fmt: skip

    def session(self, asked: Asked) -> Answer:
        available, status = self._operations.availability, self._operations.host.status
        return Answer({
            "user": asked.client.asks_as,
            "token": self._admission.token(asked.client),
            "version": VERSION,
            "may_admin": self._admission.may(asked.client, ADMIN_ALL),
            "readonly": bool(available.no_writes or available.no_room),
            "status": status.shown.word,
            "now_ms": int(time.time() * 1000),
        })  # fmt: skip
