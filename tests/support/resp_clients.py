"""A server that speaks RESP beside the memcache protocol, and a client whose replies are Python's values."""

import re
from pathlib import Path
from typing import Any

from tests.support.harness import REPLY_S, Client, RunningServer

LISTENERS = """
[[listener]]
port = 0
dialect = "resp"
"""

Word = str | bytes | int | float


class Failed(str):
    """A reply that is an error."""


class RespServer(RunningServer):
    """`tables`: for its configuration file. `fails`: on the disk of tests/servers/failing_disk.py."""

    def __init__(self, data: Path, *options: str, tables: str = "", fails: bool = False) -> None:
        self.program = "tests/servers/failing_disk.py" if fails else "darner.py"
        file = data.parent / f"{data.name}.toml"
        file.write_text(tables + LISTENERS)
        super().__init__(data, "-c", str(file), *options)

    @property
    def resp_port(self) -> int:
        return [int(port) for port in re.findall(r"listening on: \S+ port (\d+)", self.printed())][1]

    def resp(self) -> "RespClient":
        client = RespClient(self.resp_port)
        self.adopt(client)
        return client

    def as_new(self) -> None:
        """Called between two tests: starts it if it does not run, closes all clients, and deletes all queues."""
        for client in self._clients:
            client.close()
        self._clients.clear()
        if self.process.poll() is not None:
            self.start()
        client = RespClient(self.resp_port)
        while names := client.do("QSCAN", "COUNT", 1000)[1]:
            client.do("DEL", *names)
        client.close()


def said(*words: Word) -> bytes:
    """A request, as clients write it."""
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n%b" % (len(parts), b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts))


class RespClient(Client):
    """One connection. A simple string is a str, a bulk is bytes, an error is Failed, and nothing is None."""

    def do(self, *words: Word) -> Any:
        """The reply to one request."""
        self.send(said(*words))
        return self.reply()

    def do_all(self, *requests: tuple[Word, ...]) -> list[Any]:
        """The replies to requests that are sent with one call."""
        self.send(b"".join(said(*words) for words in requests))
        return [self.reply() for _ in requests]

    def whole_line(self) -> bytes:
        while (end := self._received.find(b"\r\n")) < 0:
            self.socket.settimeout(REPLY_S)
            data = self.socket.recv(1 << 20)
            assert data, f"the server hung up: {bytes(self._received)!r}"
            self._received += data
        return self.read(end + 2)[:-2]

    def reply(self) -> Any:
        line = self.whole_line()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            return Failed(rest.decode("utf-8", "replace"))
        if kind == b":":
            return int(rest)
        if kind == b"$":
            if rest == b"-1":
                return None
            body = self.read(int(rest))
            self.expect(b"\r\n")
            return body
        if kind == b"_":
            return None
        if kind == b"%":
            return {self.reply(): self.reply() for _ in range(int(rest))}
        assert kind == b"*", line
        return None if rest == b"-1" else [self.reply() for _ in range(int(rest))]
