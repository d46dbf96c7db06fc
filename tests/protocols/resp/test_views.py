"""Lists looked at, and changed in their middle."""

import pytest

from darner_core.protocols.resp.transactions import MOST_LOOKED_AT
from darner_core.protocols.resp.views import MOST_VALUES
from tests.support.resp_clients import Failed, RespClient


@pytest.fixture(params=["LPUSH", "RPUSH"])
def pushed(request: pytest.FixtureRequest, client: RespClient) -> list[bytes]:
    """The values of the list k, from its left, in the order of Redis."""
    values = [b"%d" % number for number in range(7)]
    client.do(request.param, "k", *(values if request.param == "RPUSH" else reversed(values)))
    return values


@pytest.mark.parametrize("start", range(-9, 10, 2))
def test_lrange_is_a_slice(client: RespClient, pushed: list[bytes], start: int) -> None:
    for stop in range(-9, 10):
        first = max(0, start + 7 if start < 0 else start)
        last = stop + 7 if stop < 0 else stop
        assert client.do("LRANGE", "k", start, stop) == pushed[first : max(0, last + 1)], stop


def test_lindex_is_one_of_them(client: RespClient, pushed: list[bytes]) -> None:
    assert [client.do("LINDEX", "k", number) for number in range(-7, 7)] == pushed * 2
    assert client.do("LINDEX", "k", 7) is client.do("LINDEX", "k", -8) is client.do("LINDEX", "nothing", 0) is None


def test_lpos_finds_values(client: RespClient) -> None:
    client.do("RPUSH", "k", *"abcabca")
    assert client.do("LPOS", "k", "a") == 0
    assert client.do("LPOS", "k", "a", "RANK", 2) == 3
    assert client.do("LPOS", "k", "a", "RANK", -1) == 6
    assert client.do("LPOS", "k", "c", "COUNT", 0) == [2, 5]
    assert client.do("LPOS", "k", "a", "COUNT", 2, "RANK", -2) == [3, 0]
    assert client.do("LPOS", "k", "c", "MAXLEN", 2) is None
    assert client.do("LPOS", "k", "x") is None
    assert client.do("LPOS", "k", "x", "COUNT", 1) == []
    assert client.do("LPOS", "k", "x", "COUNT", -1) == Failed("ERR COUNT can't be negative")
    assert client.do("LPOS", "k", "x", "MAXLEN", -1) == Failed("ERR MAXLEN can't be negative")
    assert client.do("LPOS", "k", "x", "RANK", 0).startswith("ERR RANK can't be zero")


@pytest.mark.parametrize(
    ("count", "removed", "left"),
    [(0, 3, b"bcbc"), (2, 2, b"bcbca"), (-2, 2, b"abcbc"), (9, 3, b"bcbc")],
)
def test_lrem_removes_from_either_end(client: RespClient, count: int, removed: int, left: bytes) -> None:
    client.do("RPUSH", "k", *"abcabca")
    assert client.do("LREM", "k", count, "a") == removed
    assert client.do("LRANGE", "k", 0, -1) == [bytes([byte]) for byte in left]
    assert client.do("LREM", "k", 0, "x") == client.do("LREM", "nothing", 0, "x") == 0


def test_ltrim_empties_a_list_or_keeps_it(client: RespClient) -> None:
    client.do("RPUSH", "k", *"abc")
    assert client.do("LTRIM", "k", 0, -1) == client.do("LTRIM", "nothing", 1, 0) == "OK"
    assert client.do("LLEN", "k") == 3
    assert client.do("LTRIM", "k", 0, 1).startswith("ERR LTRIM empties a list")
    assert client.do("LTRIM", "k", 1, 0) == "OK"
    assert client.do("LLEN", "k") == 0


def test_a_long_list_is_looked_at_from_both_ends_and_no_further(client: RespClient) -> None:
    values = [b"%d" % number for number in range(3 * MOST_VALUES)]
    for start in range(0, len(values), 5000):
        client.do("RPUSH", "k", *values[start : start + 5000])
    assert client.do("LRANGE", "k", 0, 4999) == values[:5000]
    assert client.do("LRANGE", "k", -5000, -1) == values[-5000:]
    assert client.do("LINDEX", "k", MOST_VALUES - 1) == values[MOST_VALUES - 1]
    assert client.do("LINDEX", "k", 3 * MOST_VALUES - 2) == values[-2]
    said = f"ERR the range is more than {MOST_VALUES} values away from both ends of the list"
    assert client.do("LRANGE", "k", 15_000, 15_001) == Failed(said)
    assert client.do("LINDEX", "k", 15_000).startswith("ERR the value is more than")


def test_the_commands_of_a_transaction_can_look_at_some_values_together(client: RespClient) -> None:
    client.do("RPUSH", "k", *range(MOST_LOOKED_AT))
    said = Failed(f"ERR the commands of a transaction can look at {MOST_LOOKED_AT} values together: ask without MULTI")
    client.do_all(("MULTI",), ("LRANGE", "k", 0, 9), ("LREM", "k", 1, "5"), ("LPOS", "k", "6"), ("QPEEK", "k", 1))
    assert client.do("EXEC") == [[b"%d" % number for number in range(10)], said, said, said]
    assert client.do("LLEN", "k") == MOST_LOOKED_AT
    client.do("LTRIM", "k", 1, 0)
    client.do("RPUSH", "k", *range(9))
    client.do_all(("MULTI",), ("LREM", "k", 1, "5"), ("LINDEX", "k", -1), ("LPOS", "k", "6"))
    assert client.do("EXEC") == [1, b"8", 5]


def test_too_many_bytes_are_not_shown(client: RespClient) -> None:
    for _ in range(10):
        client.do("RPUSH", "k", b"x" * 1_000_000)
    assert client.do("LRANGE", "k", 0, -1).startswith("ERR these values have more than 8388608 bytes together")
    assert len(client.do("LRANGE", "k", 0, 1)) == 2
