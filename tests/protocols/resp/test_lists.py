"""Redis's lists as queues."""

from collections.abc import Callable
from pathlib import Path

import pytest

from darner_core.protocols.resp.pushes import AT_ONCE
from tests.support.harness import wait_until
from tests.support.resp_clients import Failed, RespClient, RespServer


@pytest.mark.parametrize(("push", "pop"), [("LPUSH", "RPOP"), ("RPUSH", "LPOP")])
def test_what_is_pushed_first_is_popped_first(client: RespClient, push: str, pop: str) -> None:
    assert client.do(push, "k", "a") == 1
    assert client.do(push, "k", "b", "c") == 3
    assert client.do("LLEN", "k") == 3
    assert [client.do(pop, "k") for _ in range(4)] == [b"a", b"b", b"c", None]
    assert client.do("LLEN", "k") == 0


def test_a_list_that_was_deleted_may_be_used_the_other_way(client: RespClient) -> None:
    client.do("LPUSH", "k", "a", "b")
    client.do("RPOP", "k")
    client.do("DEL", "k")
    client.do("RPUSH", "k", "c", "d")
    assert client.do("LPOP", "k") == b"c"


def test_several_are_popped_with_a_count(client: RespClient) -> None:
    client.do("LPUSH", "k", "a", "b", "c")
    assert client.do("RPOP", "k", 0) == []
    assert client.do("RPOP", "k", 2) == [b"a", b"b"]
    assert client.do("RPOP", "k", 2) == [b"c"]
    assert client.do("RPOP", "k", 2) is None
    assert client.do("RPOP", "k", 0) is None
    assert client.do("RPOP", "k", -1) == Failed("ERR value is out of range, must be positive")


def test_the_first_list_that_has_values_is_popped(client: RespClient) -> None:
    client.do("RPUSH", "m", "a", "b", "c")
    assert client.do("LMPOP", 2, "k", "m", "LEFT") == [b"m", [b"a"]]
    assert client.do("LMPOP", 2, "k", "m", "LEFT", "COUNT", 5) == [b"m", [b"b", b"c"]]
    assert client.do("LMPOP", 2, "k", "m", "LEFT") is None
    client.do("RPUSH", "m", "d")
    assert client.do("BLMPOP", 1, 2, "k", "m", "LEFT") == [b"m", [b"d"]]
    assert client.do("BLPOP", "k", "m", 0.01) is None


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("LMPOP", 0, "k", "LEFT"), "ERR numkeys should be greater than 0"),
        (("LMPOP", 2, "k", "LEFT"), "ERR syntax error"),
        (("LMPOP", 1, "k", "UP"), "ERR syntax error"),
        (("LMPOP", 1, "k", "LEFT", "COUNT", 0), "ERR count should be greater than 0"),
        (("LMOVE", "k", "m", "UP", "LEFT"), "ERR syntax error"),
        (("BLPOP", "k", "x"), "ERR timeout is not a float or out of range"),
        (("BLPOP", "k", "nan"), "ERR timeout is not a float or out of range"),
        (("BRPOP", "k", "-1"), "ERR timeout is negative"),
        (("LPOP", "k", "x"), "ERR value is out of range, must be positive"),
        (("LPUSH", "k"), "ERR wrong number of arguments for 'lpush' command"),
    ],
)
def test_what_is_wrong_is_said_in_rediss_words(client: RespClient, words: tuple[str | int, ...], error: str) -> None:
    assert client.do(*words) == Failed(error)


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        (b"BRPOP nothing k 0\r\n", [b"k", b"a"]),
        (b"BLMPOP 0 2 nothing k RIGHT COUNT 5\r\n", [b"k", [b"a"]]),
        (b"BRPOPLPUSH k done 0\r\n", b"a"),
        (b"BLMOVE k done RIGHT LEFT 10.5\r\n", b"a"),
    ],
)
def test_who_waits_gets_the_next_value(server: RespServer, request_: bytes, reply: object) -> None:
    waiting, other = server.resp(), server.resp()
    waiting.send(request_)
    waiting.expect_nothing()
    assert other.do("LPUSH", "k", "a") == 1
    assert waiting.reply() == reply
    assert other.do("LLEN", "k") == 0
    assert other.do("LLEN", "done") == (reply == b"a")


