"""Keys: lists that hold something."""

import pytest

from darner_core.protocols.resp.keys import DELETED_AT_ONCE
from tests.support.resp_clients import Failed, RespClient, RespServer


def test_lists_are_keys_as_long_as_they_hold_something(client: RespClient) -> None:
    client.do("LPUSH", "k", "a")
    assert client.do("EXISTS", "k", "k", "m") == 2
    assert (client.do("TYPE", "k"), client.do("TYPE", "m")) == ("list", "none")
    assert (client.do("TTL", "k"), client.do("PTTL", "m")) == (-1, -2)
    assert (client.do("KEYS", "*"), client.do("DBSIZE")) == ([b"k"], 1)
    client.do("RPOP", "k")
    assert client.do("EXISTS", "k") == client.do("DBSIZE") == 0
    assert client.do("KEYS", "*") == []


def test_lists_do_not_expire(client: RespClient) -> None:
    client.do("LPUSH", "k", "a")
    assert client.do("EXPIRE", "k", 1) == client.do("PEXPIRE", "k", 1) == client.do("PERSIST", "k") == 0


@pytest.mark.parametrize("verb", ["DEL", "UNLINK"])
def test_lists_are_deleted(client: RespClient, verb: str) -> None:
    client.do("LPUSH", "k", "a", "b")
    client.do("LPUSH", "m", "c")
    assert client.do(verb, "k", "k", "m", "n") == 2
    assert client.do("DBSIZE") == 0


def test_many_are_deleted_by_one_command(client: RespClient) -> None:
    names = [f"k{number}" for number in range(3 * DELETED_AT_ONCE)]
    client.do_all(*[("LPUSH", name, "a") for name in names])
    assert client.do("DBSIZE") == len(names)
    assert client.do("DEL", *names, "other") == len(names)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*", {b"one", b"two", b"three", b"t*", b"[x]"}),
        ("t*", {b"two", b"three", b"t*"}),
        ("t\\*", {b"t*"}),
        ("?w?", {b"two"}),
        ("[ot]*e*", {b"one", b"three"}),
        ("[^o]*", {b"two", b"three", b"t*", b"[x]"}),
        ("\\[x]", {b"[x]"}),
        ("nothing", set()),
    ],
)
def test_patterns_are_rediss(client: RespClient, pattern: str, found: set[bytes]) -> None:
    for name in ("one", "two", "three", "t*", "[x]"):
        client.do("LPUSH", name, "a")
    assert set(client.do("KEYS", pattern)) == set(client.do("SCAN", 0, "MATCH", pattern, "COUNT", 100)[1]) == found


def test_a_scan_comes_upon_every_key(client: RespClient) -> None:
    names = {b"k%d" % number for number in range(55)}
    client.do_all(*[("LPUSH", name, "a") for name in names])
    cursor, found = client.do("SCAN", 0)
    while cursor != b"0":
        cursor, some = client.do("SCAN", cursor, "COUNT", 7, "TYPE", "list")
        found += some
    assert set(found) == names
    assert client.do("SCAN", 0, "TYPE", "hash", "COUNT", 1000) == [b"0", []]
    assert client.do("SCAN", "x") == Failed("ERR invalid cursor")
    assert client.do("SCAN", 0, "COUNT", 0) == client.do("SCAN", 0, "MATCH") == Failed("ERR syntax error")


def test_all_lists_are_emptied(server: RespServer) -> None:
    client = server.resp()
    for name in "abc":
        client.do("LPUSH", name, "x")
    assert client.do("FLUSHDB") == "OK"
    assert client.do("DBSIZE") == 0
    client.do("LPUSH", "a", "x")
    assert client.do("FLUSHALL", "ASYNC") == "OK"
    assert client.do("DBSIZE") == 0
