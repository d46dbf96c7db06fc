"""The table of commands, and transactions, which are done in one turn."""

from pathlib import Path

import pytest

from darner_core.protocols.resp.transactions import MAX_QUEUED, MAX_WORDS
from tests.support.harness import wait_until
from tests.support.resp_clients import Failed, RespClient, RespServer, said

ABORTED = Failed("EXECABORT Transaction discarded because of previous errors.")


def test_commands_may_be_written_in_any_case(client: RespClient) -> None:
    assert client.do("ping") == client.do("PiNg") == "PONG"
    client.send(b"lpush k 'a b'\r\nRPOP k\r\n")
    client.expect(b":1\r\n$3\r\na b\r\n")


def test_after_an_error_the_connection_goes_on(client: RespClient) -> None:
    assert client.do("Steal", "k") == Failed("ERR unknown command 'Steal'")
    assert client.do("") == Failed("ERR unknown command ''")
    assert client.do("ECHO") == Failed("ERR wrong number of arguments for 'echo' command")
    assert client.do("ECHO", "a") == b"a"


def test_after_one_of_the_protocol_it_ends(client: RespClient) -> None:
    client.send(said("PING") + b"*1\r\n!4\r\n")
    assert (client.reply(), client.reply()) == ("PONG", Failed("ERR Protocol error: expected '$', got '!'"))
    client.expect_hang_up()


def test_a_transaction_is_done_by_exec(server: RespServer) -> None:
    client, other = server.resp(), server.resp()
    assert client.do("MULTI") == "OK"
    assert client.do("LPUSH", "k", "a") == client.do("RPOP", "k") == client.do("ECHO", "b") == "QUEUED"
    assert other.do("LLEN", "k") == 0
    assert client.do("EXEC") == [1, b"a", b"b"]
    assert client.do("MULTI") == "OK"
    assert client.do("EXEC") == []


def test_or_discarded(client: RespClient) -> None:
    client.do_all(("MULTI",), ("LPUSH", "k", "a"))
    assert client.do("DISCARD") == "OK"
    assert client.do("LLEN", "k") == 0
    assert client.do("EXEC") == Failed("ERR EXEC without MULTI")
    assert client.do("DISCARD") == Failed("ERR DISCARD without MULTI")


def test_what_is_refused_while_it_is_queued_aborts_it(client: RespClient) -> None:
    for wrong in (("STEAL",), ("LPUSH", "k"), ("",)):
        client.do_all(("MULTI",), ("LPUSH", "k", "a"))
        assert isinstance(client.do(*wrong), Failed)
        assert client.do("EXEC") == ABORTED
    client.do("MULTI")
    assert client.do("MULTI") == Failed("ERR MULTI calls can not be nested")
    assert client.do("WATCH", "k").startswith("ERR WATCH is not supported")
    assert client.do("EXEC") == []
    assert client.do("LLEN", "k") == 0


def test_what_fails_in_it_does_not_undo_the_others(client: RespClient) -> None:
    client.do_all(("MULTI",), ("LPUSH", "k", "a"), ("LRANGE", "k", "x", "y"), ("LPUSH", "k", "b"))
    assert client.do("EXEC") == [1, Failed("ERR value is not an integer or out of range"), 2]


def test_nothing_waits_in_it(client: RespClient) -> None:
    client.do_all(("MULTI",), ("BLPOP", "k", 0), ("GETJOB", "FROM", "k"), ("BLMOVE", "k", "m", "LEFT", "LEFT", 0))
    client.do_all(("BLMPOP", 0, 1, "k", "LEFT"), ("BRPOPLPUSH", "k", "m", 0))
    assert client.do("EXEC") == [None] * 5


def test_one_job_is_replaced_by_another_in_one_write(server: RespServer) -> None:
    client = server.resp()
    job = client.do("ADDJOB", "q", "step 1", 0)
    client.do("GETJOB", "FROM", "q")
    client.do_all(("MULTI",), ("ACKJOB", job), ("ADDJOB", "q", "step 2", 0))
    done, following = client.do("EXEC")
    assert done == 1
    server.kill()
    server.start()
    client = server.resp()
    assert client.do("GETJOB", "FROM", "q") == [[b"q", following.encode(), b"step 2"]]
    assert client.do("SHOW", job) is None


