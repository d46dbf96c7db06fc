"""The comparison: its smoke test (every scenario of the load generator, nothing lost), its arithmetic, its document."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from loadtest import servers
from loadtest.compare import rivals as compare
from loadtest.compare import targets
from loadtest.compare.document import BEGIN, END, file_system, replace_marked
from loadtest.compare.targets import (
    AIM,
    MISSED,
    MUST,
    NOT_MEASURED,
    RATIO,
    TARGETS,
    Target,
    judge,
    number,
    ratios,
    shown,
    spread,
)
from loadtest.errors import LoadTestError
from loadtest.load import scenarios
from tests.support.harness import ROOT, START_S, wait_until

SMOKE_S = 120.0  # it takes 12 s; nothing here is about speed


# From Python 3.12 on, for the preexec_fn with which servers are started.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


def shell(*words: str) -> subprocess.CompletedProcess[str]:
    """`python -m loadtest.compare.rivals` with these arguments, which is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "loadtest.compare.rivals", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SMOKE_S,
        check=False,
    )


def a_run(group: str, number: int, server: str, **figures: Any) -> dict[str, Any]:
    """What a scenario reports, as far as it matters here."""
    return {"group": group, "round": number, "server": server, "parameters": {"items": 100_000}, "rows": []} | figures


def rates(group: str, **of_servers: list[float]) -> list[dict[str, Any]]:
    """Runs with these rates, a round for each."""
    return [
        a_run(group, number, server, requests_per_s=rate)
        for server, found in of_servers.items()
        for number, rate in enumerate(found, 1)
    ]


# -- every scenario, for a moment


@pytest.mark.long
def test_every_scenario_runs_and_loses_nothing(tmp_path: Path) -> None:
    ended = shell("--smoke", "--json", str(tmp_path / "figures.json"))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    runs = json.loads((tmp_path / "figures.json").read_text())["runs"]
    assert [(run["group"], run["server"], run["round"]) for run in runs] == [
        (group, "darner", 1) for group in compare.GROUPS
    ]
    for run in runs:
        assert run["check"]["ok"], run
        assert run["check"]["puts"] > 0, run
        assert re.search(rf"^{run['group']} +checked: [\d,]+ puts", ended.stdout, re.MULTILINE), ended.stdout
    found = {run["group"]: run for run in runs}
    assert [target for target in TARGETS if found[target.group].get(target.figure) is None] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "words", "number"),
    [
        ("rivals", ["flood-1", "--peers", "none"], signal.SIGINT),
        ("rivals", ["flood-1", "--peers", "none"], signal.SIGHUP),  # the terminal was closed
        ("rivals", ["flood-1", "--peers", "none"], signal.SIGKILL),
        ("versus", [str(ROOT), "flood-10"], signal.SIGTERM),
    ],
)
def test_an_interrupted_comparison_leaves_no_server_and_no_files(
    program: str, words: list[str], number: int, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", f"loadtest.compare.{program}", *words, "--seconds", "100"],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: list(tmp_path.glob("compare-*/data/FORMAT")), START_S)  # the server runs
        process.send_signal(number)
        _, errors = process.communicate(timeout=START_S)
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: not processes_with(str(tmp_path)))
    if number != signal.SIGKILL:  # which leaves files, but no server
        assert process.returncode == 1
        assert errors.endswith(f"{program}: interrupted\n")
        assert list(tmp_path.iterdir()) == []


