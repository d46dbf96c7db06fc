"""The same conversations with Redis itself, if it is installed. What differs on purpose stands in docs/resp.md."""

import random
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import wait_until
from tests.support.resp_clients import Failed, RespClient, RespServer

ROUNDS, STEPS = 20, 40

# How clients use lists: the commands that push, those that pop, and the ends of a move.
STYLES: dict[str, tuple[list[str], list[str], tuple[str, str] | None]] = {
    "pushed at the left": (["LPUSH", "LPUSHX"], ["RPOP"], ("RIGHT", "LEFT")),
    "pushed at the right": (["RPUSH", "RPUSHX"], ["LPOP"], ("LEFT", "RIGHT")),
    "as a stack": (["LPUSH", "LPUSHX"], ["LPOP"], ("LEFT", "LEFT")),
    "at both ends": (["LPUSH", "RPUSH", "LPUSHX", "RPUSHX"], ["LPOP", "RPOP"], None),
}

# Refused here, or in other words, on purpose.
ON_PURPOSE = ("cannot be in a transaction",)


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("there is no redis-server here")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    directory: Path = tmp_path_factory.mktemp("redis")
    process = subprocess.Popen(
        [program, "--port", str(port), "--save", "", "--dir", str(directory)], stdout=subprocess.DEVNULL
    )

    def answers() -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    try:
        wait_until(answers)
        yield port
    finally:
        process.terminate()
        process.wait()


def random_request(chance: random.Random, style: str, keys: list[str]) -> tuple[Any, ...]:
    push, pop, ends = STYLES[style]
    key, value, number = chance.choice(keys), chance.choice("abcde"), chance.randrange(-4, 6)
    popped, pushed = ends or (chance.choice(["LEFT", "RIGHT"]), chance.choice(["LEFT", "right"]))
    both = (chance.choice(keys), chance.choice(keys), popped, pushed)
    requests: list[tuple[Any, ...]] = [
        (chance.choice(push), key, *chance.choices("abcde", k=chance.randrange(4))),
        (chance.choice(push), key, value),
        (chance.choice(pop), key),
        (chance.choice(pop), key, number),
        ("B" + chance.choice(pop), *keys, chance.choice(["0.01", "-1", "x"])),
        ("LLEN", key), ("EXISTS", *keys), ("TYPE", key), ("TTL", key), ("KEYS", f"{key}*"), ("DEL", *keys),
        ("LRANGE", key, number, chance.randrange(-4, 6)), ("LINDEX", key, number), ("LREM", key, number, value),
        ("LPOS", key, value), ("LPOS", key, value, "RANK", number), ("LPOS", key, value, "RANK", -1, "COUNT", 0),
        ("LPOS", key, value, "COUNT", number), ("LPOS", key, value, "MAXLEN", number),
        ("LTRIM", key, 1, 0), ("LTRIM", key, 0, -1), ("LMOVE", *both), ("BLMOVE", *both, "0.01"),
        ("LMPOP", chance.randrange(3), *keys, popped), ("BLMPOP", "0.01", 2, *keys, popped, "COUNT", number),
        ("MULTI",), ("EXEC",), ("DISCARD",), ("SELECT", chance.choice([0, "x"])), ("ECHO", value), ("HELLO", 9),
        ("LPUSH",), ("PERSIST", key), ("LPOP", key, "x"), ("SCAN", "x"), ("CLIENT", "SETNAME", "a b"),
    ]  # fmt: skip
    return chance.choice(requests)


def as_expected(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, Failed) and any(words in ours for words in ON_PURPOSE):
        return True
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(as_expected, ours, theirs))
    return bool(ours == theirs)


@pytest.mark.long
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("style", STYLES)
def test_lists_are_answered_as_by_redis(server: RespServer, redis_port: int, style: str, version: int) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    for number in range(ROUNDS):
        ours, theirs = server.resp(), RespClient(redis_port)
        ours.do("HELLO", version)
        theirs.do("HELLO", version)
        keys = [f"a{style}{version}{number}", f"b{style}{version}{number}"]
        asked: list[tuple[Any, ...]] = []
        for _ in range(STEPS):
            asked.append(random_request(chance, style, keys))
            said, expected = ours.do(*asked[-1]), theirs.do(*asked[-1])
            assert as_expected(said, expected), (seed, asked, said, expected)
            if said != expected:
                break  # refused here: from now on the two lists differ
        ours.close()
        theirs.close()
