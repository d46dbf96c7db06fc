"""What is on disk of jobs when the server has been killed: `--dump` has to agree with the books."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from pathlib import Path
from typing import Any

from loadtest.crash.job_books import TURN_S, Books, Line
from loadtest.errors import Violation
from loadtest.servers import ROOT

ENDS_S = 60.0
HISTORY = re.compile(r"from=(\S+) id=\d+ failures=(\d+) last=(\w+) client=\S* put=\d+")


def look(python: str, data: Path, books: Books, line: Line) -> int:
    """Look at one queue and where its dead letters go. Returns how many items there are. Raises Violation."""
    found: dict[int, str] = {}
    for queue in (line.name, line.rules.dead):
        for item in _dump(python, data, queue) if queue else ():
            serial = _serial(item)
            if serial in found:
                raise Violation(f"item {serial} is in {queue} and in {found[serial]}")
            found[serial] = queue
            (_dead_letter if queue != line.name else _job)(books, line, serial, item)
    return len(found)


def _darner(python: str, data: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [python, "darner.py", "--data", str(data), *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=ENDS_S, check=False)


def _dump(python: str, data: Path, queue: str) -> list[dict[str, Any]]:
    dumped = _darner(python, data, "--dump", queue, "--json")
    if dumped.returncode == 2 and "no queue" in dumped.stderr:
        return []  # nothing has ever been put there
    if dumped.returncode != 0:
        raise Violation(f"--dump {queue} ends with status {dumped.returncode}: {dumped.stderr[-500:]}")
    return [json.loads(text) for text in dumped.stdout.splitlines()]


def _serial(item: dict[str, Any]) -> int:
    return int(base64.b64decode(item["first_bytes"])[:8], 16)


def _job(books: Books, line: Line, serial: int, item: dict[str, Any]) -> None:
    job, rules, failures = books.by_serial.get(serial), line.rules, item.get("failures", 0)
    if job is None or job.line is not line or job.is_dead:
        raise Violation(f"queue {line.name} holds {item}, which the books do not know there: {job}")
    counts = rules.max_deliveries or rules.dead or rules.retry_delay_s
    if not (job.low if counts else 0) <= failures <= job.high:
        raise Violation(f"{job} has failed {failures} times: {item}")
    if item["state"] == "dead letter":  # a large one that was on its way when the server was killed
        if not job.may_be_given_up:
            raise Violation(f"{job} is a dead letter, though it has not failed often enough: {item}")
        return
    if rules.max_deliveries and rules.dead and failures >= rules.max_deliveries:
        raise Violation(f"{job} has failed {failures} times, and is no dead letter: {item}")
    if rules.max_deliveries and failures >= rules.max_deliveries and not rules.dead:
        if item["state"] != "buried" and not item["kicked"]:
            raise Violation(f"{job} has failed {failures} times, and is not buried: {item}")
    if item.get("priority", min(job.pris)) not in job.pris:
        raise Violation(f"{job} has another priority: {item}")
    if item["state"] == "delayed" and item["due_ms"] < (job.due_s - TURN_S) * 1000:
        raise Violation(f"{job} is due too early: {item}")


def _dead_letter(books: Books, line: Line, serial: int, item: dict[str, Any]) -> None:
    job = books.by_serial.get(serial)
    if job is None or job.line is not line or not (job.is_dead or job.may_be_given_up):
        raise Violation(f"queue {line.rules.dead} holds {item}, which the books do not know there: {job}")
    told = HISTORY.fullmatch(item.get("history") or "")
    if told is None or told[1] != line.name:
        raise Violation(f"the history of {job} does not tell where it comes from: {item}")
    failures, most = int(told[2]), line.rules.max_deliveries
    is_last = failures == most if told[3] != "reject" else failures < most
    if not is_last:
        raise Violation(f"{job} is a dead letter after {failures} failures of {most}: {item}")
