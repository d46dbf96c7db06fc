"""`--dump`: what it shows of a directory, with a server running in it and without."""

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from darner_core.engines.local import aside_failures
from darner_core.errors import DataDirError
from darner_core.storage.job_records import DYING, Flush, Job
from darner_core.storage.opening import ASIDE_TABLES
from darner_core.storage.storage import Storage
from darner_core.tools.dump import DAMAGED, SHOWN, STATES, dump
from darner_core.tools.formatting import TAKEN, WAITING
from tests.conftest import SMALL
from tests.support.beanstalkd import TubeServer
from tests.support.damaged import ITEMS, POPPED, bodies, body, copy_of, make_directory, turn_over
from tests.support.damaged_asides import ITEMS as ASIDE_ITEMS
from tests.support.damaged_asides import look, opened, table_of, upload
from tests.support.harness import ROOT, Client, RunningServer, run_darner

Start = Callable[..., RunningServer]


def run(data: Path, *arguments: str | bytes) -> "subprocess.CompletedProcess[str]":
    """`--dump` with these arguments, as a person calls it."""
    return run_darner("--data", str(data), "--dump", *arguments)


def items(data: Path, queue: bytes, status: int = SHOWN) -> list[dict[str, Any]]:
    """What `--dump --json` says of each item."""
    out = io.StringIO()
    said: list[str] = []
    assert dump(str(data), queue, True, out, said.append) == status
    assert bool(said) == (status != SHOWN)
    return [json.loads(line) for line in out.getvalue().splitlines()]


@pytest.fixture
def filled(server: RunningServer) -> RunningServer:
    """Items of every kind: one is open, or was at the end; one is gone, one large, one empty."""
    client = server.client()
    client.set("work", b"first", 7)
    client.set("work", b"gone")
    client.set("work", "grün\n".encode())
    client.set("work", b"12345678" * 50_000)
    client.ask(b"set work 0 3600 0\r\n\r\n", b"STORED\r\n")
    client.set("other", b"not shown")
    assert client.get("work/open") == b"first"
    assert server.client().get("work") == b"gone"
    return server


@pytest.mark.parametrize("end", ["runs", "stopped", "killed"])
def test_a_person_sees_what_is_in_a_queue(filled: RunningServer, end: str) -> None:
    if end == "stopped":
        filled.stop()
    elif end == "killed":
        filled.kill()
    done = run(filled.data, "work")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["ID", "AGE", "EXPIRES", "FLAGS", "SIZE", "STATE", "BODY"]
    age = [line.pop(1) for line in lines[1:]]
    assert all(text.endswith("s") for text in age)
    in_an_hour = lines[4][1:4]
    assert in_an_hour[0] == "in"
    assert in_an_hour[1] == "59m"
    assert lines[1:4] == [
        ["1", "-", "7", "5", *TAKEN.split(), "first"],
        ["3", "-", "0", "6", WAITING, r"grün\n"],
        ["4", "-", "0", "400000", WAITING, "12345678" * 5 + "..."],
    ]
    assert lines[4][4:] == ["0", "0", WAITING]


def test_a_program_sees_the_same_as_json(filled: RunningServer) -> None:
    first, text, large, empty = items(filled.data, b"work")
    assert {name: first[name] for name in ("id", "flags", "bytes", "state", "large", "text", "expires_at_ms")} == {
        "id": 1, "flags": 7, "bytes": 5, "state": TAKEN, "large": False, "text": "first", "expires_at_ms": None,
    }  # fmt: skip
    assert 0 <= first["age_ms"] < 60_000
    assert text["first_bytes"] == "Z3LDvG4K"
    assert (large["bytes"], large["large"], large["text"]) == (400_000, True, "12345678" * 5 + "...")
    assert 0 < empty["expires_at_ms"] - empty["added_at_ms"] <= 3_600_000
    assert run(filled.data, "work", "--json").stdout.count("\n") == 4


def test_opening_writes_nothing_so_what_was_opened_last_is_still_said_to_wait(server: RunningServer) -> None:
    client = server.client()
    client.set("q", b"a")
    client.get("q/open")
    assert [item["state"] for item in items(server.data, b"q")] == [WAITING]


