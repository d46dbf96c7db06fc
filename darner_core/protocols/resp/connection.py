"""The commands about a connection: who it is, which version it speaks, and whether the server hears it."""

import time
from typing import NoReturn

from darner_core.operations.client import Client, HangUp
from darner_core.protocols.contract import Reply
from darner_core.protocols.resp import replies
from darner_core.protocols.resp.cluster import Cluster
from darner_core.protocols.resp.naming import integer_of
from darner_core.protocols.resp.reader import Entry, RespRequest
from darner_core.protocols.resp.replies import OK, RespError
from darner_core.protocols.resp.session import RespSession
from darner_core.protocols.resp.versions import hello_reply, read_hello


class ConnectionCommands:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def entries(self) -> dict[bytes, Entry]:
        return {
            b"auth": Entry(self.auth, 1, 2),
            b"hello": Entry(self.hello),
            b"ping": Entry(self.ping, 0, 1),
            b"echo": Entry(self.echo, 1, 1),
            b"select": Entry(self.select, 1, 1),
            b"time": Entry(self.time, 0, 0),
            b"reset": Entry(self.reset, 0, 0),
            b"quit": Entry(self.quit),
        }

    def auth(self, request: RespRequest, body: None, session: RespSession) -> NoReturn:
        """The login of a connection is its first request, which the guard takes; what comes later is here."""
        if session.origin.user:
            raise RespError(f"this connection is user {session.origin.user}: connect again to be another")
        raise RespError("Client sent AUTH, but no password is set")

    def hello(self, request: RespRequest, body: None, session: RespSession) -> bytes:
        if not request.arguments:
            return self._cluster.hello()
        asked = read_hello(request.arguments)
        if asked.user is not None and asked.user.decode("utf-8", "surrogateescape") != session.origin.user:
            self.auth(request, body, session)
        return hello_reply(asked, session)

    def ping(self, request: RespRequest, body: None, session: RespSession) -> bytes:
        return replies.bulk(request.arguments[0]) if request.arguments else replies.simple(b"PONG")

    def echo(self, request: RespRequest, body: None, session: RespSession) -> bytes:
        return replies.bulk(request.arguments[0])

    def select(self, request: RespRequest, body: None, session: RespSession) -> bytes:
        if integer_of(request.arguments[0]) != 0:
            raise RespError("DB index is out of range")
        return OK

    def time(self, request: RespRequest, body: None, session: RespSession) -> bytes:
        seconds, micros = divmod(time.time_ns() // 1000, 1_000_000)
        return replies.bulks((b"%d" % seconds, b"%d" % micros))

    def reset(self, request: RespRequest, body: None, session: RespSession) -> bytes:
        session.end_transaction()
        session.version, session.name = 2, b""
        return replies.simple(b"RESET")

    def quit(self, request: RespRequest, body: None, session: RespSession) -> Reply:
        return _wait_goodbye


def _wait_goodbye(client: Client) -> NoReturn:
    client.wait_sent(OK)
    raise HangUp
