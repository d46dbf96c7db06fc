"""What a beanstalkd client is answered by a server with limits, statuses and other clients: ours alone. What the two
servers answer alike stands in the other files here.
"""

import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from darner_core.protocols.beanstalkd.tubes import MAX_WATCHED
from tests.support.beanstalkd import TubeServer, Worker
from tests.support.harness import REPLY_S, run_darner, wait_until
from tests.support.identities import Authority, write_users

Serve = Callable[..., TubeServer]

BIG = 200_000  # more than a chunk


def test_a_server_that_is_read_only_drains(ours: Serve) -> None:
    server = ours("max_job_bytes = 1_000_000", "status_change_grace_period_s = 0")
    a = server.worker()
    a.put("before")
    server.client().ask(b"status readonly\r\n", b"END\r\n")
    a.says("put 0 0 100 1\r\nx", "DRAINING")
    a.says(f"put 0 0 100 {BIG}\r\n" + "x" * BIG, "DRAINING")
    a.says("put 0 0 100 1000001\r\n" + "x" * 1_000_001, "DRAINING")
    assert a.told("stats")["draining"] == "true"
    assert a.reserve() == "before"
    a.says("delete 1", "DELETED")
    server.client().ask(b"status up\r\n", b"END\r\n")
    a.put("after")


def test_sigusr1_drains(ours: Serve) -> None:
    server = ours()
    a, memcache = server.worker(), server.client()
    a.put("before")
    for _ in range(2):
        server.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: a.told("stats")["draining"] == "true")
        a.says("put 0 0 100 1\r\nx", "DRAINING")
    assert a.reserve() == "before"
    memcache.ask(b"status up\r\n", b"END\r\n")
    a.put("after")


def test_sigusr1_loosens_nothing(ours: Serve) -> None:
    server = ours('default_status = "quiescent"')
    server.process.send_signal(signal.SIGUSR1)
    time.sleep(0.2)
    server.worker().says("reserve-with-timeout 0", "INTERNAL_ERROR")


def test_a_server_that_is_quiescent_hands_nothing_out(ours: Serve) -> None:
    server = ours("status_change_grace_period_s = 0")
    a, b = server.worker(), server.worker()
    job = a.put("x")
    assert a.reserve() == "x"
    b.begin_reserve()
    server.client().ask(b"status quiescent\r\n", b"END\r\n")
    assert b.reply() == (b"TIMED_OUT", b"")
    b.says("reserve", "INTERNAL_ERROR")
    a.says(f"delete {job}", "DELETED")


def test_memcache_clients_share_the_tubes(ours: Serve) -> None:
    server = ours()
    a, memcache = server.worker(), server.client()
    a.use("mail/out")
    a.put("from a tube", pri=5)
    assert memcache.get("mail%2Fout") == b"from a tube"
    memcache.set("mail%2Fout", b"from a queue")
    line, body = a.command("reserve")
    assert body == b"from a queue"
    job = int(line.split()[1])
    told = a.told(f"stats-job {job}")
    assert (told["tube"], told["pri"], told["ttr"], told["time-left"]) == ("mail/out", "1024", "0", "0")
    a.says(f"release {job} 0 0", "RELEASED")
    assert memcache.get("mail%2Fout/open") == b"from a queue"
    a.says(f"delete {job}", "NOT_FOUND")
    memcache.ask(b"get mail%2Fout/close\r\n", b"END\r\n")
    a.says(f"peek {job}", "NOT_FOUND")


def test_a_queue_whose_name_no_tube_can_have(ours: Serve) -> None:
    server = ours()
    a, memcache = server.worker(), server.client()
    memcache.set("caf\u00e9=1%", b"x")
    assert "caf%C3%A9%3D1%25" in a.listed("list-tubes")
    a.use("caf%C3%A9%3D1%25")
    assert a.reserve() == "x"


def test_a_full_queue(ours: Serve) -> None:
    server = ours("[queues.small]", "max_items = 1")
    a = server.worker()
    a.use("small")
    job = a.put("x")
    a.says("put 0 0 100 1\r\ny", "OUT_OF_MEMORY")
    a.says("put 0 1000 100 1\r\ny", "OUT_OF_MEMORY")
    a.says(f"put 0 0 100 {50_000}\r\n" + "x" * 50_000, "OUT_OF_MEMORY")
    a.says(f"delete {job}", "DELETED")
    a.put("y")


