"""What a user may do: patterns, and what the server says to who may not."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from darner_core.access.rights import ADMIN, ADMIN_ALL, EVERYTHING, FREE, GET, NOTHING, PUT, Rights, parse_rights
from tests.server.test_connection import LARGE
from tests.support.harness import Client, RunningServer
from tests.support.identities import login, write_users

Start = Callable[..., RunningServer]


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("mail", ["mail"], ["mai", "mails", "Mail", "a.mail", ""]),
        ("mail.*", ["mail.", "mail.in", "mail.a.b"], ["mail", "mailxin", "xmail.in"]),
        ("*", ["a", "a.b", "ä", "\n"], []),
        ("a?c", ["abc", "a.c"], ["ac", "abbc", "aäc"]),
        ("q[12]", ["q1", "q2"], ["q3", "q[12]", "q"]),
        ("q[!12]", ["q3"], ["q1", "q"]),
        ("a+b(c|d)", ["a+b(c|d)"], ["aab", "a+bc"]),
        ("grün*", ["grün", "grüner"], ["grun", "gr"]),
    ],
)
def test_patterns_are_matched_against_the_whole_name(pattern: str, yes: list[str], no: list[str]) -> None:
    rights = Rights({GET: ("other", pattern)})
    assert [name for name in yes if not rights.allow(GET, name.encode())] == []
    assert [name for name in no if rights.allow(GET, name.encode())] == []


def test_each_kind_has_patterns_of_its_own() -> None:
    rights = parse_rights({"put": ["in.*"], "get": ["out.*"]})
    for queue, kinds in ((b"in.a", {PUT}), (b"out.a", {GET}), (b"x", set())):
        assert {kind for kind in (PUT, GET, ADMIN) if rights.allow(kind, queue)} == kinds
        assert rights.any_to(queue) == bool(kinds)
    assert rights.allow(FREE, b"")


def test_every_queue_is_one_pattern_and_not_several() -> None:
    assert Rights({ADMIN: ("a*", "*")}).allow(ADMIN_ALL, b"")
    assert not Rights({ADMIN: ("a*", "?*", "[!a]*")}).allow(ADMIN_ALL, b"")
    assert not Rights({PUT: ("*",), GET: ("*",)}).everything
    assert Rights({PUT: ("*",), GET: ("*",), ADMIN: ("x", "*")}).everything
    assert EVERYTHING.everything
    assert EVERYTHING.allow(ADMIN_ALL, b"")
    for kind in (PUT, GET, ADMIN, ADMIN_ALL):
        assert not NOTHING.allow(kind, b"q")
    assert NOTHING.allow(FREE, b"")


def test_a_child_needs_a_pattern_that_is_about_children_or_the_right_to_its_parent() -> None:
    rights = Rights({GET: ("*-out", "mail*", "news+mine", "x[+]y")})
    allowed = [
        child
        for child in (b"secret+a-out", b"mail+a", b"mail.in+a", b"news+mine", b"news+other", b"a-out+b-out", b"x+y")
        if rights.allow(GET, child)
    ]
    assert allowed == [b"mail+a", b"mail.in+a", b"news+mine", b"a-out+b-out"]
    assert not rights.any_to(b"secret+a-out")
    assert Rights({GET: ("*+audit",)}).allow(GET, b"secret+audit")
    assert Rights({GET: ("*",)}).allow(GET, b"secret+audit")
    assert rights.allow(GET, b"+a-out"), "it has no parent"
    assert rights.allow(GET, b"a-out"), "nor has it"


# -- on the wire

TABLES = """
[users.boss]
put = ["*"]
get = ["*"]
admin = ["*"]

[users.mailer]
put = ["mail", "mail.*"]
get = ["done"]

[users.janitor]
admin = ["mail.*"]

