"""The calls about jobs, with a client that is made from the IDL, beside clients of the other protocols."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from darner_core.operations.putting import JOBS_A_TURN
from tests.protocols.thrift.test_calls import MINUTE_MS, call, data, i32, ids, name, reply, why
from tests.support.harness import wait_until
from tests.support.kestrel_clients import IDL, KestrelServer

TABLES = """
max_leases = 2500

[default]
max_open_reads = 10000

[queues.retried]
max_deliveries = 2
dead_letter_queue = "dead"

[queues.quick]
default_ttr_s = 1
max_hold_s = 2

[queues.few]
max_leases = 3

[queues.scarce]
max_leases = 3

[queues.small]
max_items = 2
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
def thrift(server: KestrelServer) -> Any:
    return server.thrift_client()


def opened(thrift: Any, queue: str, most: int = 10) -> list[Any]:
    found: list[Any] = thrift.get_jobs(queue, most, 5000 if most == 1 else 0, MINUTE_MS)
    return found


def figures(thrift: Any, queue: str) -> dict[str, int]:
    return {name: value for name, value in vars(thrift.peek_jobs(queue)).items() if value}


# -- putting


def test_the_urgent_go_first_and_the_delayed_when_it_is_time(server: KestrelServer, thrift: Any) -> None:
    assert thrift.put("q", [b"plain"]) == 1
    assert thrift.put_jobs("q", [b"later", b"last"], 0, 300, 7) == 2
    assert thrift.put_jobs("q", [b"urgent", b"next"], 0, 0, 5) == 2
    assert thrift.put_jobs("q", [b"as any other"]) == 1
    assert figures(thrift, "q") == {"ready": 4, "delayed": 2, "set_aside": 4}
    assert server.client().get("q") == b"urgent"
    assert data(thrift.get("q", 3)) == [b"next", b"plain", b"as any other"]
    assert data(thrift.get("q", 2, 5000)) == [b"later", b"last"]


def test_an_item_with_a_key_is_put_once_until_it_is_gone(server: KestrelServer, thrift: Any) -> None:
    results = IDL.PutResult
    large = bytes(50_000)
    assert thrift.put_unique("q", b"k\xff", b"a") == results.DONE
    assert thrift.put_unique("q", b"k\xff", b"b") == thrift.put_unique("q", b"k\xff", large) == results.KEY_TAKEN
    assert thrift.put_unique("q", b"other", large, 0, 0, 5) == results.DONE
    (item,) = opened(thrift, "q", 1)
    assert item.data == large
    server.client().ask(b"add q/key=other 0 0 1\r\nx\r\n", b"NOT_STORED\r\n")
    assert thrift.confirm("q", {item.id}) == 1
    assert thrift.put_unique("q", b"other", b"c") == results.DONE
    assert data(thrift.get("q", 10)) == [b"a", b"c"]
    assert thrift.put("small", [b"x"] * 3) == 2
    assert thrift.put_unique("small", b"k", b"y") == results.REFUSED
    assert thrift.put_unique("q", b"k", bytes(1 << 20 << 1)) in (results.DONE, results.REFUSED)


def test_very_many_jobs_are_put_in_several_turns_and_large_ones_among_them(thrift: Any) -> None:
    items = [b"%d" % number for number in range(2000)]
    assert thrift.put_jobs("q", items, 0, 0, 5) == 2000
    assert [one for _ in range(2) for one in data(thrift.get("q", 1000))] == items
    assert thrift.put_jobs("q", [b"a", bytes(20_000), b"b"], 0, 100, 5) == 3
    assert data(thrift.get("q", 1, 5000)) == [b"a"]
    assert data(thrift.get("q", 1, 5000)) == [bytes(20_000)]
    assert data(thrift.get("q", 1, 5000)) == [b"b"]
    assert thrift.put_jobs("small", [b"x"] * 5, 0, 60_000) == 2


def test_a_job_expires_and_goes_to_fanout_children_as_others_do(server: KestrelServer, thrift: Any) -> None:
    assert server.thrift_client().get("p+c", 1) == []  # from now on it gets a copy
    assert thrift.put_jobs("p", [b"gone"], 1, 0, 5) == 1
    assert thrift.put_jobs("p", [b"a", bytes(20_000)], MINUTE_MS, 0, 5) == 2
    assert thrift.put_unique("p+c", b"k", b"of the child alone", 0, 0, 3) == IDL.PutResult.DONE
    time.sleep(0.01)
    for queue, bodies in (("p", []), ("p+c", [b"of the child alone"])):
        assert data(thrift.get(queue, 1 + len(bodies), 1000)) == [*bodies, b"a"]
        assert data(thrift.get(queue, 5)) == [bytes(20_000)]
        assert thrift.get(queue, 5) == []


