"""`bench`: how fast a server is on this machine and this disk. It starts one of its own, in a directory that is removed
afterwards.
"""

import re
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

import darner_core
from darner_core.ctl.address import Address
from darner_core.ctl.client import Client, PutOptions
from darner_core.ctl.context import DURATION, Context
from darner_core.ctl.doctor import fsync_ms
from darner_core.ctl.errors import CtlError
from darner_core.ctl.output import Bar, Column, count

QUEUE: Final = b"bench"
START_S: Final = 30.0
_LISTENS: Final = re.compile(r"listening on: \S+ port (\d+)")
_COMMAND: Final = "from darner_core.main import command; command()"


class Part(NamedTuple):
    name: str
    act: Callable[[Client, bytes], object]
    explained: str


def _pass_on(client: Client, body: bytes) -> None:
    client.put(QUEUE, body)
    item = client.open(QUEUE)
    if item is not None:
        item.body()
        client.close_item(QUEUE)


PARTS: Final = (
    Part("put", lambda client, body: client.put(QUEUE, body), "survives kill -9 of the server when it is answered"),
    Part(
        "put, fsync", lambda client, body: client.put(QUEUE, body, PutOptions(sync=True)),
        "survives a loss of power, too; those that come together share one fsync",
    ),
    Part("put, take, close", _pass_on, "three requests: a job's whole way, as a reliable worker asks for it"),
)  # fmt: skip


class Result(NamedTuple):
    part: str
    per_second: float
    median_ms: float
    p99_ms: float


@click.command()
@click.option(
    "-t", "--time", "lasts_ms", type=DURATION, default="30s", show_default=True, metavar="TIME", help="In all."
)
@click.option("--connections", type=click.IntRange(1, 200), default=8, show_default=True, metavar="N", help="At once.")
@click.option("--bytes", "body_bytes", type=click.IntRange(0, 1 << 20), default=200, show_default=True, metavar="N",
    help="The size of an item.")  # fmt: skip
@click.option("-d", "--dir", "place", type=click.Path(exists=True, file_okay=False), default=".", show_default=True,
    metavar="DIRECTORY", help="On the disk that is meant; a folder is made in it, and removed.")  # fmt: skip
@click.pass_obj
def bench(ctl: Context, lasts_ms: int, connections: int, body_bytes: int, place: str) -> None:
    """Measure a server of its own on this machine's disk, for thirty seconds, and explain the figures."""
    if lasts_ms < 1000:
        raise click.UsageError("--time is at least a second")
    try:
        fsync = fsync_ms(place)
        with (
            tempfile.TemporaryDirectory(prefix="darner-bench-", dir=place) as directory,
            _server(directory) as address,
            ctl.out.progress("measuring", lasts_ms // 100) as bar,
        ):
            each_s = lasts_ms / 1000 / len(PARTS)
            results = [_measure(address, part, each_s, connections, body_bytes, bar) for part in PARTS]
    except OSError as error:
        raise CtlError(f"cannot measure in {place}: {error.strerror}") from error
    if ctl.out.as_json:
        ctl.out.json({
            "connections": connections, "bytes": body_bytes, "fsync_ms": round(fsync, 3),
            "results": [one._asdict() for one in results],
        })  # fmt: skip
        return
    columns = (
        Column("", False, "bold"),
        Column("A SECOND"),
        Column("MEDIAN"),
        Column("P99"),
        Column("", False),
    )
    rows = [
        (one.part, count(round(one.per_second)), f"{one.median_ms:.2f} ms", f"{one.p99_ms:.2f} ms", part.explained)
        for one, part in zip(results, PARTS, strict=True)
    ]
    ctl.out.table(columns, rows)
    ctl.out.say("")
    ctl.out.say(
        f"{connections} connections, items of {count(body_bytes)} bytes; each connection waits for its answer. An fsync"
        f" of this disk takes {fsync:.2f} ms. The clients are a Python program on the same machine, and take about as"
        " much time as the server: clients elsewhere, or faster ones, get more out of it."
    )


@contextmanager
def _server(directory: str) -> Iterator[Address]:
    log_path = Path(directory) / "log"
    words = [sys.executable, "-c", _COMMAND, "--port", "0", "--data", str(Path(directory) / "data")]
    root = str(Path(darner_core.__file__).parents[1])
    with open(log_path, "wb") as log:
        server = subprocess.Popen(words, stdout=log, stderr=log, cwd=root)
    try:
        yield Address(port=_port(server, log_path))
    finally:
        server.terminate()
        try:
            server.wait(START_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _port(server: "subprocess.Popen[bytes]", log_path: Path) -> int:
    """When the server is ready. Raises CtlError."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        log = log_path.read_text(errors="replace")
        found = _LISTENS.search(log)
        if found and "ready: listening" in log:
            return int(found[1])
        if server.poll() is not None:
            break
        time.sleep(0.02)
    last = log_path.read_text(errors="replace").strip().rpartition("\n")[2]
    raise CtlError(f"the server for the benchmark did not start: {last}")


def _measure(address: Address, part: Part, lasts_s: float, connections: int, body_bytes: int, bar: Bar) -> Result:
    """All connections do this for so long. Raises CtlError."""
    took = [array("d") for _ in range(connections)]
    failed: list[CtlError] = []
    until = time.monotonic() + lasts_s
    stopped = threading.Event()
    threads = [
        threading.Thread(target=_load, args=(address, part, until, body_bytes, each, failed, stopped), daemon=True)
        for each in took
    ]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    try:
        while time.monotonic() < until and not failed:
            time.sleep(0.1)
            bar.add()
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
    if failed:
        raise failed[0]
    passed_s = time.monotonic() - start
    return result(part.name, sorted(one for each in took for one in each), passed_s)


def result(name: str, took: list[float], passed_s: float) -> Result:
    """`took`: sorted, in s."""
    if not took:
        raise CtlError(f"{name}: nothing was answered in {passed_s:.0f} s")
    median, p99 = (took[int(len(took) * share)] * 1000 for share in (0.5, 0.99))
    return Result(name, round(len(took) / passed_s, 1), round(median, 3), round(p99, 3))


def _load(
    address: Address, part: Part, until: float, body_bytes: int, took: "array[float]", failed: list[Any],
    stopped: threading.Event,
) -> None:  # fmt: skip
    body, clock = b"x" * body_bytes, time.perf_counter
    try:
        with Client(address) as client:
            while time.monotonic() < until and not stopped.is_set():
                start = clock()
                part.act(client, body)
                took.append(clock() - start)
    except CtlError as error:
        failed.append(error)


COMMANDS: Final = (bench,)
