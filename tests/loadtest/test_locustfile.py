"""The Locust users run against a real server, in processes of their own, and their check finds what is wrong.

Locust patches the standard library when it is imported, so it is not imported here.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loadtest.load.ledger import MIN_ITEM_BYTES, Item, Ledger
from tests.support.harness import ROOT, RunningServer, wait_until

PATIENCE_S = 60.0  # how long anything may take; a run takes the seconds asked for, and three more
TAG = "5eed.0"

StartLocust = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start_locust(server: RunningServer, tmp_path: Path) -> Iterator[StartLocust]:
    """Start Locust against the server. What it logs is written to `locust.log`."""
    started = []

    def start(*options: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "locust", "-f", str(ROOT / "loadtest" / "locustfile.py")]
        command += ["--host", f"tcp://127.0.0.1:{server.port}", *options]
        with open(tmp_path / "locust.log", "w") as log:
            # Not from our directory and not with our environment: a locust.conf or LOCUST_… would change the run.
            environment = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST")}
            process = subprocess.Popen(
                command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def log(tmp_path: Path) -> Callable[[], str]:
    """What Locust has logged so far."""
    return (tmp_path / "locust.log").read_text


def end(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Its exit status, and its standard output."""
    output, _ = process.communicate(timeout=PATIENCE_S)
    return process.returncode, output


def verdicts(log: str) -> list[str]:
    """The line of each run."""
    return re.findall(r"/locustfile: (.*)", log)


def figures(verdict: str) -> tuple[int, int, int]:
    """Stored, confirmed and left over."""
    found = re.search(r"([\d,]+) stored = ([\d,]+) confirmed \+ ([\d,]+) left over", verdict)
    assert found, verdict
    stored, confirmed, left = (int(figure.replace(",", "")) for figure in found.groups())
    return stored, confirmed, left


# -- runs


def test_a_run_shows_each_request_and_finds_nothing_lost(
    server: RunningServer, start_locust: StartLocust, log: Callable[[], str]
) -> None:
    # So short a wait often ends without an item, and so many aborts and drops are sure to happen.
    process = start_locust(
        *["--headless", "-u", "10", "-r", "10", "-t", "3s", "--json", "--item-bytes", "100", "--wait-ms", "1"],
        *["--abort-share", "0.1", "--drop-share", "0.1", "--reject-share", "0.1", "--late-share", "0.1"],
    )
    status, output = end(process)
    assert status == 0, log()
    requests = {(entry["method"], entry["name"]): entry for entry in json.loads(output)}
    assert set(requests) == {
        ("Producer", "connect"),
        ("Consumer", "connect"),
        ("Worker", "connect"),
        ("Producer", "set"),
        ("Consumer", "get /t"),
        ("Consumer", "get /t END"),
        ("Worker", "get /close/open"),
        ("Worker", "get /close/open END"),
        ("Worker", "get /abort"),
        ("JobProducer", "connect"),
        ("JobProducer", "set job"),
        ("JobProducer", "add job"),
        ("JobProducer", "add job NOT_STORED"),
        ("JobWorker", "connect"),
        ("JobWorker", "get /open/ttr"),
        ("JobWorker", "get /open/ttr END"),
        ("JobWorker", "get /close"),
        ("JobWorker", "get /abort/delay"),
        ("JobWorker", "get /abort too late"),
        ("JobWorker", "get /reject"),
    }
    assert all(entry["num_failures"] == 0 for entry in requests.values())
    puts = requests["Producer", "set"]
    jobs = sum(requests["JobProducer", f"{verb} job"]["num_requests"] for verb in ("set", "add"))
    assert puts["num_requests"] > 0
    assert puts["total_content_length"] == 100 * puts["num_requests"]
    assert requests["Worker", "connect"]["num_requests"] > 2  # the workers', and again after each drop
    last_line = log().splitlines()[-1]
    (verdict,) = verdicts(last_line)
    assert verdict.startswith("nothing lost: ")
    stored, confirmed, left = figures(verdict)
    assert stored == puts["num_requests"] + jobs == confirmed + left
    aborts = (("Worker", "get /abort"), ("JobWorker", "get /abort/delay"))
    aborted = sum(requests[name]["num_requests"] for name in aborts)
    assert f"; {aborted:,} reads aborted, " in verdict
    assert f", {requests['JobWorker', 'get /reject']['num_requests']:,} rejected" in verdict
    assert not any("locust" in name for name in server.client().stats())  # the run's queue is gone


