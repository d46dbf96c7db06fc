"""What operators and tools ask."""

import pytest

from tests.support.harness import REPLY_S
from tests.support.resp_clients import Failed, RespClient, RespServer


def test_options_are_told_and_may_be_set_to_what_they_are(client: RespClient) -> None:
    assert client.do("CONFIG", "GET", "appendonly") == [b"appendonly", b"yes"]
    assert client.do("CONFIG", "GET", "max*")[::2] == [b"maxclients", b"maxmemory", b"maxmemory-policy"]
    assert client.do("CONFIG", "GET", "nothing") == []
    assert client.do("CONFIG", "SET", "appendonly", "yes", "maxmemory", 0) == client.do("CONFIG", "REWRITE") == "OK"
    assert client.do("CONFIG", "SET", "appendonly", "no") == Failed("ERR Unsupported CONFIG parameter: appendonly")
    assert client.do("CONFIG", "RESETSTAT").startswith("ERR the statistics cannot be reset")
    assert client.do("CONFIG", "DANCE") == Failed("ERR CONFIG subcommand must be one of GET, SET, RESETSTAT, REWRITE")


def test_the_commands_are_told(client: RespClient) -> None:
    names = client.do("COMMAND", "LIST")
    assert client.do("COMMAND", "COUNT") == len(names) == len(client.do("COMMAND"))
    assert {b"addjob", b"brpop", b"exec", b"info"} <= set(names)
    assert client.do("COMMAND", "INFO", "LPUSH", "llen", "set") == [
        [b"lpush", -3, ["write"], 0, 0, 0], [b"llen", 2, ["readonly"], 0, 0, 0], None,
    ]  # fmt: skip
    assert client.do("COMMAND", "DOCS") == []
    assert client.do("COMMAND", "DANCE").startswith("ERR Unknown subcommand")


@pytest.mark.parametrize(
    ("words", "reply"),
    [
        (("SLOWLOG", "GET"), []),
        (("SLOWLOG", "LEN"), 0),
        (("SLOWLOG", "RESET"), "OK"),
        (("SLOWLOG", "DANCE"), Failed("ERR unknown subcommand 'DANCE': GET, LEN, RESET")),
        (("LATENCY", "LATEST"), []),
        (("LATENCY", "RESET"), 0),
        (("BGREWRITEAOF",), "Background append only file rewriting started"),
        (("LOADJOB", "x"), Failed("ERR LOADJOB is a special command only processed from AOF")),
        (("DEBUG", "DANCE"), Failed("ERR Unknown DEBUG subcommand or wrong number of arguments for 'DANCE'")),
        (("SHUTDOWN", "soon"), Failed("ERR syntax error")),
    ],
)
def test_tools_are_answered(client: RespClient, words: tuple[str, ...], reply: object) -> None:
    assert client.do(*words) == reply


def test_debug_flushall_empties_all_queues(client: RespClient) -> None:
    client.do("LPUSH", "k", "a")
    assert client.do("DEBUG", "FLUSHALL") == "OK"
    assert client.do("LLEN", "k") == 0


def test_the_server_is_shut_down(server: RespServer) -> None:
    client = server.resp()
    client.do("LPUSH", "k", "a")
    client.send(b"SHUTDOWN NOSAVE\r\n")
    client.expect_hang_up()
    assert server.process.wait(REPLY_S) == 0
    server.start()
    assert server.resp().do("RPOP", "k") == b"a"