def test_an_empty_queue_has_a_head_and_no_lines(server: RunningServer) -> None:
    client = server.client()
    client.set("q", b"a")
    client.get("q")
    assert run(server.data, "q").stdout.split() == ["ID", "AGE", "EXPIRES", "FLAGS", "SIZE", "STATE", "BODY"]
    assert run(server.data, "q", "--json").stdout == ""


def test_a_queue_that_is_not_there_is_one_line_and_exit_status_2(filled: RunningServer) -> None:
    done = run(filled.data, "nosuch")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (f"darner: data directory {filled.data}: there is no queue nosuch; its queues: other, work\n")


def test_only_some_of_many_other_queues_are_named(server: RunningServer) -> None:
    client = server.client()
    for number in range(12):
        client.set(f"q{number:02}", b"a")
    with pytest.raises(DataDirError, match=r"its queues: q00, .*, q09 and 2 more$"):
        items(server.data, b"nosuch")


def test_a_directory_that_is_not_there_is_one_line_and_exit_status_2(tmp_path: Path) -> None:
    done = run(tmp_path / "none", "q")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"darner: data directory {tmp_path}/none: there is none\n"
    done = run(tmp_path, "q")
    assert (done.returncode, done.stderr) == (2, f"darner: data directory {tmp_path}: holds no queues\n")


def test_a_name_may_be_any_bytes(server: RunningServer) -> None:
    server.client().ask(b"set gr\xfcn 0 0 1\r\na\r\n", b"STORED\r\n")
    done = run(server.data, b"gr\xfcn")
    assert (done.returncode, done.stdout.count("\n")) == (0, 2)
    with pytest.raises(DataDirError, match=r"there is no queue nosuch; its queues: gr\\xfcn"):
        items(server.data, b"nosuch")


def test_who_reads_only_the_beginning_causes_no_traceback(server: RunningServer) -> None:
    client = server.client()
    client.send(b"set q 0 0 100 noreply\r\n%b\r\n" % (b"x" * 100) * 20_000)
    client.set("q", b"last")
    done = subprocess.run(
        f"{sys.executable} darner.py --data {server.data} --dump q | head -2; echo ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 3
    assert done.stdout.endswith("\n0\n")


def test_what_is_damaged_is_told_and_the_rest_shown(tmp_path: Path) -> None:
    data = tmp_path / "data"
    make_directory(data)
    table = next(path for path in data.glob("*.sst") if body(b"a", 10) in path.read_bytes())
    turn_over(table, table.read_bytes().index(body(b"a", 100)))
    done = run(data, "a", "--json")
    assert done.returncode == DAMAGED
    assert done.stderr.startswith("darner: items from ")
    assert "cannot be read: Corruption: " in done.stderr
    shown = [json.loads(line)["id"] for line in done.stdout.splitlines()]
    assert 0 < ITEMS - POPPED - len(shown) < ITEMS // 2
    assert shown == sorted(shown)
    assert 100 not in shown
    assert len(items(data, b"b")) == ITEMS - POPPED


def test_a_directory_of_another_format_is_refused(filled: RunningServer) -> None:
    filled.stop()
    (filled.data / "FORMAT").write_text("darner 9\n")
    with pytest.raises(DataDirError, match="of format 'darner 9', which this server cannot read"):
        items(filled.data, b"work")


def flood(client: Client, ended: threading.Event) -> None:
    """Put and get, in large turns, so that tables are written, merged and removed all the time."""
    some = b"set q 0 0 2000\r\n%b\r\n" % (b"x" * 2000) * 60
    while not ended.is_set():
        client.send(some + b"get q\r\n" * 58)
        for _ in range(60):
            client.expect(b"STORED\r\n")
        for _ in range(58):
            assert client.item() is not None


def test_while_a_server_is_flooded_each_dump_is_a_whole_snapshot(start_server: Start) -> None:
    """Twenty dumps: the ids have no gap, and each dump begins and ends no earlier than the one before."""
    server = start_server("--write-buffer-bytes", "1MiB", "--max-wal-bytes", "2MiB")
    client = server.client()
    client.set("q", b"begin")
    ended = threading.Event()
    thread = threading.Thread(target=flood, args=(client, ended))
    thread.start()
    try:
        first = last = tables = 0
        for _ in range(20):
            before = set(os.listdir(server.data))
            shown = items(server.data, b"q")
            ids = [item["id"] for item in shown]
            assert ids == list(range(ids[0], ids[-1] + 1))
            assert ids[0] >= first
            assert ids[-1] >= last
            assert {item["state"] for item in shown} <= {WAITING}
            first, last = ids[0], ids[-1]
            tables += before != set(os.listdir(server.data))
        assert first > 1
        assert tables > 0  # else nothing has been shown
    finally:
        ended.set()
        thread.join()


def test_it_reads_what_the_server_reads_of_a_damaged_log_and_of_format_1(tmp_path: Path) -> None:
    make_directory(tmp_path / "data")
    (tmp_path / "data" / "FORMAT").write_bytes(b"darner 1\n")
    (log,) = (tmp_path / "data").glob("*.log")
    turn_over(log, log.read_bytes().index(body(b"a", 247)[:60]))  # in the middle of a large turn
    out = io.StringIO()
    dump(str(tmp_path / "data"), b"b", True, out, lambda line: None)
    shown = [json.loads(line)["flags"] for line in out.getvalue().splitlines()]
    storage = Storage(str(tmp_path / "data"), **SMALL)
    assert [number for number, _ in bodies(storage, b"b")] == shown[: len(shown)]
    assert storage.damage
    storage.close()


def test_numbers_that_clients_know_items_by_are_shown(tmp_path: Path) -> None:
    server = TubeServer(tmp_path / "data")
    server.client().set("mail", b"nobody has asked for its number")
    worker = server.worker()
    worker.says("use mail", "USING mail")
    job, delayed = worker.put("asked"), worker.put("delayed", delay=1000)
    server.end()
    done = run(server.data, "mail")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[1] for line in lines if line] == ["NUMBER", "-", "NUMBER", str(job), str(delayed)]
    assert [item["number"] for item in items(server.data, b"mail")] == [None, job, delayed]


