"""The board and the alert rules in conf/: Prometheus takes them, and every metric they name is really told."""

import json
import re
import shutil
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.beanstalkd import free_port
from tests.support.harness import ROOT, RunningServer, wait_until
from tests.support.http import HTTP, Http, http_port
from tests.support.scraping import scraped

BOARD = ROOT / "conf" / "grafana.json"
ALERTS = ROOT / "conf" / "alerts.yaml"
ALERTS_TEST = ROOT / "tests" / "alerts_test.yaml"

PROMTOOL, PROMETHEUS = shutil.which("promtool"), shutil.which("prometheus")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")
needs_prometheus = pytest.mark.skipif(PROMETHEUS is None, reason="Prometheus is not installed")


def promtool(*words: str, stdin: str = "") -> str:
    done = subprocess.run(
        [str(PROMTOOL), *words], input=stdin, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def expressions() -> list[str]:
    """Of the board."""
    board = json.loads(BOARD.read_text())
    targets = [target for panel in board["panels"] for target in panel.get("targets", ())]
    variables = [one["query"]["query"] for one in board["templating"]["list"] if one["type"] == "query"]
    return [target["expr"] for target in targets] + variables


def plain(expression: str) -> str:
    """The expression without Grafana's variables, as Prometheus reads it."""
    for name, value in (("$__rate_interval", "5m"), ("$instance", ".*"), ("$queue", ".*"), ("$top", "10")):
        expression = expression.replace(name, value)
    return expression


def metrics_in(text: str) -> set[str]:
    return set(re.findall(r"\b(?:darner|process)_[a-z_]+\b(?!=)", text))


@pytest.fixture
def watched(start_server: Callable[..., RunningServer]) -> Iterator[tuple[RunningServer, Http]]:
    server = start_server(*HTTP)
    http = Http(http_port(server))
    yield server, http
    http.close()


@needs_promtool
def test_the_rules_are_valid_and_say_what_they_should() -> None:
    assert "9 rules found" in promtool("check", "rules", str(ALERTS))
    assert "SUCCESS" in promtool("test", "rules", str(ALERTS_TEST))


@needs_promtool
def test_every_rule_is_tested() -> None:
    names = re.findall(r"alert: (\w+)", ALERTS.read_text())
    fired = re.findall(r"alertname: (\w+)\n\s+exp_alerts:", ALERTS_TEST.read_text())
    assert set(names) == set(fired)


def test_the_board_can_be_imported() -> None:
    board = json.loads(BOARD.read_text())
    assert [one["name"] for one in board["templating"]["list"]] == ["datasource", "instance", "queue", "top"]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    sources = {panel["datasource"]["uid"] for panel in board["panels"] if panel["type"] != "row"}
    assert sources == {"${datasource}"}
    assert [panel["title"] for panel in board["panels"] if panel["type"] == "row"] == [
        "Server", "Queues", "How long things take", "Jobs",
    ]  # fmt: skip


@needs_promtool
def test_the_text_of_a_scrape_is_as_prometheus_wants_it(watched: tuple[RunningServer, Http]) -> None:
    server, http = watched
    server.client().set("q", b"x")
    assert promtool("check", "metrics", stdin=http.ask("GET", "/metrics").body.decode()) == ""


def test_every_metric_that_the_board_and_the_rules_name_is_told(watched: tuple[RunningServer, Http]) -> None:
    server, http = watched
    client = server.client()
    client.set("q", b"x")
    wanted = metrics_in(ALERTS.read_text()) | metrics_in("\n".join(expressions()))
    assert len(wanted) > 40
    # Counted after a second in which little happens; what has left a queue, with its first sample, after 15 s.
    late = {"darner_queue_gone_total"}
    told: set[str] = set()

    def all_told() -> bool:
        nonlocal told
        client.set("q", b"x")
        told = scraped(http).names()
        return wanted - late <= told

    wait_until(all_told)


@pytest.mark.long
@needs_prometheus
def test_prometheus_scrapes_a_server_and_the_board_finds_its_figures(
    watched: tuple[RunningServer, Http], tmp_path: Path
) -> None:
    server, _ = watched
    client = server.client()
    (tmp_path / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s}\n"
        f"rule_files: [{ALERTS}]\n"
        "scrape_configs:\n"
        "  - job_name: darner\n"
        f"    static_configs: [{{targets: ['127.0.0.1:{http_port(server)}']}}]\n"
    )
    port = free_port()
    words = [
        str(PROMETHEUS), f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    with (tmp_path / "log").open("w") as log, subprocess.Popen(words, stdout=log, stderr=log) as prometheus:

        def ask(expression: str) -> list[Any]:
            query = urllib.parse.urlencode({"query": expression})
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{query}", timeout=10) as answer:
                return list(json.load(answer)["data"]["result"])

        def works() -> bool:
            client.set("q", b"x")
            client.ask(b"get q/open\r\n", b"VALUE q 0 1\r\nx\r\nEND\r\n")
            client.ask(b"get q/close\r\n", b"END\r\n")
            try:
                wanted = "rate(darner_queue_gone_total[1m])", "increase(darner_request_seconds_count[1m]) > 0"
                return all(map(ask, wanted))
            except OSError:  # it does not listen yet
                time.sleep(0.2)
                return False

        try:
            wait_until(works, within_s=60)
            assert ask('up{job="darner"}')[0]["value"][1] == "1"
            empty = [one for one in map(plain, expressions()[:-2]) if " > 0" not in one and not ask(one)]
            # No fsync is made without `sync`.
            assert [one for one in empty if "fsync" not in one and "connections_rejected" not in one] == []
        finally:
            prometheus.send_signal(signal.SIGTERM)
            prometheus.wait(30)
    assert "error" not in re.sub(r"(?m)^.*(?:lock|mmap).*$", "", (tmp_path / "log").read_text()).lower()
