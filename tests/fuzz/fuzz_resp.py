"""Fuzzing RESP: however the bytes are cut, they mean the same; and whatever commands are told, they answer.

    python -m tests.fuzz.fuzz_resp -runs=100000

Inputs are random mutations of a few conversations; -runs=, -seed= and -max_total_time= mean what they mean for
fuzz_protocol.
"""

import random
import sys
import time
from contextlib import suppress
from typing import Any

from darner_core.errors import RequestError
from darner_core.protocols.contract import BadLogin, Command, NoLogin, NotYet
from darner_core.protocols.resp.login import read_login
from darner_core.protocols.resp.reader import RespReader, takes
from tests.fuzz.fuzz_protocol import MOST_BYTES, mutations
from tests.support.resp_clients import Failed, RespServer, said

MAX_ITEM_BYTES = 2000


def _run(*_: object) -> bytes:
    raise AssertionError("reading a request does not run it")


TABLE = {verb: Command(takes(least, most), _run) for verb, least, most in (
    (b"ping", 0, 1), (b"lpush", 2, None), (b"addjob", 3, None), (b"getjob", 2, None), (b"exec", 0, 0),
)}  # fmt: skip

SEEDS = [
    b"\x05" + said("LPUSH", "k", "a", b"b\r\n") + said("PING") + b"ping\r\nlpush k 'a b' \"c\\x41\"\r\n",
    b"\x02" + said("ADDJOB", "q", b"\0\xff" * 30, 0, "RETRY", 5) + b"\r\n*0\r\n*-1\r\n" + said("EXEC"),
    b"\x09" + b"getjob from q\nPING\n\n" + said("GETJOB", "FROM", "q") + b"*1\r\n$4\r\nPING\r\n",
    b"\x01" + said("AUTH", "name", "password") + said("HELLO", 3, "AUTH", "a", "b", "SETNAME", "c"),
]


def heard(pieces: list[bytes]) -> tuple[list[str], str]:
    """(the requests as text, what is wrong behind them)"""
    reader = RespReader(TABLE, lambda error: lambda *_: str(error).encode(), MAX_ITEM_BYTES)
    requests: list[str] = []
    for piece in pieces:
        if reader.error is None:
            requests += [shown(request) for request, _ in reader.requests(piece)]
            assert reader.body_bytes <= MOST_BYTES * 50
    assert reader.error is None or isinstance(reader.error, RequestError)
    return requests, str(reader.error or "")


def shown(request: Any) -> str:
    return f"{request.verb!r} {request.words} {request.run() if request.verb == b'' else b''!r}"


def check(data: bytes) -> None:
    """The first byte says how the rest is cut. Raises AssertionError, or whatever the reader should not."""
    step, data = 1 + data[:1][0] % 64 if data else 1, data[1 : 1 + MOST_BYTES]
    pieces = [data[i : i + step] for i in range(0, len(data), step)]
    assert heard(pieces) == heard([data]), "cut in pieces, it means something else"
    with suppress(NoLogin, NotYet, BadLogin):
        read_login(data)


def run_random(runs: int, seed: int, most_s: float) -> int:
    """How many inputs were tried."""
    until, tried = time.monotonic() + most_s, 0
    for data in mutations(SEEDS, random.Random(seed)):
        if tried >= runs or time.monotonic() >= until:
            break
        try:
            check(data)
        except BaseException:
            print(f"seed {seed}, input {tried}: {data!r}", file=sys.stderr)
            raise
        tried += 1
    return tried


# -- commands, asked of a server

# What they may be told, whether it makes sense or not.
WORDS: list[str | bytes] = [
    "k", "m", "q", "a", "", "0", "1", "-1", "2", "99999", "x" * 300, "y" * 20_000, "1.5", "nan", b"\xff\0 /", "*",
    "LEFT", "RIGHT", "COUNT", "RANK", "MATCH", "FROM", "NOHANG", "WITHCOUNTERS", "BOUND", "TIMEOUT", "DELAY", "RETRY",
    "TTL", "PRI", "KEY", "MAXLEN", "in", "out", "none", "all", "state", "GET", "SET", "LIST", "INFO", "QUEUE", "STATE",
    "queued", "active", "REPLY", "AUTH", "SETNAME", "3", "9223372036854775807", "-9223372036854775808",
]  # fmt: skip

# What would end the server, or the conversation, or leave it waiting.
NEVER = {b"shutdown", b"quit", b"cluster"}


def random_request(chance: random.Random, verbs: list[bytes], ids: list[str]) -> list[str | bytes]:
    verb = chance.choice(verbs)
    usual = [*WORDS[:24], *ids[-5:]]
    words = [chance.choice(usual if chance.random() < 0.7 else WORDS) for _ in range(chance.randrange(6))]
    if verb == b"getjob":
        words = ["NOHANG", *words, "FROM", "q", "k"]
    elif verb == b"addjob":
        words = [chance.choice("qkm"), chance.choice(WORDS), "0", *words[:2]]
    elif verb == b"blmpop":
        words = ["0.01", *words[1:]]
    elif verb.startswith((b"bl", b"br")) and words:
        words[-1] = "0.01"
    return [verb, *words]


def talk(server: RespServer, runs: int, seed: int) -> int:
    """Ask it random commands, and see that each is answered and that a client beside it gets what is its own. How many
    were asked."""
    chance = random.Random(seed)
    client, other = server.resp(), server.resp()
    verbs = [verb for verb in client.do("COMMAND", "LIST") if verb not in NEVER]
    ids: list[str] = []
    for number in range(runs):
        request = random_request(chance, verbs, ids)
        reply = client.do(*request)
        if isinstance(reply, str) and not isinstance(reply, Failed) and reply.startswith("D-"):
            ids.append(reply)
        if number % 50 == 0:
            assert other.do("LPUSH", "other", number) >= 1
            assert other.do("RPOP", "other") == b"%d" % number
    return runs


def main(arguments: list[str]) -> None:
    options = dict(argument[1:].split("=", 1) for argument in arguments[1:] if "=" in argument)
    began = time.monotonic()
    most_s = float(options.get("max_total_time", 0)) or 1e9
    tried = run_random(int(options.get("runs", 10**12)), int(options.get("seed", 0)), most_s)
    print(f"{tried} random mutations of what clients of RESP say in {time.monotonic() - began:.0f} s, nothing found")


if __name__ == "__main__":
    main(sys.argv)
