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


def test_requests_that_come_in_part_cost_a_bounded_sum_of_memory(server: RespServer) -> None:
    before = server.resident_bytes()
    stalled = [server.resp() for _ in range(8)]
    for client in stalled:
        client.send(b"*3\r\n$5\r\nLPUSH\r\n$1\r\nk\r\n$16000000\r\n" + bytes(15_000_000))
    assert stalled[0].reply() == Failed("OOM too much memory is taken by requests that have come in part; try again")
    assert server.resident_bytes() - before < 128 << 20
    assert server.resp().do("LPUSH", "k", "a") == 1


def test_who_waits_when_the_server_stops_is_answered(server: RespServer) -> None:
    popping, getting = server.resp(), server.resp()
    popping.send(b"BRPOP k 0\r\n")
    getting.send(b"GETJOB FROM q\r\n")
    popping.expect_nothing()
    getting.expect_nothing()
    server.stop()
    popping.expect(b"*-1\r\n")
    assert getting.reply().startswith("LEAVING ")


def test_a_client_that_does_not_read_its_replies_costs_no_queue(server: RespServer) -> None:
    slow, other = server.resp(), server.resp()
    other.do("LPUSH", "k", "x" * 15_000)
    slow.send(b"LRANGE k 0 -1\r\n" * 5000)
    slow.send(b"PING\r\n")
    before = server.resident_bytes()
    for _ in range(100):
        assert other.do("PING") == "PONG"
    assert server.resident_bytes() - before < 32 << 20
    for _ in range(5000):
        assert len(slow.reply()) == 1
    assert slow.reply() == "PONG"


def test_hello_without_a_version_is_disques(server: RespServer) -> None:
    client = server.resp()
    node = client.do("CLUSTER", "MYID")
    assert client.do("hello") == [1, node, [node, b"", b"0", b"1"]]