[users.nobody]
"""


EVERYTHING_TABLE = 'put = ["*"]\nget = ["*"]\nadmin = ["*"]\n'


@pytest.fixture
def server(start_server: Start, tmp_path: Path) -> RunningServer:
    file = tmp_path / "darner.toml"
    names = dict.fromkeys(("boss", "mailer", "janitor", "nobody", "tableless"), "pw")
    file.write_text(f'auth_file = "{write_users(tmp_path / "users", **names)}"\n{TABLES}')
    return start_server("-c", str(file))


@pytest.fixture
def as_user(server: RunningServer) -> Callable[[str], Client]:
    """Connect a client that has logged in."""

    def connect(name: str) -> Client:
        client = server.client()
        client.ask(login(name, "pw"), b"STORED\r\n")
        return client

    return connect


AsUser = Callable[[str], Client]


def test_what_is_allowed_works(as_user: AsUser) -> None:
    mailer, boss, janitor = as_user("mailer"), as_user("boss"), as_user("janitor")
    mailer.set("mail", b"a")
    mailer.set("mail.in", LARGE)
    boss.set("done", b"c")
    assert mailer.get("done/peek") == b"c"
    assert mailer.get("done/open/t=50") == b"c"
    assert mailer.get("done/close") is None
    assert [boss.get("mail"), boss.get("mail.in")] == [b"a", LARGE]
    janitor.ask(b"flush mail.in\r\ndelete mail.in\r\n", b"END\r\nDELETED\r\n")
    boss.ask(b"flush_all\r\n", b"Flushed all queues.\r\n")


REFUSED = [
    ("mailer", b"set done 0 0 1\r\nx\r\n", b"user mailer may not put into queue done", "set done"),
    ("mailer", b"set done/sync 0 0 1\r\nx\r\n", b"user mailer may not put into queue done", "set done/sync"),
    ("mailer", b"set mail2 0 0 1 noreply\r\nx\r\n", b"user mailer may not put into queue mail2", "set mail2"),
    ("mailer", b"get mail\r\n", b"user mailer may not get from queue mail", "get mail"),
    ("mailer", b"GETS mail\r\n", b"user mailer may not get from queue mail", "gets mail"),
    ("mailer", b"get mail/peek\r\n", b"user mailer may not get from queue mail", "get mail/peek"),
    ("mailer", b"get mail/open/t=1000\r\n", b"user mailer may not get from queue mail", "get mail/open/t=1000"),
    ("mailer", b"get mail/close\r\n", b"user mailer may not get from queue mail", "get mail/close"),
    ("mailer", b"delete mail\r\n", b"user mailer may not administer queue mail", "delete mail"),
    ("mailer", b"flush mail\r\n", b"user mailer may not administer queue mail", "flush mail"),
    ("janitor", b"flush_all\r\n", b"user janitor may not administer every queue", "flush_all"),
    ("janitor", b"get mail.in\r\n", b"user janitor may not get from queue mail.in", "get mail.in"),
    ("nobody", b"get q\r\n", b"user nobody may not get from queue q", "get q"),
    ("tableless", b"get q\r\n", b"user tableless may not get from queue q", "get q"),
    ("nobody", b"get \xff\xc2\x9b1m\r\n", rb"user nobody may not get from queue \xff\x9b1m", r"get \xff\x9b1m"),
]


def test_what_is_not_allowed_is_refused_and_logged(as_user: AsUser, server: RunningServer) -> None:
    for user, request, reply, logged in REFUSED:
        alone = as_user(user)
        alone.ask(request, b"CLIENT_ERROR " + reply + b"\r\n")
        alone.expect_hang_up()
        client = as_user(user)
        address = "{}:{}".format(*client.socket.getsockname())
        # What is pipelined before is answered, what comes behind is not done.
        client.send(b"version\r\n" + request + b"version\r\n")
        assert client.line().startswith(b"VERSION")
        client.expect(b"CLIENT_ERROR " + reply + b"\r\n")
        client.expect_hang_up()
        assert f"WARNING refused: {user}@{address}: {logged}\n" in server.printed()


def test_every_user_may_ask_for_the_version_and_the_figures_and_leave(as_user: AsUser) -> None:
    client = as_user("nobody")
    client.send(b"version\r\n")
    assert client.line().startswith(b"VERSION")
    client.stats()
    client.ask(b"quit\r\n", b"")
    client.expect_hang_up()


def test_the_figures_tell_only_of_queues_that_the_user_may_do_something_to(as_user: AsUser) -> None:
    boss = as_user("boss")
    for queue in ("mail", "mail.in", "done", "secret"):
        boss.set(queue, b"x")

    def seen(user: str) -> set[str]:
        names = as_user(user).stats()
        return {name[6:-4] for name in names if name.startswith("queue_") and name.endswith("_age")}

    assert seen("boss") == {"mail", "mail.in", "done", "secret"}
    assert seen("mailer") == {"mail", "mail.in", "done"}
    assert seen("janitor") == {"mail.in"}
    assert seen("nobody") == set()


def test_a_large_item_that_is_refused_costs_nothing(as_user: AsUser) -> None:
    client, boss = as_user("mailer"), as_user("boss")
    client.send(b"set secret 0 0 1000000000\r\n" + b"delete mail\r\n" * 1000)
    client.expect(b"CLIENT_ERROR user mailer may not put into queue secret\r\n")
    client.expect_hang_up()
    stats = boss.stats()
    assert stats["cmd_set"] == "0"
    assert stats["queue_creates"] == "0"


def test_what_the_body_of_a_refused_set_says_is_not_done(as_user: AsUser) -> None:
    client, boss = as_user("mailer"), as_user("boss")
    boss.set("mail", b"x")
    body = b"set mail 0 0 1\r\ny\r\n"
    client.send(b"set secret 0 0 %d\r\n%b\r\n%b" % (len(body), body, body))
    client.expect(b"CLIENT_ERROR user mailer may not put into queue secret\r\n")
    client.expect_hang_up()
    assert [boss.get("mail"), boss.get("mail")] == [b"x", None]


def test_what_a_refused_client_holds_goes_back(as_user: AsUser) -> None:
    client, boss = as_user("mailer"), as_user("boss")
    boss.set("done", b"x")
    assert client.get("done/open") == b"x"
    client.send(b"get secret\r\n")
    client.expect(b"CLIENT_ERROR user mailer may not get from queue secret\r\n")
    assert boss.get("done/t=5000") == b"x"


def test_a_request_in_pieces_is_judged_like_a_whole_one(as_user: AsUser) -> None:
    client, boss = as_user("mailer"), as_user("boss")
    for byte in b"set mail 0 0 1\r\nx\r\n":
        client.send(bytes([byte]))
    client.expect(b"STORED\r\n")
    for byte in b"set other 0 0 1\r\nx\r\n":
        client.send(bytes([byte]))
    client.expect(b"CLIENT_ERROR user mailer may not put into queue other\r\n")
    assert [boss.get("mail"), boss.get("other")] == [b"x", None]


def test_what_is_not_allowed_is_refused_though_it_was_written_early_for_want_of_memory(
    start_server: Start, tmp_path: Path
) -> None:
    file = tmp_path / "darner.toml"
    users = write_users(tmp_path / "users", boss="pw", mailer="pw")
    file.write_text(f'auth_file = "{users}"\nbody_memory_bytes = "1 MiB"\n{TABLES}')
    server = start_server("-c", str(file))
    senders = [server.client() for _ in range(15)]
    for sender in senders:
        sender.ask(login("mailer", "pw"), b"STORED\r\n")
        sender.send(b"set done 0 0 130000\r\n" + bytes(120_000))
    for sender in senders:
        sender.send(bytes(10_000) + b"\r\n")
        sender.expect(b"CLIENT_ERROR user mailer may not put into queue done\r\n")
        sender.expect_hang_up()
    boss = server.client()
    boss.ask(login("boss", "pw"), b"STORED\r\n")
    assert "queue_done_items" not in boss.stats()


def test_nobody_taps_a_queue_by_making_a_fanout_child_of_it(start_server: Start, tmp_path: Path) -> None:
    file = tmp_path / "darner.toml"
    users = write_users(tmp_path / "users", boss="pw", mailer="pw")
    rights = 'put = ["*-out"]\nget = ["*-out", "mail+mine"]\nadmin = ["*-out"]\n'
    file.write_text(
        f'auth_file = "{users}"\ndialect = "kestrel"\n[users.boss]\n{EVERYTHING_TABLE}[users.mailer]\n{rights}'
    )
    server = start_server("-c", str(file))

    def connect(name: str) -> Client:
        client = server.client()
        client.ask(login(name, "pw"), b"STORED\r\n")
        return client

    for said, what in (
        (b"get secret+my-out", b"get from"),
        (b"monitor secret+my-out 1", b"get from"),
        (b"confirm secret+my-out 1", b"get from"),
        (b"set secret+my-out 0 0 1\r\nx", b"put into"),
        (b"watch secret+my-out", b"administer"),
        (b"flush secret+my-out", b"administer"),
    ):
        mailer = connect("mailer")
        mailer.ask(said + b"\r\n", b"CLIENT_ERROR user mailer may not %b queue secret+my-out\r\n" % what)
        mailer.expect_hang_up()
    boss, mailer = connect("boss"), connect("mailer")
    assert mailer.get("mail+mine") is None
    boss.set("secret", b"s")
    boss.set("mail", b"m")
    assert mailer.get("mail+mine") == b"m"
    assert not [name for name in boss.stats() if name.startswith("queue_secret+")]


def test_a_listener_of_another_dialect_hands_out_no_child_and_no_figures_tell_of_it(
    start_server: Start, tmp_path: Path
) -> None:
    file = tmp_path / "darner.toml"
    users = write_users(tmp_path / "users", boss="pw", spy="pw")
    listeners = "".join(
        f'[[listener]]\nport = 0\ndialect = "{name}"\n' for name in ("darner", "siberite", "kyototycoon")
    )
    file.write_text(
        f'auth_file = "{users}"\ndialect = "kestrel"\n{listeners}[users.boss]\n{EVERYTHING_TABLE}'
        '[users.spy]\nget = ["*-log"]\nput = ["*-log"]\nadmin = ["*-log"]\n'
    )
    server = start_server("-c", str(file))
    ports = [int(port) for port in re.findall(r"listening on: \S+ port (\d+)", server.printed())]

    def connect(name: str, port: int = server.port) -> Client:
        client = server.adopt(Client(port))
        client.ask(login(name, "pw"), b"STORED\r\n")
        return client

    boss = connect("boss")
    for queue in ("mail", "my-log"):
        assert boss.get(f"{queue}+my-log") is None
        boss.set(queue, b"x")
    for port in ports:
        for said in (
            b"get mail+my-log", b"get mail+my-log/peek", b"get mail+my-log/open/t=1", b"get my-log+my-log mail+my-log",
            b"get new+my-log/t=60000", b"set mail+my-log 0 0 1\r\ny", b"delete mail+my-log", b"flush mail+my-log",
            b"watch mail+my-log", b"get mail.a-log/peek", b"dump_config mail+my-log",
        ):  # fmt: skip
            if said.count(b" ") > 1 and said.startswith(b"get") and port != ports[3]:
                continue
            spy = connect("spy", port)
            spy.send(said + b"\r\n")
            reply = spy.line()
            if said == b"get mail.a-log/peek" and port != ports[2]:  # elsewhere it is no place in `mail`
                assert reply == b"END\r\n"
            else:
                assert reply.startswith(b"CLIENT_ERROR user spy may not "), (port, said, reply)
                spy.expect_hang_up()
        spy = connect("spy", port)
        spy.send(b"dump_stats\r\n")
        lines = list(iter(spy.line, b"END\r\n"))
        assert any(b"my-log+my-log" in line for line in lines), "whose parent it may get, too"
        assert not [line for line in lines if b"mail" in line]
        assert not [name for name in spy.stats() if "mail" in name]
    assert boss.get("mail+my-log") == b"x"
