"""How many instructions a set and a get cost, by the count of valgrind: two checkouts can be told apart by 0.2 %.

    python -m loadtest.compare.instructions CHECKOUT...

Gets are plain, or `get q/close/open` with --reliable. Ten clients with 32 requests in flight each. A long run less a
short one, so that starting and stopping do not count. What the kernel does is not counted, nor are caches.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from loadtest.errors import LoadTestError, RequestLost
from loadtest.program import run
from loadtest.servers import HOST, LOOK_AGAIN_S, end_with_parent, free_port
from loadtest.wire import Wire

CLIENTS, SETS = 10, 16  # of each client in a round; then as many gets
SHORT, LONG = 5, 65  # rounds
START_S = STOP_S = 120.0
BODY = b"x" * 64
PLAIN, RELIABLE = b"get q%d\r\n", b"get q%d/close/open\r\n"


def instructions(checkout: Path, rounds: int, get: bytes) -> int:
    """Those of a whole run of the server, with this form of get. Raises LoadTestError if it cannot be run."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        count = ["valgrind", "--tool=cachegrind", "--cache-sim=no", f"--cachegrind-out-file={folder}/out"]
        command = [*count, sys.executable, "darner.py", "--host", HOST, "--port", str(port), "--data", f"{folder}/data"]
        with subprocess.Popen(
            command,
            cwd=checkout,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=end_with_parent,
        ) as process:
            try:
                _ask(port, rounds, get)
                process.send_signal(signal.SIGTERM)
                _, said = process.communicate(timeout=STOP_S)
            finally:
                process.kill()
    found = re.search(r"I +refs: +([\d,]+)", said)
    if found is None:
        raise LoadTestError(f"valgrind counted nothing: {said[-500:]}")
    return int(found[1].replace(",", ""))


def _ask(port: int, rounds: int, get: bytes) -> None:
    _wait_until_it_listens(port)
    clients = [Wire(port, START_S) for _ in range(CLIENTS)]
    for _ in range(rounds):
        for number, client in enumerate(clients):
            client.send(b"set q%d 0 0 %d\r\n%b\r\n" % (number, len(BODY), BODY) * SETS + get % number * SETS)
        for client in clients:
            client.until(b"STORED\r\n", SETS)
            client.until(b"END\r\n", SETS)
    for client in clients:
        client.close()


def _wait_until_it_listens(port: int) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            Wire(port).close()
            return
        except RequestLost:
            if time.monotonic() > deadline:
                raise
            time.sleep(LOOK_AGAIN_S)


def a_request(checkout: Path, get: bytes = PLAIN) -> float:
    """Instructions for a request, the mean of sets and gets. get: one of PLAIN and RELIABLE."""
    if shutil.which("valgrind") is None:
        raise LoadTestError("valgrind is not installed")
    more = instructions(checkout, LONG, get) - instructions(checkout, SHORT, get)
    return more / ((LONG - SHORT) * CLIENTS * SETS * 2)


def main() -> None:
    """Each checkout in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="+", type=Path, metavar="CHECKOUT")
    parser.add_argument("--reliable", action="store_true")
    parsed = parser.parse_args()
    for checkout in parsed.checkouts:
        print(
            f"{a_request(checkout, RELIABLE if parsed.reliable else PLAIN):,.0f} instructions a request: {checkout}",
            flush=True,
        )


if __name__ == "__main__":
    run("instructions", main)
