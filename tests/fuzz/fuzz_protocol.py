"""Fuzzing the parser: whatever bytes come, and however they are cut, they mean the same or are refused in one line.

    python -m tests.fuzz.fuzz_protocol -runs=100000 [corpus folder]

With atheris (libFuzzer's coverage-guided search, where there is a wheel of it) arguments are libFuzzer's. Without it,
inputs are random mutations of the corpus, and -runs=, -seed= and -max_total_time= mean the same.
"""

import random
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

try:
    import atheris as atheris
except ImportError:  # no wheel for this Python or machine
    atheris = None

CORPUS = Path(__file__).parent / "corpus"
MAX_LINE, CHUNK = 300, 100
MOST_BYTES = 4096


def _reading() -> tuple[Any, Any, Any, Any, Any]:
    from darner_core.config import values
    from darner_core.engines import jobs
    from darner_core.protocols.memcache import dialects, lines
    from darner_core.protocols.memcache import reader as protocol

    return protocol, lines, dialects, values, jobs


if atheris is not None:
    with atheris.instrument_imports(include=["darner_core"]):
        protocol, lines, dialects, values, jobs = _reading()
else:
    protocol, lines, dialects, values, jobs = _reading()

from darner_core.errors import RequestError  # noqa: E402


def _no_command(*_: object) -> None:
    raise AssertionError("reading a request does not run it")


TABLE = {
    b"set": protocol.Command(lines.parse_storing, _no_command),
    b"add": protocol.Command(lines.parse_storing, _no_command),
    b"touch": protocol.Command(lines.parse_touching, _no_command),
    b"history": protocol.Command(lines.parse_history, _no_command),
    b"kick": protocol.Command(lines.parse_kicking, _no_command),
    b"dead": protocol.Command(lines.parse_dead, _no_command),
    b"put_back": protocol.Command(lines.parse_dead_change, _no_command),
    b"drop": protocol.Command(lines.parse_dead_change, _no_command),
    b"pause": protocol.Command(lines.parse_pausing, _no_command),
    b"backup": protocol.Command(lines.parse_backup, _no_command),
    b"delete": protocol.Command(lines.parse_naming, _no_command),
    b"flush": protocol.Command(lines.parse_naming, _no_command),
    b"flush_all": protocol.Command(lines.parse_flush_all, _no_command),
    b"stats": protocol.Command(lines.parse_bare, _no_command),
    b"version": protocol.Command(lines.parse_bare, _no_command),
    b"quit": protocol.Command(lines.parse_bare, _no_command),
    b"monitor": protocol.Command(lines.parse_monitor, _no_command),
    b"confirm": protocol.Command(lines.parse_confirm, _no_command),
    b"flush_expired": protocol.Command(lines.parse_naming, _no_command),
    b"flush_all_expired": protocol.Command(lines.parse_bare, _no_command),
    b"dump_stats": protocol.Command(lines.parse_bare, _no_command),
    b"dump_config": protocol.Command(lines.parse_describing, _no_command),
    b"status": protocol.Command(lines.parse_status, _no_command),
    b"watch": protocol.Command(lines.parse_naming, _no_command),
}
DIALECTS = list(dialects.DIALECTS.values())
OPENING = protocol.Command(partial(lines.parse_opening, wait_ms=100), _no_command)

# Kept over the runs, as a server keeps them over its clients: what one said must not change what another means.
kept_lines: dict[str, dict[bytes, Any]] = {dialect.name: {} for dialect in DIALECTS}


def table_of(dialect: Any) -> dict[bytes, Any]:
    reading = partial(lines.parse_reading, exclusive=dialect.exclusive, several_reads=dialect.several_reads)
    get = OPENING if dialect.gets_open else protocol.Command(reading, _no_command)
    return {
        verb: command for verb, command in {**TABLE, b"get": get, b"gets": get}.items() if verb not in dialect.lacks
    }


def heard(
    pieces: list[bytes], kept: dict[bytes, Any], hand_over: bool, dialect: Any = DIALECTS[0]
) -> tuple[list[tuple[Any, bytes]], bytes]:
    """(requests, each with its body; the reply to what is wrong). With `hand_over`, incomplete items are received as
    large ones."""
    reader = protocol.RequestReader(table_of(dialect), kept, MAX_LINE, CHUNK, dialect)
    requests: list[tuple[Any, bytes]] = []
    large, body = None, b""
    for piece in pieces:
        if reader.error is not None:
            break
        data = piece
        if large is None:
            requests += reader.requests(data)
            data = b""
        while reader.error is None:
            if large is None:
                if hand_over and reader.body_missing:
                    reader.hand_over()
                large, body = reader.large, b""
                if large is None:
                    break
            size = large.body_bytes + 2
            body += reader.take_body(size - len(body))
            taken, data = data[: size - len(body)], data[size - len(body) :]
            body += taken
            if len(body) < size:
                break
            if not body.endswith(b"\r\n"):
                return requests, protocol.bad_terminator(large).reply
            requests.append((large, body[:-2]))
            large = None
            reader.end_body()
            requests += reader.requests(data)
            data = b""
    error = reader.error
    assert error is None or (isinstance(error, RequestError) and error.reply.count(b"\n") == 1)
    return requests, b"" if error is None else error.reply


