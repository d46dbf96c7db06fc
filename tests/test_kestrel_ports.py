"""Kestrel's other two protocols as parts of a server: made when they are asked for, and only for who may come in."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from thriftpy2.protocol.binary import TBinaryProtocol
from thriftpy2.thrift import TApplicationException, TClient
from thriftpy2.transport.base import TTransportException
from thriftpy2.transport.framed import TFramedTransport
from thriftpy2.transport.socket import TSocket

from tests.harness import ROOT, Client
from tests.identities import Authority, TlsClient, login, write_users
from tests.kestrel_clients import IDL, KestrelServer

UNAUTHENTICATED = "unauthenticated: here only a TLS certificate says who a client is"


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True
    )
    return done.stdout


def test_a_server_without_a_thrift_listener_does_not_know_the_library() -> None:
    program = "import sys, darner_core.main; print([name for name in sys.modules if name.startswith('thriftpy2')])"
    assert run(program) == "[]\n"


def test_a_missing_library_is_said_in_one_line() -> None:
    program = (
        "import sys; sys.modules['thriftpy2'] = None\n"
        "from darner_core import kestrel_ports\n"
        "from darner_core.errors import StartError\n"
        "try: kestrel_ports.vocabulary('thrift', *[None] * 7)\n"
        "except StartError as error: print(error)\n"
    )
    assert run(program).startswith('a listener with dialect = "thrift" needs the package thriftpy2: ')


# -- users and rights

RIGHTS = """
[users.worker]
put = ["done"]
get = ["work"]

[users.boss]
put = ["*"]
get = ["*"]
admin = ["*"]
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[KestrelServer]:
    tmp_path = tmp_path_factory.mktemp("server")
    users = write_users(tmp_path / "users", worker="*", boss="*", other="word")
    options = ["--auth-file", str(users), "--tls-ca", str(authority.file), *authority.options()]
    server = KestrelServer(tmp_path / "data", *options, tables=RIGHTS)
    yield server
    server.end()


@pytest.fixture
def text_client(server: KestrelServer, authority: Authority) -> Callable[[str], Client]:
    return lambda name: server.adopt(TlsClient(server.ports[1], authority.context(name)))


@pytest.fixture
def thrift_client(server: KestrelServer, authority: Authority) -> Callable[[str], Any]:
    def connect(name: str) -> Any:
        client = TlsClient(server.ports[2], authority.context(name))
        transport = TFramedTransport(TSocket(sock=client.socket))
        server.adopt(client)
        return TClient(IDL.Kestrel, TBinaryProtocol(transport))

    return connect


def refusal(call: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(TApplicationException) as raised:
        call(*arguments)
    return str(raised.value.message)


def test_a_certificate_says_who_a_client_of_the_text_protocol_is(
    server: KestrelServer, text_client: Callable[[str], Client]
) -> None:
    boss = text_client("boss")
    boss.ask(b"put work:\na\nb\n\nput secret:\nc\n\nflush nothing\n", b"+2\n+1\n+0\n")
    worker = text_client("worker")
    worker.ask(b"get work\nput done:\nx\n\nversion\n", b":a\n+1\n:1.0.0\n")
    worker.ask(b"what\n", b"-Unknown command: what\n")
    for said, answer in (
        (b"get secret\n", b"-user worker may not get from queue secret\n"),
        (b"monitor secret 5\n", b"-user worker may not get from queue secret\n"),
        (b"put work:\nx\n\n", b"-user worker may not put into queue work\n"),
        (b"delete work\n", b"-user worker may not administer queue work\n"),
        (b"shutdown\n", b"-user worker may not administer every queue\n"),
        (b"status down\n", b"-user worker may not administer every queue\n"),
    ):
        worker.ask(said, answer)
        worker.expect_hang_up()
        worker = text_client("worker")
    boss.ask(b"get secret\nget work 5000\nget work\n", b":c\n:a\n:b\n")


def test_a_certificate_says_who_a_client_of_the_thrift_service_is(
    server: KestrelServer, thrift_client: Callable[[str], Any]
) -> None:
    boss = thrift_client("boss")
    assert boss.put("work", [b"a", b"b"]) == 2
    (item,) = boss.get("work", 1, 0, 60_000)
    worker = thrift_client("worker")
    assert [one.data for one in worker.get("work", 1)] == [b"b"]
    assert worker.put("done", [b"x"]) == 1
    assert worker.get_version() == "1.0.0"
    assert worker.confirm("work", {item.id}) == 1
    for method, arguments, answer in (
        ("get", ("secret", 1), "user worker may not get from queue secret"),
        ("peek", ("secret",), "user worker may not get from queue secret"),
        ("confirm", ("secret", {item.id}), "user worker may not get from queue secret"),
        ("put", ("work", [b"x"]), "user worker may not put into queue work"),
        ("flush_queue", ("work",), "user worker may not administer queue work"),
        ("flush_all_queues", (), "user worker may not administer every queue"),
        ("set_status", (1,), "user worker may not administer every queue"),
    ):
        assert refusal(getattr(worker, method), *arguments) == answer
        with pytest.raises((TTransportException, EOFError, OSError)):
            worker.get_version()
        worker = thrift_client("worker")
    assert boss.get("work", 10) == []


def test_whose_certificate_names_no_user_is_told_that_there_is_no_login(
    server: KestrelServer, text_client: Callable[[str], Client], thrift_client: Callable[[str], Any]
) -> None:
    for said in (b"", b"get q\n", login("other", "word")):
        stranger = text_client("stranger")
        stranger.send(said)
        stranger.expect(b"-" + UNAUTHENTICATED.encode() + b"\n")
        stranger.expect_hang_up()
    assert refusal(thrift_client("stranger").get_version) == UNAUTHENTICATED
    assert "text has no login" in server.printed()


def test_one_client_too_many_is_told_in_its_protocol(tmp_path: Path) -> None:
    server = KestrelServer(tmp_path / "data", "--max-connections", "1")
    try:
        first = server.text_client()
        first.ask(b"get q\n", b"*\n")
        server.text_client().expect(b"-too many connections\n")
        assert refusal(server.thrift_client().get_version) == "too many connections"
    finally:
        server.end()
