"""What requests cost in the protocols of others, beside the servers that these come from: beanstalkd and Redis.

    python -m loadtest.compare.protocols --write docs/benchmarks.md

beanstalkd   put, then reserve and delete
redis        LPUSH, then RPOP

Both with 1, 10 and 100 connections that each wait for every answer, and with 10 that have 32 requests in flight. All
servers write to a log before they answer, and force it to the disk (fsync) as often: with beanstalkd every 50 ms, with
Redis every second.

Every item is checked: if one is lost or comes out twice, the run has failed, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest.compare.document import machine, python_build, replace_marked, table
from loadtest.compare.protocol_clients import LPUSH, PUT, RESERVE, RPOP, Crowd, Form
from loadtest.compare.targets import Run, number, ratios, shown, spread, values
from loadtest.errors import LoadTestError
from loadtest.load.client import raise_file_limit
from loadtest.load.flood import positive
from loadtest.program import run
from loadtest.servers import OURS, Kind, Server, ServerProcess, free_port, installed_peer, our_server, output

BEGIN, END = "<!-- protocols: begin -->", "<!-- protocols: end -->"
ROUNDS = 3
ITEMS = 30_000
PIPELINED_TIMES = 10  # as many more items where requests are pipelined
SMOKE_ITEMS = 500


@dataclass(frozen=True)
class Door:
    """A protocol: the server it comes from, our dialect and options, what is asked, and what ours has to reach."""

    peer: str
    dialect: str
    options: tuple[str, ...]
    put: Form
    take: Form
    titles: tuple[str, str]
    take_in_flight: bool  # what is taken can be asked for in advance
    wished: float  # of the peer's rate
    wished_for: tuple[tuple[str, str], ...]  # which loads and figures


@dataclass(frozen=True)
class Load:
    """How it is asked."""

    name: str
    connections: int
    in_flight: int = 1


LOADS = (
    Load("1 connection", 1),
    Load("10 connections", 10),
    Load("100 connections", 100),
    Load("10 connections, 32 in flight", 10, 32),
)
_ONE, _TEN, _HUNDRED, _PIPELINED = (load.name for load in LOADS)
DOORS = (
    Door(
        "beanstalkd", "beanstalkd", ("--sync", "50"), PUT, RESERVE, ("put", "reserve and delete"), False, 1.0,
        (*((load, what) for load in (_TEN, _HUNDRED) for what in ("put", "take")), (_PIPELINED, "put")),
    ),
    Door(
        "redis", "resp", ("--sync", "1000"), LPUSH, RPOP, ("LPUSH", "RPOP"), True, 0.7,
        tuple((load, what) for load in (_HUNDRED, _PIPELINED) for what in ("put", "take")),
    ),
)  # fmt: skip


def forms_of(door: Door, load: Load) -> list[tuple[str, Form]]:
    """What is asked under this load."""
    takes = [("take", door.take)] if door.take_in_flight or load.in_flight == 1 else []
    return [("put", door.put), *takes]


def measure(kind: Kind, door: Door, load: Load, items: int) -> dict[str, float]:
    """Put so many items, and take them."""
    port = free_port()
    config = f'[[listener]]\nport = {port}\ndialect = "{door.dialect}"\n' if kind.name == OURS else ""
    found: dict[str, float] = {}
    with Server(kind, config) as server:
        process = ServerProcess(server.pid, server.data)
        if config:
            server.wait_until_it_listens(port)
        with Crowd(port if config else server.port, load.connections) as crowd:
            for what, form in forms_of(door, load):
                crowd.plan(form, items, load.in_flight)
                before_s, own_before_s, began = process.cpu_s() or 0.0, time.process_time(), time.perf_counter()
                crowd.run()
                took_s = time.perf_counter() - began
                own_s, server_s = time.process_time() - own_before_s, (process.cpu_s() or 0.0) - before_s
                crowd.check(form, items)
                found[f"{what}_per_s"] = items / took_s
                found[f"{what}_cpu_us"] = server_s / items * 1e6
                found[f"{what}_clients_share"] = own_s / took_s
        server.check()
    return found


Step = tuple[Door, Load, int, Kind]


def steps_of(parsed: argparse.Namespace, kinds: dict[str, list[Kind]]) -> list[Step]:
    """All that is to be measured, in order: the servers take turns."""
    return [
        (door, load, round_, kind)
        for door in DOORS
        if door.peer in parsed.parts
        for load in LOADS
        for round_ in range(1, parsed.rounds + 1)
        for kind in kinds[door.peer]
    ]


def group_of(door: Door, load: Load) -> str:
    return f"{door.peer}, {load.name}"


def run_all(steps: list[Step], items: int, quiet: bool, keep: Callable[[Run], None]) -> None:
    """Do all. keep is called after each, so that what was measured is not lost with what is still to come."""
    for done, (door, load, round_, kind) in enumerate(steps):
        found: Run = {"group": group_of(door, load), "round": round_, "server": kind.name}
        try:
            found |= measure(kind, door, load, items * (PIPELINED_TIMES if load.in_flight > 1 else 1))
        except (LoadTestError, OSError) as error:
            found["error"] = str(error) or type(error).__name__
        keep(found)
        if not quiet:
            said = found.get("error") or ", ".join(
                f"{name} {number(found[name])}" for name in found if isinstance(found[name], float)
            )
            print(
                f"[{done + 1:>2}/{len(steps)}] {found['group']}, round {round_}, {kind.name}: {said}",
                file=sys.stderr,
                flush=True,
            )


def rows(runs: list[Run]) -> list[list[str]]:
    """The rates, and how they stand to what was wished."""
    found = []
    for door in DOORS:
        for what, title in zip(("put", "take"), door.titles, strict=True):
            for load in LOADS:
                group, figure = group_of(door, load), f"{what}_per_s"
                own = spread(values(runs, group, OURS, figure))
                if own is None:
                    continue
                ratio = spread(ratios(runs, group, OURS, figure, to=door.peer))
                wished = door.wished if (load.name, what) in door.wished_for else 0.0
                verdict = ""
                if wished and ratio is not None:
                    verdict = "met" if ratio.median >= wished else "**missed**"
                cells = [shown(own), shown(spread(values(runs, group, door.peer, figure))), shown(ratio)]
                found.append([door.peer, f"{title}, {load.name}", *cells, f"{wished:g}" if wished else "", verdict])
    return found


def cost_rows(runs: list[Run]) -> list[list[str]]:
    """Processor time of the servers for a request, and how busy the clients' one process was."""
    found = []
    for door in DOORS:
        for what, title in zip(("put", "take"), door.titles, strict=True):
            for load in LOADS:
                group = group_of(door, load)
                if values(runs, group, OURS, f"{what}_per_s"):
                    cells = [
                        shown(spread(values(runs, group, server, f"{what}_{figure}")))
                        for figure in ("cpu_us", "clients_share")
                        for server in (OURS, door.peer)
                    ]
                    found.append([door.peer, f"{title}, {load.name}", *cells])
    return found