@pytest.mark.parametrize(("request_", "reply"), [(b"BLPOP k 0\r\n", b"c"), (b"BRPOP k 0\r\n", b"a")])
def test_who_waits_on_a_paused_list_gets_the_value_at_the_right_end(
    server: RespServer, request_: bytes, reply: bytes
) -> None:
    waiting, other = server.resp(), server.resp()
    other.do_all(("LPUSH", "k", "a", "b", "c"), ("PAUSE", "k", "out"))
    waiting.send(request_)
    waiting.expect_nothing()
    other.do("PAUSE", "k", "none")
    assert waiting.reply() == [b"k", reply]
    assert other.do("LRANGE", "k", 0, -1) == [value for value in (b"c", b"b", b"a") if value != reply]


def test_clients_that_wait_are_served_in_turn_and_one_that_goes_loses_nothing(server: RespServer) -> None:
    waiting = [server.resp() for _ in range(3)]
    for each in waiting:
        each.send(b"BRPOP k 0\r\n")
        each.expect_nothing()
    waiting[0].close()
    other = server.resp()
    wait_until(lambda: other.do("QSTAT", "k")[9] == 2)
    other.do("LPUSH", "k", "a", "b", "c")
    assert [waiting[1].reply(), waiting[2].reply()] == [[b"k", b"a"], [b"k", b"b"]]
    assert other.do("RPOP", "k") == b"c"


def test_nothing_comes_when_the_time_is_over(client: RespClient) -> None:
    for words in (("BLPOP", "k", 0.01), ("BLMOVE", "k", "m", "LEFT", "RIGHT", 0.01), ("BRPOPLPUSH", "k", "m", 0.01)):
        assert client.do(*words) is None
        client.send(b"")
    assert client.do("RPOPLPUSH", "k", "m") is None
    client.send(b"BLPOP k 0.01\r\n")
    client.expect(b"*-1\r\n")
    client.send(b"LPOP k\r\n")
    client.expect(b"$-1\r\n")
    client.do("HELLO", 3)
    client.send(b"BLPOP k 0.01\r\nLPOP k\r\nGETJOB NOHANG FROM k\r\n")
    client.expect(b"_\r\n_\r\n_\r\n")


def test_a_value_is_moved_in_one_turn(client: RespClient) -> None:
    client.do("LPUSH", "k", "a", "b")
    assert client.do("LMOVE", "k", "doing", "RIGHT", "LEFT") == b"a"
    assert client.do("RPOPLPUSH", "k", "doing") == b"b"
    assert client.do("LRANGE", "doing", 0, -1) == [b"b", b"a"]
    assert client.do("LREM", "doing", 1, "a") == 1
    assert client.do("LRANGE", "doing", 0, -1) == [b"b"]


def test_a_list_can_be_turned_round(client: RespClient) -> None:
    client.do("LPUSH", "k", "a", "b", "c")
    assert [client.do("RPOPLPUSH", "k", "k") for _ in range(4)] == [b"a", b"b", b"c", b"a"]
    assert client.do("LLEN", "k") == 3


def test_a_move_into_a_full_queue_leaves_the_value_where_it_was(tmp_path: Path) -> None:
    server = RespServer(tmp_path / "data", tables="[queues.full]\nmax_items = 1\n")
    try:
        client = server.resp()
        client.do("LPUSH", "k", "a", "b")
        assert client.do("RPOPLPUSH", "k", "full") == b"a"
        said = Failed("OOM queue full is full, or takes nothing at present")
        assert client.do("RPOPLPUSH", "k", "full") == client.do("LPUSH", "full", "x") == said
        assert client.do("RPOP", "k") == b"b"
    finally:
        server.end()


@pytest.mark.parametrize("push", ["LPUSH", "RPUSH"])
@pytest.mark.parametrize("option", ["max_items = 3", "max_bytes = 3"])
def test_a_full_list_can_be_turned_round(tmp_path: Path, option: str, push: str) -> None:
    server = RespServer(tmp_path / "data", tables=f"[queues.k]\n{option}\n")
    try:
        client = server.resp()
        client.do(push, "k", "a", "b", "c")
        before = client.do("LRANGE", "k", 0, -1)
        assert [client.do("RPOPLPUSH", "k", "k") for _ in range(4)] == [before[at] for at in (2, 1, 0, 2)]
        assert client.do("LMOVE", "k", "k", "LEFT", "RIGHT") == before[2]
        assert client.do("BLMOVE", "k", "k", "LEFT", "LEFT", 0) == before[0]
        assert client.do("LRANGE", "k", 0, -1) == before
        server.kill()
        server.start()
        assert server.resp().do("LRANGE", "k", 0, -1) == before
    finally:
        server.end()