def processes_with(text: str) -> list[str]:
    """The processes with this in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue  # it has ended meanwhile
    return found


# -- what is run


OURS = servers.Kind("darner", "1", ("python", "darner.py"))
MEMCACHED = servers.Kind("memcached", "1", ("memcached",))
REDIS = servers.Kind("redis", "1", ("redis-server",))


def test_the_servers_take_turns() -> None:
    jobs = compare.jobs_of(["flood-1", "flood-10"], 2, [OURS, MEMCACHED])
    assert [(job.group, job.round, job.kind.name) for job in jobs] == [
        ("flood-1", 1, "darner"),
        ("flood-1", 1, "memcached"),
        ("flood-1", 2, "darner"),
        ("flood-1", 2, "memcached"),
        ("flood-10", 1, "darner"),
        ("flood-10", 1, "memcached"),
        ("flood-10", 2, "darner"),
        ("flood-10", 2, "memcached"),
    ]


def test_peers_run_where_it_makes_sense_and_only_once_where_no_ratio_is_wanted() -> None:
    jobs = compare.jobs_of(["memory", "sync"], 2, [OURS, MEMCACHED, REDIS])
    assert [(job.group, job.round, job.kind.name) for job in jobs] == [
        ("memory", 1, "darner"),
        ("memory", 1, "redis"),
        ("memory", 2, "darner"),
        ("sync", 1, "darner"),
        ("sync", 2, "darner"),
    ]


def test_a_failed_run_is_told_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(job: compare.Job, _options: dict[str, Any]) -> dict[str, Any]:
        if job.group == "flood-1":
            raise LoadTestError("lost its way")
        return a_run(job.group, job.round, job.kind.name, requests_per_s=1000.0)

    monkeypatch.setattr(compare, "run", run)
    assert compare.main(["flood-1", "flood-10", "--rounds", "1", "--peers", "none", "--quiet"]) == 1
    printed = capsys.readouterr().out
    assert "FAILED flood-1, round 1, darner: lost its way" in printed
    assert re.search(r"^flood-10 +darner +1,000 ", printed, re.MULTILINE)


@pytest.mark.parametrize(
    "check", [{"ok": False, "lost": 1}, None], ids=["an item was lost", "nobody looked whether one was"]
)
def test_a_run_that_may_have_lost_an_item_fails(check: dict[str, Any] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(scenarios.SCENARIOS, "flood", lambda _options: {"check": check})
    kind = servers.our_server(sys.executable, [])
    with pytest.raises(LoadTestError, match="lost"):
        compare.run(compare.Job("flood-1", 1, kind), {"connections": 1})


def test_a_server_that_does_not_start_says_why() -> None:
    kind = servers.our_server(sys.executable, [])
    broken = servers.Kind("darner", "1", (*kind.command, "--sync", "sometimes"))
    with pytest.raises(LoadTestError, match=r"darner ended with status.*sometimes"), servers.Server(broken):
        pass


def test_a_peer_that_is_not_installed_is_named_and_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(compare, "run", lambda job, _options: a_run(job.group, job.round, job.kind.name))
    assert compare.main(["flood-1", "--peers", "redis", "--quiet"]) == 0
    assert "redis is not installed and left out" in capsys.readouterr().err


# -- the arithmetic


def test_median_and_spread() -> None:
    assert spread([3.0, 1.0, 2.0, 10.0]) == targets.Spread(2.5, 1.0, 10.0)
    assert spread([]) is None


def test_a_ratio_is_of_the_same_round() -> None:
    """The machine was twice as fast in the second round: the ratio of the medians would not show that they are even."""
    runs = rates("flood-1", darner=[100.0, 200.0, 90.0], memcached=[100.0, 200.0, 180.0])
    assert ratios(runs, "flood-1", "darner", "requests_per_s") == [1.0, 1.0, 0.5]


def test_a_round_that_failed_for_one_has_no_ratio() -> None:
    runs = rates("flood-1", darner=[100.0, 200.0], memcached=[50.0, 50.0, 50.0])
    runs[0] = {"group": "flood-1", "round": 1, "server": "darner", "error": "lost"}
    assert ratios(runs, "flood-1", "darner", "requests_per_s") == [4.0]


HIGHER = Target("flood-1", "", "requests_per_s", RATIO, 0.7, 1.0)
LOWER = Target("memory", "", "full_resident_bytes", "MB", 130, 90, lower_is_better=True)


@pytest.mark.parametrize(("rate", "verdict"), [(69.0, MISSED), (70.0, MUST), (99.0, MUST), (100.0, AIM)])
def test_judging_what_should_be_high(rate: float, verdict: str) -> None:
    assert judge(rates("flood-1", darner=[rate], memcached=[100.0]), HIGHER).verdict == verdict


@pytest.mark.parametrize(("megabytes", "verdict"), [(131, MISSED), (130, MUST), (91, MUST), (90, AIM)])
def test_judging_what_should_be_low(megabytes: int, verdict: str) -> None:
    judged = judge([a_run("memory", 1, "darner", full_resident_bytes=megabytes * 1_000_000)], LOWER)
    assert judged.verdict == verdict
    assert judged.spread == targets.Spread(megabytes, megabytes, megabytes)


def test_without_memcached_a_ratio_is_not_measured() -> None:
    assert judge(rates("flood-1", darner=[100.0]), HIGHER).verdict == NOT_MEASURED


def test_fewer_items_than_the_target_speaks_of_are_not_judged() -> None:
    target = Target("memory", "", "start_s", "s", 2, 0.5, lower_is_better=True, items=4_000_000)
    runs = [a_run("memory", 1, "darner", start_s=0.1)]
    assert judge(runs, target).verdict == "with 100,000 items"
    runs[0]["parameters"]["items"] = 4_000_000
    assert judge(runs, target).verdict == AIM


def test_the_aim_lies_beyond_the_must() -> None:
    for target in TARGETS:
        assert (target.aim < target.must) == target.lower_is_better, target
        assert target.group in compare.GROUPS
        assert target.unit in targets.UNITS


def test_how_figures_are_shown() -> None:
    assert [number(value) for value in (0.123, 12.34, 1234.5, 5.0, 0.7)] == ["0.12", "12.3", "1,234", "5", "0.70"]
    assert shown(targets.Spread(0.8, 0.75, 0.9)) == "0.80 (0.75–0.90)"
    assert shown(targets.Spread(208.0, 208.0, 208.0)) == "208"
    assert shown(None) == "-"


# -- figures of several runs, the document, the pictures


ABOUT = {
    "cpu": "Some CPU",
    "cores": 2,
    "memory_bytes": 8e9,
    "kernel": "Linux 6.1",
    "file_system": "ext4",
    "python": "3.11.2",
    "build": ["--enable-optimizations"],
    "gevent": "26.9.0",
    "rocksdict": "0.3.29",
    "servers": {
        "darner": {"version": "1.0.0", "command": "python darner.py"},
        "memcached": {"version": "1.6", "command": "memcached -t 1"},
    },
}
LATENCIES = {"p50_us": 1000.0, "p99_us": 2000.0, "p999_us": 3000.0}


def save(path: Path, runs: list[dict[str, Any]], **about: Any) -> Path:
    path.write_text(json.dumps({"machine": ABOUT | about, "commands": [f"compare {path.name}"], "runs": runs}))
    return path


def test_of_two_files_with_the_same_scenario_the_later_counts(tmp_path: Path) -> None:
    first = save(tmp_path / "1", rates("flood-1", darner=[1.0, 2.0]) + rates("flood-10", darner=[3.0]))
    second = save(tmp_path / "2", rates("flood-1", darner=[4.0]))
    saved = compare.read_saved([first, second])
    assert [run["requests_per_s"] for run in saved["runs"]] == [3.0, 4.0]
    assert saved["commands"] == ["compare 1", "compare 2"]


def test_figures_of_different_machines_are_not_put_together(tmp_path: Path) -> None:
    files = [save(tmp_path / "1", []), save(tmp_path / "2", [], cpu="Another CPU")]
    with pytest.raises(LoadTestError, match="different machines"):
        compare.read_saved(files)


def test_a_run_with_fewer_peers_goes_with_one_with_more(tmp_path: Path) -> None:
    alone = {"darner": ABOUT["servers"]["darner"]}  # type: ignore[index]
    files = [save(tmp_path / "1", [], servers=alone), save(tmp_path / "2", [])]
    assert compare.read_saved(files)["machine"] == ABOUT
    alone = {"darner": {"version": "1.0.0", "command": "python darner.py --sync always"}}
    with pytest.raises(LoadTestError, match="options"):
        compare.read_saved([*files, save(tmp_path / "3", [], servers=alone)])


def test_only_what_stands_between_the_markers_is_replaced() -> None:
    text = f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n"
    assert replace_marked(text, "new") == f"before\n\n{BEGIN}\n\nnew\n\n{END}\n\nafter\n"
    assert replace_marked(replace_marked(text, "new"), "new") == replace_marked(text, "new")


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END} {BEGIN}", f"{BEGIN} {END} {BEGIN} {END}"])
def test_a_document_without_its_markers_is_refused(text: str) -> None:
    with pytest.raises(LoadTestError, match="must have the lines"):
        replace_marked(text, "new")


def test_the_benchmarks_have_the_markers() -> None:
    replace_marked((ROOT / "docs" / "benchmarks.md").read_text(), "")


def test_the_file_system_is_that_of_the_longest_mount_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = ["none / ext4 rw 0 0", f"none {tmp_path} tmpfs rw 0 0", "none /elsewhere/far/away/from/it xfs rw 0 0"]
    monkeypatch.setattr("loadtest.compare.document.lines_of", lambda _path: mounts)
    assert file_system(str(tmp_path / "data")) == "tmpfs"
    assert file_system("/") == "ext4"


def test_the_document_is_written_from_saved_figures(tmp_path: Path) -> None:
    """In a process of its own, as a user would: matplotlib is loaded nowhere else."""
    runs = rates("flood-1", darner=[8000.0, 9000.0, 7000.0], memcached=[10_000.0, 10_000.0, 10_000.0])
    runs += rates("pipeline", darner=[3e5], memcached=[1e5])
    runs = [run | LATENCIES for run in runs]
    runs.append(a_run("memory", 1, "darner", full_resident_bytes=64e6, start_s=0.3, settled_disk_bytes=2e6))
    document = tmp_path / "doc.md"
    document.write_text(f"before\n{BEGIN}\n{END}\nafter\n")
    ended = shell("--from", str(save(tmp_path / "figures.json", runs)), "--write", str(document))
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"^flood, 1 connection .* 0\.80 \(0\.70–0\.90\)  must met$", ended.stdout, re.MULTILINE)

    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "| flood, 1 connection | × memcached | 0.7 | 0.95 | **0.80 (0.70–0.90)** | must met |" in text
    assert "| flood, 10 connections | × memcached | 0.7 | 1 | **-** | not measured |" in text
    assert "| flood-1 | darner | 8,000 (7,000–9,000) | 0.80 (0.70–0.90) | 1.00 | 2.00 | 3.00 |" in text
    for said in ("Some CPU", "`--enable-optimizations`", "gevent 26.9.0", "memcached 1.6", "    memcached -t 1\n"):
        assert said in text
    links = re.findall(r"!\[.+\]\((plots/[a-z-]+\.svg)\)", text)
    assert len(links) == 4
    for link in links:
        picture = (tmp_path / link).read_text()
        assert ElementTree.fromstring(picture).tag.endswith("svg")
        assert "<text" in picture  # not outlines
        assert len(picture) < 100_000
