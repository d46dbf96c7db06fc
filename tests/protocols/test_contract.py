"""Kestrel's other two protocols as parts of a server: made when they are asked for, and for those who may come in."""

import signal
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
from thriftpy2.transport.memory import TMemoryBuffer
from thriftpy2.transport.socket import TSocket

from darner_core.errors import RequestError
from darner_core.operations.session import ManyReads
from darner_core.operations.status import ServerStatus
from darner_core.protocols.vocabularies import Vocabularies
from darner_core.storage.storage import Storage
from tests.operations.test_session import House
from tests.support.harness import ROOT, Client, wait_until
from tests.support.identities import Authority, TlsClient, login, write_users
from tests.support.kestrel_clients import IDL, KestrelServer
from tests.support.operations_on import operations_on

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
        "from darner_core.protocols.vocabularies import protocol_of\n"
        "from darner_core.errors import StartError\n"
        "try: protocol_of(None, None, 'thrift')\n"
        "except StartError as error: print(error)\n"
    )
    assert run(program).startswith('a listener with dialect = "thrift" needs the package thriftpy2: ')


# -- the server's status


class Inside:
    """One dialect's requests served without a server: what they answer, waiting or not."""

    def __init__(self, dialect: str, house: House) -> None:
        config = house.config
        operations = operations_on(house, self)
        self.session = ManyReads(house.journal)
        self._availability = operations.availability
        self._vocabularies = Vocabularies(operations, config)
        self.vocabulary = self._vocabularies.of(dialect)
        self._reader = self.vocabulary.new_reader()
        self.status = ServerStatus(config, self._forbid, lambda *_: self)

    def _forbid(self, no_writes: str, no_reads: str) -> None:
        self._availability.no_writes, self._availability.no_reads = no_writes, no_reads
        self._vocabularies.refuse()

    def close(self) -> None:
        """As a timer."""

    def wait_backup(self, name: str) -> tuple[int, int]:
        return 0, 0

    def request_stop(self) -> None: ...

    def wait_reload(self) -> None: ...

    def ask(self, said: bytes) -> bytes:
        answers = []
        for request, body in self._reader.requests(said):
            try:
                reply = request.run(request, body, self.session)
                answers.append(reply if isinstance(reply, bytes) else reply(self))
            except RequestError as error:
                answers.append(self.vocabulary.dialect.error_reply(error))
        return b"".join(answers)


def test_help_lists_the_verbs_of_the_text_protocol(open_storage: Callable[[], Storage]) -> None:
    text = Inside("text", House(open_storage))
    told = text.ask(b"help\n")
    assert told == text.ask(b"? put\n")
    *lines, end = told.splitlines()
    assert end == b"*"
    assert lines[0].startswith(b":put <queue>[/delay=<ms>]")
    verbs = {line[1:].split()[0] for line in lines}
    assert verbs == {verb for verb in text.vocabulary.table if verb.isalpha()}


def test_a_status_is_shown_and_set_and_refuses_in_the_text_protocol(open_storage: Callable[[], Storage]) -> None:
    text = Inside("text", House(open_storage))
    assert text.ask(b"status\nput q:\na\nb\n\nget q\nstatus readonly\nstatus\n") == b":UP\n+2\n:a\n+0\n:READONLY\n"
    refused = [b"put q:\nx\n\n", b"flush q\n", b"delete q\n"]
    for said in refused:
        assert text.ask(said) == b"-Server not available for operation %b\n" % said[: said.index(b" ")]
    assert (
        text.ask(b"get q\nconfirm q 1\npeek q\nstatus bad\n")
        == b':b\n+1\n*\n-unknown status "bad": one of up, writeavoid, readonly, quiescent\n'
    )
    assert text.ask(b"status up\nput q:\nc\nd\n\nget q\nstatus quiescent\n") == b"+0\n+2\n:c\n+0\n"
    for said in (*refused, b"peek x\n", b"monitor q 1\n"):
        assert text.ask(said) == b"-Server not available for operation %b\n" % said[: said.index(b" ")]
    assert text.ask(b"get q\nconfirm q 1\n") == (  # it confirms, and takes nothing
        b"-Server not available for operation get\n-Not that many transactions open.\n"
    )
    assert text.ask(b"status up\nget q\nversion\n").startswith(b"+0\n:d\n")


def test_a_status_is_shown_and_set_and_refuses_in_the_thrift_service(open_storage: Callable[[], Storage]) -> None:
    inside = Inside("thrift", House(open_storage))

    def ask(method: str, **arguments: Any) -> Any:
        """What the service answers to a call."""
        asked, answered = TMemoryBuffer(), TMemoryBuffer()
        client = TClient(IDL.Kestrel, TBinaryProtocol(answered), TBinaryProtocol(asked))
        client._send(method, **arguments)
        message = asked.getvalue()
        answered.setvalue(inside.ask(len(message).to_bytes(4, "big") + message)[4:])
        return client._recv(method)

    up, read_only, quiescent = IDL.Status.UP, IDL.Status.READ_ONLY, IDL.Status.QUIESCENT
    assert ask("current_status") == up
    assert ask("put", queue_name="q", items=[b"a", b"b"]) == 2
    (item,) = ask("get", queue_name="q", max_items=1, auto_abort_msec=1000)
    ask("set_status", status=read_only)
    assert ask("current_status") == read_only
    for method in ("flush_queue", "delete_queue"):
        assert refusal(ask, method, queue_name="q") == f"{method} is refused: the server is READONLY"
    assert refusal(lambda: ask("put", queue_name="q", items=[b"a"])) == "put is refused: the server is READONLY"
    assert refusal(ask, "flush_all_queues") == "flush_all_queues is refused: the server is READONLY"
    assert ask("peek", queue_name="q").head_item == b"b"
    ask("set_status", status=quiescent)
    assert refusal(lambda: ask("get", queue_name="q", max_items=1)) == "get is refused: the server is QUIESCENT"
    assert refusal(lambda: ask("peek", queue_name="q")) == "peek is refused: the server is QUIESCENT"
    assert ask("confirm", queue_name="q", ids={item.id}) == 1
    assert refusal(lambda: ask("set_status", status=0)) == "status 0: it can be set to UP, READ_ONLY or QUIESCENT"
    ask("set_status", status=up)
    assert [one.data for one in ask("get", queue_name="q", max_items=5)] == [b"b"]


