"""Jobs over the text protocol, beside clients of others."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from darner_core.access.rights import ADMIN
from darner_core.protocols.kestrel_text.commands import TextCommands
from darner_core.storage.storage import Storage
from tests.operations.test_session import House
from tests.support.harness import Client, wait_until
from tests.support.kestrel_clients import KestrelServer
from tests.support.operations_on import operations_on

TABLES = """
[default]
max_open_reads = 400

[queues.retried]
max_deliveries = 2
dead_letter_queue = "dead"

[queues.few]
max_leases = 2

[queues.small]
max_items = 1
"""


def start(path: Path, fails: bool = False) -> KestrelServer:
    return KestrelServer(path / "data", "--chunk-bytes", "16 KiB", tables=TABLES, fails=fails)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KestrelServer]:
    server = start(tmp_path_factory.mktemp("server"))
    yield server
    server.end()


@pytest.fixture
def server(shared: KestrelServer) -> KestrelServer:
    shared.as_new()
    return shared


@pytest.fixture
def text(server: KestrelServer) -> Client:
    return server.text_client()


def lines(*items: bytes) -> bytes:
    return b"".join(b"%b\n" % item for item in items)


def test_the_urgent_go_first_and_the_delayed_when_it_is_time(server: KestrelServer, text: Client) -> None:
    text.ask(b"put q:\nplain\n\nput q/delay=300:\nlater\n\nput q/pri=5:\nurgent\nnext\n\n", b"+1\n+1\n+2\n")
    assert server.client().get("q") == b"urgent"
    text.ask(b"get q\nget q\nget q\nget q 5000\nget q\n", b":next\n:plain\n*\n:later\n*\n")


def test_an_item_with_a_key_is_put_once_until_it_is_gone(text: Client) -> None:
    text.ask(b"put q/key=k:\na\n\nput q/key=k:\nb\n\nadd q/key=k:\nc\n\n", b"+1\n+1\n+0\n")
    text.ask(b"get q\nadd q/key=k:\nd\n\nget q\n", b":a\n+0\n*\n")
    text.ask(b"add q/key=k:\ne\n\nget q\n", b"+1\n:e\n")
    text.ask(b"put small:\nx\n\nput small/key=k:\ny\n\n", b"+1\n+0\n")


def test_as_many_jobs_as_other_items_can_be_put_at_once(text: Client) -> None:
    items = [b"%d" % number for number in range(1024)]
    text.ask(b"put q/pri=5:\n" + lines(*items) + b"\n", b"+1024\n")
    text.ask(b"get q\nget q\nflush q\n", b":0\n:1\n+0\n")
    text.ask(b"put small/pri=5:\na\nb\n\n", b"+1\n")


def test_an_item_with_a_deadline_goes_to_others_unless_it_is_touched(server: KestrelServer, text: Client) -> None:
    other = server.text_client()
    text.ask(b"put q/ttr=300:\na\n\nget q/ttr\n", b"+1\n:a\n")
    other.ask(b"get q 5000\n", b":a\n")
    text.ask(b"touch q 5000\nconfirm q 1\n", b"+0\n+1\n")  # as in every protocol, a late close is none
    other.ask(b"confirm q 1\n", b"+1\n")
    text.ask(b"put q:\nb\nc\n\nmonitor q/ttr=400 0\n", b"+2\n:b\n:c\n*\n")
    text.ask(b"touch q 60000\n", b"+2\n")
    time.sleep(0.5)
    other.ask(b"get q\n", b"*\n")
    text.ask(b"touch q 0\n", b"+2\n")  # as long as at first
    other.ask(b"get q 5000\nget q 5000\n", b":b\n:c\n")


def test_a_monitor_opens_as_many_as_it_says(text: Client) -> None:
    text.ask(b"put q:\na\nb\nc\n\nmonitor q 60000 2\nmonitor q 0 5\n", b"+3\n:a\n:b\n*\n:c\n*\n")


def test_what_is_aborted_waits_again_and_has_the_delay_and_priority_that_was_said(text: Client) -> None:
    text.ask(b"put q:\na\nb\nc\nd\n\nmonitor q 0\n", b"+4\n:a\n:b\n:c\n:d\n*\n")
    text.ask(b"abort q 5\nabort other 1\n", b"-Not that many transactions open.\n" * 2)
    text.ask(b"abort q/delay=300 1\nabort q/pri=2000 1\nabort q 1\nabort q 0\n", b"+1\n+1\n+1\n+0\n")
    text.ask(b"get q\nget q\nget q\nget q 5000\nget q\n", b":c\n:b\n*\n:a\n*\n")


def test_a_failure_too_many_makes_a_dead_letter(server: KestrelServer, text: Client) -> None:
    text.ask(b"put retried:\na\nb\nc\n\n", b"+3\n")
    for _ in range(2):
        text.ask(b"get retried\nabort retried 1\n", b":a\n+1\n")
    text.ask(b"get dead\nconfirm dead 1\nget retried\n", b":a\n+1\n:b\n")
    text.close()  # the first failure of b
    watching = server.client()
    wait_until(lambda: watching.stats()["queue_retried_open_transactions"] == "0")
    text = server.text_client()
    text.ask(b"get retried/ttr=50\n", b":b\n")
    server.text_client().ask(b"get dead 5000\n", b":b\n")
    text.ask(b"get retried\nreject retried 1\nget dead 5000\nget retried\n", b":c\n+1\n:c\n*\n")


def test_what_is_rejected_without_a_place_for_it_is_buried_and_can_be_kicked(text: Client) -> None:
    items = [b"%d" % number for number in range(250)]
    text.ask(b"put q:\n" + lines(*items) + b"\n", b"+250\n")
    text.ask(b"monitor q 0\n", lines(*(b":" + item for item in items)) + b"*\n")
    text.ask(b"reject q 251\nreject q 250\nget q\n", b"-Not that many transactions open.\n+250\n*\n")
    text.ask(b"kick q 2\nget q\nget q\nget q\n", b"+2\n:0\n:1\n*\n")
    text.ask(b"kick q 1000\nkick q 0\nkick nothing 1\n", b"+248\n+0\n+0\n")
    text.ask(b"monitor q 0\n", lines(*(b":" + item for item in items[2:])) + b"*\n")


def test_a_pause_lasts_until_its_end(text: Client) -> None:
    text.ask(b"put q:\na\n\npause q out\nget q\n", b"+1\n+0\n*\n")
    text.ask(b"pause q all 300\nput q:\nb\n\nget q 9000\n", b"+0\n+0\n:a\n")
    text.ask(b"pause q in\nput q/pri=5:\nb\n\npause q none\nput q:\nb\n\n", b"+0\n+0\n+0\n+1\n")
    text.ask(b"pause nothing out\n", b"-queue nothing does not exist\n")


def test_no_more_is_open_with_a_deadline_than_may_be(server: KestrelServer, text: Client) -> None:
    other = server.text_client()
    text.ask(b"put few:\na\nb\nc\n\n", b"+3\n")
    too_many = b"-too many items with a deadline are open: max_leases allows no more, of queue few or in all\n"
    text.ask(b"monitor few/ttr=60000 0\n", b":a\n:b\n" + too_many)
    text.ask(b"touch few 60000\n", b"+2\n")
    other.ask(b"get few/ttr=60000 5000\n", too_many)
    other.ask(b"get few\n", b":c\n")
    text.ask(b"get few/ttr=60000\n", b"*\n")  # which confirms the two


def test_large_items_can_have_all_of_it_but_are_not_put_here(server: KestrelServer, text: Client) -> None:
    large = bytes(50_000)
    server.client().set("retried", large)
    text.ask(b"get retried/ttr=60000\ntouch retried 5000\n", b":" + large + b"\n+1\n")
    text.ask(b"abort retried/delay=1/pri=5 1\n", b"+1\n")
    text.ask(b"get retried 5000\nreject retried 1\nget dead 5000\n", b":" + large + b"\n+1\n:" + large + b"\n")


def test_a_status_that_forbids_gets_lets_what_is_open_be_decided(server: KestrelServer, text: Client) -> None:
    text.ask(b"put q:\na\nb\nc\n\nmonitor q 0\n", b"+3\n:a\n:b\n:c\n*\n")
    admin = server.client()
    admin.ask(b"status quiescent\r\n", b"END\r\n")
    try:
        refused = b"-Server not available for operation %b\n"
        text.ask(b"add q/key=k:\nx\n\nkick q 1\n", refused % b"add" + refused % b"kick")
        text.ask(b"touch q 0\nabort q/delay=60000 1\nreject q 1\nconfirm q 1\n", b"+3\n+1\n+1\n+1\n")
    finally:
        admin.ask(b"status up\r\n", b"END\r\n")


def test_a_write_that_fails_leaves_all_of_it_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARNER_TICK_S", "0.1")
    server = start(tmp_path, fails=True)
    try:
        text = server.text_client()
        text.ask(b"put retried:\na\nb\nc\n\nmonitor retried/ttr=60000 0\n", b"+3\n:a\n:b\n:c\n*\n")
        switch = tmp_path / "data.fails"
        switch.write_text("write put reopen")
        for line in (b"reject retried 1\n", b"abort retried/delay=5 2\n", b"put retried/key=k:\nd\n\n"):
            text.send(line)
            assert text.line().endswith(b"no space left on device\n")
        switch.unlink()
        wait_until(lambda: "the disk takes writes again" in server.printed())
        text.ask(b"touch retried 60000\nreject retried 1\nabort retried/delay=60000 1\n", b"+3\n+1\n+1\n")
        text.ask(b"confirm retried 1\n", b"+1\n")
        server.kill()
        server.start()
        text = server.text_client()
        text.ask(b"get dead\nget retried\nkick retried 5\nget retried\n", b":a\n*\n+1\n:b\n")
    finally:
        server.end()


def test_a_job_expires_and_goes_to_fanout_children_as_others_do(text: Client) -> None:
    text.ask(b"get p+c\nput p/pri=5 1:\ngone\n\nput p/pri=5 60000:\na\n\n", b"*\n+1\n+1\n")
    text.ask(b"put p+c/key=k:\nof the child alone\n\n", b"+1\n")
    time.sleep(0.01)
    text.ask(b"get p\nget p\n", b":a\n*\n")
    text.ask(b"get p+c\nget p+c\nget p+c\n", b":a\n:of the child alone\n*\n")


def test_each_verb_needs_the_right_that_its_like_needs(open_storage: Callable[[], Storage]) -> None:
    house = House(open_storage)
    table = TextCommands(operations_on(house), house.config).table()
    likes = {b"add": b"put", b"abort": b"confirm", b"reject": b"confirm", b"touch": b"confirm", b"kick": b"delete"}
    for verb, like in likes.items():
        assert (table[verb].right, table[verb].kind) == (table[like].right, table[like].kind)
    assert (table[b"pause"].right, table[b"pause"].kind) == (ADMIN, "")


def test_help_names_what_there_is(text: Client) -> None:
    text.send(b"help\n")
    said = b"".join(iter(text.line, b"*\n"))
    for verb in (b"add", b"abort", b"reject", b"touch", b"kick", b"pause"):
        assert b"\n:%b <queue>" % verb in said
