"""Commands about a connection."""

import time

from tests.support.resp_clients import Failed, RespClient, RespServer


def test_ping_and_echo(client: RespClient) -> None:
    assert client.do("PING") == "PONG"
    assert client.do("PING", "hello") == client.do("ECHO", "hello") == b"hello"
    assert client.do("PING", "a", "b") == Failed("ERR wrong number of arguments for 'ping' command")


def test_there_is_one_database(client: RespClient) -> None:
    assert client.do("SELECT", 0) == "OK"
    assert client.do("SELECT", 1) == Failed("ERR DB index is out of range")
    assert client.do("SELECT", "x") == Failed("ERR value is not an integer or out of range")


def test_the_time_is_told(client: RespClient) -> None:
    seconds, micros = map(int, client.do("TIME"))
    assert abs(seconds + micros / 1e6 - time.time()) < 60


def test_quit_is_answered_and_ends_the_connection(client: RespClient) -> None:
    client.send(b"PING\r\nQUIT\r\nPING\r\n")
    client.expect(b"+PONG\r\n+OK\r\n")
    client.expect_hang_up()


def test_reset_begins_anew(client: RespClient) -> None:
    client.do("HELLO", 3, "SETNAME", "worker")
    client.do_all(("MULTI",), ("LPUSH", "k", "a"))
    assert client.do("RESET") == "RESET"
    assert client.do("CLIENT", "GETNAME") is None
    client.send(b"LPOP k\r\n")
    client.expect(b"$-1\r\n")


def test_without_users_there_is_nobody_to_be(client: RespClient) -> None:
    said = Failed("ERR Client sent AUTH, but no password is set")
    assert client.do("AUTH", "x") == client.do("AUTH", "a", "x") == client.do("HELLO", 3, "AUTH", "a", "x") == said


def test_hello_without_a_version_is_disques(server: RespServer) -> None:
    client = server.resp()
    node = client.do("CLUSTER", "MYID")
    assert client.do("hello") == [1, node, [node, b"", b"0", b"1"]]
