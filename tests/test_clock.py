"""Jobs while the time of day is set forward and back by a day.

What is due, what expires, and how long keys and pauses last goes by the time of day, which survives a restart: it comes
early when the clock is set forward, and late when it is set back. Deadlines of readers go by a clock that nobody sets.
Nothing is lost, and nobody waits for ever.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.harness import Client
from tests.test_limits import SteppingClock

DAY_S = 86_400
NOTICED_S = 30.0  # an item that does not come within this time will not come
CONFIG = """
[queues.once]
unique_s = 3600
[queues.tired]
max_deliveries = 2
dead_letter_queue = "dead"
retry_delay_s = 3600
"""


@pytest.fixture
def server(start_server: Callable[..., SteppingClock], tmp_path: Path) -> SteppingClock:
    (tmp_path / "darner.toml").write_text(CONFIG)
    return start_server("--dialect", "kestrel", "-c", str(tmp_path / "darner.toml"), kind=SteppingClock)


@pytest.fixture
def client(server: SteppingClock) -> Client:
    return server.client()


def put(
    client: Client, key: bytes, body: bytes, expiry_s: int = 0, reply: bytes = b"STORED", verb: bytes = b"set"
) -> None:
    client.ask(b"%b %b 0 %d %d\r\n%b\r\n" % (verb, key, expiry_s, len(body), body), reply + b"\r\n")


def wait_for(client: Client, key: bytes) -> bytes | None:
    """What comes to a client that waits for up to NOTICED_S."""
    client.send(b"get %b/t=%d\r\n" % (key, NOTICED_S * 1000))
    return client.item()


def test_what_is_due_tomorrow_comes_when_the_clock_is_set_forward(server: SteppingClock, client: Client) -> None:
    put(client, b"q/delay=43200000", b"tomorrow")
    put(client, b"q/delay=432000000", b"in five days")
    assert client.get("q") is None
    server.step(DAY_S)
    assert wait_for(client, b"q") == b"tomorrow"
    server.step(-DAY_S)
    assert client.get("q") is None
    server.step(6 * DAY_S)
    assert wait_for(client, b"q") == b"in five days"


def test_who_waits_already_is_served_when_the_clock_is_set_forward(server: SteppingClock, client: Client) -> None:
    put(client, b"q/delay=43200000", b"tomorrow")
    waiter = server.client()
    waiter.send(b"get q/t=%d\r\n" % (NOTICED_S * 1000))
    waiter.expect_nothing()
    server.step(DAY_S)
    assert waiter.item() == b"tomorrow"


def test_what_is_due_soon_waits_when_the_clock_is_set_back(server: SteppingClock, client: Client) -> None:
    put(client, b"q/delay=500", b"soon")
    put(client, b"q/delay=500/pri=3", b"soon and urgent")
    server.step(-DAY_S)
    client.ask(b"get q/t=1000\r\n", b"END\r\n")
    put(client, b"q/delay=1", b"put meanwhile")  # has its own time
    assert wait_for(client, b"q") == b"put meanwhile"
    server.kill()
    server.start()
    client = server.client()
    assert client.get("q") is None
    client.ask(b"kick q 1\r\n", b"KICKED 1\r\n")  # does not ask for the time
    assert client.get("q") == b"soon"
    server.step(0)
    assert wait_for(client, b"q") == b"soon and urgent"


@pytest.mark.parametrize("off_s", [DAY_S, -DAY_S])
def test_a_deadline_does_not_care_for_the_time_of_day(server: SteppingClock, client: Client, off_s: int) -> None:
    put(client, b"q", b"long")
    put(client, b"q", b"short")
    assert client.get("q/open/ttr=600000") == b"long"
    assert client.get("q/open/ttr=1500") == b"short"
    server.step(off_s)
    other = server.client()
    assert other.get("q") is None
    client.ask(b"touch q 600\r\n", b"TOUCHED\r\n")
    assert wait_for(other, b"q") == b"short"
    other.ask(b"get q/t=300\r\n", b"END\r\n")  # and the first is still where it was
    client.ask(b"get q/close\r\n", b"END\r\n")
    server.step(0)
    assert client.get("q") is None


def test_a_key_is_free_when_its_time_of_day_is_over(server: SteppingClock, client: Client) -> None:
    put(client, b"once/key=a", b"one", verb=b"add")
    put(client, b"once/key=b", b"two", verb=b"add")
    server.step(DAY_S)
    put(client, b"once/key=a", b"no", verb=b"add", reply=b"NOT_STORED")  # its item lives, whatever the time
    assert [client.get("once"), client.get("once")] == [b"one", b"two"]
    put(client, b"once/key=a", b"no", verb=b"add", reply=b"NOT_STORED")
    server.step(2 * DAY_S)
    put(client, b"once/key=a", b"again", verb=b"add")
    server.step(0)  # long before the window of b
    put(client, b"once/key=b", b"no", verb=b"add", reply=b"NOT_STORED")
    server.kill()
    server.start()
    client = server.client()
    put(client, b"once/key=b", b"no", verb=b"add", reply=b"NOT_STORED")
    put(client, b"once/key=a", b"no", verb=b"add", reply=b"NOT_STORED")
    server.step(2 * DAY_S)
    put(client, b"once/key=b", b"again", verb=b"add")
    assert [client.get("once"), client.get("once"), client.get("once")] == [b"again", b"again", None]


def test_what_expires_tomorrow_has_expired_when_the_clock_is_set_forward(server: SteppingClock, client: Client) -> None:
    put(client, b"q/pri=3", b"an hour", expiry_s=3600)
    put(client, b"q/key=k", b"for ever")
    put(client, b"q/delay=7200000", b"two hours in three", expiry_s=3600)
    server.step(-DAY_S)
    assert client.get("q/open") == b"an hour"
    client.ask(b"get q/abort\r\n", b"END\r\n")
    server.step(DAY_S)
    assert client.get("q") == b"for ever"
    client.ask(b"get q/t=500\r\n", b"END\r\n")
    server.step(0)
    assert client.get("q") is None


def test_failures_count_and_a_retry_comes_early_or_late(server: SteppingClock, client: Client) -> None:
    put(client, b"tired", b"job")
    assert client.get("tired/open") == b"job"
    client.ask(b"get tired/abort\r\n", b"END\r\n")
    server.step(-DAY_S)
    assert client.get("tired") is None
    server.step(DAY_S)
    client.send(b"get tired/open/ttr=300/t=%d\r\n" % (NOTICED_S * 1000))
    assert client.item() == b"job"
    server.step(-DAY_S)
    assert wait_for(server.client(), b"dead") == b"job"  # the deadline has passed, which was the second failure
    assert client.get("tired/close") is None
    assert client.get("tired") is None


def test_a_pause_ends_at_its_time_of_day(server: SteppingClock, client: Client) -> None:
    put(client, b"q", b"item")
    client.ask(b"pause q all 3600\r\n", b"PAUSED all\r\n")
    server.step(-DAY_S)
    assert client.get("q") is None
    put(client, b"q", b"no", reply=b"NOT_STORED")
    server.step(DAY_S)
    assert wait_for(client, b"q") == b"item"
    put(client, b"q", b"yes")


def test_all_of_it_in_both_directions_and_over_restarts_loses_nothing(server: SteppingClock, client: Client) -> None:
    for number, options in enumerate(("", "/pri=5", "/delay=1800000", "/key=k", "/delay=200/key=l/pri=9", "/ttr=5000")):
        put(client, b"q" + options.encode(), b"%d" % number)
    large = b"large" * 100_000
    put(client, b"q/delay=1800000/pri=7", large)
    for off_s in (DAY_S, -DAY_S, 0, -DAY_S, DAY_S):
        server.step(off_s)
        held = server.client()
        held.get("q/open/ttr=60000")
        server.kill()
        server.start()
    client = server.client()
    found = {wait_for(client, b"q") for _ in range(7)}
    assert found == {b"0", b"1", b"2", b"3", b"4", b"5", large}
    assert client.get("q") is None
    assert server.stop() == 0
