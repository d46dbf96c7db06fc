"""`darner ctl queues` and `show`."""

from tests.support.ctl import Terminal, run_ctl
from tests.support.harness import RunningServer


def test_queues_with_their_figures(server: RunningServer) -> None:
    client = server.client()
    client.set("mail", b"ab")
    client.ask(b"set news/delay=600000 0 0 1\r\nx\r\n", b"STORED\r\n")
    client.ask(b"pause news out\r\n", b"PAUSED out\r\n")
    mail, news = run_ctl("queues", port=server.port).jsons()
    assert (mail["name"], mail["waiting"], mail["bytes"], mail["paused"]) == ("mail", 1, 2, "none")
    assert (news["name"], news["waiting"], news["delayed"], news["paused"]) == ("news", 0, 1, "out")
    terminal = Terminal("queues", port=server.port)
    assert terminal.wait_ended() == 0
    assert "paused: out" in terminal.shown


def test_queues_are_chosen_and_sorted(server: RunningServer) -> None:
    client = server.client()
    for name, items in (("mail.a", 1), ("mail.b", 3), ("news", 2)):
        for _ in range(items):
            client.set(name, b"x")

    def listed(*words: str) -> list[str]:
        return [one["name"] for one in run_ctl("queues", *words, port=server.port).jsons()]

    assert listed() == ["mail.a", "mail.b", "news"]
    assert listed("--sort", "waiting") == ["mail.b", "news", "mail.a"]
    assert listed("--sort", "waiting", "--limit", "1") == ["mail.b"]
    assert listed("--prefix", "mail") == ["mail.a", "mail.b"]
    assert listed("--contains", "ew") == ["news"]
    assert listed("--prefix", "x") == []


def test_a_name_of_any_bytes_cannot_spoil_the_terminal(server: RunningServer) -> None:
    server.client().ask(b"set \xff[bold]\xc2\x9b2J 0 0 1\r\nx\r\n", b"STORED\r\n")
    assert r"\xff[bold]\xc2\x9b2J" in run_ctl("--text", "queues", port=server.port).out
    assert run_ctl("show", r"\xff[bold]\xc2\x9b2J", port=server.port).json()["waiting"] == 1


def test_show_tells_where_options_are_set(server: RunningServer) -> None:
    server.client().set("mail", b"ab")
    shown = run_ctl("show", "mail", port=server.port).json()
    assert shown["figures"]["total_items"] == "1"
    assert {"name": "max_items", "value": "0", "source": "built in"} in shown["options"]
    assert "built in" in run_ctl("--text", "show", "mail", port=server.port).out


def test_a_queue_that_is_not_there_ends_with_4(server: RunningServer) -> None:
    ended = run_ctl("show", "nix", port=server.port)
    assert (ended.status, ended.out) == (4, "")
    assert "there is no queue nix" in ended.complaint