def test_as_many_jobs_are_reserved_as_max_leases_says(ours: Serve) -> None:
    server = ours("max_leases = 2")
    a, b = server.worker(), server.worker()
    jobs = [a.put(str(number)) for number in range(3)]
    assert [a.reserve(), b.reserve()] == ["0", "1"]
    a.says("reserve", "OUT_OF_MEMORY")
    a.says(f"reserve-job {jobs[2]}", "OUT_OF_MEMORY")
    assert a.peek("peek-ready") == "2", "it is where it was"
    b.says(f"delete {jobs[1]}", "DELETED")
    assert a.reserve() == "2"


def test_a_client_watches_so_many_tubes(ours: Serve) -> None:
    server = ours()
    a = server.worker()
    for number in range(MAX_WATCHED - 1):
        a.send(b"watch t%d\r\n" % number)
    for number in range(MAX_WATCHED - 1):
        a.expect(b"WATCHING %d\r\n" % (number + 2))
    a.says("watch more", "OUT_OF_MEMORY")
    a.says("watch t1", f"WATCHING {MAX_WATCHED}")
    a.says("ignore t1", f"WATCHING {MAX_WATCHED - 1}")
    a.says("watch more", f"WATCHING {MAX_WATCHED}")


def test_it_has_no_login(ours: Serve, tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text("")
    file = tmp_path / "login.toml"
    file.write_text(f'auth_file = "{users}"\n[[listener]]\ndialect = "beanstalkd"\nport = 0\n')
    ended = run_darner("-c", str(file), "--port", "0", "--data", str(tmp_path / "d"))
    assert ended.returncode != 0
    assert "it has no login" in ended.stderr


def test_an_operator_who_is_elsewhere_kicks_and_pauses_nothing(ours: Serve) -> None:
    server = ours('admin_from = ["10.1.2.3"]')
    a = server.worker()
    job = a.put("x", delay=1000)
    a.says("kick 1", "UNKNOWN_COMMAND")
    a.says(f"kick-job {job}", "UNKNOWN_COMMAND")
    a.says("pause-tube default 1", "UNKNOWN_COMMAND")
    a.says(f"delete {job}", "DELETED")


def test_a_client_that_says_nothing_is_hung_up_on(ours: Serve) -> None:
    server = ours("idle_timeout_s = 1")
    quiet, waits = server.worker(), server.worker()
    waits.begin_reserve()
    quiet.expect_hang_up()
    waits_still = server.worker()
    waits_still.put("x")
    assert waits.reserved() == "x"


def test_a_pause_of_puts_does_not_end_with_that_of_a_tube(ours: Serve) -> None:
    server = ours()
    a, memcache = server.worker(), server.client()
    a.put("x")
    memcache.ask(b"pause default all\r\n", b"PAUSED all\r\n")
    assert a.reserve() is None
    a.says("pause-tube default 0", "PAUSED")
    assert a.reserve() == "x"
    assert a.command("put 0 0 100 1", b"y")[0] in (b"INTERNAL_ERROR", b"OUT_OF_MEMORY")
    memcache.ask(b"pause default none\r\n", b"PAUSED none\r\n")
    a.put("y")


def test_pipelined_requests_are_answered_in_order(ours: Serve) -> None:
    server = ours()
    a = server.worker()
    many = 500
    a.send(b"".join(b"put 0 0 100 3\r\n%03d\r\nreserve\r\ndelete %d\r\n" % (n, n + 1) for n in range(many)))
    for number in range(many):
        assert a.reply()[0] == b"INSERTED %d" % (number + 1)
        assert a.reply() == (b"RESERVED %d 3" % (number + 1), b"%03d" % number)
        assert a.reply()[0] == b"DELETED"


def test_a_client_that_vanishes_while_a_large_job_is_sent_to_it(ours: Serve) -> None:
    server = ours("max_job_bytes = 100_000_000")
    a, b = server.worker(), server.worker()
    body = "x" * 20_000_000
    job = a.put(body)
    a.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    a.send(b"reserve\r\n")
    time.sleep(0.2)
    a.reset()
    wait_until(lambda: b.told(f"stats-job {job}")["state"] == "ready", REPLY_S)
    assert b.reserve() == body


def test_bodies_that_come_in_part_while_memory_is_short_can_be_finished(ours: Serve) -> None:
    server = ours('body_memory_bytes = "1MiB"')
    stalled = [server.worker() for _ in range(60)]
    bodies = [b"%060000d" % number for number in range(len(stalled))]
    for worker, body in zip(stalled, bodies, strict=True):
        worker.send(b"put 0 0 100 60000\r\n" + body[:50_000])
    stalled[0].send(bodies[0][50_000:] + b"XX")
    stalled[0].expect(b"EXPECTED_CRLF\r\n")
    for worker, body in zip(stalled[1:], bodies[1:], strict=True):
        worker.send(body[50_000:] + b"\r\n")
        assert worker.line().startswith(b"INSERTED ")
    assert [stalled[0].reserve() for _ in bodies] == [*(body.decode() for body in bodies[1:]), None]


def test_idle_connections_cost_little(ours: Serve) -> None:
    server = ours()
    first = [server.worker() for _ in range(200)]
    for worker in first:
        worker.says("use t", "USING t")
    before = server.resident_bytes()
    more = [server.worker() for _ in range(500)]
    for worker in more:
        worker.says("use t", "USING t")
    assert (server.resident_bytes() - before) / len(more) < 20_000
    for worker in (*first, *more):
        worker.close()


def test_a_write_that_fails_changes_nothing(ours: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARNER_TICK_S", "0.1")
    server = ours(fails=True)
    a = server.worker()
    ready, reserved, delayed = a.put("r", 2), a.put("x", 1), a.put("d", delay=1000)
    assert a.reserve() == "x"
    switch = server.data.parent / f"{server.data.name}.fails"
    switch.write_text("write put reopen")
    for line in (
        f"delete {ready}", f"delete {reserved}", f"release {reserved} 0 5", f"bury {reserved} 0",
        f"kick-job {delayed}", "kick 1", "put 0 0 100 1\r\ny",
    ):  # fmt: skip
        reply, _ = a.command(line)
        assert reply in (b"INTERNAL_ERROR", b"OUT_OF_MEMORY"), line
    switch.unlink()
    wait_until(lambda: "the disk takes writes again" in server.printed())
    states = [a.told(f"stats-job {job}")["state"] for job in (ready, reserved, delayed)]
    assert states == ["ready", "reserved", "delayed"]
    a.says(f"bury {reserved} 0", "BURIED")
    a.says(f"kick-job {delayed}", "KICKED")
    assert [a.reserve(), a.reserve(), a.reserve()] == ["d", "r", None]
    server.kill()
    server.start()
    b = server.worker()
    assert [b.told(f"stats-job {job}")["state"] for job in (ready, reserved, delayed)] == ["ready", "buried", "ready"]


def test_a_large_job_that_cannot_be_read_is_told_wherever_it_lies(ours: Serve) -> None:
    server = ours("chunk_bytes = 16384", fails=True)
    a = server.worker()
    body = "x" * 60_000
    jobs = [*(a.put(body) for _ in range(3)), a.put(body, delay=1000)]
    assert a.reserve() == body
    a.says(f"bury {jobs[0]} 0", "BURIED")
    switch = server.data.parent / f"{server.data.name}.fails"
    switch.write_text("chunk")
    for line in (*(f"peek {job}" for job in jobs), "peek-ready", "peek-delayed", "peek-buried"):
        assert a.command(line)[0] == b"INTERNAL_ERROR", line
    switch.unlink()
    assert [a.peek(f"peek {job}") for job in jobs] == [body] * 4


def test_a_certificate_says_who_a_client_is_and_what_it_may(ours: Serve, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.server()
    users = write_users(tmp_path / "users", sender="*", worker="*")
    server = ours(
        f'auth_file = "{users}"', f'tls_cert = "{cert}"', f'tls_key = "{key}"', f'tls_ca = "{authority.file}"',
        "[users.sender]", 'put = ["mail"]', "[users.worker]", 'get = ["mail", "default"]',
    )  # fmt: skip

    def join(name: str) -> Worker:
        worker = server.worker()
        worker.socket = authority.context(name).wrap_socket(worker.socket, server_hostname="127.0.0.1")
        return worker

    sender, worker, stranger = join("sender"), join("worker"), join("nobody")
    sender.says("use mail", "USING mail")
    worker.says("use mail", "USING mail")
    job = sender.put("x")
    sender.says("use other", "USING other")
    big = "x" * BIG
    for line in ("put 0 0 1 1\r\nx", f"put 0 0 1 {len(big)}\r\n{big}", "reserve", f"delete {job}", "watch mail"):
        sender.says(line, "UNKNOWN_COMMAND" if len(line) < BIG else "JOB_TOO_BIG")
    assert "mail" in sender.listed("list-tubes")
    worker.says("watch other", "UNKNOWN_COMMAND")
    worker.says("watch mail", "WATCHING 2")
    for line in ("put 0 0 1 1\r\nx", "kick 1", f"kick-job {job}", "pause-tube mail 1", "stats-tube other"):
        worker.says(line, "UNKNOWN_COMMAND")
    assert worker.reserve() == "x"
    worker.says(f"delete {job}", "DELETED")
    stranger.send(b"stats\r\n")
    assert stranger.line() in (b"", b"UNKNOWN_COMMAND\r\n")
    stranger.expect_hang_up()
