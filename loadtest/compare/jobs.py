"""What jobs cost: put with a delay and taken, beside beanstalkd; very many that come due at once; and plain requests.

    python -m loadtest.compare.jobs --before ../before --write docs/benchmarks.md     # rates, flood and plain
    python -m loadtest.compare.jobs drain                                             # takes longest

rates   put with a delay, and take and close when it is over: 1, 10 and 100 connections, each with 32 requests in
        flight, in turn with beanstalkd
flood   a million are delayed, the server is killed and started, they come due at the same moment, and are drained;
        a bystander sets and gets an item of another queue meanwhile
plain   what a request costs that uses no jobs, against the checkout --before: processor time, and instructions
drain   ten million are put and taken: the next get, and what is left on the disk

Both servers write to their logs before they answer, and force them to the disk (fsync) every 50 ms: beanstalkd does so
by default, this server by --sync 50. So a kill loses nothing, and a loss of power at most 50 ms.

Every job is checked: if one is lost or comes out twice, the run has failed, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from loadtest.compare import instructions, job_runs, versus
from loadtest.compare.document import machine, python_build, replace_marked, table
from loadtest.compare.job_runs import Figures, Progress
from loadtest.compare.targets import MISSED, NOT_MEASURED, Run, Target, judge, number, shown, spread, values
from loadtest.errors import LoadTestError
from loadtest.load.client import raise_file_limit
from loadtest.load.flood import positive
from loadtest.program import run
from loadtest.servers import OURS, ROOT, Kind, installed_peer, output

BEGIN, END = "<!-- jobs: begin -->", "<!-- jobs: end -->"
PEER = "beanstalkd"
OPTIONS = "--sync 50"
PARTS = ("rates", "flood", "plain", "drain")
CONNECTIONS = (1, 10, 100)
ROUNDS, FLOOD_ROUNDS = 5, 2
PLAIN_SECONDS = 2.0
RATE_ITEMS, FLOOD_ITEMS, DRAIN_ITEMS = 40_000, 1_000_000, 10_000_000
COUNTED = {"instructions": instructions.PLAIN, "instructions, get q/close/open": instructions.RELIABLE}
SMOKE_ITEMS, SMOKE_CONNECTIONS = 500, (1, 3)


def _wish(
    group: str, title: str, figure: str, unit: str, wished: float, lower_is_better: bool = False, items: int = 0
) -> Target:
    return Target(group, title, figure, unit, wished, wished, lower_is_better, items)


# fmt: off
WISHES = (
    *(wish for connections in CONNECTIONS for wish in (
        _wish(f"rates-{connections}", f"put with a delay, connections: {connections}", "put_per_s", "/s", 15_000),
        _wish(f"rates-{connections}", f"take and close, connections: {connections}", "take_per_s", "/s", 10_000),
    )),
    _wish("flood", "a million come due at once", "due_per_s", "/s", 20_000, items=FLOOD_ITEMS),
    _wish("flood", "meanwhile: another client's set or get, p99.9", "beside_p999_us", "ms", 20, True, FLOOD_ITEMS),
    _wish("flood", "a million delayed: memory", "more_bytes", "MB", 10, True, FLOOD_ITEMS),
    _wish("flood", "a million delayed: start after kill -9", "start_s", "s", 1, True, FLOOD_ITEMS),
    _wish("drain", "ten million put and drained: disk", "settled_disk_bytes", "MB", 30, True, DRAIN_ITEMS),
    _wish("drain", "ten million put and drained: the next get", "next_get_us", "ms", 5, True, DRAIN_ITEMS),
    *(_wish(name, f"a plain request: {name}, now / before", "ratio", "×", 1.005, True) for name in COUNTED),
    *(_wish(name, f"a plain request: processor time, {name}, now / before", "ratio", "×", 1.05, True)
      for name, *_ in versus.ROWS),
)
# fmt: on

Step = tuple[str, int, str, int, Callable[[], Figures]]  # group, round, server, items, what measures it


def steps_of(parsed: argparse.Namespace, kinds: list[Kind], progress: Progress) -> Iterator[Step]:
    """All that is to be measured, in order."""
    ours = kinds[0]
    if "rates" in parsed.parts:
        for connections in SMOKE_CONNECTIONS if parsed.smoke else CONNECTIONS:
            for round_ in range(1, parsed.rounds + 1):
                for kind in kinds:
                    work = partial(job_runs.rates, kind, connections, parsed.items, progress)
                    yield f"rates-{connections}", round_, kind.name, parsed.items, work
    if "flood" in parsed.parts:
        for round_ in range(1, parsed.floods + 1):
            yield "flood", round_, OURS, parsed.flood_items, partial(job_runs.flood, ours, parsed.flood_items, progress)
    if "drain" in parsed.parts:
        yield "drain", 1, OURS, parsed.drain_items, partial(job_runs.drain, ours, parsed.drain_items, progress)
    if "plain" in parsed.parts:
        for name, get in COUNTED.items():
            yield name, 1, OURS, 0, partial(job_runs.counted, parsed.before, get)
        checkouts = {"before": parsed.before, "now": ROOT}
        for name, *_ in versus.ROWS:
            for round_ in range(1, parsed.rounds + 1):
                yield name, round_, OURS, 0, partial(job_runs.plain, checkouts, parsed.seconds, round_, name)


def measure(steps: list[Step], quiet: bool, keep: Callable[[Run], None]) -> None:
    """Do all. keep is called after each, so that what was measured is not lost with what is still to come."""
    for done, (group, round_, server, items, work) in enumerate(steps):
        if not quiet:
            print(f"[{done + 1:>3}/{len(steps)}] {group}, round {round_}, {server}", file=sys.stderr, flush=True)
        found: Run = {"group": group, "round": round_, "server": server, "parameters": {"items": items}}
        try:
            found |= work()
        except (LoadTestError, OSError) as error:
            found["error"] = str(error) or type(error).__name__
        keep(found)
        if not quiet:
            said = ", ".join(f"{name} {number(found[name])}" for name in found if isinstance(found[name], float))
            print(f"{'':10}{found.get('error') or said}", file=sys.stderr, flush=True)


def rows(runs: list[Run]) -> list[list[str]]:
    """What was wished, and what came of it."""
    found = []
    for judged in (judge(runs, wish) for wish in WISHES):
        wish = judged.target
        if judged.verdict != NOT_MEASURED:
            verdict = "met" if "met" in judged.verdict else "**missed**" if judged.verdict == MISSED else judged.verdict
            bound = f"{'at most' if wish.lower_is_better else 'at least'} {wish.must:,g} {wish.unit}"
            found.append([wish.title, bound, f"**{_shown(runs, wish)}**", verdict])
    return found


def _shown(runs: list[Run], wish: Target) -> str:
    found = [wish.in_unit(value) for value in values(runs, wish.group, OURS, wish.figure)]
    if wish.unit != "×":
        return shown(spread(found))
    middle = spread(found)
    assert middle is not None
    return f"{middle.median:.3f}" + (f" ({middle.low:.3f}–{middle.high:.3f})" if len(found) > 1 else "")


def rate_rows(runs: list[Run]) -> list[list[str]]:
    """Rates and processor time of both servers."""
    found: list[list[str]] = []
    for connections in sorted({*CONNECTIONS, *SMOKE_CONNECTIONS}):
        group = f"rates-{connections}"
        for server in (OURS, PEER):
            if values(runs, group, server, "put_per_s") and [str(connections), server] not in [
                row[:2] for row in found
            ]:
                figures = ("put_per_s", "take_per_s", "put_cpu_us", "take_cpu_us")
                cells = [shown(spread(values(runs, group, server, figure))) for figure in figures]
                found.append([str(connections), server, *cells])
    return found


# Beside the wishes: the figure, how it is called, its unit.
MORE = (
    ("flood", "a million put with a delay, 10 connections", "put_per_s", "/s"),
    ("flood", "memory: the server empty", "empty_bytes", "MB"),
    ("flood", "memory: after a million plain items, put and taken", "plain_bytes", "MB"),
    ("flood", "memory: then with a million delayed", "delayed_bytes", "MB"),
    ("flood", "memory: after the start with a million delayed", "restarted_bytes", "MB"),
    ("flood", "disk: a million delayed", "delayed_disk_bytes", "MB"),
    ("flood", "bystander before, p50", "alone_p50_us", "ms"),
    ("flood", "bystander before, p99.9", "alone_p999_us", "ms"),
    ("flood", "bystander while they come due, p50", "beside_p50_us", "ms"),
    ("flood", "bystander while they come due, longest", "beside_longest_us", "ms"),
    ("flood", "a million taken and closed, 10 connections", "take_per_s", "/s"),
    ("flood", "disk, when they are drained", "settled_disk_bytes", "MB"),
    ("flood", "the next get", "next_get_us", "ms"),
    ("drain", "ten million put, 10 connections", "put_per_s", "/s"),
    ("drain", "ten million taken and closed", "take_per_s", "/s"),
    ("drain", "memory with ten million waiting", "waiting_bytes", "MB"),
    ("drain", "disk with ten million waiting", "waiting_disk_bytes", "MB"),
    ("drain", "until the disk is given back", "settled_s", "s"),
    *((name, f"a plain request: {name}, {which}", which, "") for name in COUNTED for which in ("before", "now")),
)


def more_rows(runs: list[Run]) -> list[list[str]]:
    """The figures behind the wishes."""
    found = []
    for group, title, figure, unit in MORE:
        wish = _wish(group, title, figure, unit, 0)
        if values(runs, group, OURS, figure):
            found.append([title, unit, _shown(runs, wish)])
    return found


def part(saved: dict[str, Any]) -> str:
    """All that stands between the markers."""
    about, runs = saved["machine"], saved["runs"]
    groups: dict[str, dict[str, None]] = {}
    for found in runs:
        groups.setdefault(f"on {found['day']}, commit `{found['commit']}`", {})[found["group"]] = None
    measured = "; ".join(f"{', '.join(names)} {when}" for when, names in groups.items())
    peer = f" Beside it: {PEER} {about['servers'][PEER]['version']}." if PEER in about["servers"] else ""
    commands = (*saved["commands"], *(one["command"] for one in about["servers"].values()))
    text = [
        f"Measured: {measured}. Machine: {about['cpu']}, {about['cores']} cores, {about['memory_bytes'] / 1e9:.0f} GB, "
        f"{about['kernel']}, data on {about['file_system']}. {python_build(about)}, gevent {about['gevent']}, "
        f"rocksdict {about['rocksdict']}.{peer} "
        "The median of the rounds, in brackets the lowest and the highest.",
        "\n".join(f"    {line}" for line in commands),
        table(["what", "wished", "measured", ""], rows(runs)),
    ]
    for heads, found in (
        (["connections", "server", "puts/s", "takes/s", "put, µs of processor", "take, µs"], rate_rows(runs)),
        (["", "unit", "measured"], more_rows(runs)),
    ):
        if found:
            text.append(table(heads, found))
    return "\n\n".join(text)


def read_saved(files: list[Path]) -> dict[str, Any]:
    """Figures of earlier runs, put together; the later file counts where two have the same."""
    saved: dict[str, Any] = {"runs": [], "commands": []}
    for file in files:
        try:
            one = json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise LoadTestError(f"cannot read {file}: {error}") from error
        add(saved, one)
    return saved


def add(saved: dict[str, Any], more: dict[str, Any]) -> None:
    """Put figures with others."""
    groups = {found["group"] for found in more["runs"]}
    saved["runs"] = [found for found in saved["runs"] if found["group"] not in groups] + more["runs"]
    saved["commands"] = list(dict.fromkeys(saved["commands"] + more["commands"]))
    servers = saved.get("machine", {}).get("servers", {})
    saved["machine"] = more["machine"] | {"servers": servers | more["machine"]["servers"]}


def command_of(parsed: argparse.Namespace) -> str:
    """The command again, without what says where things are on this machine."""
    words = ["python", "-m", "loadtest.compare.jobs", *parsed.parts]
    default = parse_arguments([])
    for name in ("rounds", "floods", "items", "flood_items", "drain_items", "seconds", "server_options"):
        value = getattr(parsed, name)
        if value != getattr(default, name):
            words += [f"--{name.replace('_', '-')}", f"{value:g}" if isinstance(value, float) else str(value)]
    if "plain" in parsed.parts:
        words += ["--before", "../before"]
    return shlex.join(words)


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="jobs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help="default: rates, flood, and with --before plain; or drain"
    )
    parser.add_argument("--rounds", type=positive, default=ROUNDS, help=f"of rates and plain; default {ROUNDS}")
    parser.add_argument("--floods", type=positive, default=FLOOD_ROUNDS, help=f"rounds; default {FLOOD_ROUNDS}")
    parser.add_argument("--items", type=positive, default=RATE_ITEMS, help=f"of rates; default {RATE_ITEMS:,}")
    parser.add_argument("--flood-items", type=positive, default=FLOOD_ITEMS, help=f"default {FLOOD_ITEMS:,}")
    parser.add_argument("--drain-items", type=positive, default=DRAIN_ITEMS, help=f"default {DRAIN_ITEMS:,}")
    parser.add_argument("--seconds", type=float, default=PLAIN_SECONDS, help="of each plain run; default 2")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="another checkout of this server")
    parser.add_argument("--server-options", default=OPTIONS, metavar="OPTIONS", help=f"default: {OPTIONS}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, after each run")
    parser.add_argument(
        "--from", dest="saved", type=Path, action="append", default=[], metavar="FILE",
        help="use figures that --json wrote, for what is not named; may be given again",
    )  # fmt: skip
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables into this document")
    parser.add_argument("--smoke", action="store_true", help="a moment of rates, flood and drain, without beanstalkd")
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")
    parsed = parser.parse_args(arguments)
    for name in parsed.parts:
        if name not in PARTS:
            parser.error(f"unknown part {name!r}: one of {', '.join(PARTS)}")
    if parsed.smoke and parsed.write:
        parser.error("what --smoke measures is not worth writing down")
    if "plain" in parsed.parts and parsed.before is None:
        parser.error("plain needs --before, a checkout to compare with")
    if parsed.before is not None and not (parsed.before / "darner.py").exists():
        parser.error(f"--before {parsed.before}: no checkout of this server")
    if parsed.smoke:
        parsed.parts, parsed.rounds, parsed.floods = ["rates", "flood", "drain"], 1, 1
        parsed.items = parsed.flood_items = parsed.drain_items = SMOKE_ITEMS
    elif not parsed.parts and not parsed.saved:
        parsed.parts = ["rates", "flood", *(["plain"] if parsed.before else [])]
    if parsed.before is not None:
        parsed.before = parsed.before.resolve()
    return parsed


def main(arguments: list[str]) -> int:
    """Measure, show and write what was asked for; 0 if no run failed."""
    parsed = parse_arguments(arguments)
    saved = read_saved(parsed.saved)
    if parsed.write:
        replace_marked(parsed.write.read_text(), "", BEGIN, END)  # are the markers there? Better now than in an hour
    if parsed.parts:
        raise_file_limit(max(CONNECTIONS))
        kinds = [job_runs.server_of(shlex.split(parsed.server_options))]
        peer = None if parsed.smoke else installed_peer(PEER)
        if peer:
            kinds.append(peer)
        elif not parsed.smoke:
            print(f"{PEER} is not installed and left out", file=sys.stderr)
        new: dict[str, Any] = {
            "machine": machine(kinds, tempfile.gettempdir()),
            "commands": [command_of(parsed)],
            "runs": [],
        }

        when = {
            "day": time.strftime("%-d %B %Y"),
            "commit": output(["git", "rev-parse", "--short", "HEAD"]).strip(),
        }

        def keep(found: Run) -> None:
            new["runs"].append(found | when)
            if parsed.json:
                parsed.json.write_text(json.dumps(new, indent=1) + "\n")

        measure(list(steps_of(parsed, kinds, Progress(parsed.quiet))), parsed.quiet, keep)
        add(saved, new)
    print(part(saved))
    failed = [found for found in saved["runs"] if "error" in found]
    for one in failed:
        print(f"FAILED {one['group']}, round {one['round']}, {one['server']}: {one['error']}")
    if parsed.write and not failed:
        parsed.write.write_text(replace_marked(parsed.write.read_text(), part(saved), BEGIN, END))
    return 1 if failed else 0


if __name__ == "__main__":
    run("jobs", lambda: main(sys.argv[1:]))
