"""Jobs, as clients see them, beyond the recorded conversations of tests/wire: which failures count and which do not."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from darner_core.config.queues import QueueOptions
from darner_core.engines.jobs import Outcome
from darner_core.errors import StorageError
from darner_core.operations.availability import Availability
from darner_core.operations.jobs import Comebacks, JobOperations
from darner_core.operations.session import ManyReads
from darner_core.storage.storage import Storage
from tests.support.harness import Client, RunningServer, wait_until
from tests.support.job_bench import JobBench
from tests.support.operations_on import operations_on

RETRIES = """
dialect = "kestrel"
max_leases = 3

[queues.q]
max_deliveries = 2
dead_letter_queue = "dead"

[queues.short]
open_transaction_timeout_s = 1

[queues.safe]
sync = "always"
"""


@pytest.fixture
def server(start_server: Callable[..., RunningServer], tmp_path: Path) -> RunningServer:
    file = tmp_path / "darner.toml"
    file.write_text(RETRIES)
    return start_server("-c", str(file))


def figures(client: Client, queue: str = "q") -> dict[str, str]:
    start = f"queue_{queue}_"
    return {name.removeprefix(start): value for name, value in client.stats().items() if name.startswith(start)}


def test_aborts_time_outs_and_lost_connections_count_until_the_item_is_a_dead_letter(server: RunningServer) -> None:
    ends: list[Callable[[Client], object]] = [
        lambda worker: worker.get("q/abort"),
        lambda worker: worker.get("none/t=200"),
        Client.close,
        Client.reset,
        lambda worker: worker.send(b"bogus\r\n"),
        lambda worker: worker.send(b"quit\r\n"),
    ]
    watching = server.client()
    for number, end in enumerate(ends, 1):
        watching.set("q", b"a")
        for _ in range(2):
            worker = server.client()
            assert worker.get("q/open/ttr=100/t=5000" if number == 2 else "q/open/t=5000") == b"a"
            end(worker)
        wait_until(lambda number=number: figures(watching)["dead_lettered"] == str(number))  # type: ignore[misc]
        assert watching.get("dead") == b"a"
        assert watching.get("q") is None


def test_the_end_of_the_server_is_no_failure_of_a_worker(server: RunningServer) -> None:
    worker = server.client()
    worker.set("q", b"a")
    for _ in range(4):
        assert worker.get("q/open") == b"a"
        server.stop()
        server.start()
        worker = server.client()
    assert worker.get("q/abort") is None
    assert worker.get("q/open") == b"a"
    worker.get("q/abort")
    assert worker.get("q/open") == b"a"
    worker.get("q/abort")
    assert worker.get("dead") == b"a"


def test_a_client_that_takes_and_never_acknowledges_costs_bounded_memory(server: RunningServer) -> None:
    client, other = server.client(), server.client()
    for body in (b"a", b"b", b"c", b"d"):
        client.set("q", body)
    client.ask(
        b"get q/open/n=9/ttr=60000\r\n",
        b"VALUE q 0 1\r\na\r\nVALUE q 0 1\r\nb\r\nVALUE q 0 1\r\nc\r\nEND\r\n",
    )
    other.send(b"get q/open/ttr=1\r\nget q/open/ttr=1/t=5000\r\n")
    for _ in range(2):
        assert other.line().startswith(b"SERVER_ERROR too many items with a deadline are open: max_leases allows")
    assert other.get("q") == b"d"
    client.ask(b"get q/close\r\n", b"END\r\n")
    client.set("q", b"e")
    assert other.get("q/open/ttr=60000") == b"e"


def test_an_item_that_lies_aside_goes_to_others_too_when_its_queue_says_so(server: RunningServer) -> None:
    client, other = server.client(), server.client()
    client.ask(b"set short/pri=5 0 0 1\r\na\r\n", b"STORED\r\n")
    client.set("short", b"b")
    assert client.get("short/open") == b"a"
    assert other.get("short") == b"b"
    assert other.get("short/t=9000") == b"a"
    assert client.get("short/close") is None


def test_a_kick_takes_buried_items_alone_even_if_it_asks_for_more(server: RunningServer) -> None:
    client = server.client()
    for number in range(450):
        client.set("many", b"%d" % number)
        client.get("many/open")
        client.get("many/reject")
    client.ask(b"set many/delay=60000 0 0 1\r\nx\r\n", b"STORED\r\n")
    assert (figures(client, "many")["buried"], figures(client, "many")["delayed"]) == ("450", "1")
    client.ask(b"kick many 3\r\nkick many 1000\r\nkick many 1000\r\n", b"KICKED 3\r\nKICKED 447\r\nKICKED 1\r\n")
    assert client.get("many") == b"0"


def test_a_queue_that_does_not_exist_cannot_be_paused(server: RunningServer) -> None:
    client = server.client()
    client.ask(b"pause nobody out\r\nkick nobody 5\r\n", b"SERVER_ERROR queue nobody does not exist\r\nKICKED 0\r\n")


def test_a_queue_without_jobs_has_no_figures_of_them(server: RunningServer) -> None:
    client = server.client()
    client.set("plain", b"a")
    assert "delayed" not in figures(client, "plain")


def test_what_was_said_of_a_job_survives_kill_9(server: RunningServer) -> None:
    client = server.client()
    client.ask(b"set q/pri=5/key=k 0 0 1\r\nb\r\nset safe/delay=1 0 0 1\r\nx\r\n", b"STORED\r\nSTORED\r\n")
    client.set("q", b"c")
    client.ask(b"pause q out\r\n", b"PAUSED out\r\n")
    server.stop(signal.SIGKILL)
    server.start()
    client = server.client()
    assert client.get("q") is None
    client.ask(b"add q/key=k 0 0 1\r\nd\r\npause q none\r\n", b"NOT_STORED\r\nPAUSED none\r\n")
    assert [client.get("q"), client.get("q"), client.get("safe/t=5000")] == [b"b", b"c", b"x"]


def test_a_batch_that_waits_holds_no_more_than_max_leases_allow_by_then(server: RunningServer) -> None:
    waiting, other, putting = server.client(), server.client(), server.client()
    waiting.send(b"get q/open/n=9/ttr=60000/t=5000\r\n")
    wait_until(lambda: figures(putting)["waiters"] == "1")
    for body in (b"x", b"y"):
        putting.set("other", body)
        assert other.get("other/open/ttr=60000") == body
    putting.ask(b"set q 0 0 1\r\na\r\nset q 0 0 1\r\nb\r\n", b"STORED\r\nSTORED\r\n")
    waiting.expect(b"VALUE q 0 1\r\na\r\nEND\r\n")
    assert putting.get("q") == b"b"
    waiting.ask(b"get q/close/n=1\r\n", b"END\r\n")
    assert figures(putting)["open_transactions"] == "0"


def test_what_is_not_given_back_stays_open_and_keeps_its_deadline(
    open_storage: Callable[[], Storage], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = JobBench(open_storage, q=QueueOptions(retry_delay_s=1))
    operations = operations_on(bench)
    session = ManyReads(bench.journal, operations.comebacks)
    assert bench.put_job(b"q", b"a", pri=5) is Outcome.STORED
    bench.end_turn()
    operations.jobs.hold(session, 10_000, bench.opened())
    bench.end_turn()

    def fail(*_: object) -> None:
        raise StorageError("no space left on device")

    with monkeypatch.context() as spoiled:
        spoiled.setattr(bench.jobs, "fail", fail)
        spoiled.setattr(bench.jobs, "reject", fail)
        read = session.find(b"q")
        assert read is not None
        with pytest.raises(StorageError):
            operations.jobs.reject(session, read)
        with pytest.raises(StorageError):
            operations.jobs.abort(session, read, 5, None)
        bench.end_turn()
    assert session.find(b"q") is read
    assert operations.jobs.touch(session, b"q", 0, 10)
    bench.pass_time(11)
    assert not operations.jobs.touch(session, b"q", 0, 10)
    assert bench.figures()["delayed"] == 1


def test_a_client_that_goes_in_a_turn_that_fails_leaves_no_lease(open_storage: Callable[[], Storage]) -> None:
    bench = JobBench(open_storage, q=QueueOptions(max_deliveries=3, max_leases=2))
    comebacks = Comebacks(bench.engine, Availability())
    session = ManyReads(bench.journal, comebacks)
    bench.put(b"q", b"1")
    bench.put(b"q", b"2")
    bench.end_turn()
    for _ in range(2):
        JobOperations(bench.engine, comebacks).hold(session, 10**9, bench.opened())
    bench.end_turn()
    assert bench.engine.leases.room(b"q") == 0
    session.end()
    bench.fail_turn()
    assert bench.engine.leases.room(b"q") == 2


def test_an_id_means_the_read_that_counts_if_the_client_got_the_item_again(server: RunningServer) -> None:
    client = server.client()
    client.set("twice", b"a")
    client.ask(b"gets twice/open/ttr=50\r\n", b"VALUE twice 0 1 1\r\na\r\nEND\r\n")
    client.ask(b"gets twice/open/ttr=60000/t=5000\r\n", b"VALUE twice 0 1 1\r\na\r\nEND\r\n")
    client.ask(b"touch twice/id=1 60\r\nget twice/close/id=1\r\n", b"TOUCHED\r\nEND\r\n")
    assert figures(client, "twice")["open_transactions"] == "0"
    client.ask(b"touch twice 60\r\nget twice/close/id=1\r\n", b"NOT_FOUND\r\nEND\r\n")
    client.ask(b"get twice/close/id=1\r\n", b"ERROR no item with this id is open on this connection\r\n")