def part(saved: dict[str, Any]) -> str:
    """All that stands between the markers."""
    about, runs = saved["machine"], saved["runs"]
    commands = (saved["command"], *saved["commands"])
    versions = [f"{name} {one['version']}" for name, one in about["servers"].items() if name != OURS]
    text = [
        f"Measured on {saved['day']}, commit `{saved['commit']}`. Machine: {about['cpu']}, {about['cores']} cores, "
        f"{about['memory_bytes'] / 1e9:.0f} GB, {about['kernel']}, data on {about['file_system']}. "
        f"{python_build(about)}, gevent {about['gevent']}, rocksdict {about['rocksdict']}. "
        f"Beside it: {', '.join(versions) or 'nothing'}. "
        "The median of the rounds, in brackets the lowest and the highest.",
        "\n".join(f"    {line}" for line in commands),
        table(["protocol", "what", "ours, /s", "its own server, /s", "ours / its own", "wished", ""], rows(runs)),
        table(
            ["protocol", "what", "ours, µs of processor", "its own, µs", "clients' processor, ours", "its own"],
            cost_rows(runs),
        ),
    ]
    return "\n\n".join(text)


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="protocols", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [door.peer for door in DOORS]
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"default: {' and '.join(names)}")
    parser.add_argument("--rounds", type=positive, default=ROUNDS, help=f"default {ROUNDS}")
    parser.add_argument(
        "--items", type=positive, default=ITEMS, help=f"default {ITEMS:,}; {PIPELINED_TIMES} times as many pipelined"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, after each run")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables into this document")
    parser.add_argument("--smoke", action="store_true", help="a moment of everything, without the others' servers")
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")
    parsed = parser.parse_args(arguments)
    for name in parsed.parts:
        if name not in names:
            parser.error(f"unknown part {name!r}: one of {', '.join(names)}")
    parsed.parts = parsed.parts or names
    if parsed.smoke and parsed.write:
        parser.error("what --smoke measures is not worth writing down")
    if parsed.write and parsed.parts != names:
        parser.error("--write needs all parts")
    if parsed.smoke:
        parsed.rounds, parsed.items = 1, SMOKE_ITEMS
    return parsed


def kinds_of(door: Door, smoke: bool) -> list[Kind]:
    """The servers that are measured: ours, and the other if it is there."""
    kinds = [our_server(sys.executable, list(door.options))]
    peer = None if smoke else installed_peer(door.peer)
    if peer is not None:
        kinds.append(peer)
    elif not smoke:
        print(f"{door.peer} is not installed and left out", file=sys.stderr)
    return kinds


def main(arguments: list[str]) -> int:
    """Measure, show and write what was asked for; 0 if no run failed."""
    parsed = parse_arguments(arguments)
    if parsed.write:
        replace_marked(parsed.write.read_text(), "", BEGIN, END)  # are the markers there? Better now than at the end
    raise_file_limit(max(load.connections for load in LOADS))
    kinds = {door.peer: kinds_of(door, parsed.smoke) for door in DOORS if door.peer in parsed.parts}
    several = [kind for some in kinds.values() for kind in some]
    words = ["python", "-m", "loadtest.compare.protocols"]
    default = parse_arguments([])
    for name in ("rounds", "items"):
        if getattr(parsed, name) != getattr(default, name):
            words += [f"--{name}", str(getattr(parsed, name))]
    saved: dict[str, Any] = {
        "machine": machine(several, tempfile.gettempdir()),
        "command": shlex.join(words),
        "commands": [kind.shown for kind in several],
        "day": time.strftime("%-d %B %Y"),
        "commit": output(["git", "rev-parse", "--short", "HEAD"]).strip(),
        "runs": [],
    }

    def keep(found: Run) -> None:
        saved["runs"].append(found)
        if parsed.json:
            parsed.json.write_text(json.dumps(saved, indent=1) + "\n")

    run_all(steps_of(parsed, kinds), parsed.items, parsed.quiet, keep)
    print(part(saved))
    failed = [found for found in saved["runs"] if "error" in found]
    for one in failed:
        print(f"FAILED {one['group']}, round {one['round']}, {one['server']}: {one['error']}")
    if parsed.write and not failed:
        parsed.write.write_text(replace_marked(parsed.write.read_text(), part(saved), BEGIN, END))
    return 1 if failed else 0


if __name__ == "__main__":
    run("protocols", lambda: main(sys.argv[1:]))