@pytest.mark.long
def test_dead_letters_are_found_where_they_go(
    start_server: Callable[..., RunningServer], start_locust: StartLocust, log: Callable[[], str], tmp_path: Path
) -> None:
    (tmp_path / "darner.toml").write_text('[queues.work]\nmax_deliveries = 2\ndead_letter_queue = "work.dead"\n')
    server = start_server("-c", str(tmp_path / "darner.toml"))
    process = start_locust(
        *["--host", f"127.0.0.1:{server.port}", "--headless", "-u", "10", "-r", "10", "-t", "2s"],
        *["--queues", "work", "--dead", "work.dead", "--abort-share", "0.3", "--reject-share", "0.1"],
    )
    status, _ = end(process)
    (verdict,) = verdicts(log())
    assert status == 0, log()
    found = re.search(r"([\d,]+) stored = ([\d,]+) confirmed \+ ([\d,]+) left over \+ ([\d,]+) dead letters; ", verdict)
    assert found, verdict
    stored, confirmed, left, dead = (int(figure.replace(",", "")) for figure in found.groups())
    assert stored == confirmed + left + dead
    rejected = re.search(r"([\d,]+) rejected$", verdict)
    assert rejected, verdict
    assert dead >= int(rejected[1].replace(",", "")) > 0
    server.client().ask(b"get work.dead\r\n", b"END\r\n")


@pytest.mark.long
def test_items_that_are_stolen_or_smuggled_in_are_named(
    server: RunningServer, start_locust: StartLocust, log: Callable[[], str]
) -> None:
    process = start_locust("--headless", "-u", "10", "-r", "10", "-t", "2s", "--queues", "elsewhere,watched")
    thief = server.client()
    stolen: list[bytes] = []
    while len(stolen) < 3:
        assert process.poll() is None, log()
        body = thief.get("watched/t=200")
        if body:
            stolen.append(body)
    thief.set("watched", b"smuggled in")
    status, _ = end(process)
    assert status == 1
    (verdict,) = verdicts(log())
    stored, confirmed, left = figures(verdict)
    assert f"LOST 3 of {stored:,} stored items" in verdict
    assert stored == confirmed + left + 3
    assert set(re.findall(r"[\w.]+-\d+-\d+", verdict)) == {body.split()[0].decode() for body in stolen}
    assert "INVENTED, stored by nobody, 1: smuggled;" in verdict
    assert "nothing lost" not in verdict


