"""`darner ctl top`, on a terminal."""

from tests.support.ctl import Terminal, run_ctl
from tests.support.harness import RunningServer


def test_the_table_stays_live_until_q(server: RunningServer) -> None:
    client = server.client()
    client.set("mail", b"a")
    terminal = Terminal("top", "--every", "100ms", port=server.port)
    terminal.wait_shows("1 queues: 1 items wait, 0 are open")
    terminal.wait_shows("mail")
    client.set("news", b"a")
    client.get("news/open")
    terminal.wait_shows("2 queues: 1 items wait, 1 are open")
    terminal.type("n")
    terminal.wait_shows("sorted by name")
    terminal.type("q")
    assert terminal.wait_ended() == 0


def test_it_ends_with_its_server(server: RunningServer) -> None:
    terminal = Terminal("top", "--every", "100ms", port=server.port)
    terminal.wait_shows("0 queues")
    server.kill()
    assert terminal.wait_ended() == 3
    assert "has hung up" in terminal.shown


def test_without_a_terminal_it_says_what_to_use(server: RunningServer) -> None:
    ended = run_ctl("top", port=server.port)
    assert (ended.status, "darner ctl queues gives the same figures" in ended.complaint) == (1, True)
