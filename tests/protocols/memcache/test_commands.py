"""Which verbs there are, as a client sees it, beyond the recorded conversations of tests/wire."""

from collections.abc import Callable

import pytest

from tests.support.harness import Client, RunningServer

Connect = Callable[[], Client]


def test_memcached_clients_extra_words_are_accepted(connect: Connect) -> None:
    client = connect()
    client.set("q", b"x")
    client.ask(b"delete q 0\r\n", b"DELETED\r\n")
    client.ask(b"delete q noreply\r\nflush q noreply\r\nflush_all noreply\r\nflush_all 0 noreply\r\n", b"")
    client.ask(b"flush_all 0\r\n", b"Flushed all queues.\r\n")
    client.send(b"stats \r\nversion \r\n")
    while (line := client.line()) != b"END\r\n":
        assert line.startswith(b"STAT ")
    assert client.line().startswith(b"VERSION ")


@pytest.mark.parametrize(
    "request_line", [b"get", b"replace q 0 0 1", b"cas q 0 0 1 1", b"set q/open 0 0 1", b"set q a 0 1"]
)
def test_what_this_server_does_not_have_is_an_error_that_says_what_it_has(
    connect: Connect, request_line: bytes
) -> None:
    client = connect()
    client.send(request_line + b"\r\n")
    line = client.line()
    assert line.startswith(b"ERROR ")
    assert b": " in line or b"a get is" in line
    client.expect_hang_up()


DIALECTS = pytest.mark.parametrize("dialect", ["darner", "kestrel", "siberite", "kyototycoon"])


@DIALECTS
def test_what_tools_put_behind_stats_costs_neither_the_connection_nor_what_is_open(
    shared_server: Callable[..., RunningServer], dialect: str
) -> None:
    client = shared_server("--dialect", dialect).client()
    client.set("q", b"a")
    assert client.get("q/open") == b"a"
    for words in (b"items", b"slabs", b"sizes", b"cachedump 1 10", b"conns", b"detail dump", b"ITEMS"):
        client.ask(b"stats %b\r\n" % words, b"END\r\n")
    client.ask(b"stats settings\r\n", b"STAT maxconns 16000\r\nSTAT item_size_max 1073741824\r\nEND\r\n")
    client.ask(b"stats reset\r\n", b"CLIENT_ERROR the statistics cannot be reset: they count from the start")
    assert client.line() == b" of the server\r\n"
    client.send(b"stats itmes\r\n")
    assert client.line() == b'CLIENT_ERROR unknown statistics "itmes": did you mean "items"?\r\n'
    client.send(b"stats q\r\n")
    assert client.line().startswith(b'CLIENT_ERROR unknown statistics "q": nothing, or one of items, slabs, ')
    assert client.stats()["queue_q_open_transactions"] == "1"
    client.ask(b"delete q\r\n", b"END\r\n" if dialect == "siberite" else b"DELETED\r\n")


@DIALECTS
def test_what_a_queue_has_no_use_for_is_refused_and_the_connection_goes_on(
    shared_server: Callable[..., RunningServer], dialect: str
) -> None:
    client = shared_server("--dialect", dialect).client()
    for words in (b"incr a 1", b"verbosity 1", b"gat 0 a", b"mg a v", b"mn"):
        client.send(words + b"\r\n")
        verb = words.split()[0]
        assert client.line() == b"CLIENT_ERROR there is no %b in a queue server: help lists the commands\r\n" % verb
    client.ask(b"incr a 1 noreply\r\nverbosity 1 noreply\r\nflush_all 10 noreply\r\n", b"")
    client.ask(b"flush_all 10\r\n", b"CLIENT_ERROR flush_all empties the queues at once: a delay must be 0\r\n")
    client.send(b"version\r\n")
    assert client.line().startswith(b"VERSION ")


def test_flush_all_is_answered_as_each_dialects_clients_know_it(shared_server: Callable[..., RunningServer]) -> None:
    for dialect, reply in (
        ("darner", b"Flushed all queues.\r\n"),
        ("kestrel", b"Flushed all queues.\r\n"),
        ("siberite", b"Flushed all queues.\r\n"),
        ("kyototycoon", b"OK\r\n"),
    ):
        client = shared_server("--dialect", dialect).client()
        client.set("q", b"a")
        client.ask(b"flush_all\r\nflush_all 0\r\nflush_all noreply\r\nget q/t=0\r\n", reply * 2 + b"END\r\n")


@DIALECTS
def test_help_lists_the_commands_of_the_dialect(shared_server: Callable[..., RunningServer], dialect: str) -> None:
    client = shared_server("--dialect", dialect).client()
    told = []
    for request in (b"help\r\n", b"? stats\r\n", b"HELP me\r\n"):
        client.send(request)
        told.append(b"".join(iter(client.line, b"END\r\n")))
    assert told[0] == told[1] == told[2]
    verbs = [line.split()[0] for line in told[0].splitlines()]
    assert (b"monitor" in verbs) == (dialect == "kestrel")
    assert {b"set", b"get", b"stats", b"help", b"quit"} < set(verbs)
    assert {b"add", b"touch", b"history", b"kick", b"pause"} < set(verbs)
    assert not {b"incr", b"?"} & set(verbs)
    assert len(verbs) == len(set(verbs))
    assert told[0].startswith(b"set <queue>[/sync][/delay=<ms>]")
    assert len(told[0]) < 2000


def test_a_verb_that_nobody_knows_ends_the_connection_because_an_item_may_follow(connect: Connect) -> None:
    client = connect()
    client.set("q", b"a")
    client.send(b"sett other 0 0 9\r\ndelete q\r\n")
    assert client.line() == b'ERROR unknown command "sett": did you mean "set"?\r\n'
    client.expect_hang_up()
    assert connect().get("q") == b"a"


@pytest.mark.parametrize("said", [b"\x16\x03\x01", b"\x80", b"\0", b"GET / HTTP/1.1\r\n", b"POST /x HTTP/1.1\r\nq: "])
def test_other_protocols_are_refused_at_once(shared_server: Callable[..., RunningServer], said: bytes) -> None:
    client = shared_server("--body-timeout-s", "0").client()
    client.send(said)
    line = client.line()
    assert line.startswith(b"ERROR ")
    assert b"HTTP request" in line or b"begins" in line or b"beginning" in line or b"binary protocol" in line
    client.expect_hang_up()
