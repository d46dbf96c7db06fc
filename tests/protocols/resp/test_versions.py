"""HELLO as Redis knows it."""

import pytest

from darner_core.protocols.resp.replies import RespError
from darner_core.protocols.resp.versions import Hello, read_hello
from tests.support.resp_clients import Failed, RespClient


def test_the_words_of_hello() -> None:
    assert read_hello([b"3"]) == Hello(3)
    assert read_hello([b"2", b"setname", b"n", b"AUTH", b"u", b"p"]) == Hello(2, b"u", b"p", b"n")
    for words in ([b"3", b"AUTH", b"u"], [b"3", b"SETNAME"], [b"3", b"SPEED", b"9"], [b"x"], [b"4"], [b"9" * 30]):
        with pytest.raises(RespError):
            read_hello(words)


def test_a_client_chooses_the_version(client: RespClient) -> None:
    told = client.do("HELLO", 3, "SETNAME", "worker")
    assert (told[b"server"], told[b"proto"], told[b"mode"], told[b"role"]) == (b"redis", 3, b"standalone", b"master")
    assert told[b"id"] == client.do("CLIENT", "ID")
    assert client.do("CLIENT", "GETNAME") == b"worker"
    client.send(b"RPOP nothing\r\nBRPOP nothing 0.01\r\nCONFIG GET maxmemory\r\n")
    client.expect(b"_\r\n_\r\n%1\r\n$9\r\nmaxmemory\r\n$1\r\n0\r\n")
    assert client.do("HELLO", 2)[4:6] == [b"proto", 2]
    client.send(b"RPOP nothing\r\nBRPOP nothing 0.01\r\nCONFIG GET maxmemory\r\n")
    client.expect(b"$-1\r\n*-1\r\n*2\r\n$9\r\nmaxmemory\r\n$1\r\n0\r\n")


def test_other_versions_are_refused_and_change_nothing(client: RespClient) -> None:
    assert client.do("HELLO", 9) == Failed("NOPROTO unsupported protocol version")
    assert client.do("HELLO", "x") == Failed("ERR Protocol version is not an integer or out of range")
    assert client.do("HELLO", 3, "SPEED") == Failed("ERR Syntax error in HELLO option 'speed'")
    assert client.do("HELLO", 3, "SETNAME", "a b").startswith("ERR Client names cannot contain spaces")
    client.send(b"RPOP nothing\r\n")
    client.expect(b"$-1\r\n")