# -- what is set aside


@pytest.fixture
def aside(tmp_path: Path) -> Path:
    """A queue with items in every state: three of its line, one of which has failed, and four that are set aside."""
    with opened(tmp_path / "data") as engine:
        queue = engine.registry.create(b"work")
        aside = engine.asides.of(queue)
        for body_of_line in (b"first", b"second", b"third"):
            queue.put(body_of_line, 0, 0)
        aside.put(b"ready", 7, 0, 5, 0, 0, 90_000, b"the key")
        aside.put(b"delayed", 0, 0, 1024, 0, 7_200_000)
        aside.put(upload(engine.storage, queue, b"large " * 2000), 0, 0, 1024, 0, 3_600_000)
        aside.put(b"rejected", 0, 0, 0, 0)
        read = aside.open()
        assert read is not None
        aside_failures.bury(aside, read)
        engine.journal.commit()
        batch = engine.storage.batch()
        number = queue.log.record.number
        engine.storage.jobs.put_jobs(batch, number, {2: Job(0, 1024, 5, nacks=1, losses=2)})
        last = aside.buried.first()
        assert last is not None
        told = aside.job(last[2])._replace(timeouts=4, note=b"from=other id=3 failures=4 last=timeout client= put=1")
        engine.storage.jobs.put_jobs(batch, aside.record.number, {last[2]: told})
        engine.storage.write(batch)
    return tmp_path / "data"


def test_a_large_dead_letter_on_its_way_is_not_shown_as_ready(tmp_path: Path) -> None:
    with opened(tmp_path / "data") as engine:
        aside = engine.asides.of(queue := engine.registry.create(b"work"))
        item_id = aside.put(upload(engine.storage, queue, b"large " * 2000), 0, 0, 1024, 0)
        engine.journal.commit()
        batch = engine.storage.batch()
        dying = aside.job(item_id)._replace(state=DYING, nacks=5)
        engine.storage.jobs.put_jobs(batch, aside.record.number, {item_id: dying})
        engine.storage.write(batch)
    done = run(tmp_path / "data", "work", "--json")
    assert json.loads(done.stdout)["state"] == "dead letter"
    assert "  dead letter  " in run(tmp_path / "data", "work").stdout