def test_the_web_page_starts_runs_that_are_checked_by_themselves(
    server: RunningServer, start_locust: StartLocust, log: Callable[[], str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # These users end in the middle of their requests.
    process = start_locust("--web-host", "127.0.0.1", "--web-port", str(port), "--stop-timeout", "0")

    def call(path: str, **form: int) -> None:
        data = urllib.parse.urlencode(form).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data, timeout=PATIENCE_S) as response:
            assert json.load(response)["success"]

    client = server.client()

    def puts() -> int:
        return int(client.stats()["total_items"])

    def wait_for_puts(more: int) -> None:
        enough = puts() + more
        wait_until(lambda: puts() >= enough, PATIENCE_S)

    def listening() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_until(listening, PATIENCE_S)
    for item_bytes in (64, 1000):
        call("/swarm", user_count=6, spawn_rate=6, item_bytes=item_bytes)
        wait_for_puts(100)
        call("/stop")
        assert verdicts(log())[-1].startswith("nothing lost: ")
    first, second = (figures(verdict)[0] for verdict in verdicts(log()))
    assert first > 0
    assert second > 0
    call("/swarm", user_count=6, spawn_rate=6, item_bytes=1)  # the page lets it pass
    wait_until(lambda: len(verdicts(log())) == 3, PATIENCE_S)
    assert verdicts(log())[-1].startswith(f"NOT STARTED: bad --item-bytes 1: from {MIN_ITEM_BYTES} to ")
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 1  # for the run that could not be
    assert len(verdicts(log())) == 3
    assert "Traceback" not in log()


def test_more_than_one_process_is_refused_in_one_line(start_locust: StartLocust, log: Callable[[], str]) -> None:
    assert end(start_locust("--worker"))[0] == 1
    assert re.fullmatch(r"loadtest/locustfile\.py runs in one process: .*\n", log())


@pytest.mark.parametrize(
    "too_late",
    [
        "events.test_start.add_listener(lambda **_: gevent.sleep(2))",
        "events.init.add_listener(lambda environment, **_: environment.runner.quit())",
    ],
)
def test_a_run_that_ends_before_it_has_begun_is_said_to_have_failed(
    too_late: str, start_locust: StartLocust, log: Callable[[], str], tmp_path: Path
) -> None:
    late = tmp_path / "late.py"
    late.write_text(f"import gevent\nfrom locust import events\n{too_late}\n")
    files = f"{ROOT}/loadtest/locustfile.py,{late}"
    status, _ = end(start_locust("-f", files, "--headless", "-u", "1", "-t", "1s"))
    assert verdicts(log()) == ["NOT STARTED: the run ended before a user asked anything; give -t more time"]
    assert status == 1


def test_a_queue_that_holds_something_is_not_used(
    server: RunningServer, start_locust: StartLocust, log: Callable[[], str]
) -> None:
    client = server.client()
    client.set("used", b"somebody's")
    assert end(start_locust("--headless", "-u", "3", "-t", "5s", "--queues", "used"))[0] == 1
    assert verdicts(log().splitlines()[-1])[0].startswith("NOT STARTED: queue used is not empty: ")
    assert "Traceback" not in log()
    assert client.get("used") == b"somebody's"


# -- the ledger


@pytest.fixture
def ledger() -> Ledger:
    """With two producers."""
    ledger = Ledger(TAG, b"." * MIN_ITEM_BYTES)
    ledger.add_producer()
    ledger.add_producer()
    return ledger


def put(ledger: Ledger, producer: int = 0) -> Item:
    """A set that was answered STORED."""
    item = ledger.sending(producer)
    ledger.stored(item)
    return item


def take(ledger: Ledger, item: Item) -> None:
    """A plain get that brought this item."""
    ledger.asking()
    ledger.answered(ledger.body(item))


def test_an_item_says_which_it_is(ledger: Ledger) -> None:
    put(ledger, 1)
    item = put(ledger, 1)
    assert ledger.body(item) == b"5eed.0-1-1 ............................."
    assert ledger.read(ledger.body(item)) == item


def test_what_is_confirmed_or_left_is_not_lost(ledger: Ledger) -> None:
    taken, closed, left = put(ledger), put(ledger), put(ledger, 1)
    take(ledger, taken)
    ledger.asking()
    ledger.answered(None)
    ledger.closing(closed)
    ledger.confirmed(closed)
    ledger.left(ledger.body(left))
    balance = ledger.balance()
    assert balance.good
    assert balance.line() == "nothing lost: 3 stored = 2 confirmed + 1 left over; 0 reads aborted, 0 dropped"


def test_a_reader_may_have_an_item_before_its_producer_hears_stored(ledger: Ledger) -> None:
    item = ledger.sending(0)
    take(ledger, item)
    ledger.stored(item)
    balance = ledger.balance()
    assert balance.good
    assert (balance.stored, balance.confirmed) == (1, 1)


def test_an_item_that_nobody_finished_is_lost(ledger: Ledger) -> None:
    put(ledger)
    take(ledger, put(ledger))
    put(ledger, 1)
    balance = ledger.balance()
    assert not balance.good
    assert (balance.stored, balance.confirmed, balance.lost, balance.in_doubt) == (3, 1, 2, 0)
    assert balance.line().startswith(
        "LOST 2 of 3 stored items, missing: 5eed.0-0-0, 5eed.0-1-0; 3 stored = 1 confirmed"
    )


def test_of_many_that_are_lost_a_few_are_named(ledger: Ledger) -> None:
    for _ in range(2000):
        put(ledger)
    assert ", 5eed.0-0-4, ...; 2,000 stored = 0 confirmed + 0 left over + 2,000 lost;" in ledger.balance().line()


def test_an_item_may_be_read_often_but_finished_once(ledger: Ledger) -> None:
    item = put(ledger)
    for _ in range(3):
        assert ledger.read(ledger.body(item)) == item  # and aborted or dropped
    take(ledger, item)
    assert ledger.balance().good


def test_an_item_that_is_finished_twice_is_doubled(ledger: Ledger) -> None:
    twice, closed_and_left, twice_before_stored = put(ledger), put(ledger), ledger.sending(1)
    take(ledger, twice)
    take(ledger, twice)
    ledger.closing(closed_and_left)
    ledger.confirmed(closed_and_left)
    ledger.left(ledger.body(closed_and_left))
    take(ledger, twice_before_stored)
    take(ledger, twice_before_stored)
    ledger.stored(twice_before_stored)
    balance = ledger.balance()
    assert not balance.good
    assert balance.doubled == ["5eed.0-0-0", "5eed.0-0-1", "5eed.0-1-0"]
    assert balance.line().startswith("DOUBLED without reason 3: 5eed.0-0-0, ")
    assert (balance.stored, balance.confirmed, balance.left, balance.lost) == (3, 3, 0, 0)


def test_an_item_that_nobody_stored_is_invented(ledger: Ledger) -> None:
    refused = ledger.sending(0)
    ledger.refused(refused)
    take(ledger, refused)
    bodies = [
        b"",
        b"\xff\xfe anything",
        b"5eed.0-0-1" + b" ............................",  # not sent yet
        b"5eed.0-2-0" + b" .............................",  # nor is there such a producer
        b"5eed.1-0-0" + b" .............................",  # another queue's
    ]
    for body in bodies:
        ledger.asking()
        ledger.answered(body)
        ledger.left(body)  # the same again is not a second one
    balance = ledger.balance()
    assert not balance.good
    assert balance.invented == ["5eed.0-0-0", "", "5eed.0-0-1", "5eed.0-2-0", "5eed.1-0-0", r"\xff\xfe"]
    assert (balance.stored, balance.lost, balance.doubled) == (0, 0, [])


def test_an_item_that_came_out_damaged_is_lost_and_invented(ledger: Ledger) -> None:
    item = put(ledger)
    ledger.asking()
    ledger.answered(ledger.body(item)[:-1] + b"!")
    balance = ledger.balance()
    assert balance.missing == balance.invented == ["5eed.0-0-0"]


def test_a_set_without_an_answer_may_have_stored_its_item_or_not(ledger: Ledger) -> None:
    ledger.sending(0)
    came = ledger.sending(0)
    take(ledger, came)
    balance = ledger.balance()
    assert balance.good
    assert (balance.stored, balance.unanswered) == (0, 2)
    take(ledger, came)
    assert ledger.balance().doubled == ["5eed.0-0-1"]


def test_a_get_without_an_answer_may_have_taken_one_item_and_no_more(ledger: Ledger) -> None:
    ledger.asking()
    put(ledger)
    balance = ledger.balance()
    assert balance.good
    assert (balance.in_doubt, balance.lost) == (1, 0)
    assert "nothing lost: 1 stored = 0 confirmed + 0 left over + 1 in doubt (" in balance.line()
    put(ledger, 1)
    balance = ledger.balance()
    assert not balance.good
    assert (balance.in_doubt, balance.lost) == (1, 1)
    assert balance.missing == ["5eed.0-0-0", "5eed.0-1-0"]


def test_a_close_without_an_answer_leaves_its_own_item_in_doubt(ledger: Ledger) -> None:
    gone, back = put(ledger), put(ledger)
    ledger.closing(gone)
    ledger.closing(back)
    take(ledger, back)
    balance = ledger.balance()
    assert balance.good
    assert (balance.confirmed, balance.in_doubt) == (1, 1)
    put(ledger)
    assert ledger.balance().missing == ["5eed.0-0-2"]


def test_a_close_that_was_refused_confirms_nothing(ledger: Ledger) -> None:
    item = put(ledger)
    ledger.closing(item)
    ledger.not_closed(item)
    assert ledger.balance().missing == ["5eed.0-0-0"]


def test_a_dead_letter_is_not_lost_and_what_was_rejected_comes_to_no_reader_again(ledger: Ledger) -> None:
    dead, buried, again = put(ledger), put(ledger), put(ledger)
    for item in (dead, buried, again):
        assert ledger.read(ledger.body(item)) == item
        ledger.rejected(item)
    ledger.dead(ledger.body(dead))
    ledger.left(ledger.body(buried))
    ledger.left(ledger.body(again))
    balance = ledger.balance()
    assert balance.good
    assert balance.line().startswith("nothing lost: 3 stored = 0 confirmed + 2 left over + 1 dead letters; ")
    assert balance.line().endswith(", 0 timed out, 3 rejected")
    ledger.read(ledger.body(again))
    assert not ledger.balance().good
    assert ledger.balance().line().startswith("CAME AGAIN though rejected 1: 5eed.0-0-2; ")
    ledger.dead(ledger.body(dead))
    assert ledger.balance().doubled == ["5eed.0-0-0"]


def test_the_books_of_several_queues_add_up(ledger: Ledger) -> None:
    other = Ledger("5eed.1", ledger.filler)
    other.add_producer()
    take(ledger, put(ledger))
    put(other)
    total = ledger.balance()
    total.add(other.balance())
    assert (total.stored, total.confirmed, total.lost, total.missing) == (2, 1, 1, ["5eed.1-0-0"])


def test_what_is_finished_takes_no_memory(ledger: Ledger) -> None:
    for _ in range(100):
        take(ledger, put(ledger))
    assert not ledger.due | ledger.unmatched.keys() | ledger.unanswered_sets
