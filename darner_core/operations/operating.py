"""What an operator asks of the server while it runs: its status, another reading of its files, its end, and all that it
counts and has been told, for a person or a script to read. See `client` for what a command is.

No call here switches greenlets, except through calls whose names begin with wait_.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn, Protocol

from darner_core.config.options import OPTIONS, Config
from darner_core.config.queues import parent_of
from darner_core.config.values import show_text
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.engines.local.registry import Registry
from darner_core.engines.local.routing import Delivery
from darner_core.errors import ClientError, ConfigError, ServerError, StorageError
from darner_core.operations.administering import Pieces, slices
from darner_core.operations.client import Client, HangUp, Reply
from darner_core.operations.enforcement import Enforcement
from darner_core.operations.session import Session
from darner_core.operations.stats import Stats, of_alias
from darner_core.operations.status import status_of
from darner_core.protocols.memcache import replies
from darner_core.protocols.memcache.reader import Request, show
from darner_core.protocols.memcache.replies import END
from darner_core.shared_memory import PipelineMemory

# How many queues' options one turn of `dump_config` tells.
DESCRIBED_A_TURN = 25

Figures = Iterable[tuple[str, Any, str]]  # an option, its value, and what has set it


class Host(Protocol):
    """The server, as an operator sees it."""

    status: Enforcement

    def wait_reload(self) -> None:
        """Read the files again. Raises ConfigError or StorageError; then nothing has changed."""

    def request_stop(self) -> None: ...


class Operating:
    """These commands, bound to what they work on. `host` is there before the first client is."""

    host: Host

    def __init__(
        self, registry: Registry, delivery: Delivery, stats: Stats, config: Config, pipeline_memory: PipelineMemory
    ) -> None:
        self._pipeline_memory = pipeline_memory
        self._queues = registry.queues
        self._delivery = delivery
        self._stats = stats
        self._config = config  # what is in effect

    def take_over(self, config: Config, names: Iterable[str]) -> None:
        """Of `config`, which has been read since, these options and tables are in effect now."""
        taken: dict[str, Any] = {name: getattr(config, name) for name in names}
        taken["levels"] = {
            **{name: level for name, level in self._config.levels.items() if name not in taken},
            **{name: level for name, level in config.levels.items() if name in taken},
        }
        self._config = replace(self._config, **taken)

    # -- the status

    def status(self, request: Request, body: None, session: Session) -> Reply:
        if not request.key:
            return replies.line(self.host.status.shown.word)
        try:
            status = status_of(request.key.decode("latin-1"))
        except ValueError as allowed:
            raise ClientError(f'unknown status "{show(request.key)}": {allowed}') from None
        return self._keep_status if self.host.status.change(status) else END

    def _keep_status(self, client: Client) -> bytes:
        self.host.status.wait_kept()
        return END

    # -- the server

    def reload(self, request: Request, body: None, session: Session) -> Reply:
        return self._reload

    def _reload(self, client: Client) -> bytes:
        try:
            self.host.wait_reload()
        except (ConfigError, StorageError) as error:
            raise ServerError(f"not reloaded: {error}") from None
        return replies.RELOADED

    def shutdown(self, request: Request, body: None, session: Session) -> NoReturn:
        self.host.request_stop()
        raise HangUp

    # -- what it counts, and what it was told

    def dump_stats(self, request: Request, body: None, session: Session) -> Reply:
        return partial(self._dump_stats, request.targets)

    def _dump_stats(self, asked_for: tuple[bytes, ...], client: Client) -> bytes:
        """Of these queues and aliases; of all, if none is named."""
        pieces = Pieces(client, self._pipeline_memory)
        for names in slices(asked_for or dict.fromkeys((*self._queues, *self._delivery.aliases))):
            for name in names:
                if frame := self._frame_of(name, client):
                    pieces.wait_add(frame)
                elif asked_for:
                    pieces.wait_add(_frame(b"queue '%b'" % name, ()))
            client.wait_turn()
        return pieces.take() + END

    def _frame_of(self, name: bytes, client: Client) -> bytes:
        """b"": there is none that the client may see."""
        if not client.may_see(name):
            return b""
        queue = self._queues.get(name)
        frame = self._frame_of_queue(name, client) if queue is not None else b""
        return frame + self._frame_of_alias(name, client) if name in self._delivery.aliases else frame

    def _frame_of_queue(self, name: bytes, client: Client) -> bytes:
        figures = self._stats.of_queue(self._queues[name], client.may_see)
        return _frame(b"queue '%b'" % name, map(_figure, figures))

    def _frame_of_alias(self, name: bytes, client: Client) -> bytes:
        delivery = self._delivery
        figures = of_alias(delivery.alias_counts[name], delivery.aliases[name], client.may_see)
        return _frame(b"queue '%b'" % name, map(_figure, figures))

    def dump_config(self, request: Request, body: None, session: Session) -> Reply:
        if request.queue:
            return self._describe(request.queue, request.parent) + END
        return self._dump_config

    def _dump_config(self, client: Client) -> bytes:
        pieces = Pieces(client, self._pipeline_memory)
        pieces.wait_add(_options_frame(b"server", self._of_server()))
        for names in slices((*self._aliases, *self._queues), DESCRIBED_A_TURN):
            for name in names:
                if name in self._aliases or name in self._queues:
                    pieces.wait_add(self._describe(name))
            client.wait_turn()
        return pieces.take() + END

    def _of_server(self) -> Iterator[tuple[str, Any, str]]:
        for option in OPTIONS:
            yield option.name, getattr(self._config, option.name), self._config.level(option.name)

    @property
    def _aliases(self) -> Mapping[bytes, tuple[bytes, ...]]:
        return self._config.aliases

    def _describe(self, name: bytes, parent: bytes = b"") -> bytes:
        """What is in effect for a queue of this name, whether there is one or not; `parent`: whose fanout child."""
        if name in self._aliases:
            return _options_frame(b"alias '%b'" % name, [("queues", self._aliases[name], "[aliases]")])
        queue = self._queues.get(name)
        if queue is not None and queue.is_child:
            parent = parent_of(name)
        return _options_frame(b"queue '%b'" % name, _in_effect(self._config.rules.describe(name, parent), queue))


def _in_effect(options: Figures, queue: MessageQueue | None) -> Figures:
    """`options` as they are for this queue: whether it is on disk has been decided when it was made."""
    for option, value, level in options:
        if option == "durable" and queue is not None and value != queue.log.durable:
            yield option, not value, "as the queue was made"
        else:
            yield option, value, level


def _figure(figure: tuple[bytes, int | bytes]) -> bytes:
    name, value = figure
    return b"%b=%b" % (name, value if isinstance(value, bytes) else b"%d" % value)


def _frame(title: bytes, lines: Iterable[bytes]) -> bytes:
    """Source: Kestrel's dump_stats."""
    return b"".join((title, b" {\r\n", *(b"  %b\r\n" % line for line in lines), b"}\r\n"))


def _options_frame(title: bytes, options: Figures) -> bytes:
    lines = (f"{name}={_written(value)} ({show_text(level)})" for name, value, level in options)
    return _frame(title, (line.encode("utf-8", "surrogateescape") for line in lines))


def _written(value: Any) -> str:
    """`value` as the file has it."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_written, value))}]"
    return json.dumps(value, ensure_ascii=False)
