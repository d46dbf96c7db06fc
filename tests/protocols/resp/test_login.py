"""Who a client is, and what it may do."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from darner_core.protocols.contract import BadLogin, NoLogin, NotYet
from darner_core.protocols.resp.login import MAX_LOGIN_BYTES, read_login
from tests.support.identities import Authority, TlsClient, write_users
from tests.support.resp_clients import Failed, RespClient, RespServer, said

NOAUTH = Failed("NOAUTH Authentication required.")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RespServer]:
    directory = tmp_path_factory.mktemp("guarded")
    users = write_users(directory / "users", worker="secret", admin="word", default="pass")
    tables = (
        '[users.worker]\nput = ["mail"]\nget = ["mail", "work"]\n\n'
        '[users.admin]\nput = ["*"]\nget = ["*"]\nadmin = ["*"]\n\n[users.default]\nget = ["mail"]\n'
    )
    server = RespServer(directory / "data", "--auth-file", str(users), tables=tables)
    yield server
    server.end()


@pytest.fixture
def worker(guarded: RespServer) -> RespClient:
    client = guarded.resp()
    assert client.do("AUTH", "worker", "secret") == "OK"
    return client


@pytest.fixture
def admin(guarded: RespServer) -> RespClient:
    client = guarded.resp()
    assert client.do("AUTH", "admin", "word") == "OK"
    return client


def test_nothing_is_done_before_a_client_says_who_it_is(guarded: RespServer) -> None:
    client = guarded.resp()
    assert client.do("PING") == client.do("LPUSH", "mail", "a") == client.do("HELLO", 3) == NOAUTH
    assert client.do("HELLO", 9) == Failed("NOPROTO unsupported protocol version")
    assert client.do("AUTH", "worker", "secret") == "OK"
    assert client.do("PING") == "PONG"


def test_requests_may_follow_the_login_at_once(guarded: RespServer) -> None:
    client = guarded.resp()
    client.send(said("PING") + said("HELLO", 3, "AUTH", "worker", "secret") + said("PING") + b"PING\r\n")
    assert client.reply() == NOAUTH
    assert client.reply()[b"proto"] == 3
    assert (client.reply(), client.reply()) == ("PONG", "PONG")


def test_a_wrong_password_ends_the_connection(guarded: RespServer) -> None:
    for words in (("AUTH", "worker", "wrong"), ("HELLO", "3", "AUTH", "nobody", "secret"), ("AUTH", "wrong")):
        client = guarded.resp()
        assert client.do(*words) == Failed("WRONGPASS invalid username-password pair or user is disabled.")
        client.expect_hang_up()


def test_one_word_is_the_password_of_the_user_default(guarded: RespServer) -> None:
    client = guarded.resp()
    assert client.do("AUTH", "pass") == "OK"
    assert client.do("LPUSH", "mail", "a") == Failed("NOPERM user default may not put into queue mail")


def test_each_queue_that_is_named_needs_its_right(worker: RespClient, admin: RespClient) -> None:
    for request in (
        ("LPUSH", "other", "a"),
        ("ADDJOB", "work", "a", 0),
        ("RPOP", "other"),
        ("BRPOP", "mail", "other", 1),
        ("LMPOP", 2, "mail", "other", "RIGHT"),
        ("LMOVE", "mail", "other", "RIGHT", "LEFT"),
        ("GETJOB", "NOHANG", "FROM", "mail", "other"),
        ("QPEEK", "other", 1),
        ("QSTAT", "other"),
        ("LRANGE", "other", 0, 1),
        ("LREM", "other", 0, 1),
        ("DEL", "mail"),
        ("LTRIM", "mail", 1, 0),
        ("PAUSE", "mail", "in"),
        ("KICK", "mail", 1),
        ("FLUSHALL",),
        ("DEBUG", "FLUSHALL"),
        ("SHUTDOWN",),
        ("CLUSTER", "LEAVING", "yes"),
        ("JSCAN", "QUEUE", "other"),
    ):
        assert worker.do(*request).startswith("NOPERM user worker may not"), request
    assert worker.do("LPUSH", "mail", "a") == 1
    assert worker.do("RPOP", "mail") == b"a"
    assert admin.do("PAUSE", "mail", "none") == "none"


def test_an_id_gives_no_right_to_its_job(worker: RespClient, admin: RespClient) -> None:
    job = admin.do("ADDJOB", "other", "a", 0)
    for verb in ("ACKJOB", "NACK", "ENQUEUE", "DEQUEUE", "REJECT", "WORKING", "SHOW"):
        assert worker.do(verb, job) == Failed("NOPERM user worker may not get from queue other")
    once = admin.do("ADDJOB", "other", "b", 0, "RETRY", 0)
    admin.do("GETJOB", "COUNT", 2, "FROM", "other")
    assert worker.do("SHOW", once).startswith("NOPERM")
    assert admin.do("ACKJOB", job, once) == 2


def test_what_a_user_may_not_see_is_not_told(worker: RespClient, admin: RespClient) -> None:
    mine = worker.do("ADDJOB", "mail", "a", 0)
    admin.do("ADDJOB", "other", "b", 0)
    assert worker.do("KEYS", "*") == worker.do("QSCAN")[1] == worker.do("SCAN", 0)[1] == [b"mail"]
    assert worker.do("DBSIZE") == 1
    assert worker.do("JSCAN")[1] == [mine]
    assert worker.do("CLIENT", "LIST").count(b"\n") == 1
    assert admin.do("CLIENT", "LIST").count(b"\n") >= 2
    assert b"user=worker" in worker.do("CLIENT", "INFO")
    assert admin.do("DEL", "mail", "other") == 2


def test_who_has_logged_in_stays_who_it_is(worker: RespClient) -> None:
    assert worker.do("AUTH", "admin", "word").startswith("ERR this connection is user worker")
    assert worker.do("HELLO", 3, "AUTH", "worker", "secret")[b"proto"] == 3
    assert worker.do("STEAL") == Failed("ERR unknown command 'STEAL'")


def test_a_certificate_says_who_a_client_is(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    users = write_users(tmp_path / "users", worker="*")
    tables = '[users.worker]\nput = ["mail"]\nget = ["mail"]\n\n'
    options = (*authority.options(), "--tls-ca", str(authority.file), "--auth-file", str(users))
    server = RespServer(tmp_path / "data", *options, tables=tables)
    try:
        client = server.adopt(TlsClient(server.resp_port, authority.context("worker")))
        client.ask(said("LPUSH", "mail", "x" * 20_000), b":1\r\n")
        client.ask(said("RPOP", "mail"), b"$20000\r\n%b\r\n" % (b"x" * 20_000))
        client.ask(said("LPUSH", "other", "a"), b"-NOPERM user worker may not put into queue other\r\n")
        client.ask(said("AUTH", "worker", "x"), b"-ERR this connection is user worker: connect again to be another\r\n")
    finally:
        server.end()


def test_what_is_no_login() -> None:
    assert read_login(b"") is read_login(b"AUTH a") is read_login(b"*3\r\n$4\r\nAUTH\r\n") is None
    for early in (b"PING\r\nrest", b"HELLO\r\nrest", b"HELLO 3\r\nrest", b"SET a b\r\nrest"):
        with pytest.raises(NotYet) as raised:
            read_login(early)
        assert raised.value.rest == b"rest"
    with pytest.raises(BadLogin):
        read_login(b"AUTH a b c\r\n")
    for wrong in (b"*1\r\n!\r\n", b"\x16\x03", b"POST / HTTP/1.1\r\n", b"x" * MAX_LOGIN_BYTES):
        with pytest.raises(NoLogin):
            read_login(wrong)
    login = read_login(b"\r\nAUTH a b\r\nrest")
    assert login is not None
    assert (login.name, login.password, login.rest) == (b"a", b"b", b"rest")