def test_the_status_is_the_servers(tmp_path: Path) -> None:
    server = KestrelServer(tmp_path / "data", "--status-file", str(tmp_path / "status"))
    try:
        text, thrift, waiting = server.text_client(), server.thrift_client(), server.text_client()
        text.ask(b"put q:\na\n\nget q\n", b"+1\n:a\n")
        waiting.send(b"get q 60000\n")
        wait_until(lambda: server.client().stats().get("queue_q_waiters") == "1")
        text.ask(b"status\nstatus DOWN\n", b':UP\n-unknown status "DOWN": one of up, writeavoid, readonly, quiescent\n')
        thrift.set_status(IDL.Status.QUIESCENT)
        text.ask(b"status\nget q 60000\n", b":QUIESCENT\n-Server not available for operation get\n")
        waiting.expect(b"*\n")
        assert server.stop() == 0
        server.start()
        thrift = server.thrift_client()
        assert refusal(thrift.put, "q", [b"a"]) == "put is refused: the server is QUIESCENT"
        server.text_client().ask(b"status up\n", b"+0\n")
        assert thrift.current_status() == IDL.Status.UP
        assert thrift.put("q", [b"a"]) == 1
    finally:
        server.end()


def test_who_comes_when_there_are_many_is_refused_in_these_protocols(tmp_path: Path) -> None:
    limits = ["--connection-limit-refuse-writes", "1", "--connection-limit-refuse-reads", "2"]
    server = KestrelServer(tmp_path / "data", *limits)
    try:
        first = server.text_client()
        first.ask(b"put q:\na\n\n", b"+1\n")
        thrift = server.thrift_client()
        why = "is refused: more than {} clients were connected when this one came"
        assert refusal(thrift.put, "q", [b"x"]) == f"put {why.format(1)}"
        assert [item.data for item in thrift.get("q", 1)] == [b"a"]
        third = server.text_client()
        third.ask(b"get q\nconfirm q 0\n", f"-get {why.format(2)}\n+0\n".encode())
        assert refusal(server.thrift_client().peek, "q") == f"peek {why.format(2)}"
        first.ask(b"put q:\nb\n\nget q\n", b"+1\n:b\n")
    finally:
        server.end()


# -- users and rights

RIGHTS = """
[users.worker]
put = ["done"]
get = ["work", "*-out"]

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


def refusal(call: Callable[..., Any], *arguments: Any, **named: Any) -> str:
    with pytest.raises(TApplicationException) as raised:
        call(*arguments, **named)
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
        (b"peek secret\n", b"-user worker may not get from queue secret\n"),
        (b"monitor secret 5\n", b"-user worker may not get from queue secret\n"),
        (b"confirm secret 1\n", b"-user worker may not get from queue secret\n"),
        (b"get secret+my-out\n", b"-user worker may not get from queue secret+my-out\n"),
        (b"flush work\n", b"-user worker may not administer queue work\n"),
        (b"put work:\nx\n\n", b"-user worker may not put into queue work\n"),
        (b"delete work\n", b"-user worker may not administer queue work\n"),
        (b"shutdown\n", b"-user worker may not administer every queue\n"),
        (b"status down\n", b"-user worker may not administer every queue\n"),
    ):
        worker.ask(said, answer)
        worker.expect_hang_up()
        worker = text_client("worker")
    boss.ask(b"get secret\nget work 5000\nget work\n", b":c\n:a\n:b\n")


def test_a_monitor_of_the_text_protocol_ends_with_the_right_to_it(
    server: KestrelServer, text_client: Callable[[str], Client]
) -> None:
    boss, worker = text_client("boss"), text_client("worker")
    file = server.data.parent / f"{server.data.name}.toml"
    written = file.read_text()

    def reload(text: str) -> None:
        file.write_text(text)
        before = server.printed().count("reloaded:")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: server.printed().count("reloaded:") > before)

    boss.ask(b"put work:\na\n\n", b"+1\n")
    worker.send(b"monitor work 60000\n")
    worker.expect(b":a\n")
    try:
        reload(written.replace('"work", ', ""))
        boss.ask(b"put work:\nb\n\n", b"+1\n")
        worker.expect_hang_up()
        boss.ask(b"get work 5000\nget work 5000\nflush work\nget work\n", b":a\n:b\n+0\n*\n")
    finally:
        reload(written)


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
        ("abort", ("secret", {item.id}), "user worker may not get from queue secret"),
        ("get", ("secret+my-out", 1), "user worker may not get from queue secret+my-out"),
        ("delete_queue", ("work",), "user worker may not administer queue work"),
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
