"""Two checkouts of this server against each other: what a request costs each, in processor time.

    python -m loadtest.compare.versus ../before --rounds 7

Rates on a shared machine differ from minute to minute by more than most changes do; processor time a request is
steadier. Both servers run in turn, in each round in the other order; the ratio is taken within each round. --python
names another interpreter for the server of this checkout: with "." as the other one, that compares interpreters.
Exit status 1 if items were lost.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from pathlib import Path

from loadtest.errors import LoadTestError
from loadtest.load.scenarios import SCENARIOS
from loadtest.load.session import Options
from loadtest.program import run
from loadtest.servers import ROOT, Server, our_server

# What is measured: a name, the scenario, connections, requests in flight (None: the scenario's own).
ROWS = (
    ("flood-10", "flood", 10, None),
    ("flood-100", "flood", 100, None),
    ("reliable", "reliable", None, None),
    ("pipeline", "pipeline", 10, 32),
)


def cost_us(
    python: str, checkout: Path, scenario: str, connections: int | None, in_flight: int | None, seconds: float
) -> float:
    """Microseconds of the server's processor time a request. Raises LoadTestError if anything was lost."""
    with Server(our_server(python, [], str(checkout / "darner.py"))) as server:
        options = Options(
            port=server.port, pid=server.pid, seconds=seconds, connections=connections, in_flight=in_flight
        )
        result = SCENARIOS[scenario](options)
        if result["check"] and not result["check"]["ok"]:
            raise LoadTestError(f"{checkout}: {scenario}: items were lost or invented: {result['check']}")
        row = result["rows"][0]
        return float(row["server_cpu_percent"]) / 100 / float(row["requests_per_s"]) * 1e6


def main(arguments: list[str]) -> int:
    """Run the rounds, and show medians with their spread."""
    parser = argparse.ArgumentParser(prog="versus", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("before", type=Path, help="the other checkout")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"default: {' '.join(name for name, *_ in ROWS)}")
    parser.add_argument("--rounds", type=int, default=5, help="default 5")
    parser.add_argument("--seconds", type=float, default=4.0, help="of measuring in each run; default 4")
    parser.add_argument(
        "--python", default=sys.executable, help="the interpreter of this checkout's server; default: this one"
    )
    parsed = parser.parse_args(arguments)
    servers = {"before": (sys.executable, parsed.before.resolve()), "now": (parsed.python, ROOT)}
    for name, scenario, connections, in_flight in ROWS:
        if parsed.rows and name not in parsed.rows:
            continue
        found: defaultdict[str, list[float]] = defaultdict(list)
        for number in range(parsed.rounds):
            for which in sorted(servers, reverse=bool(number % 2)):
                found[which].append(cost_us(*servers[which], scenario, connections, in_flight, parsed.seconds))
        ratios = [now / before for now, before in zip(found["now"], found["before"], strict=True)]
        shown = [f"{which} {statistics.median(costs):6.2f} us" for which, costs in found.items()]
        spread = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        print(f"{name:<10} {'   '.join(sorted(shown))}   now / before {spread}", flush=True)
    return 0


if __name__ == "__main__":
    run("versus", lambda: main(sys.argv[1:]))