# -- what is open


def test_an_item_says_itself_how_long_it_may_be_open(server: KestrelServer, thrift: Any) -> None:
    other = server.thrift_client()
    thrift.put_jobs("q", [b"short"], 0, 0, 1024, 200)
    thrift.put("other", [b"a minute"])
    thrift.put("quick", [b"a"])
    (short,) = thrift.get_jobs("q", 1)
    (long,) = thrift.get_jobs("other", 1)
    (item,) = thrift.get_jobs("quick", 1)
    assert (short.data, long.data, item.data) == (b"short", b"a minute", b"a")
    assert data(other.get("q", 1, 5000)) == [b"short"]
    assert data(other.get("quick", 1, 5000)) == [b"a"]
    assert thrift.confirm("q", {short.id}) == 0
    assert thrift.confirm("quick", {item.id}) == 0
    assert thrift.confirm("other", {long.id}) == 1


def test_any_connection_touches_what_is_open_up_to_the_longest(server: KestrelServer, thrift: Any) -> None:
    other = server.thrift_client()
    thrift.put("q", [b"a", b"b"])
    thrift.put("quick", [b"c"])
    held, dropped = thrift.get_jobs("q", 2, 0, 400)
    (bounded,) = thrift.get_jobs("quick", 1)
    assert other.touch("q", {held.id, 12345}, MINUTE_MS) == 1
    assert other.touch("other", {held.id}) == 0
    assert other.touch("quick", {bounded.id}, MINUTE_MS) == 1
    assert data(other.get("q", 1, 5000)) == [b"b"]
    assert thrift.touch("q", {dropped.id}) == 0
    assert data(other.get("quick", 1, 9000)) == [b"c"]  # after max_hold_s
    assert thrift.touch("q", {held.id}) == 1  # as long as at first
    assert data(other.get("q", 1, 5000)) == [b"a"]


def test_what_is_aborted_comes_when_and_as_urgent_as_was_said(server: KestrelServer, thrift: Any) -> None:
    thrift.put("q", [b"a", b"b", b"c", b"d"])
    items = opened(thrift, "q")
    assert thrift.abort_later("q", {items[0].id, 12345}, 300, 5) == 1
    assert thrift.abort_later("q", {items[1].id}, 0, 2000) == 1
    assert thrift.abort_later("q", {items[2].id}) == 1
    assert thrift.abort_later("q", ids(items[:3])) == thrift.confirm("q", ids(items[:3])) == 0
    assert data(thrift.get("q", 2)) == [b"c", b"b"]
    server.client().set("q", b"e")
    assert data(thrift.get("q", 1)) == [b"e"]
    assert data(thrift.get("q", 1, 5000)) == [b"a"]
    assert thrift.confirm("q", {items[3].id}) == 1


def test_a_failure_too_many_makes_a_dead_letter(server: KestrelServer, thrift: Any) -> None:
    thrift.put("retried", [b"a", b"b", b"c", bytes(20_000)])
    for abort in (thrift.abort, thrift.abort_later):
        (item,) = opened(thrift, "retried", 1)
        assert item.data == b"a"
        assert abort("retried", {item.id}) == 1
    assert data(thrift.get("dead", 1)) == [b"a"]
    thrift.get_jobs("retried", 1, 0, 50)
    wait_until(lambda: figures(thrift, "retried")["failures"] == 3)
    assert data(thrift.get("retried", 1)) == [b"b"]
    assert figures(thrift, "retried") == {
        "ready": 2, "failures": 3, "dead_lettered": 1,
    }  # fmt: skip
    items = opened(thrift, "retried", 1) + opened(thrift, "retried", 1)
    assert server.thrift_client().reject("retried", ids(items)) == 2
    assert data(thrift.get("dead", 1, 5000)) == [b"c"]
    assert data(thrift.get("dead", 1, 5000)) == [bytes(20_000)]
    assert figures(thrift, "retried")["dead_lettered"] == 3


def test_what_is_rejected_without_a_place_for_it_is_buried_and_can_be_kicked(thrift: Any) -> None:
    thrift.put("q", [b"%d" % number for number in range(250)])
    items = opened(thrift, "q", 250)
    assert thrift.reject("q", ids(items)) == 250
    assert figures(thrift, "q") == {"buried": 250, "set_aside": 250}
    assert thrift.kick("q", 3) == 3
    assert thrift.kick("q", 0) == thrift.kick("nothing", 5) == 0
    assert thrift.kick("q", 1000) == 247
    assert len(thrift.get("q", 1000)) == 250


