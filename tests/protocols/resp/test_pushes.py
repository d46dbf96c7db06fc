"""Values pushed onto lists: all of them or, where that can be known, none."""

import re
from pathlib import Path

import pytest

from darner_core.protocols.resp.pushes import AT_ONCE
from tests.support.harness import wait_until
from tests.support.resp_clients import Failed, RespClient, RespServer

FULL = Failed("OOM queue k is full, or takes nothing at present")


def test_pushx_pushes_only_what_is_there_already(client: RespClient) -> None:
    assert client.do("LPUSHX", "k", "a") == client.do("RPUSHX", "k", "a") == 0
    client.do("LPUSH", "k", "a")
    assert client.do("LPUSHX", "k", "b") == 2


def test_unfinished_work_that_is_pushed_back_comes_next(client: RespClient) -> None:
    client.do("LPUSH", "k", "a", "b", "c")
    job = client.do("RPOP", "k")
    assert client.do("RPUSH", "k", job) == 3
    client.do("LPUSH", "k", "d")
    assert client.do("LRANGE", "k", 0, -1) == [b"d", b"c", b"b", b"a"]
    assert [client.do("RPOP", "k") for _ in range(4)] == [b"a", b"b", b"c", b"d"]


def test_also_if_the_list_is_empty_by_then(client: RespClient) -> None:
    client.do("LPUSH", "k", "a", "b")
    jobs = [client.do("RPOP", "k"), client.do("RPOP", "k")]
    client.do("RPUSH", "k", *reversed(jobs))
    client.do("LPUSH", "k", "c")
    assert [client.do("RPOP", "k") for _ in range(3)] == [b"a", b"b", b"c"]


@pytest.mark.parametrize("option", ["max_items = 2", "max_bytes = 2", "max_items = 2\nfanout_only = false"])
@pytest.mark.parametrize("push", ["LPUSH", "RPUSH"])
def test_a_push_of_which_a_part_has_no_room_is_refused_as_a_whole(tmp_path: Path, option: str, push: str) -> None:
    server = RespServer(tmp_path / "data", tables=f"[queues.k]\n{option}\n")
    try:
        client = server.resp()
        assert client.do(push, "k", "a", "b", "c") == FULL
        assert client.do(push, "k", *range(AT_ONCE + 1)) == FULL
        assert client.do("LLEN", "k") == 0
        assert client.do(push, "k", "a") == 1
        assert client.do(push, "k", "b", "c") == FULL
        assert client.do("RPUSH", "k", "b", "c") == FULL
        assert client.do(push, "k", "b") == 2
        assert client.do("RPOP", "k", 5) == [b"a", b"b"] if push == "LPUSH" else [b"b", b"a"]
    finally:
        server.end()


def test_also_if_one_of_them_is_too_large(tmp_path: Path) -> None:
    server = RespServer(tmp_path / "data", tables="[queues.k]\nmax_item_bytes = 3\n")
    try:
        client = server.resp()
        assert client.do("LPUSH", "k", "a", "abcd") == client.do("RPUSH", "k", *range(9), "x" * 100_000) == FULL
        assert client.do("LLEN", "k") == 0
    finally:
        server.end()


def test_what_makes_room_for_itself_is_pushed(tmp_path: Path) -> None:
    server = RespServer(tmp_path / "data", tables="[queues.k]\nmax_items = 2\ndiscard_old_when_full = true\n")
    try:
        client = server.resp()
        client.do("LPUSH", "k", *"abcd")
        assert client.do("LRANGE", "k", 0, -1) == [b"d", b"c"]
    finally:
        server.end()


def test_what_fails_half_way_says_how_many_were_pushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARNER_TICK_S", "0.1")
    server = RespServer(tmp_path / "data", fails=True)
    try:
        client = server.resp()
        Path(f"{server.data}.fails").write_text("3 write put")
        reply = client.do("LPUSH", "k", *range(5 * AT_ONCE))
        found = re.fullmatch(rf"MISCONF only the first (\d+) of {5 * AT_ONCE} values are pushed: .*", reply)
        assert found is not None, reply
        wait_until(lambda: "the disk takes writes again" in server.printed())
        assert client.do("LLEN", "k") == int(found[1]) > 0
    finally:
        server.end()