def check(data: bytes) -> None:
    """The first two bytes say how the rest is cut, and in which dialect. Raises AssertionError, or whatever the parser
    should not."""
    cut, data = data[:2], data[2 : 2 + MOST_BYTES]
    step = 1 + (cut[0] if cut else 0) % 64
    pieces = [data[i : i + step] for i in range(0, len(data), step)]
    dialect = DIALECTS[(cut[1] if len(cut) > 1 else 0) % len(DIALECTS)]
    whole = heard([data], {}, False, dialect)
    assert heard(pieces, {}, False, dialect) == whole, "cut in pieces, it means something else"
    assert heard(pieces, {}, True, dialect) == whole, "received as a large item, it means something else"
    for known, other in zip(heard([data], kept_lines[dialect.name], False, dialect)[0], whole[0], strict=True):
        assert known[1] == other[1]
        for meant in ("queue", "parent", "cursor", "targets", "job", "asked", "several", "pause"):
            assert getattr(known[0], meant) == getattr(other[0], meant)
    for request, body in whole[0]:
        assert request.body_bytes == (-1 if body is None else len(body))
        assert len(request.queue) <= values.MAX_NAME_BYTES
        within_limits(request)


def within_limits(request: Any) -> None:
    """What is said of jobs is what the queues can bear, and goes together."""
    if request.job is not None:
        delay_ms, pri, ttr_ms, key, _ = request.job
        assert 0 <= delay_ms <= jobs.MAX_DELAY_MS
        assert 0 <= pri <= jobs.MAX_PRI
        assert 0 <= ttr_ms <= jobs.MAX_DELAY_MS
        assert len(key) <= jobs.MAX_KEY_BYTES
    assert request.verb != b"add" or request.job.key
    if request.asked is not None and request.verb not in (b"touch", b"history", b"put_back", b"drop"):
        asked = request.asked
        assert asked.ttr_ms is None or (request.opens and 0 <= asked.ttr_ms <= jobs.MAX_DELAY_MS)
        assert not asked.most or request.opens != request.closes
        assert not asked.item_id or request.closes or request.aborts
        assert not (asked.delay_ms or asked.pri) or (request.aborts and not asked.rejects)
    assert all(one.queue in request.targets for one in request.several)


WORDS = [
    *b"monitor confirm flush_expired dump_config status watch a+b a+b+c a.c . + a..b put peek : 1 5".split(),
    *b"add touch history kick dead put_back drop pause in out none a/open b/ttr=5 /delay= /pri=".split(),
    *b"/ttr= /ttr /key= /key=k /n= /n=2".split(),
    *b"/id= /id=7 /abort /reject /open/ttr=9 /close/n=2 /abort/delay=1 4294967296 281474976710657 60".split(),
    *b"set get delete flush_all noreply /open /close /t= /sync / 0 -1 100 101 99999999999999999999".split(),
    *(b"\r\n", b"\n", b"\r", b" ", b"\0", b"\xff", "\u0663".encode(), b"q" * 251),
]


def mutate(data: bytes, dice: random.Random) -> bytes:
    """`data` with a few bytes or words changed, left out, doubled or put in."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        at = dice.randint(0, len(changed))
        to = min(len(changed), at + dice.choice((1, 1, 2, 10, 100)))
        kind = dice.randrange(5)
        if kind == 0 and at < len(changed):
            changed[at] = dice.randrange(256)
        elif kind == 1:
            del changed[at:to]
        elif kind == 2:
            changed[at:at] = changed[at:to]
        elif kind == 3:
            changed[at:at] = dice.choice(WORDS)
        else:
            changed[at:to] = dice.choice(WORDS)
    return bytes(changed)


def mutations(seeds: list[bytes], dice: random.Random) -> Iterator[bytes]:
    pool = list(seeds)
    while True:
        data = mutate(dice.choice(pool), dice)
        yield data
        if len(pool) < 2000 and dice.random() < 0.02:
            pool.append(data)


def seeds(folder: Path = CORPUS) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def run_random(runs: int, seed: int, most_s: float, folder: Path = CORPUS) -> int:
    """How many inputs were tried."""
    dice = random.Random(seed)
    until = time.monotonic() + most_s
    tried = 0
    for data in mutations(seeds(folder), dice):
        if tried >= runs or time.monotonic() >= until:
            break
        try:
            check(data)
        except BaseException:
            print(f"seed {seed}, input {tried}: {data!r}", file=sys.stderr)
            raise
        tried += 1
    return tried


def main(arguments: list[str]) -> None:
    if atheris is not None:
        if not any(not argument.startswith("-") for argument in arguments[1:]):
            # What libFuzzer finds worth keeping goes into the first folder, which is not ours.
            arguments = [*arguments, tempfile.mkdtemp(prefix="darner-fuzz-"), str(CORPUS)]
        atheris.Setup(arguments, check)
        atheris.Fuzz()
        return
    options = dict(argument[1:].split("=", 1) for argument in arguments[1:] if "=" in argument)
    folder = next((Path(argument) for argument in arguments[1:] if not argument.startswith("-")), CORPUS)
    began = time.monotonic()
    most_s = float(options.get("max_total_time", 0)) or 1e9
    tried = run_random(int(options.get("runs", 10**12)), int(options.get("seed", 0)), most_s, folder)
    print(f"no atheris here: {tried} random mutations of the corpus in {time.monotonic() - began:.0f} s, nothing found")


if __name__ == "__main__":
    main(sys.argv)
