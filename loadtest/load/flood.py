"""Load generator for queue servers: how fast, how steadily, and is everything still there afterwards?

    python -m loadtest.load.flood flood pipeline --port 22133

Standard library only, one process, one core. It talks to a memcache-protocol server (the queue server, or memcached as
a measure for the generator itself), to redis (a list is the queue) and to beanstalkd; scenarios.py has what it does.

A latency includes the time an answer waits for this process to get round to it: where generator cpu is near 100 % the
generator is the bottleneck, and both rate and latency are its own.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from loadtest.load.peers import PROTOCOLS
from loadtest.load.report import table_head, table_row
from loadtest.load.scenarios import SCENARIOS
from loadtest.load.session import Options, Result
from loadtest.program import run


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """The command line; defaults are those of Options."""
    parser = argparse.ArgumentParser(
        prog="flood",
        description="Load generator for queue servers.",
        epilog="flood --list tells what each scenario shows",
    )
    default = Options()
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--list", action="store_true", help="list the scenarios and end")
    parser.add_argument("--host", default=default.host)
    parser.add_argument("--port", type=int, default=default.port, help=f"default {default.port}")
    parser.add_argument("--protocol", choices=list(PROTOCOLS), default=default.protocol)
    parser.add_argument("--connections", type=positive, help="1 to 10,000; the default depends on the scenario")
    parser.add_argument(
        "--in-flight", type=positive, help="requests sent together (even); default 1, pipeline and drain 32"
    )
    parser.add_argument("--item-bytes", type=positive, default=default.item_bytes, help=f"default {default.item_bytes}")
    parser.add_argument("--large-bytes", type=positive, default=default.large_bytes, help="fairness: default 8,000,000")
    parser.add_argument(
        "--seconds", type=float, default=default.seconds, help=f"of measuring; default {default.seconds:g}"
    )
    parser.add_argument("--warmup-seconds", type=float, default=default.warmup_seconds, help="before it; default 1")
    parser.add_argument("--items", type=positive, default=default.items, help="packing, drain, memory: default 100,000")
    parser.add_argument("--queues", type=positive, default=default.queues, help="queues: default 10,000")
    parser.add_argument("--settle-seconds", type=float, default=default.settle_seconds, help="memory: default 30")
    parser.add_argument("--pid", type=int, help="the server's process, for its cpu, memory and open files")
    parser.add_argument("--data", type=Path, metavar="DIR", help="the server's data directory, for its disk use")
    parser.add_argument("--json", metavar="FILE", help="append one JSON object per scenario; - is standard output")
    parser.add_argument("--quiet", action="store_true", help="no table and no progress bar: only JSON and errors")
    parsed = parser.parse_args(arguments)
    unknown = [name for name in parsed.scenarios if name not in SCENARIOS]
    if unknown:
        parser.error(f"unknown scenario {unknown[0]!r}: one of {', '.join(SCENARIOS)}")
    if not parsed.scenarios and not parsed.list:
        parser.error(f"name at least one scenario: {', '.join(SCENARIOS)}")
    if parsed.seconds <= 0 or parsed.warmup_seconds < 0:
        parser.error("--seconds must be above 0 and --warmup-seconds not below")
    if parsed.in_flight and parsed.in_flight > 1 and parsed.in_flight % 2:
        parser.error("--in-flight must be 1 or even: half of them are sets")
    return parsed


def positive(text: str) -> int:
    """An argument that counts something."""
    number = int(text.replace(",", "").replace("_", ""))
    if number < 1:
        raise ValueError(text)
    return number


def show(result: Result) -> None:
    """A scenario's rows and lines."""
    for row in result["rows"]:
        print(table_row(row))
    for line in result["lines"]:
        print(f"    {line}")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """Run the scenarios named; 0 if all went well and nothing was lost."""
    parsed = parse_arguments(arguments)
    if parsed.list:
        for name, function in SCENARIOS.items():
            print(f"{name:<10} {function.__doc__}")
        return 0
    options = Options(**{name: value for name, value in vars(parsed).items() if name in Options.__dataclass_fields__})
    failed = False
    if not parsed.quiet:
        print(table_head())
    for name in parsed.scenarios:
        result = SCENARIOS[name](options)
        if not parsed.quiet:
            show(result)
        if parsed.json == "-":
            print(json.dumps(result))
        elif parsed.json:
            with open(parsed.json, "a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
        if result["check"] and not result["check"]["ok"]:
            failed = True
            print(
                f"flood: {name}: items were lost, invented, changed or out of order: {result['check']}",
                file=sys.stderr,
            )
    return 1 if failed else 0


if __name__ == "__main__":
    run("flood", lambda: main(sys.argv[1:]))
