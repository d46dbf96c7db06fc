"""What the engine promises of jobs, promise by promise, on disk and in memory."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from darner_core.config.queues import QueueOptions
from darner_core.engines.jobs import Failure, JobOptions, Outcome, Pause
from darner_core.engines.local import aside_flushing
from darner_core.engines.local import sweeper as sweeper_module
from darner_core.engines.local.message_queue import MessageQueue
from darner_core.errors import ServerError, StorageError
from darner_core.storage.job_records import number_key
from darner_core.storage.rocks import STATE_FAMILY
from darner_core.storage.storage import Storage
from tests.support.job_bench import JobBench

OpenStorage = Callable[[], Storage]
Start = Callable[..., JobBench]


@pytest.fixture(params=["on disk", "in memory"])
def start(request: pytest.FixtureRequest, open_storage: OpenStorage) -> Start:
    """An engine whose queue q has these options; the others have theirs."""
    durable = request.param == "on disk"

    def build(others: dict[str, QueueOptions] | None = None, **options: Any) -> JobBench:
        named = {"q": QueueOptions(durable=durable, **options)}
        named |= {name: replace(their, durable=durable) for name, their in (others or {}).items()}
        bench = JobBench(open_storage, **named)
        bench.durable = durable  # type: ignore[attr-defined]
        return bench

    return build


def restarted(bench: JobBench) -> JobBench:
    """After a crash, where there is something on disk."""
    bench.end_turn()
    if bench.durable:  # type: ignore[attr-defined]
        bench.crash()
    return bench


# -- putting


def test_what_is_put_first_goes_before_all_others_as_often_as_one_likes(start: Start) -> None:
    bench = start()
    bench.put_job(b"q", b"urgent", pri=1)
    bench.put(b"q", b"a", b"b")
    pushed = [b"%d" % number for number in range(3000)]
    for body in pushed:
        bench.put_job(b"q", body, first=True)
        if len(body) == 3:
            bench.end_turn()
    bench = restarted(bench)
    if bench.durable:  # type: ignore[attr-defined]
        assert bench.drain() == [*reversed(pushed), b"urgent", b"a", b"b"]


def test_it_goes_before_what_somebody_has_open_and_gives_back(start: Start) -> None:
    bench = start()
    bench.put(b"q", b"a", b"b")
    queue = bench.queue()
    read = queue.open()
    assert read is not None
    bench.put_job(b"q", b"c", first=True)
    queue.give_back(read)
    assert bench.drain() == [b"c", b"a", b"b"]


def test_it_is_not_taken_by_a_flush_that_still_goes_on(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside_flushing, "FLUSHED_AT_ONCE", 5)
    bench = start()
    for number in range(20):
        bench.put_job(b"q", b"%d" % number, pri=5)
    bench.end_turn()
    bench.queue().flush()
    bench.put(b"q", b"a")
    bench.put_job(b"q", b"b", first=True)
    bench.put_job(b"q", b"c", first=True)
    bench.end_turn()
    assert bench.drain() == [b"c", b"b", b"a"]


def test_nothing_goes_before_what_has_priority_0(start: Start) -> None:
    bench = start()
    bench.put_job(b"q", b"a", pri=0)
    with pytest.raises(ServerError, match="nothing can be put before the head of queue q"):
        bench.put_job(b"q", b"b", first=True)
    assert bench.drain() == [b"a"]


def test_neither_in_a_child_of_another_queue(start: Start) -> None:
    bench = start({"q+a": QueueOptions()})
    assert bench.registry.child(b"q+a") is not None
    bench.put_job(b"q", b"a", pri=0)
    with pytest.raises(ServerError, match="nothing can be put before the head"):
        bench.put_job(b"q", b"b", first=True)
    assert bench.drain(b"q+a") == bench.drain() == [b"a"]


def test_a_more_urgent_item_goes_first_and_equals_go_in_the_order_of_arrival(start: Start) -> None:
    bench = start()
    bench.put(b"q", b"1", b"2")
    bench.put_job(b"q", b"urgent", pri=5)
    bench.put(b"q", b"3")
    bench.put_job(b"q", b"late", pri=2000)
    bench.put_job(b"q", b"urgent too", pri=5)
    bench.put_job(b"q", b"4", key=b"k")
    bench.put(b"q", b"5")
    assert restarted(bench).drain() == [b"urgent", b"urgent too", b"1", b"2", b"3", b"4", b"5", b"late"]
    assert bench.queue().__class__ is MessageQueue


def test_a_put_without_options_has_the_neutral_priority_whatever_the_line_was_begun_with(start: Start) -> None:
    bench = start(trace=True)
    bench.put_job(b"q", b"for the night", pri=5000)
    bench.put(b"q", b"plain")
    bench.put_large(b"q", b"large" * 200)
    bench.put_job(b"q", b"somewhat lazy", pri=2000)
    bench.put(b"q", b"plain, too", expires_in_s=60)
    bench = restarted(bench)
    found = [bench.opened() for _ in range(5)]
    bodies = [b"large" if read.blob else bench.body(read) for read in found]
    assert bodies == [b"plain", b"large", b"plain, too", b"somewhat lazy", b"for the night"]
    for read in found:
        read.queue.close(read)
    bench.put(b"q", b"plain")  # the line is empty: it takes its own terms again
    bench.put_job(b"q", b"urgent", pri=7)
    bench.put_job(b"q", b"neutral", pri=1024)
    assert bench.figures()["set_aside"] == 1
    assert restarted(bench).drain() == [b"urgent", b"plain", b"neutral"]


def test_a_put_without_options_has_no_deadline_of_its_neighbour(start: Start) -> None:
    bench = start(default_ttr_s=60)
    bench.put_job(b"q", b"short", ttr_ms=300)
    bench.put(b"q", b"plain")
    reads = [bench.opened(), bench.opened()]
    assert [bench.jobs.ttr_ms(read) for read in reads] == [300, 60_000]


def test_a_delayed_item_comes_when_it_is_due_at_the_place_of_its_arrival(start: Start) -> None:
    bench = start()
    bench.put(b"q", b"1")
    bench.put_job(b"q", b"2", delay_ms=5000)
    bench.put(b"q", b"3")
    restarted(bench).pass_time(4)
    assert bench.take() == b"1"
    assert bench.figures()["delayed"] == 1
    bench.pass_time(2)
    assert bench.drain() == [b"2", b"3"]


def test_a_client_that_waits_is_served_when_an_item_is_due(start: Start) -> None:
    bench = start()
    bench.put_job(b"q", b"1", delay_ms=1000)
    waiter = bench.registry.join_line(b"q", b"", peeks=False)
    bench.pass_time(0.5)
    assert waiter.got is None
    bench.pass_time(1)
    assert bench.body(waiter.got) == b"1"
    waiter = bench.registry.join_line(b"q", b"", peeks=False)
    bench.put_job(b"q", b"2", key=b"k")
    assert bench.body(waiter.got) == b"2"


def test_puts_with_the_same_options_use_the_line(start: Start) -> None:
    bench = start()
    for number in range(5):
        bench.put_job(b"q", b"%d" % number, pri=7, ttr_ms=60_000)
    assert bench.figures()["set_aside"] == 0
    assert bench.jobs.ttr_ms(bench.opened()) == 60_000
    bench.put_job(b"q", b"first", pri=6)
    assert bench.figures()["set_aside"] == 1
    assert restarted(bench).drain()[0] == b"first"


def test_a_key_is_taken_as_long_as_its_item_exists(start: Start) -> None:
    bench = start()
    assert bench.put_job(b"q", b"1", key=b"k") is Outcome.STORED
    assert bench.put_job(b"q", b"2", key=b"k") is Outcome.KEY_TAKEN
    restarted(bench)
    read = bench.opened()
    assert bench.put_job(b"q", b"3", key=b"k") is Outcome.KEY_TAKEN
    read.queue.close(read)
    assert bench.put_job(b"q", b"4", key=b"k") is Outcome.STORED
    assert bench.drain() == [b"4"]


def test_a_key_stays_taken_for_unique_s(start: Start) -> None:
    bench = start(unique_s=10)
    bench.put_job(b"q", b"1", key=b"k")
    assert bench.drain() == [b"1"]
    restarted(bench).pass_time(9)
    assert bench.put_job(b"q", b"2", key=b"k") is Outcome.KEY_TAKEN
    bench.pass_time(2)
    assert bench.put_job(b"q", b"3", key=b"k") is Outcome.STORED


def test_children_get_copies_without_the_key(start: Start) -> None:
    bench = start()
    bench.registry.child(b"q+a")
    bench.put_job(b"q", b"1", key=b"k", delay_ms=1000)
    bench.put_job(b"q+a", b"2", key=b"k")
    bench.pass_time(2)
    assert (bench.drain(b"q"), bench.drain(b"q+a")) == ([b"1"], [b"1", b"2"])


def test_an_alias_looks_the_key_up_in_its_first_queue(start: Start) -> None:
    bench = start()
    bench.routing.set_aliases({b"both": (b"q", b"r")})
    assert bench.put_job(b"both", b"1", key=b"k") is Outcome.STORED
    assert bench.put_job(b"both", b"2", key=b"k") is Outcome.KEY_TAKEN
    assert (bench.drain(b"q"), bench.drain(b"r")) == ([b"1"], [b"1"])


def test_a_key_for_a_queue_that_keeps_nothing_is_refused(start: Start) -> None:
    bench = start({"p": QueueOptions(fanout_only=True)})
    bench.routing.set_aliases({b"both": (b"p", b"q")})
    bench.registry.child(b"p+a")
    for name in (b"p", b"both"):
        with pytest.raises(ServerError, match="queue p is fanout_only and has no items"):
            bench.put_job(name, b"1", key=b"k")
    with bench.routing.transfer((b"p",), 1000) as large, pytest.raises(ServerError, match="none can have a key"):
        bench.jobs.put_large(large, 0, 0, JobOptions(key=b"k"))
    assert bench.put_job(b"p", b"2", pri=5) is Outcome.STORED
    assert bench.jobs.put((b"p+a",), b"3", 0, 0, JobOptions(key=b"k"), as_child=True).outcome is Outcome.STORED
    assert bench.jobs.put((b"p+b",), b"4", 0, 0, JobOptions(key=b"k"), as_child=True).outcome is Outcome.STORED
    assert (bench.drain(b"p+a"), bench.drain(b"p+b"), bench.drain(b"q")) == ([b"2", b"3"], [b"4"], [])


def test_limits_count_what_lies_aside(start: Start) -> None:
    bench = start(max_items=3)
    assert bench.put_job(b"q", b"1", delay_ms=1000) is Outcome.STORED
    assert bench.put_job(b"q", b"2", key=b"k") is Outcome.STORED
    assert bench.put(b"q", b"3")
    assert not bench.put(b"q", b"4")
    assert bench.put_job(b"q", b"5", pri=1) is Outcome.FULL
    queue = bench.queue()
    assert (queue.waiting_items, queue.total_items, queue.all_bytes()) == (2, 3, 3)


def test_what_lies_aside_makes_no_room_for_others(start: Start) -> None:
    bench = start(max_bytes=4, discard_old_when_full=True)
    bench.put_job(b"q", b"11", delay_ms=1000)
    bench.put(b"q", b"22", b"33")
    assert bench.put_job(b"q", b"444", pri=1) is Outcome.FULL
    bench.pass_time(2)
    assert bench.drain() == [b"11", b"33"]


def test_what_expires_aside_is_not_handed_out(start: Start) -> None:
    bench = start({"dead": QueueOptions()}, expire_to_queue=b"dead")
    bench.put_job(b"q", b"1", pri=1, expires_in_s=5)
    bench.put_job(b"q", b"2", pri=2)
    bench.put_job(b"q", b"3", pri=3, expires_in_s=5)
    restarted(bench).pass_time(6)
    assert bench.take() == b"2"
    bench.sweep()
    assert (bench.drain(), bench.drain(b"dead")) == ([], [b"1", b"3"])


def test_a_maximum_age_holds_for_what_lies_aside(start: Start) -> None:
    bench = start(max_age_s=5)
    bench.put_job(b"q", b"1", pri=1)
    bench.pass_time(6)
    bench.put_job(b"q", b"2", pri=2)
    assert bench.drain() == [b"2"]


def test_a_put_whose_turn_fails_was_never_made(start: Start) -> None:
    bench = start()
    bench.put(b"q", b"1")
    bench.end_turn()
    bench.put_job(b"q", b"2", pri=1, key=b"k")
    bench.put_job(b"r", b"to be written")
    bench.fail_turn()
    bench.registry.recheck()
    assert bench.queue().__class__ is MessageQueue
    assert bench.put_job(b"q", b"3", key=b"k") is Outcome.STORED
    assert restarted(bench).drain() == [b"1", b"3"]


def test_large_items_may_be_jobs(start: Start) -> None:
    bench = start()
    bench.put(b"q", b"1")
    bench.end_turn()

    def put_large(body: bytes, **options: Any) -> Outcome:
        with bench.routing.transfer((b"q",), len(body)) as transfer:
            assert transfer.find_queues()
            transfer.wait_begin(lambda: None)
            rest = body
            while rest:
                piece, rest = rest[: transfer.room_bytes], rest[transfer.room_bytes :]
                transfer.wait_add(piece, lambda: None)
            transfer.wait_store(lambda: None)
            return bench.jobs.put_large(transfer, 0, 0, JobOptions(**options)).outcome

    assert put_large(b"x" * 1000, pri=5, key=b"k") is Outcome.STORED
    assert put_large(b"y" * 1000, pri=5, key=b"k") is Outcome.KEY_TAKEN
    assert put_large(b"z" * 1000, delay_ms=1000) is Outcome.STORED
    restarted(bench)
    bench.registry.flush(b"q")
    bench.do_slices()
    assert bench.drain() == []
    assert put_large(b"v" * 1000, pri=5) is Outcome.STORED
    bench.fail()
    bench.put(b"q", b"2")
    assert restarted(bench).drain() == [b"v" * 1000, b"2"]


# -- failures


def test_without_options_an_item_that_failed_is_at_the_head_at_once(start: Start) -> None:
    bench = start()
    bench.put(b"q", b"1", b"2")
    assert bench.fail() == b"1"
    assert bench.queue().__class__ is MessageQueue
    assert bench.drain() == [b"1", b"2"]


def test_the_last_failure_sends_an_item_to_the_dead_letters_in_its_turn(start: Start) -> None:
    bench = start({"dead": QueueOptions()}, max_deliveries=3, dead_letter_queue=b"dead")
    bench.put(b"q", b"1", b"2")
    assert bench.fail() == bench.fail(why=Failure.TIMED_OUT) == b"1"
    restarted(bench)
    assert bench.fail(why=Failure.LOST, client=b"10.0.0.1:5") == b"1"
    restarted(bench)
    assert bench.take() == b"2"
    read = bench.opened(b"dead")
    assert bench.body(read) == b"1"
    note = read.queue.job_of(read).note
    assert note.startswith(b"from=q id=1 failures=3 last=loss client=10.0.0.1:5 put=1000000")


def test_in_a_failed_turn_it_is_in_neither_the_dead_letters_nor_open(start: Start) -> None:
    bench = start({"dead": QueueOptions()}, max_deliveries=1, dead_letter_queue=b"dead")
    bench.put(b"q", b"1", b"2")
    bench.end_turn()
    read = bench.opened()
    bench.jobs.fail(read, Failure.ABORTED)
    bench.put_job(b"r", b"to be written")
    bench.fail_turn()
    bench.registry.recheck()
    assert (bench.take(b"dead"), bench.take(), bench.take()) == (None, b"1", b"2")


@pytest.mark.parametrize("in_the_line", [True, False])
def test_a_session_may_hold_it_again_after_a_failed_turn(start: Start, in_the_line: bool) -> None:
    bench = start({"dead": QueueOptions()}, max_deliveries=1, dead_letter_queue=b"dead")
    bench.put_job(b"q", b"1", key=b"" if in_the_line else b"k")
    bench.end_turn()
    read = bench.opened()
    read.count()
    bench.end_turn()
    bench.journal.undo.append((read.queue.take_back, read))
    bench.jobs.fail(read, Failure.ABORTED)
    bench.put_job(b"r", b"to be written")
    bench.fail_turn()
    bench.registry.recheck()
    assert read.queue.holds(read)
    assert (bench.take(), bench.take(b"dead")) == (None, None)
    assert (bench.queue().transactions, bench.queue().canceled_transactions) == (1, 0)
    read.queue.close(read)
    assert restarted(bench).drain() == []


def test_without_a_dead_letter_queue_it_is_buried_until_somebody_kicks_it(start: Start) -> None:
    bench = start(max_deliveries=1)
    bench.put(b"q", b"1", b"2", b"3")
    assert [bench.fail(), bench.fail()] == [b"1", b"2"]
    assert restarted(bench).figures()["buried"] == 2
    assert bench.take() == b"3"
    assert bench.take() is None
    assert bench.jobs.kick(b"q", 1) == 1
    assert bench.drain() == [b"1"]
    assert bench.jobs.kick(b"q", 9) == 1
    assert bench.jobs.kick(b"q", 9) == bench.jobs.kick(b"nobody", 9) == 0


def test_a_dead_letter_queue_without_room_leaves_it_buried(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    bench = start({"dead": QueueOptions(max_items=1)}, max_deliveries=1, dead_letter_queue=b"dead")
    bench.put(b"q", b"1", b"2")
    bench.fail()
    bench.fail()
    assert (bench.figures()["buried"], bench.drain(b"dead")) == (1, [b"1"])
    assert "a dead letter of queue q is buried: queue dead did not take it: it has no room" in caplog.text


def test_a_retry_delay_grows_and_ends(start: Start) -> None:
    bench = start(retry_delay_s=10, retry_backoff=3, max_retry_delay_s=50)
    bench.put(b"q", b"1")
    for seconds in (10, 30, 50, 50):
        assert bench.fail() == b"1"
        restarted(bench).pass_time(seconds - 1)
        assert bench.take() is None
        bench.pass_time(1.5)


def test_whoever_fails_may_say_when_and_how_urgently_it_comes_again(start: Start) -> None:
    bench = start()
    bench.put(b"q", b"1", b"2", b"3")
    assert bench.fail(delay_ms=5000) == b"1"
    assert bench.fail(pri=3000) == b"2"
    restarted(bench)
    assert bench.take() == b"3"
    assert bench.take() == b"2"
    bench.pass_time(6)
    assert bench.drain() == [b"1"]


def test_the_failure_that_buries_an_item_may_say_how_urgent_it_is(start: Start) -> None:
    bench = start(max_deliveries=1)
    bench.put(b"q", b"1", b"2")
    assert bench.fail(pri=2000) == b"1"
    assert restarted(bench).jobs.kick(b"q", 1) == 1
    assert bench.drain() == [b"2", b"1"]


def test_a_rejected_item_is_a_dead_letter_at_once(start: Start) -> None:
    bench = start({"dead": QueueOptions()}, dead_letter_queue=b"dead")
    bench.put(b"q", b"1")
    read = bench.opened()
    bench.jobs.reject(read, b"me")
    bench.jobs.reject(read)
    bench.jobs.fail(read, Failure.LOST)
    assert bench.drain(b"dead") == [b"1"]
    bench.put(b"r", b"2")
    bench.jobs.reject(bench.opened(b"r"))
    assert bench.figures(b"r")["buried"] == 1


def test_a_large_dead_letter_is_open_while_it_moves(start: Start) -> None:
    bench = start({"dead": QueueOptions()}, max_deliveries=1, dead_letter_queue=b"dead")
    bench.put_large(b"q", b"x" * 900)
    bench.fail()
    assert (bench.take(), bench.figures()["reserved"]) == (None, 1)
    bench.sweep()
    assert bench.figures()["dead_lettered"] == 1
    read = bench.opened(b"dead")
    assert read.queue.job_of(read).note.startswith(b"from=q id=1 failures=1 last=nack")
    read.queue.give_back(read)
    assert (restarted(bench).drain(b"dead"), bench.drain()) == ([b"x" * 900], [])


def test_a_large_dead_letter_is_not_handed_out_again_when_a_crash_has_met_it_on_its_way(
    open_storage: OpenStorage,
) -> None:
    bench = JobBench(open_storage, q=QueueOptions(max_deliveries=1, dead_letter_queue=b"dead"))
    bench.put_large(b"q", b"x" * 900, expires_in_s=20)
    read = bench.opened()
    bench.jobs.fail(read, Failure.ABORTED)
    bench.put(b"q", b"next")
    bench.end_turn()
    bench.crash()
    aside = bench.registry.asides.by_queue[bench.queue()]
    assert aside.open_id(read.id) is None
    bench.pass_time(30)
    bench.sweep()
    assert bench.take() == b"next"
    bench.fail_turn()
    assert bench.take() == b"next"
    bench.sweep()
    assert bench.drain() == []
    bench.crash()
    assert bench.drain(b"dead") == [b"x" * 900]


def test_a_turn_in_which_a_large_item_dies_can_be_undone(open_storage: OpenStorage) -> None:
    bench = JobBench(open_storage, q=QueueOptions(max_deliveries=1, dead_letter_queue=b"dead"))
    bench.put_large(b"q", b"x" * 900)
    read = bench.opened()
    bench.end_turn()
    bench.jobs.fail(read, Failure.ABORTED)
    bench.fail_turn()
    bench.sweep()
    assert (bench.drain(b"dead"), bench.drain()) == ([], [b"x" * 900])


def test_a_large_dead_letter_without_room_is_buried(start: Start) -> None:
    bench = start({"dead": QueueOptions(max_items=1)}, max_deliveries=1, dead_letter_queue=b"dead")
    bench.put(b"dead", b"full")
    bench.put_large(b"q", b"x" * 900)
    bench.fail()
    bench.sweep()
    assert bench.figures()["buried"] == 1
    assert bench.jobs.kick(b"q", 1) == 1
    assert bench.drain() == [b"x" * 900]


def test_a_large_item_that_expires_aside_is_moved(start: Start) -> None:
    bench = start({"late": QueueOptions()}, expire_to_queue=b"late")
    bench.put_large(b"q", b"x" * 900, expires_in_s=5)
    bench.fail(pri=1)
    bench.pass_time(6)
    bench.sweep()
    bench.sweep()
    assert (bench.drain(), bench.drain(b"late"), bench.queue().expired_items) == ([], [b"x" * 900], 1)


def test_what_was_open_at_a_crash_has_not_failed(start: Start) -> None:
    bench = start(max_deliveries=1)
    bench.put_job(b"q", b"1", key=b"k")
    bench.opened()
    if bench.durable:  # type: ignore[attr-defined]
        assert restarted(bench).drain() == [b"1"]


def test_a_deadline_is_that_of_the_item_or_else_the_queues(start: Start) -> None:
    bench = start(default_ttr_s=30, max_hold_s=100)
    bench.put_job(b"q", b"1", key=b"a", ttr_ms=5000)
    bench.put(b"q", b"2")
    read = bench.opened()
    assert (bench.jobs.ttr_ms(read), bench.jobs.most_hold_ms(read)) == (5000, 100_000)
    assert bench.jobs.ttr_ms(bench.opened()) == 30_000


# -- pause


def test_a_queue_that_takes_nothing_refuses_puts(start: Start) -> None:
    bench = start()
    bench.put(b"q", b"1")
    bench.jobs.pause(b"q", Pause.IN)
    restarted(bench)
    assert bench.jobs.paused(b"q") is Pause.IN
    assert (bench.put_job(b"q", b"2", key=b"k"), bench.put(b"q", b"2")) == (Outcome.FULL, False)
    assert bench.queue().governed
    assert bench.drain() == [b"1"]
    bench.jobs.pause(b"q", Pause.NONE)
    bench.end_turn()
    assert not bench.queue().governed
    assert bench.queue().__class__ is MessageQueue


def test_a_queue_that_hands_nothing_out_goes_on_when_its_time_is_over(start: Start) -> None:
    bench = start()
    bench.put(b"q", b"1", b"2")
    bench.jobs.pause(b"q", Pause.OUT, 10)
    restarted(bench)
    waiter = bench.registry.join_line(b"q", b"", peeks=False)
    bench.put(b"q", b"3")
    assert (bench.take(), bench.queue().open(), bench.queue().peek(), waiter.got) == (None, None, None, None)
    bench.pass_time(11)
    assert bench.body(waiter.got) == b"1"
    assert bench.jobs.paused(b"q") is Pause.NONE
    assert bench.queue().__class__ is MessageQueue
    assert bench.drain() == [b"2", b"3"]


def test_a_pause_that_is_ended_serves_who_waits(start: Start) -> None:
    bench = start()
    bench.put(b"q", b"1")
    bench.jobs.pause(b"q", Pause.ALL)
    waiter = bench.registry.join_line(b"q", b"", peeks=False)
    bench.jobs.pause(b"q", Pause.IN)
    assert bench.body(waiter.got) == b"1"


def test_only_a_queue_that_exists_can_be_paused(start: Start) -> None:
    bench = start()
    with pytest.raises(ServerError, match="queue nobody does not exist"):
        bench.jobs.pause(b"nobody", Pause.IN)


# -- flush, delete, figures


def test_a_flush_leaves_what_is_open_or_buried(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside_flushing, "FLUSHED_AT_ONCE", 2)
    bench = start(max_deliveries=1)
    for number in range(3):
        bench.put(b"q", b"line %d" % number)
        bench.put_job(b"q", b"aside %d" % number, key=b"%d" % number)
        bench.put_job(b"q", b"later %d" % number, delay_ms=1000)
    assert bench.fail() == b"line 0"
    reads = [bench.opened(), bench.opened()]
    bench.registry.flush(b"q")
    assert bench.take() is None
    for read in reads:
        read.queue.give_back(read)
    bench.do_slices()
    bench.pass_time(2)
    assert bench.figures()["buried"] == 1
    assert restarted(bench).drain() == [b"aside 0", b"line 1"]


def test_a_deleted_queue_takes_what_lies_aside_along(start: Start) -> None:
    bench = start()
    bench.put_job(b"q", b"1", key=b"k", delay_ms=9)
    bench.jobs.pause(b"q", Pause.OUT)
    bench.end_turn()
    bench.registry.delete(b"q")
    bench.put(b"q", b"2")
    restarted(bench).pass_time(1)
    assert bench.put_job(b"q", b"3", key=b"k") is Outcome.STORED
    assert bench.drain() == [b"2", b"3"]


def test_a_queue_that_is_gone_is_not_looked_at_any_more(start: Start) -> None:
    bench = start(max_age_s=1000)
    bench.put_job(b"q", b"refused", delay_ms=60_000)
    bench.put(b"on disk", b"refused")
    bench.fail_turn()
    bench.put_job(b"q", b"1", delay_ms=60_000)
    bench.registry.delete(b"q")
    bench.end_turn()
    assert not bench.registry.timed


def test_a_queue_with_something_aside_is_not_idle(start: Start) -> None:
    bench = start(max_queue_age_s=5)
    bench.put_job(b"q", b"1", delay_ms=60_000)
    for _ in range(3):
        bench.pass_time(10)
        bench.sweeper.wait_expire_queues()
    assert bench.figures()["delayed"] == 1


def test_a_queue_that_uses_none_of_it_has_no_figures(start: Start) -> None:
    bench = start()
    bench.put(b"q", b"1")
    assert (bench.figures(), bench.figures(b"nobody")) == ({}, {})
    bench.put_job(b"q", b"2", pri=1)
    assert bench.figures() == {
        "ready": 2, "urgent": 1, "delayed": 0, "buried": 0, "reserved": 0, "failures": 0, "dead_lettered": 0,
        "set_aside": 1, "paused": 0,
    }  # fmt: skip


def test_a_watched_queue_tells_of_jobs(start: Start) -> None:
    bench = start(trace=True)
    told: list[tuple[bytes, int]] = []

    class Observer:
        def tell(self, event: Any) -> None:
            told.append((event.what, event.id > 2**50))

    bench.put(b"q", b"1")
    bench.end_turn()
    bench.registry.traces.watch(b"q", Observer())
    bench.put_job(b"q", b"2", pri=1)
    read = bench.opened()
    read.queue.close(read)
    bench.fail(pri=1)
    assert bench.take() == b"1"
    bench.end_turn()
    assert told == [
        (b"put", True), (b"open", True), (b"close", True), (b"open", False), (b"abort", False), (b"get", False),
    ]  # fmt: skip


def test_options_that_change_hold_for_what_is_there(start: Start) -> None:
    bench = start()
    bench.put(b"q", b"1")
    assert bench.fail() == b"1"
    bench.rules.options[b"q"] = replace(bench.queue().options, max_deliveries=1)
    for _ in bench.registry.set_rules(bench.rules):
        pass
    assert bench.fail() == b"1"
    assert bench.figures()["buried"] == 1


def test_a_damaged_queue_is_told_of(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = start()
    bench.put_job(b"q", b"1", key=b"k")
    bench.end_turn()
    aside = bench.registry.asides.by_queue[bench.queue()]

    def broken(*_: Any) -> Any:
        raise StorageError("checksum mismatch")

    monkeypatch.setattr(type(aside.log), "item", broken)
    with pytest.raises(StorageError, match="queue q cannot be read: checksum mismatch"):
        bench.take()


def spoil_aside(bench: JobBench, name: bytes) -> None:
    number = bench.registry.asides.by_queue[bench.queue(name)].record.number
    assert bench.storage is not None
    bench.storage.put(STATE_FAMILY, number_key(number), b"spoiled")
    bench.crash()


def test_what_cannot_be_set_aside_is_refused_before_anything_is_put(open_storage: OpenStorage) -> None:
    bench = JobBench(open_storage)
    bench.registry.child(b"q+a")
    bench.put(b"q", b"line")
    bench.put_job(b"q", b"x", pri=5)
    bench.end_turn()
    spoil_aside(bench, b"q")
    assert [queue.name for queue in bench.registry.damaged] == [b"q"]
    assert "queue q cannot be read: aside number" in bench.queue().damage
    with pytest.raises(StorageError, match="aside number"):
        bench.put_job(b"q", b"refused", pri=7)
    bench.put(b"q", b"plain")
    bench.end_turn()
    assert (bench.drain(b"q+a"), bench.drain()) == ([b"x", b"line", b"plain"], [b"line", b"plain"])
    assert bench.queue().damage
    bench.registry.delete(b"q")
    bench.end_turn()
    bench.crash()
    bench.put_job(b"q", b"new", pri=7)
    assert (bench.queue().damage, bench.drain()) == ("", [b"new"])


def test_a_dead_letter_goes_into_the_line_where_nothing_can_be_set_aside(open_storage: OpenStorage) -> None:
    bench = JobBench(open_storage, q=QueueOptions(max_deliveries=1, dead_letter_queue=b"dead"))
    bench.registry.child(b"dead+a")
    bench.put_job(b"dead", b"x", key=b"k")
    bench.end_turn()
    spoil_aside(bench, b"dead")
    bench.put(b"q", b"1")
    bench.fail()
    assert [bench.drain(name) for name in (b"q", b"dead", b"dead+a")] == [[], [b"1"], [b"x", b"1"]]


def test_what_expires_while_it_is_open_stops_no_sweep_and_goes_when_it_comes_back(
    open_storage: OpenStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper_module, "MOST_KEPT", 2)
    bench = JobBench(open_storage)
    bench.put(b"q", b"line")
    for _ in range(4):
        bench.put_job(b"q", b"x", expires_in_s=5, pri=5)
    bench.put(b"other", b"first")
    bench.put(b"other", b"expires", expires_in_s=8)
    reads = [bench.opened() for _ in range(4)]
    bench.pass_time(10)
    bench.sweep()
    assert bench.queue(b"other").waiting_items == 1
    bench.put_job(b"q", b"urgent", pri=0)
    for read in reads[:2]:
        read.queue.give_back(read)
    bench.end_turn()
    bench.crash()  # which gives the others back
    assert bench.figures()["set_aside"] == 5
    bench.pass_time(70)
    bench.sweep()
    assert bench.figures()["set_aside"] == 1


def test_a_queue_is_not_idle_while_it_is_paused_or_keeps_a_key(start: Start) -> None:
    bench = start({"paused": QueueOptions(max_queue_age_s=10)}, max_queue_age_s=10, unique_s=60)
    bench.put_job(b"q", b"1", key=b"k")
    bench.put(b"paused", b"1")
    assert bench.drain(b"paused") == bench.drain() == [b"1"]
    bench.jobs.pause(b"paused", Pause.IN, 100)
    for seconds, names in ((30, [b"paused", b"q"]), (60, [b"paused"]), (60, [])):
        for _ in range(5):
            bench.sweeper.wait_expire_queues()
            bench.pass_time(seconds / 5)
        assert sorted(bench.registry.queues) == names


def test_a_dead_letter_tells_its_history(start: Start) -> None:
    bench = start({"dead": QueueOptions()}, max_deliveries=1, dead_letter_queue=b"dead")
    bench.put(b"q", b"1")
    bench.fail(client=b"me")
    read, other = bench.opened(b"dead"), bench.engine.leases.bind
    history = b"from=q id=1 failures=1 last=nack client=me put=1000000"
    assert [bench.jobs.history(one) for one in (read, other(read, 1000))] == [history, history]
    read.queue.close(read)
    assert bench.jobs.history(read) == b""
    bench.put(b"q", b"2")
    assert bench.jobs.history(bench.opened()) == b""


@pytest.mark.parametrize("in_the_line", [True, False])
def test_an_item_that_is_open_for_too_long_has_failed(start: Start, in_the_line: bool) -> None:
    bench = start(max_deliveries=2, open_transaction_timeout_s=10)
    bench.put_job(b"q", b"1", key=b"" if in_the_line else b"k")
    for _ in range(2):
        bench.opened()
        for _ in range(2):
            for _ in bench.engine.leases.look():
                pass
            bench.pass_time(11)
    assert (bench.figures()["buried"], bench.figures()["failures"]) == (1, 2)


def test_a_lease_that_ends_or_is_aborted_has_failed(start: Start) -> None:
    bench = start(max_deliveries=2)
    bench.put_job(b"q", b"1")
    leases = bench.engine.leases
    leases.hold(1, bench.opened(), "me", 5000)
    bench.pass_time(6)
    leases.hold(2, bench.opened(), "me", 5000)
    assert leases.abort(b"q", [2]) == 1
    assert bench.figures()["buried"] == 1


# -- where a put has gone, urgent ones, how long a pause lasts


def test_a_put_tells_which_id_the_item_has(start: Start) -> None:
    bench = start()
    items = bench.engine.items
    for body, options in ((b"line", {}), (b"aside", {"pri": 5}), (b"keyed", {"key": b"k"}), (b"late", {"delay_ms": 9})):
        outcome, queue, item_id = bench.placed(b"q", body, **options)
        assert (outcome, queue) == (Outcome.STORED, b"q")
        assert items.item(b"q", item_id)[0] == body  # type: ignore[index]
    first = bench.placed(b"q", b"new", key=b"new").id
    assert bench.placed(b"q", b"again", key=b"new") == (Outcome.KEY_TAKEN, b"q", first)
    bench.jobs.pause(b"q", Pause.IN)
    assert bench.placed(b"q", b"6") == (Outcome.FULL, b"q", 0)


def test_a_key_that_nobody_has_any_more_is_of_no_item(start: Start) -> None:
    bench = start(unique_s=5)
    bench.put_job(b"q", b"1", key=b"k")
    assert bench.take() == b"1"
    assert bench.placed(b"q", b"2", key=b"k") == (Outcome.KEY_TAKEN, b"q", 0)


def test_a_put_by_an_alias_tells_of_its_first_queue(start: Start) -> None:
    bench = start()
    bench.routing.set_aliases({b"both": (b"q", b"r")})
    assert bench.placed(b"both", b"1", pri=5)[:2] == (Outcome.STORED, b"q")


def test_a_large_put_tells_which_id_the_item_has(start: Start) -> None:
    bench = start()
    for options in ({}, {"pri": 5}):
        with bench.routing.transfer((b"q",), 1000) as transfer:
            transfer.find_queues()
            transfer.wait_begin(bench.end_turn)
            transfer.wait_add(b"x" * transfer.room_bytes, bench.end_turn)
            while transfer.room_bytes and transfer.uploads[0][1].received_bytes < 1000:
                left = 1000 - transfer.uploads[0][1].received_bytes
                transfer.wait_add(b"x" * min(left, transfer.room_bytes), bench.end_turn)
            transfer.wait_store(bench.end_turn)
            placed = bench.jobs.put_large(transfer, 0, 0, JobOptions(**options))  # type: ignore[arg-type]
        assert len(bench.engine.items.item(b"q", placed.id)[0]) == 1000  # type: ignore[index]


def test_urgent_ones_are_counted_exactly(start: Start) -> None:
    bench = start()
    for pri in (0, 1023, 1024, 5000):
        bench.put_job(b"q", b"x", pri=pri)
    bench.put_job(b"q", b"x", pri=3, delay_ms=5000)
    bench.end_turn()
    bench.jobs.kick(b"q", 9)
    bench.opened()
    bench.registry.create(b"durable")  # so that there is something to write, which cannot be
    bench.fail_turn()
    assert bench.figures()["urgent"] == 2
    assert restarted(bench).figures()["urgent"] == 2
    read = bench.opened()
    assert bench.figures()["urgent"] == 1
    read.queue.give_back(read)
    assert bench.figures()["urgent"] == 2
    bench.pass_time(6)
    assert bench.figures()["urgent"] == 3
    assert bench.engine.items.remove(b"q", bench.queue().head_id)
    bench.take()
    assert restarted(bench).figures()["urgent"] == 1
    bench.drain()


def test_all_of_an_urgent_line_is_urgent(start: Start) -> None:
    bench = start()
    for _ in range(3):
        bench.put_job(b"q", b"x", pri=7)
    assert bench.figures()["urgent"] == 3
    bench.opened()
    assert bench.figures()["urgent"] == 2


def test_it_can_be_asked_how_long_a_pause_lasts(start: Start) -> None:
    bench = start()
    assert bench.jobs.pause_left_ms(b"q") == 0
    with pytest.raises(ServerError):
        bench.jobs.pause(b"q", Pause.OUT, 5)
    bench.jobs.pause(b"q", Pause.OUT, 5, make=True)
    assert bench.jobs.pause_left_ms(b"q") == 5000
    bench.pass_time(2)
    assert bench.jobs.pause_left_ms(b"q") == 3000
    bench.pass_time(4)
    assert bench.jobs.pause_left_ms(b"q") == 0
    bench.jobs.pause(b"q", Pause.OUT)
    assert bench.jobs.pause_left_ms(b"q") == 0
