"""The server: who asks it, what its state, its options and its clients are, and what operators tell it. Endpoints may
switch.
"""

import os
import time
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from operator import itemgetter
from typing import Any, Final

from darner_core import VERSION
from darner_core.access.rights import ADMIN_ALL
from darner_core.config.queues import BUILT_IN_LEVEL
from darner_core.errors import ConfigError
from darner_core.operations.operations import Operations
from darner_core.operations.status import STATUSES, status_of
from darner_core.protocols.http import bodies, parameters, schemas
from darner_core.protocols.http.admission import Admission
from darner_core.protocols.http.contract import JSON, Answer, Asked, Endpoint, Problem, done
from darner_core.protocols.http.names import shown
from darner_core.protocols.http.schemas import as_json, object_of
from darner_core.showing import show
from darner_core.slicing import slices

MAX_LINES: Final = 500
MAX_CONNECTIONS: Final = 1000
SHOWN_AT_ONCE: Final = 200  # in one turn: 1 ms
LOOKED_AT_ONCE: Final = 2000


def plain(value: Any) -> Any:
    """The value of an option, as JSON has it."""
    if isinstance(value, bytes):
        return show(value)
    return list(value) if isinstance(value, tuple) else value


class ServerPart:
    def __init__(self, operations: Operations, admission: Admission, host: Any) -> None:
        """`host` is the server: its `overview` tells of clients, listeners and the log."""
        self._operations = operations
        self._admission = admission
        self._host = host

    def endpoints(self) -> Sequence[Endpoint]:
        words = [word.lower() for word in STATUSES]
        status = {"type": "object", "required": ["status"], "additionalProperties": False,
            "properties": {"status": {"type": "string", "enum": words}}}  # fmt: skip
        page = {
            "after": parameters.number("Those behind this id: what `next` was.", 0, 2**31 - 1),
            "limit": parameters.number("How many to tell.", 1, MAX_CONNECTIONS),
        }
        lines = {"lines": parameters.number("How many of the last lines.", 1, MAX_LINES)}
        return (
            Endpoint("GET", "/api/v1/session", self.session, "Who asks, and what a page needs to know to begin with.",
                answers={200: "The user, the token that changes need, and the server's state."},
                shapes={200: as_json(schemas.SESSION)}),
            Endpoint("GET", "/api/v1/server", self.server, "All figures of the server.",
                answers={200: "The figures, by the names that stats has for them."},
                shapes={200: as_json(schemas.SERVER)}),
            Endpoint("GET", "/api/v1/server/options", self.options, "The options, and where each was set.", ADMIN_ALL,
                answers={200: "The options."}, shapes={200: as_json(schemas.OPTIONS)}),
            Endpoint("GET", "/api/v1/server/log", self.log, "The last lines of the log.", ADMIN_ALL, parameters=lines,
                answers={200: "The lines, the last one last."}, shapes={200: as_json(schemas.LINES)}),
            Endpoint("POST", "/api/v1/server/status", self.status, "Change what is taken and given.", ADMIN_ALL,
                takes={JSON: status}, answers={200: "The status that is shown now."},
                shapes={200: as_json(object_of(status=schemas.TEXT))}, changes=True),
            Endpoint("POST", "/api/v1/server/reload", self.reload, "Read the files again.", ADMIN_ALL,
                answers={204: "They are in effect.", 409: "They are wrong; nothing has changed."}, changes=True),
            Endpoint("GET", "/api/v1/connections", self.connections, "The clients.", ADMIN_ALL, parameters=page,
                answers={200: "Clients, and what is to be given as `after` for the next."},
                shapes={200: as_json(schemas.CONNECTIONS)}),
        )  # fmt: skip

    # -- looking

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

    def server(self, asked: Asked) -> Answer:
        statistics = self._operations.statistics
        figures = dict(statistics.of_server(statistics.wait_totals(asked.client)))
        return Answer({
            "status": self._operations.host.status.shown.word,
            "version": VERSION,
            "pid": os.getpid(),
            "uptime_s": figures[b"uptime"],
            "listeners": self._host.overview.listeners(),
            "figures": {name.decode(): _number(value) for name, value in figures.items()},
        })  # fmt: skip

    def options(self, asked: Asked) -> Answer:
        reloaded = self._host.overview.reloaded
        return Answer([
            {
                "name": name,
                "value": plain(value),
                "source": "default" if source == BUILT_IN_LEVEL else source,
                "changed_takes_effect": "reload" if name in reloaded else "restart",
            }
            for name, value, source in self._operations.in_effect.of_server()
        ])  # fmt: skip

    def log(self, asked: Asked) -> Answer:
        lines: Iterable[tuple[int, str, str]] = self._host.overview.last_lines(asked.told.get("lines", 200))
        return Answer([{"time_ms": time_ms, "level": level, "text": text} for time_ms, level, text in lines])

    def connections(self, asked: Asked) -> Answer:
        overview = self._host.overview
        after, limit = asked.told.get("after", -1), asked.told.get("limit", 100)
        several: list[tuple[int, Any]] = []
        for number, some in enumerate(slices(overview.connections, LOOKED_AT_ONCE)):
            if number:
                asked.client.wait_turn()
            several += [(one.fd, one) for one in some if one.fd > after]
            several.sort(key=itemgetter(0))
            del several[limit + 1 :]
        found = []
        for at, (_, connection) in enumerate(several[:limit]):
            if at and at % SHOWN_AT_ONCE == 0:
                asked.client.wait_turn()
            told = overview.shown(connection)
            found.append({**told, "waiting_for": [shown(queue) for queue in told["waiting_for"] or ()]})
        return Answer({"connections": found, "next": found[-1]["id"] if len(several) > limit else None})

    # -- changing

    def status(self, asked: Asked) -> Answer:
        found = bodies.wait_json(asked.env)
        asked.client.go_on()
        bodies.require_keys(found, "status")
        word = found.get("status")
        try:
            new = status_of(word if isinstance(word, str) else "")
        except ValueError as error:
            raise Problem(HTTPStatus.BAD_REQUEST, f"status must be {error}") from None
        self._admission.require_admin(asked.client, "status", told=new.word.lower())
        server_status = self._operations.host.status
        if server_status.change(new):
            server_status.wait_kept()
        return Answer({"status": server_status.shown.word})

    def reload(self, asked: Asked) -> Answer:
        self._admission.require_admin(asked.client, "reload")
        try:
            self._operations.host.wait_reload()
        except ConfigError as error:
            raise Problem(HTTPStatus.CONFLICT, str(error)) from None
        return done()


def _number(value: Any) -> Any:
    if isinstance(value, bytes):
        text = show(value)
        try:
            return float(text)
        except ValueError:
            return text
    return value
