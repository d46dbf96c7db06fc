"""What operators and their tools ask of a server of Redis or Disque: CONFIG, COMMAND, SLOWLOG, LATENCY, DEBUG, SHUTDOWN
and others. Most tools ask before they work, and need an answer more than a truth that there is not.
"""

import fnmatch
from collections.abc import Callable, Mapping
from typing import Any, Final

from darner_core.access.rights import ADMIN_ALL
from darner_core.config.options import Config
from darner_core.config.values import SYNC_ALWAYS
from darner_core.operations.client import HangUp
from darner_core.operations.operations import Operations
from darner_core.protocols.contract import WRITES, Reply
from darner_core.protocols.grammar import excerpt
from darner_core.protocols.guard import require_admin
from darner_core.protocols.resp import replies
from darner_core.protocols.resp.reader import Entry, RespRequest
from darner_core.protocols.resp.replies import OK, RespError
from darner_core.protocols.resp.session import RespSession

_CONFIG: Final = "CONFIG subcommand must be one of GET, SET, RESETSTAT, REWRITE"


class ServerCommands:
    """The commands, bound to the server."""

    def __init__(
        self,
        operations: Operations,
        config: Config,
        entries: Mapping[bytes, Entry],
        flush_all: Callable[[RespRequest, None, RespSession], Reply],
    ) -> None:
        """`entries`: of all commands, which are complete when the first is served. `flush_all`: DEBUG FLUSHALL."""
        self._host = operations.host
        self._entries = entries
        self._flush_all = flush_all
        # What tools ask for. Who sets one of these to what it is, is told that it is so.
        self._options: dict[bytes, bytes] = {
            b"appendonly": b"yes",
            b"appendfsync": b"always" if config.sync == SYNC_ALWAYS else b"everysec",
            b"databases": b"1",
            b"maxclients": b"%d" % config.max_connections,
            b"maxmemory": b"0",
            b"maxmemory-policy": b"noeviction",
            b"proto-max-bulk-len": b"%d" % config.max_item_bytes,
            b"save": b"",
            b"timeout": b"0",
        }

    def entries(self) -> dict[bytes, Entry]:
        return {
            b"config": Entry(self.config, 1),
            b"command": Entry(self.command),
            b"slowlog": Entry(self.slow_log, 1),
            b"latency": Entry(self.latency, 1),
            b"debug": Entry(self.debug, 1, None, WRITES),
            b"shutdown": Entry(self.shut_down, 0, 1),
            b"bgrewriteaof": Entry(self.rewrite, 0, 0),
            b"loadjob": Entry(self.load_job, 1),
        }

    def config(self, request: RespRequest, body: None, session: RespSession) -> bytes:
        word, *words = request.arguments
        verb = word.lower()
        if verb == b"get" and words:
            patterns = [one.lower().decode("latin-1") for one in words]
            found = [
                (name, value)
                for name, value in self._options.items()
                if any(fnmatch.fnmatchcase(name.decode(), pattern) for pattern in patterns)
            ]
            return replies.pairs(((name, replies.bulk(value)) for name, value in found), session.version)
        if verb == b"set" and words and not len(words) % 2:
            for name, value in zip(words[::2], words[1::2], strict=True):
                if self._options.get(name.lower()) != value:
                    raise RespError(f"Unsupported CONFIG parameter: {excerpt(name)}")
            return OK
        if verb == b"rewrite" and not words:
            return OK  # nothing has been set
        if verb == b"resetstat" and not words:
            raise RespError("the statistics cannot be reset: they count from the start of the server")
        raise RespError(_CONFIG)

    def command(self, request: RespRequest, body: None, session: RespSession) -> bytes:
        """`COMMAND [COUNT|LIST|INFO <name>...|DOCS <name>...]`"""
        verb, names = b"", list(self._entries)
        if request.arguments:
            verb = request.arguments[0].lower()
            asked = [name.lower() for name in request.arguments[1:]]
            names = asked or names
        if verb in (b"", b"info"):
            return replies.array(self._described(name, session) for name in names)
        if verb == b"count":
            return replies.integer(len(self._entries))
        if verb == b"list":
            return replies.bulks(names)
        if verb == b"docs":
            return replies.pairs((), session.version)
        raise RespError(f"Unknown subcommand or wrong number of arguments for '{excerpt(verb)}'")

    def _described(self, name: bytes, session: RespSession) -> bytes:
        entry = self._entries.get(name)
        if entry is None:
            return session.nil_array
        arity = entry.least + 1 if entry.least == entry.most else -(entry.least + 1)
        flag = b"write" if entry.kind == WRITES else b"readonly"
        numbers = map(replies.integer, (arity, 0, 0, 0))
        arity_reply, *places = numbers
        return replies.array((replies.bulk(name), arity_reply, replies.array((replies.simple(flag),)), *places))

    def slow_log(self, request: RespRequest, body: None, session: RespSession) -> bytes:
        """No command is slow: what takes long is done in several turns."""
        return _told(request, {b"get": replies.EMPTY, b"len": replies.integer(0), b"reset": OK})

    def latency(self, request: RespRequest, body: None, session: RespSession) -> bytes:
        return _told(request, {b"latest": replies.EMPTY, b"history": replies.EMPTY, b"reset": replies.integer(0)})

    def debug(self, request: RespRequest, body: None, session: RespSession) -> Reply:
        if request.arguments[0].lower() == b"flushall" and len(request.arguments) == 1:
            return self._flush_all(request, body, session)
        name = excerpt(request.arguments[0])
        raise RespError(f"Unknown DEBUG subcommand or wrong number of arguments for '{name}'")

    def shut_down(self, request: RespRequest, body: None, session: RespSession) -> Any:
        if request.arguments and request.arguments[0].lower() not in (b"save", b"nosave"):
            raise RespError("syntax error")
        session.require(ADMIN_ALL, b"")
        require_admin(request, session)
        self._host.request_stop()
        raise HangUp

    def rewrite(self, request: RespRequest, body: None, session: RespSession) -> bytes:
        """RocksDB does it all the time."""
        return replies.simple(b"Background append only file rewriting started")

    def load_job(self, request: RespRequest, body: None, session: RespSession) -> bytes:
        raise RespError("LOADJOB is a special command only processed from AOF")


def _told(request: RespRequest, by_word: Mapping[bytes, bytes]) -> bytes:
    word = request.arguments[0]
    if word.lower() not in by_word:
        known = ", ".join(one.decode().upper() for one in by_word)
        raise RespError(f"unknown subcommand '{excerpt(word)}': {known}")
    return by_word[word.lower()]
