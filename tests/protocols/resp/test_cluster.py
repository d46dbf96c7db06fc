"""CLUSTER: there is one node."""

import pytest

from tests.support.resp_clients import Failed, RespClient, RespServer


def test_the_node_has_a_name_that_stays(server: RespServer) -> None:
    client = server.resp()
    node = client.do("CLUSTER", "MYID")
    assert len(node) == 40
    assert client.do("CLUSTER", "NODES") == node + b" :0 myself 0 0 connected\n"
    assert client.do("HELLO") == [1, node, [node, b"", b"0", b"1"]]
    server.stop()
    server.start()
    assert server.resp().do("CLUSTER", "MYID") == node


def test_it_is_the_only_one(client: RespClient) -> None:
    info = client.do("CLUSTER", "INFO").split(b"\r\n")
    assert info[:4] == [b"cluster_state:ok", b"cluster_known_nodes:1", b"cluster_reachable_nodes:0", b"cluster_size:1"]
    assert client.do("CLUSTER", "SAVECONFIG") == client.do("CLUSTER", "RESET", "soft") == "OK"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("MEET", "127.0.0.1", "7712"), "ERR Invalid node address specified: 127.0.0.1:7712"),
        (("FORGET", "x"), "ERR Invalid node identifier"),
        (("FORGET", "a" * 40), "ERR Unknown node " + "a" * 40),
        (("DANCE",), "ERR Wrong CLUSTER subcommand or number of arguments"),
        (("LEAVING", "perhaps"), "ERR Wrong argument for CLUSTER LEAVING. Use 'yes' or 'no'"),
    ],
)
def test_others_are_not_known(client: RespClient, words: tuple[str, ...], error: str) -> None:
    assert client.do("CLUSTER", *words) == Failed(error)
    assert client.do("CLUSTER", "FORGET", client.do("CLUSTER", "MYID")).startswith("ERR I tried hard")


def test_a_node_that_leaves_is_read_only(server: RespServer) -> None:
    client, memcache = server.resp(), server.client()
    assert client.do("CLUSTER", "LEAVING") == "no"
    assert client.do("CLUSTER", "LEAVING", "yes") == "OK"
    assert (client.do("CLUSTER", "LEAVING"), client.do("HELLO")[2][3]) == ("yes", b"100")
    memcache.ask(b"status\r\n", b"READONLY\r\n")
    assert client.do("CLUSTER", "LEAVING", "no") == "OK"
    assert client.do("HELLO")[2][3] == b"1"
    memcache.ask(b"status\r\n", b"UP\r\n")