def test_a_person_sees_what_is_set_aside_behind_the_line(aside: Path) -> None:
    done = run(aside, "work")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split()[-1] for line in lines[:4]] == ["BODY", "first", "second", "third"]
    assert lines[4] == ""
    columns = ["PRI", "TTR", "FAILURES", "KEY"]
    assert lines[5].split() == ["ID", "AGE", "EXPIRES", "FLAGS", "SIZE", "STATE", *columns, "BODY"]
    first_id = str(2**51)
    shown = [line.split() for line in lines[6:10]]
    assert [(words[0], *words[2:]) for words in shown[:1]] == [
        (first_id, "-", "7", "5", "ready", "5", "1m", "30s", "0", "the", "key", "ready")
    ]
    assert "due in 59m" in lines[7]
    assert lines[7].endswith("large large large large large large larg...")
    assert "due in 1h 59m" in lines[8]
    assert shown[3][4:] == ["8", "buried", "0", "-", "4", "-", "rejected"]
    assert lines[10].split() == ["from=other", "id=3", "failures=4", "last=timeout", "client=", "put=1"]
    assert len(lines) == 11


def test_a_program_sees_all_that_is_known_of_a_job(aside: Path) -> None:
    shown = items(aside, b"work")
    assert [item["text"][:8] for item in shown] == [
        "first", "second", "third", "ready", "large la", "delayed", "rejected",
    ]  # fmt: skip
    assert [item["state"] for item in shown] == [*[WAITING] * 3, "ready", "delayed", "delayed", "buried"]
    assert ["priority" in item for item in shown] == [False, True, False, True, True, True, True]
    failed, ready, large, _, rejected = (shown[index] for index in (1, 3, 4, 5, 6))
    assert (failed["failures"], failed["aborted"], failed["timed_out"], failed["connections_lost"]) == (3, 1, 0, 2)
    jobs = ("due_ms", "priority", "ttr_ms", "key", "failures", "buried", "kicked", "history")
    assert [ready[name] for name in jobs] == [None, 5, 90_000, "the key", 0, 0, 0, None]
    assert large["due_ms"] - large["added_at_ms"] == 3_600_000
    assert (large["large"], large["bytes"]) == (True, 12_000)
    history = "from=other id=3 failures=4 last=timeout client= put=1"
    assert [rejected[name] for name in jobs] == [None, 0, None, None, 4, 1, 0, history]


def test_what_was_flushed_is_not_shown_though_it_is_there_still(aside: Path) -> None:
    with opened(aside) as engine:
        batch, one = engine.storage.batch(), engine.aside(b"work")
        engine.storage.jobs.put_flush(batch, one.record.number, Flush(99, one.new_id, 0, frozenset(), {2**51}))
        engine.storage.write(batch)
    shown = items(aside, b"work")
    assert [item["text"] for item in shown if item["state"] != WAITING] == ["ready", "rejected"]


def test_what_is_set_aside_is_shown_in_the_order_in_which_it_goes_out(with_asides: Path, tmp_path: Path) -> None:
    """Half of it is in tables, the other half in the log."""
    with opened(copy_of(with_asides, tmp_path / "whole")) as engine:
        whole = look(engine, b"m")
    shown = items(with_asides, b"m")
    of_line = {item["flags"] for item in shown if item["state"] in (WAITING, TAKEN)}
    flags = {state: [item["flags"] for item in shown if item["state"] == state] for state in STATES}
    assert flags["ready"] == [one for one in whole.merged if one not in of_line]
    assert (flags["delayed"], flags["buried"]) == (whole.delayed, whole.buried)
    assert len(shown) == len(whole.all)


@pytest.mark.parametrize("family", ASIDE_TABLES)
def test_what_is_damaged_of_what_is_set_aside_is_told_and_the_rest_shown(
    with_asides: Path, tmp_path: Path, family: str
) -> None:
    directory = copy_of(with_asides, tmp_path / "data")
    table = table_of(directory, family)
    turn_over(table, 10)
    # Keys are not looked at.
    shown = [item["flags"] for item in items(directory, b"m", SHOWN if family == "keys" else DAMAGED)]
    assert len(set(shown)) == len(shown)
    if family == "asides":
        assert ASIDE_ITEMS > len(shown) > ASIDE_ITEMS // 2
    else:
        assert len(shown) == ASIDE_ITEMS