def test_no_more_is_open_than_may_be(server: KestrelServer, thrift: Any) -> None:
    other = server.thrift_client()
    assert thrift.put("few", [b"%d" % number for number in range(9)]) == 9
    items = thrift.get_jobs("few", 10)
    assert data(items) == [b"0", b"1", b"2"]
    assert other.get_jobs("few", 10) == other.get("few", 10, 0, MINUTE_MS) == []
    assert other.confirm("few", {items[0].id}) == 1
    assert data(other.get_jobs("few", 10)) == [b"3"]


def test_a_client_that_has_waited_gets_no_more_than_may_be_open_by_then(server: KestrelServer, thrift: Any) -> None:
    """Both were let in when three could be open."""
    waiting = [server.raw_thrift_client() for _ in range(2)]
    for raw in waiting:
        raw.send(call("get_jobs", name("scarce") + i32(2, 3) + i32(3, 1500)))
        raw.expect_nothing()
    assert thrift.put("scarce", [b"%d" % number for number in range(5)]) == 5
    got = [reply(raw, "get_jobs") for raw in waiting]
    assert sorted(map(len, got)) == [0, 3]
    assert len(thrift.get("scarce", 9)) == 2


# -- queues


def test_a_pause_lasts_until_its_end(server: KestrelServer, thrift: Any) -> None:
    pauses = IDL.Pause
    thrift.put("q", [b"a"])
    thrift.pause("q", pauses.GETS)
    assert thrift.get("q", 1) == []
    assert (thrift.put("q", [b"b"]), figures(thrift, "q")["paused"]) == (1, pauses.GETS)
    thrift.pause("q", pauses.BOTH, 1)
    assert thrift.put("q", [b"c"]) == 0
    assert data(thrift.get("q", 2, 9000)) == [b"a", b"b"]
    thrift.pause("q", pauses.PUTS)
    assert thrift.put_unique("q", b"k", b"c") == IDL.PutResult.REFUSED
    thrift.pause("q", pauses.NOTHING)
    assert thrift.put("q", [b"c"]) == 1
    assert why(thrift.pause, "nothing", pauses.GETS) == "queue nothing does not exist"


def test_a_queue_without_jobs_has_figures_too(thrift: Any) -> None:
    assert figures(thrift, "nothing") == {}
    thrift.put("q", [b"a", b"b"])
    opened(thrift, "q", 1)
    assert figures(thrift, "q") == {"ready": 1, "reserved": 1}


def test_a_status_that_forbids_gets_lets_what_is_open_be_decided(server: KestrelServer, thrift: Any) -> None:
    thrift.put("q", [b"a", b"b", b"c"])
    items = opened(thrift, "q")
    thrift.set_status(IDL.Status.QUIESCENT)
    try:
        for refused in (
            lambda: thrift.put_jobs("q", [b"d"]),
            lambda: thrift.put_unique("q", b"k", b"d"),
            lambda: thrift.get_jobs("q", 1),
            lambda: thrift.peek_jobs("q"),
            lambda: thrift.kick("q", 1),
        ):
            assert why(refused).endswith("is refused: the server is QUIESCENT")
        assert thrift.touch("q", ids(items)) == 3
        assert thrift.abort_later("q", {items[0].id}, 60_000) == 1
        assert thrift.reject("q", {items[1].id}) == 1
        assert thrift.confirm("q", {items[2].id}) == 1
    finally:
        thrift.set_status(IDL.Status.UP)


# -- what is wrong, and accidents


def test_what_an_argument_cannot_be_is_said_and_the_connection_goes_on(thrift: Any) -> None:
    ms = "a number from 0 to 281474976710656"
    days = "a number from 0 to 2147483647"
    pri = "a number from 0 to 4294967295"
    assert why(thrift.put_jobs, "q", [b"a"], 0, -1) == f"put_jobs: delay_msec -1: {ms}"
    assert why(thrift.put_jobs, "q", [b"a"], 0, 0, 2**32) == f"put_jobs: priority 4294967296: {pri}"
    assert why(thrift.put_unique, "q", b"k", b"a", 0, 0, 0, 2**48 + 1) == f"put_unique: ttr_msec 281474976710657: {ms}"
    assert why(thrift.put_unique, "q", b"", b"a") == 'put_unique: key "" of 0 bytes: 1 to 200'
    assert why(thrift.put_unique, "q", b"k" * 201, b"a").endswith("of 201 bytes: 1 to 200")
    assert why(thrift.put_unique, "q", None, b"a") == "put_unique: key is missing"
    assert why(thrift.get_jobs, "q", 1, 0, -5) == f"get_jobs: ttr_msec -5: {days}"
    assert why(thrift.touch, "q", {1}, -5) == f"touch: ttr_msec -5: {days}"
    assert why(thrift.abort_later, "q", {1}, -2) == (
        f"abort_later: delay_msec -2: {ms}, or -1: as the options of the queue say"
    )
    assert why(thrift.abort_later, "q", {1}, 0, -2) == f"abort_later: priority -2: {pri}, or -1: the one that it has"
    assert why(thrift.kick, "q", -1) == "kick: max_items -1: a number from 0 to 2147483647"
    assert why(thrift.pause, "q", 4) == "pause: what 4: it can be NOTHING, PUTS, GETS, BOTH"
    assert why(thrift.pause, "q", 0, 5) == "pause: NOTHING with a duration_msec: it ends the pause at once"
    assert why(thrift.put_jobs, "a/b", [b"a"]).startswith('bad queue name "a/b"')
    assert thrift.get("q", 1) == []


