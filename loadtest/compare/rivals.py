"""Compares this server with memcached, redis and beanstalkd, and its figures with the targets.

Runs the scenarios of the load generator against servers that it starts itself, each anew for each run. Within a
scenario the servers take turns (A B A B ...), so that whatever slows the machine down for a while hits all of them.
What is made of the figures is in targets.py, the servers are in servers.py, the document in document.py, its pictures
in plots.py.

A run that fails is reported, and the others go on; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

from loadtest import program
from loadtest.compare.document import machine, measured_part, python_build, replace_marked
from loadtest.compare.targets import RATIO, TARGETS, Judgement, Run, judge, number, ratios, shown, spread, values
from loadtest.errors import LoadTestError
from loadtest.load import scenarios
from loadtest.load.client import Client, raise_file_limit
from loadtest.load.flood import positive
from loadtest.load.session import Options, Result, Session
from loadtest.servers import (
    ALL,
    FLOOR,
    HOST,
    LOOK_AGAIN_S,
    OURS,
    PEERS,
    START_S,
    Kind,
    Server,
    ServerProcess,
    installed_peer,
    our_server,
)

KIB = 1024
ROUNDS = 5
SPARE_FILES = 500  # that a server may open beside its connections
WITH_QUEUES = (OURS, "redis", "beanstalkd")
REAL = tuple(name for name in ALL if name != FLOOR)


@dataclass(frozen=True)
class Group:
    """A scenario with its options and the servers it makes sense with."""

    scenario: str
    options: dict[str, Any] = field(default_factory=dict)
    servers: tuple[str, ...] = ALL
    # Where no target is a ratio to a peer, one round of the peers is enough to show the scale.
    peers_once: bool = False
    restarts: bool = False  # kill -9 when all is waiting, and time the start


GROUPS = {
    "flood-1": Group("flood", {"connections": 1}),
    "flood-10": Group("flood", {"connections": 10}),
    "flood-100": Group("flood", {"connections": 100}),
    "flood-1000": Group("flood", {"connections": 1000}),
    "pipeline": Group("pipeline", {"connections": 10, "in_flight": 32}),
    "reliable": Group("reliable", {"connections": 100}, REAL),
    "packing": Group("packing", {"connections": 10, "item_bytes": KIB, "items": 1_000_000}, WITH_QUEUES, True),
    "memory": Group("memory", {"item_bytes": KIB, "items": 4_000_000}, WITH_QUEUES, True, restarts=True),
    "queues": Group("queues", {"queues": 10_000}, (OURS,), restarts=True),
    "waiters": Group("waiters", {"connections": 10_000}, (OURS,)),
    "fairness": Group("fairness", {"connections": 50}, REAL, True),
    "sync": Group("sync", {"connections": 100}, (OURS,)),
}

# For --smoke: does every scenario run and lose nothing?
SMOKE_CONNECTIONS = 50
SMOKE = {
    "seconds": 0.3,
    "warmup_seconds": 0.05,
    "items": 500,
    "queues": 100,
    "large_bytes": 1_000_000,
    "settle_seconds": 0.1,
}


@dataclass(frozen=True)
class Job:
    """One run that is to be done."""

    group: str
    round: int
    kind: Kind


def jobs_of(groups: list[str], rounds: int, kinds: list[Kind]) -> list[Job]:
    """All runs, in the order in which they are done: within a group, round by round, the servers in turn."""
    return [
        Job(name, number, kind)
        for name in groups
        for number in range(1, rounds + 1)
        for kind in kinds
        if kind.name in GROUPS[name].servers and (number == 1 or kind.name == OURS or not GROUPS[name].peers_once)
    ]


def options_of(group: Group, parsed: argparse.Namespace) -> dict[str, Any]:
    """The options of the scenario, without those that say which server."""
    options: dict[str, Any] = {"seconds": parsed.seconds, "quiet": parsed.quiet} | group.options
    if parsed.items:
        options["items"] = parsed.items
    if parsed.smoke:
        options |= SMOKE
        if "connections" in options:
            options["connections"] = min(options["connections"], SMOKE_CONNECTIONS)
    return options


def run(job: Job, options: dict[str, Any]) -> Run:
    """Start the server, run the scenario, end the server. LoadTestError if any of it goes wrong or an item was lost."""
    group = GROUPS[job.group]
    raise_file_limit(options.get("connections", 0) + SPARE_FILES)  # the server inherits it
    with Server(job.kind) as server:
        given = Options(
            host=HOST, port=server.port, protocol=job.kind.protocol, pid=server.pid, data=server.data, **options
        )
        more: Result = {}
        scenario: Callable[..., Result] = scenarios.SCENARIOS[group.scenario]
        if group.restarts:
            scenario = partial(scenario, when_full=partial(kill_and_restart, server, more))
        try:
            result: Run = scenario(given) | more
        except (LoadTestError, OSError):
            server.check()  # if it died, that is the error to tell, not that a connection was lost
            raise
        server.check()
    if result["check"] is None:
        if job.kind.name != "memcached":  # whose gets leave the items there
            raise LoadTestError("nobody checked whether an item was lost")
    elif not result["check"]["ok"]:
        raise LoadTestError(f"items were lost, invented, changed or out of order: {result['check']}")
    return result


def kill_and_restart(server: Server, more: Result, session: Session) -> int:
    """kill -9 with everything waiting, start again, and time the start up to the first item that is handed out.

    The scenario then drains the new process, and so finds out whether the kill lost anything. The files are in the
    system's cache, as they are after any crash but the machine's. Returns the number of items got: one, or none.
    """
    session.client.close()
    server.kill()
    begun = perf_counter()
    server.launch()
    while True:
        client: Client | None = None
        try:
            client = session.new_client(session.queue)
            items = client.ask([session.peer.get(session.queue)])
            break
        except LoadTestError:  # not listening yet, or redis still loading
            if client:
                client.close()
            server.check()
            if perf_counter() - begun > START_S:
                raise
            sleep(LOOK_AGAIN_S)
    more["start_s"] = perf_counter() - begun
    session.client = client
    session.server = ServerProcess(server.pid, server.data)
    return len(items)


class Progress:
    """Says what runs now, and how much is left: a line for each run on standard error."""

    def __init__(self, jobs: list[Job], rounds: int) -> None:
        """jobs: all of them, in order."""
        self.jobs, self.rounds = jobs, rounds
        self.took_s: dict[tuple[str, str], float] = {}

    def begin(self, done: int) -> None:
        """The next run begins. done: how many came before it."""
        job = self.jobs[done]
        line = f"[{done + 1:>3}/{len(self.jobs)}] {job.group:<10} round {job.round}/{self.rounds}  {job.kind.name:<10}"
        left_s = sum(self.took_s.get((job.group, job.kind.name), 0.0) for job in self.jobs[done:])
        if left_s >= 60:
            line += f"  at least {left_s / 60:.0f} min left"  # what has not run yet may take any time
        print(line, file=sys.stderr, flush=True)

    def end(self, job: Job, seconds: float, found: Run) -> None:
        """The job took `seconds`, and this came of it."""
        self.took_s[job.group, job.kind.name] = seconds
        text = found.get("error") or ", ".join(figures_of(found))
        print(f"{'':10}{text}", file=sys.stderr, flush=True)


def figures_of(found: Run) -> list[str]:
    """The figures of a run that its group has targets for."""
    said = []
    for target in TARGETS:
        if target.group == found["group"] and found.get(target.figure) is not None:
            unit = "" if target.unit == RATIO else target.unit
            said.append(f"{target.figure} {number(target.in_unit(found[target.figure]))} {unit}".strip())
    return said


def run_all(jobs: list[Job], parsed: argparse.Namespace, keep: Callable[[Run], None]) -> None:
    """Do all runs; keep is called after each, so that what was measured is not lost with what is still to come."""
    progress = Progress(jobs, parsed.rounds)
    for done, job in enumerate(jobs):
        if not parsed.quiet:
            progress.begin(done)
        begun = perf_counter()
        found: Run = {"group": job.group, "round": job.round, "server": job.kind.name}
        try:
            found = run(job, options_of(GROUPS[job.group], parsed)) | found
        except (LoadTestError, OSError) as error:
            found["error"] = str(error) or type(error).__name__
        keep(found)
        if not parsed.quiet:
            progress.end(job, perf_counter() - begun, found)


def tables(runs: list[Run], groups: list[str]) -> str:
    """What the terminal shows at the end: rates, and what came of the targets."""
    lines = [
        f"{'scenario':<12}{'server':<12}{'requests/s':<28}{RATIO:<24}{'p99 ms':>8}{'server cpu %':>14}{'generator':>11}"
    ]
    for group in groups:
        for server in ALL:
            rate = spread(values(runs, group, server, "requests_per_s"))
            if rate is None:
                continue
            ratio = "" if server == "memcached" else shown(spread(ratios(runs, group, server, "requests_per_s")))
            p99 = spread(values(runs, group, server, "p99_us"))
            shares = [spread(values(runs, group, server, f"{who}_cpu_percent")) for who in ("server", "generator")]
            lines.append(
                f"{group:<12}{server:<12}{shown(rate):<28}{ratio:<24}{p99.median / 1e3 if p99 else 0:>8.2f}"
                f"{shares[0].median if shares[0] else 0:>14.0f}{shares[1].median if shares[1] else 0:>11.0f}"
            )
    lines += ["", f"{'target':<76}{'unit':<13}{'must':>6}{'aim':>7}  measured"]
    return "\n".join(lines + [target_line(judge(runs, target)) for target in TARGETS if target.group in groups])


def checks(runs: list[Run]) -> str:
    """What a smoke test shows instead: each scenario, and that nothing was lost."""
    return "\n".join(
        f"{found['group']:<12}{line}" for found in runs for line in found.get("lines", []) if line.startswith("checked")
    )


def target_line(judged: Judgement) -> str:
    """One target and what came of it."""
    target = judged.target
    line = f"{target.title:<76}{target.unit:<13}{target.must:>6g}{target.aim:>7g}  {shown(judged.spread)}"
    return f"{line}  {judged.verdict}"


def read_saved(files: list[Path]) -> Result:
    """Figures of earlier runs, put together; where two files have the same scenario, the later one counts."""
    saved: Result = {"machine": {}, "commands": [], "runs": []}
    for file in files:
        try:
            one = json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise LoadTestError(f"cannot read {file}: {error}") from error
        add(saved, one)
    return saved


def add(saved: Result, more: Result) -> None:
    """Put figures with others; LoadTestError if they are from another machine, or from other versions or options."""
    known, other = saved["machine"] or more["machine"], more["machine"]
    servers = known["servers"] | other["servers"]  # one of them may have been measured with fewer peers
    if known | {"servers": servers} != other | {"servers": other["servers"] | known["servers"]}:
        raise LoadTestError("figures of different machines, versions or options cannot stand in one table")
    saved["machine"] = known | {"servers": servers}
    saved["commands"] = list(dict.fromkeys(saved["commands"] + more["commands"]))
    groups = {found["group"] for found in more["runs"]}
    saved["runs"] = [found for found in saved["runs"] if found["group"] not in groups] + more["runs"]


def command_of(parsed: argparse.Namespace) -> str:
    """The command again, without what says where things are on this machine."""
    words = ["python", "-m", "loadtest.compare.rivals"]
    if parsed.scenarios != list(GROUPS):
        words += parsed.scenarios
    default = parse_arguments([])
    for name in ("rounds", "seconds", "items", "peers", "server_options"):
        value = getattr(parsed, name)
        if value != getattr(default, name):
            words += [f"--{name.replace('_', '-')}", f"{value:g}" if isinstance(value, float) else str(value)]
    return shlex.join(words)


def write_document(document: Path, saved: Result) -> None:
    """Replace the measured part of the document, and draw its pictures beside it."""
    from loadtest.compare import plots  # here, for matplotlib takes a second to load and nothing else needs it

    text = document.read_text()
    replace_marked(text, "")  # before anything is drawn: are the markers there?
    pictures = plots.draw_all(
        saved["runs"], document.parent / "plots", [name for name in ALL if name in saved["machine"]["servers"]]
    )
    part = measured_part(saved["machine"], saved["commands"], saved["runs"], list(GROUPS), pictures)
    document.write_text(replace_marked(text, part))


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="rivals", description="Compare this server with others, and its figures with the targets."
    )
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"default: all of {', '.join(GROUPS)}")
    parser.add_argument("--rounds", type=positive, default=ROUNDS, help=f"default {ROUNDS}")
    parser.add_argument("--seconds", type=float, default=5.0, help="of measuring in each run; default 5")
    parser.add_argument("--items", type=positive, help="waiting in packing and memory; default 1,000,000 and 4,000,000")
    parser.add_argument("--peers", default=",".join(PEERS), help=f"default {','.join(PEERS)}; or none")
    parser.add_argument("--python", default=sys.executable, metavar="PATH", help="the interpreter of this server")
    parser.add_argument("--server-options", default="", metavar="OPTIONS", help="of this server, as one argument")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, after each run")
    parser.add_argument(
        "--from",
        dest="saved",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="use figures that --json wrote, for what is not named; may be given again",
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="put tables and plots into this document")
    parser.add_argument(
        "--smoke", action="store_true", help="a moment of every scenario, this server alone, no targets"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")
    parsed = parser.parse_args(arguments)
    for name in parsed.scenarios:
        if name not in GROUPS:
            parser.error(f"unknown scenario {name!r}: one of {', '.join(GROUPS)}")
    if not parsed.scenarios and not parsed.saved:
        parsed.scenarios = list(GROUPS)
    if parsed.seconds <= 0:
        parser.error("--seconds must be above 0")
    if parsed.smoke and parsed.write:
        parser.error("what --smoke measures is not worth writing down")
    if parsed.smoke:
        parsed.rounds, parsed.peers = 1, "none"
    parsed.peer_names = [] if parsed.peers == "none" else parsed.peers.split(",")
    for name in parsed.peer_names:
        if name not in PEERS:
            parser.error(f"unknown peer {name!r}: one of {', '.join(PEERS)}, or none")
    return parsed


def main(arguments: list[str]) -> int:
    """Run, show and write what was asked for; 0 if no run failed."""
    parsed = parse_arguments(arguments)
    saved = read_saved(parsed.saved)
    if parsed.scenarios:
        kinds = [our_server(parsed.python, shlex.split(parsed.server_options))]
        for name in parsed.peer_names:
            kind = installed_peer(name)
            if kind:
                kinds.append(kind)
            else:
                print(f"{name} is not installed and left out", file=sys.stderr)
        about = machine(kinds, tempfile.gettempdir())
        new: Result = {"machine": about, "commands": [command_of(parsed)], "runs": []}
        add(saved, new)  # would they fit together? Better now than in an hour

        def keep(found: Run) -> None:
            new["runs"].append(found)
            if parsed.json:
                parsed.json.write_text(json.dumps(new, indent=1) + "\n")

        run_all(jobs_of(parsed.scenarios, parsed.rounds, kinds), parsed, keep)
        add(saved, new)
    groups = [name for name in GROUPS if any(found["group"] == name for found in saved["runs"])]
    versions = [f"{name} {server['version']}" for name, server in saved["machine"]["servers"].items()]
    print(f"{python_build(saved['machine'])}; {', '.join(versions)}\n")
    print(checks(saved["runs"]) if parsed.smoke else tables(saved["runs"], groups))
    failed = [found for found in saved["runs"] if "error" in found]
    for one in failed:
        print(f"FAILED {one['group']}, round {one['round']}, {one['server']}: {one['error']}")
    if parsed.write:
        write_document(parsed.write, saved)
    return 1 if failed else 0


if __name__ == "__main__":
    program.run("rivals", lambda: main(sys.argv[1:]))