def test_many_and_large_values(server: RespServer) -> None:
    client = server.resp()
    large = bytes(range(256)) * 1000
    many = [b"%d" % number for number in range(2 * AT_ONCE + 10)]
    assert client.do("LPUSH", "k", *many) == len(many)
    assert client.do("LPUSH", "k", large, "x", large) == len(many) + 3
    assert client.do("RPOP", "k", AT_ONCE * 5) == many[:AT_ONCE]
    assert client.do("RPOP", "k", AT_ONCE) == many[AT_ONCE : 2 * AT_ONCE]
    assert client.do("RPOP", "k", 20) == many[2 * AT_ONCE :]
    server.kill()
    server.start()
    client = server.resp()
    assert client.do("RPOP", "k", 5) == [large]
    assert client.do("BRPOP", "k", 1) == [b"k", b"x"]
    assert client.do("RPOP", "k") == large
    client.do("LPUSH", "k", large, large, large)
    assert client.do("BRPOP", "k", 1) == [b"k", large]
    assert client.do("LMPOP", 1, "k", "RIGHT", "COUNT", 2) == [b"k", [large]]
    assert client.do("RPOPLPUSH", "k", "m").startswith("ERR a value of 256000 bytes is too large to be moved")
    assert client.do("LRANGE", "k", 0, -1) == [large]
    assert client.do("RPOP", "k") == large
    waiting = server.resp()
    waiting.send(b"BRPOP k 0\r\n")
    waiting.expect_nothing()
    client.do("LPUSH", "k", large)
    assert waiting.reply() == [b"k", large]


def test_values_are_items_of_all_protocols(server: RespServer) -> None:
    client, memcache = server.resp(), server.client()
    client.do("LPUSH", "k", "a", "b")
    assert memcache.get("k") == b"a"
    memcache.set("k", b"c")
    assert client.do("RPOP", "k", 5) == [b"b", b"c"]


def test_names_that_queues_cannot_have_are_escaped(server: RespServer) -> None:
    client, memcache = server.resp(), server.client()
    client.do("LPUSH", "mail/out box", "a")
    assert client.do("KEYS", "*") == [b"mail/out box"]
    assert memcache.get("mail%2Fout%20box") == b"a"
    assert client.do("LPUSH", "", "a").startswith("ERR queue name of 0 bytes")
    assert client.do("LPUSH", "/" * 100, "a").startswith("ERR queue name of 100 bytes")


def test_a_large_value_of_a_list_with_any_name(client: RespClient) -> None:
    for name in (b"\0\r\n", b"$3\r\n\0\r\n\r\n"):
        client.do("LPUSH", name, "x" * 100_000)
        assert client.do("BRPOP", name, 1) == [name, b"x" * 100_000]


def test_pipelined_pushes_and_pops(connect: Callable[[], RespClient]) -> None:
    client = connect()
    assert client.do_all(*[("LPUSH", "k", number) for number in range(2000)]) == list(range(1, 2001))
    popped = client.do_all(*[("RPOP", "k") for _ in range(2001)])
    assert popped == [*(b"%d" % number for number in range(2000)), None]


def test_values_before_one_that_cannot_be_read_are_popped_and_not_lost(tmp_path: Path) -> None:
    server = RespServer(tmp_path / "data", fails=True)
    try:
        client = server.resp()
        for begin in range(0, 1500, 500):
            client.do("RPUSH", "k", *range(begin, begin + 500))
        server.stop()
        server.start()
        client = server.resp()
        assert client.do("LPOP", "k") == b"0"
        fails = Path(f"{server.data}.fails")
        fails.write_text("items item")
        found = client.do("LPOP", "k", AT_ONCE)
        assert found == [b"%d" % number for number in range(1, len(found) + 1)]
        assert client.do("LPOP", "k", AT_ONCE).startswith("MISCONF queue k cannot be read")
        fails.unlink()
        assert client.do("LPOP", "k") == b"%d" % (len(found) + 1)
        assert client.do("LLEN", "k") == 1500 - 2 - len(found)
    finally:
        server.end()
