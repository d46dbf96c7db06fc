"""CLIENT."""

from tests.support.harness import wait_until
from tests.support.resp_clients import Failed, RespClient, RespServer


def test_a_client_has_an_id_and_a_name(server: RespServer) -> None:
    first, second = server.resp(), server.resp()
    assert first.do("CLIENT", "ID") < second.do("CLIENT", "ID")
    assert first.do("CLIENT", "GETNAME") is None
    assert first.do("CLIENT", "SETNAME", "worker") == "OK"
    assert first.do("CLIENT", "GETNAME") == b"worker"
    assert first.do("CLIENT", "SETNAME", "a b").startswith("ERR Client names cannot contain spaces")
    assert first.do("CLIENT", "SETINFO", "LIB-NAME", "lib") == "OK"
    assert first.do("CLIENT", "SETINFO", "SPEED", "9") == Failed("ERR Unrecognized option 'SPEED'")
    info = first.do("CLIENT", "INFO")
    assert b" name=worker " in info
    assert b" lib-name=lib " in info


def test_the_list_has_those_that_are_connected(server: RespServer) -> None:
    first, second = server.resp(), server.resp()
    number = second.do("CLIENT", "ID")
    assert b"id=%d " % number in first.do("CLIENT", "LIST")
    second.close()
    wait_until(lambda: b"id=%d " % number not in first.do("CLIENT", "LIST"))


def test_what_clients_say_at_the_beginning_is_accepted(client: RespClient) -> None:
    assert client.do("CLIENT", "REPLY", "ON") == client.do("CLIENT", "NO-EVICT", "on") == "OK"


def test_what_would_do_harm_is_refused_and_why(client: RespClient) -> None:
    assert client.do("CLIENT", "KILL", "127.0.0.1:1").startswith("ERR a client cannot be disconnected by another")
    assert client.do("CLIENT", "PAUSE", 100).startswith("ERR clients cannot be paused")
    assert client.do("CLIENT", "REPLY", "OFF").startswith("ERR CLIENT REPLY OFF and SKIP are not supported")
    assert client.do("CLIENT", "MAINT_NOTIFICATIONS", "on").startswith("ERR Syntax error in CLIENT")
    assert client.do("CLIENT") == Failed("ERR wrong number of arguments for 'client' command")