def test_what_was_answered_survives_kill_9(server: KestrelServer, thrift: Any) -> None:
    thrift.put_jobs("q", [b"later"], 0, 60_000)
    thrift.put_unique("q", b"k", b"once")
    thrift.put("q", [b"plain"])
    (item,) = opened(thrift, "q", 1)
    assert thrift.reject("q", {item.id}) == 1
    thrift.pause("q", IDL.Pause.GETS)
    server.kill()
    server.start()
    thrift = server.thrift_client()
    found = figures(thrift, "q")
    assert (found["delayed"], found["buried"], found["paused"]) == (1, 1, IDL.Pause.GETS)
    assert thrift.put_unique("q", b"k", b"once more") == IDL.PutResult.KEY_TAKEN


def test_a_write_that_fails_leaves_all_of_it_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARNER_TICK_S", "0.1")
    server = start(tmp_path, fails=True)
    try:
        thrift = server.thrift_client()
        thrift.put("retried", [b"a", b"b", b"c"])
        items = opened(thrift, "retried")
        switch = tmp_path / "data.fails"
        switch.write_text("write put reopen")
        for failing in (
            lambda: thrift.reject("retried", {items[0].id}),
            lambda: thrift.abort_later("retried", {items[1].id}, 1000),
            lambda: thrift.put_unique("retried", b"k", b"d"),
        ):
            assert why(failing).endswith("no space left on device")
        switch.unlink()
        wait_until(lambda: "the disk takes writes again" in server.printed())
        assert thrift.touch("retried", ids(items)) == 3
        assert figures(thrift, "retried") == {"reserved": 3}
        assert thrift.reject("retried", {items[0].id}) == 1
        assert thrift.abort_later("retried", {items[1].id}, 60_000) == 1
        assert thrift.confirm("retried", {items[2].id}) == 1
        server.kill()
        server.start()
        thrift = server.thrift_client()
        assert data(thrift.get("dead", 5)) == [b"a"]
        assert figures(thrift, "retried") == {"delayed": 1, "set_aside": 1}
    finally:
        server.end()


def test_many_that_are_rejected_in_several_turns_of_which_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARNER_TICK_S", "0.1")
    server = start(tmp_path, fails=True)
    try:
        thrift = server.thrift_client()
        bodies = [b"%d" % number for number in range(350)]
        thrift.put("q", bodies)
        items = opened(thrift, "q", 350)
        (tmp_path / "data.fails").write_text("2 write put")
        assert why(thrift.reject, "q", ids(items)) in (
            "only some of the items are decided on: a part could not be written",
            "cannot write: no space left on device",
            "no space left on device",
        )
        (tmp_path / "data.fails").unlink(missing_ok=True)
        wait_until(lambda: thrift.reject("q", ids(items)) is not None)
        assert figures(thrift, "q") == {"buried": 350, "set_aside": 350}
        assert thrift.kick("q", 1000) == 350
        assert sorted(data(thrift.get("q", 1000))) == sorted(bodies)
    finally:
        server.end()


def test_many_jobs_are_counted_up_to_the_turn_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARNER_TICK_S", "0.1")
    server = start(tmp_path, fails=True)
    try:
        thrift = server.thrift_client()
        items = [b"%d" % number for number in range(2 * JOBS_A_TURN + 10)]
        (tmp_path / "data.fails").write_text("2 write")
        assert thrift.put_jobs("q", items, 0, 60_000) == JOBS_A_TURN
        server.kill()
        server.start()
        thrift = server.thrift_client()
        assert figures(thrift, "q") == {"delayed": JOBS_A_TURN, "set_aside": JOBS_A_TURN}
        assert thrift.kick("q", 1000) == JOBS_A_TURN
        assert data(thrift.get("q", 1000)) == items[:JOBS_A_TURN]
    finally:
        server.end()