def test_none_of_it_has_happened_if_the_disk_refuses(tmp_path: Path) -> None:
    server = RespServer(tmp_path / "data", fails=True)
    try:
        client = server.resp()
        once = client.do("ADDJOB", "once", "x", 0, "RETRY", 0)
        job = client.do("ADDJOB", "q", "a", 0)
        client.do("GETJOB", "FROM", "q")
        switch = tmp_path / "data.fails"
        switch.write_text("write put reopen")
        client.do_all(
            ("MULTI",), ("ACKJOB", job), ("ADDJOB", "q", "b", 0), ("LPUSH", "k", "c"), ("GETJOB", "FROM", "once")
        )
        assert client.do("EXEC").startswith("MISCONF ")
        assert client.do("LLEN", "k") == 0
        assert client.do("SHOW", job)[5] == b"active"
        assert client.do("SHOW", once)[5] == b"queued"
        switch.unlink()
        wait_until(lambda: "the disk takes writes again" in server.printed())
        assert client.do("GETJOB", "FROM", "once")[0][2] == b"x"
        assert client.do("ACKJOB", job, once) == 2
    finally:
        server.end()


def test_what_is_perhaps_not_safe_is_told_but_items_are_handed_over(tmp_path: Path) -> None:
    server = RespServer(tmp_path / "data", "--sync", "always", fails=True)
    try:
        client = server.resp()
        client.do("LPUSH", "k", "a", "b")
        job = client.do("ADDJOB", "q", "step 1", 0)
        switch = tmp_path / "data.fails"
        switch.write_text("once sync")
        assert client.do("RPOP", "k") == b"a"  # it is in no list any more
        switch.write_text("once sync")
        client.do_all(("MULTI",), ("ACKJOB", job), ("ADDJOB", "q", "step 2", 0))
        assert client.do("EXEC").startswith("MISCONF ")
    finally:
        server.end()


def test_a_transaction_has_its_bounds(client: RespClient) -> None:
    client.do("MULTI")
    client.do_all(*[("PING",)] * MAX_QUEUED)
    assert client.do("PING").startswith("ERR too many commands in one transaction")
    assert client.do("EXEC") == ABORTED
    client.do("MULTI")
    assert client.do("LPUSH", "k", *range(MAX_WORDS)).startswith("ERR too many values in one transaction")
    assert client.do("DISCARD") == "OK"
    client.do("MULTI")
    for _ in range(3):
        client.do("ECHO", b"x" * 20_000_000)
    assert client.do("ECHO", b"x" * 20_000_000).startswith("OOM too much memory is taken by transactions")
    assert client.do("DISCARD") == "OK"
    assert client.do_all(("MULTI",), ("PING",), ("EXEC",)) == ["OK", "QUEUED", ["PONG"]]


def test_the_reply_to_a_transaction_has_its_bounds_and_the_rest_stays(client: RespClient) -> None:
    body = b"x" * 16_000
    client.do_all(*[("LPUSH", "k", body)] * 900)
    client.do("MULTI")
    client.do_all(*[("RPOP", "k")] * 900)
    popped = client.do("EXEC")
    refused = [one for one in popped if isinstance(one, Failed)]
    assert refused[0].startswith("OOM the reply to this transaction has more than")
    assert client.do("LLEN", "k") == len(refused) > 0


@pytest.mark.parametrize(
    "words",
    [
        ("QSCAN",), ("JSCAN",), ("SCAN", "0"), ("KEYS", "*"), ("DBSIZE",), ("FLUSHALL",), ("INFO",), ("CLIENT", "LIST"),
        ("KICK", "q", "1"), ("CLUSTER", "LEAVING", "no"), ("LPUSH", "k", "x" * 20_000),
        ("ADDJOB", "q", "x" * 20_000, "0"),
    ],
)  # fmt: skip
def test_what_takes_several_turns_cannot_be_in_it(client: RespClient, words: tuple[str, ...]) -> None:
    client.do("MULTI")
    assert client.do(*words) == "QUEUED"
    (error,) = client.do("EXEC")
    assert isinstance(error, Failed)
    assert "transaction" in error


def test_what_the_status_refuses_is_told(server: RespServer) -> None:
    client, memcache = server.resp(), server.client()
    client.do("LPUSH", "k", "a")
    memcache.ask(b"status quiescent\r\n", b"END\r\n")
    try:
        assert client.do("LPUSH", "k", "b") == Failed("READONLY lpush is refused: the server is QUIESCENT")
        assert client.do("RPOP", "k") == Failed("READONLY rpop is refused: the server is QUIESCENT")
        client.do("MULTI")
        client.do("RPOP", "k")
        assert client.do("EXEC") == ABORTED
        assert client.do("ACKJOB", client.do("JSCAN")[1][0]) == 1
    finally:
        memcache.ask(b"status up\r\n", b"END\r\n")
