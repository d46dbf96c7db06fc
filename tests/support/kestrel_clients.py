"""A server that speaks all of Kestrel's protocols, and clients of the text protocol and of the thrift service."""

import re
from pathlib import Path
from typing import Any

from thriftpy2.protocol.binary import TBinaryProtocol
from thriftpy2.thrift import TClient
from thriftpy2.transport.framed import TFramedTransport
from thriftpy2.transport.socket import TSocket

from darner_core.protocols.thrift.messages import load_idl
from tests.support.harness import REPLY_S, Client, RunningServer

IDL = load_idl()


LISTENERS = """
[[listener]]
port = 0
dialect = "text"

[[listener]]
port = 0
dialect = "thrift"
"""


class KestrelServer(RunningServer):
    """`tables`: for its configuration file. `fails`: on the disk of tests/servers/failing_disk.py."""

    def __init__(self, data: Path, *options: str, tables: str = "", fails: bool = False) -> None:
        self._thrift_clients: list[Any] = []
        self.program = "tests/servers/failing_disk.py" if fails else "darner.py"
        file = data.parent / f"{data.name}.toml"
        file.write_text(tables + LISTENERS)
        super().__init__(data, "-c", str(file), *options)

    @property
    def ports(self) -> list[int]:
        """The ports of the memcache protocol, the text protocol and the thrift service."""
        return [int(port) for port in re.findall(r"listening on: \S+ port (\d+)", self.printed())]

    def text_client(self) -> Client:
        return self.adopt(Client(self.ports[1]))

    def raw_thrift_client(self) -> Client:
        return self.adopt(Client(self.ports[2]))

    def thrift_client(self) -> Any:
        """A client as the library makes it from the IDL: a method for each call."""
        client = connect_thrift(self.ports[2])
        self._thrift_clients.append(client)
        return client

    def as_new(self) -> None:
        """Called between two tests: starts it if it does not run, closes all clients, and deletes all queues."""
        self._hang_up()
        if self.process.poll() is not None:
            self.start()
        client = Client(self.port)
        for name in {key for key in client.stats() if re.fullmatch(r"queue_.*_items", key) and "total" not in key}:
            client.ask(b"delete %b\r\n" % name[6:-6].encode(), b"DELETED\r\n")
        client.close()

    def end(self) -> None:
        self._hang_up()
        super().end()

    def _hang_up(self) -> None:
        for client in [*self._thrift_clients, *self._clients]:
            client.close()
        self._thrift_clients.clear()
        self._clients.clear()


def connect_thrift(port: int) -> Any:
    transport = TFramedTransport(TSocket("127.0.0.1", port, socket_timeout=REPLY_S * 1000))
    transport.open()
    return TClient(IDL.Kestrel, TBinaryProtocol(transport))
