"""What an endpoint is: a method and a path, what it may be told, and a function that answers.

An endpoint's function takes an Asked and returns an Answer, or raises a Problem, a RequestError or a StorageError. It
runs in the client's greenlet. What it changes is written before the answer leaves, see `Client.wait_written`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from darner_core.access.rights import FREE
from darner_core.operations.client import Client

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
BYTES: Final = "application/octet-stream"
EVENTS: Final = "text/event-stream"
PROBLEM: Final = "application/problem+json"

# What a request does while the status forbids one of them.
WRITES, READS = "writes", "reads"


class HttpClient(Client, Protocol):
    """The connection, as the application sees it. It has one request at a time."""

    user: str  # whom the client's certificate names; "": nobody
    asks_as: str | None  # who makes this request; None: nobody is asked for a name
    no_writes: str  # why it may not put, as long as it is connected; "": it may
    no_reads: str
    waits_for: tuple[bytes, ...]  # the queues that it waits for an item of
    undelivered: Callable[[], None] | None  # to be called if the answer cannot be sent
    turns: int  # how many turns have ended in which it has done something

    @property
    def asks_for_names(self) -> bool:
        """Whether a client has to say who it is, where this one has come to."""

    @property
    def listener_name(self) -> str:
        """The address that it has come to, as it is configured, without the port."""

    def go_on(self) -> None:
        """After a body has been read, which may have waited: what is done from here on belongs to the turn that goes on
        now. Raises ServerError if an earlier turn has failed, in which the request has done something."""

    def wait_written(self) -> None:
        """Wait until all that the request has changed is written, and synced if it has to be. Raises ServerError if it
        could not be: then nothing of its last turn has happened."""


class Problem(Exception):
    """An answer that is an error, see RFC 9457. `detail` says what is wrong, where, and what is allowed."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}
        self.more = more


class Parameter(NamedTuple):
    """What the query may say. `read` raises ValueError saying what is allowed."""

    read: Callable[[str], Any]
    about: str
    schema: Mapping[str, Any]
    several: bool = False  # it may stand there more than once; its value is a tuple then


@dataclass(slots=True)
class Asked:
    """One request."""

    client: Any  # an HttpClient
    env: Mapping[str, Any]
    queue: bytes = b""  # the name in the path
    id: str = ""  # the number in the path, as it is written
    told: Mapping[str, Any] = field(default_factory=dict)  # the parameters that were given, by name

    @property
    def session(self) -> Any:
        return self.client.session

    @property
    def accepts_json(self) -> bool:
        return JSON in self.env.get("HTTP_ACCEPT", "")


@dataclass(slots=True)
class Answer:
    """What is answered. A `body` that is neither bytes nor None is written as JSON; `pieces` come instead of it."""

    body: Any = None
    status: int = 200
    kind: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    pieces: Iterator[bytes] | None = None
    length: int | None = None  # of all pieces together, if it is known


NO_CONTENT: Final = 204
CREATED: Final = 201


def done() -> Answer:
    return Answer(status=NO_CONTENT)


Run = Callable[[Asked], Answer]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`right`: to the queue in the path, or FREE, or ADMIN_ALL. `kind`: WRITES or READS, which a status may refuse.
    The rest is for the OpenAPI document: `answers` are descriptions by status, `shapes` schemas of bodies by status."""

    method: str
    path: str
    run: Run
    about: str
    right: str = FREE
    kind: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    takes: Mapping[str, Any] = field(default_factory=dict)  # the schema of the body by its media type; {}: none
    answers: Mapping[int, str] = field(default_factory=dict)
    shapes: Mapping[int, Any] = field(default_factory=dict)
    changes: bool = False  # it does something, whatever its method; a GET never does
    looks: bool = False  # it asks nothing of the queues, and need not wait for the turn


class Part(Protocol):
    """A module's endpoints, bound to the operations."""

    def endpoints(self) -> Sequence[Endpoint]: ...
