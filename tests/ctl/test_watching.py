"""`darner ctl watch`."""

import signal

from tests.support.ctl import Terminal
from tests.support.harness import RunningServer


def test_what_happens_is_shown_until_ctrl_c(server: RunningServer) -> None:
    terminal = Terminal("watch", "q", port=server.port)
    terminal.wait_shows("it does not exist yet")
    server.client().set("q", b"hello")
    terminal.wait_shows("hello")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.wait_ended() == 130


def test_it_ends_with_its_server(server: RunningServer) -> None:
    terminal = Terminal("--json", "watch", "q", port=server.port)
    terminal.wait_shows("watching q at 127.0.0.1")
    server.client().set("q", b"hello")
    terminal.wait_shows('"text": "hello"')
    server.stop()
    assert terminal.wait_ended() == 3
    assert "has ended" in terminal.shown
