"""`darner ctl move`, `import`, `export`, `backup` and `restore`, as a person calls them."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import greenstalk
import pytest
import redis

from tests.support import old_servers
from tests.support.harness import ROOT, Client, RunningServer, wait_until
from tests.support.moving import drained


def ctl(server: RunningServer, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command(server, *words), capture_output=True, text=True, timeout=60, check=False)


def command(server: RunningServer, *words: str) -> list[str]:
    return [sys.executable, str(ROOT / "darner.py"), "ctl", "-s", f"127.0.0.1:{server.port}", *words]


def told(done: "subprocess.CompletedProcess[str]") -> list[dict[str, Any]]:
    """The lines of JSON that a command has printed, which ended well."""
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


# -- move


@pytest.mark.long
def test_some_queues_are_moved_and_a_pattern_that_matches_none_is_said(
    shared_server: Callable[..., RunningServer],
) -> None:
    old, new = shared_server("--dialect", "kestrel"), shared_server()
    for name in ("mail.in", "mail.out", "stays"):
        old.client().set(name, b"x")
    url = f"kestrel://127.0.0.1:{old.port}"
    moved = told(ctl(new, "move", url, "-q", "mail.*"))
    assert {one["queue"]: one["items"] for one in moved} == {"mail.in": 1, "mail.out": 1}
    (moved_one,) = told(ctl(new, "move", url, "-q", "stays", "--into", "renamed"))
    assert (moved_one["into"], moved_one["items"]) == ("renamed", 1)
    assert drained(new, "renamed") == [b"x"]
    none = ctl(new, "move", url, "-q", "nothing*")
    assert none.returncode == 4
    assert "no queue matches nothing*; there are: " in none.stderr


@pytest.mark.long
def test_what_is_wrong_is_said_in_a_line(shared_server: Callable[..., RunningServer]) -> None:
    new = shared_server()
    port = old_servers.free_port()
    for words, status, said in (
        (("move", "somewhere"), 1, "does not say the kind of server"),
        (("move", f"darner://127.0.0.1:{port}"), 3, "no server answers at"),
        (("export", "q", "--keep"), 2, "--keep and --data go together"),
        (("import", "/nowhere"), 2, "does not exist"),
        (("backup", "x"), 1, "the option backup_dir does not say where to"),
    ):
        done = ctl(new, *words)
        assert (done.returncode, done.stdout) == (status, ""), done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr


# -- export and import


def test_items_are_taken_out_and_put_back(shared_server: Callable[..., RunningServer], tmp_path: Path) -> None:
    server = shared_server()
    bodies = [b"plain", b"\xff\x00\r\n", b"", "ünï".encode()]
    for kind in ([], ["--raw"]):
        for body in bodies:
            server.client().set("taken", body, flags=5)
        path = str(tmp_path / f"items{len(kind)}")
        assert told(ctl(server, "export", "taken", "-o", path, *kind)) == []
        assert drained(server, "taken") == []
        assert told(ctl(server, "import", path))[0]["items"] == 4
        again = ctl(server, "import", path)
        assert told(again) == []
        assert "4 items were put before" in again.stderr
        server.client().ask(b"get taken/peek\r\n", b"VALUE taken 5 5\r\nplain\r\nEND\r\n")
        assert drained(server, "taken") == bodies
    assert ctl(server, "export", "taken", "-o", path).returncode == 1  # there is such a file


@pytest.mark.long
def test_a_kept_export_has_what_is_known_of_jobs(start_server: Callable[..., RunningServer], tmp_path: Path) -> None:
    server = start_server()
    client = server.client()
    client.ask(b"set work/pri=3/ttr=60000/delay=600000/key=k 0 0 1\r\na\r\n", b"STORED\r\n")
    client.set("work", b"b")
    done = ctl(server, "export", "work", "--keep", "--data", str(server.data))
    waiting, delayed = told(done)
    assert (waiting["body"], waiting.keys() & {"pri", "ttr", "delay"}) == ("b", set())
    assert (delayed["body"], delayed["pri"], delayed["ttr"], delayed["key"]) == ("a", 3, 60000, "k")
    assert client.get("work/peek") == b"b"
    (tmp_path / "items").write_text(done.stdout)
    told(ctl(server, "import", str(tmp_path / "items"), "-q", "copy"))
    assert client.stats()["queue_copy_delayed"] == "1"
    assert client.get("copy") == b"b"


def test_kestrels_journals_are_imported_and_damage_is_named(
    shared_server: Callable[..., RunningServer], tmp_path: Path
) -> None:
    server = shared_server()
    add = b"\x02" + struct.pack("<iqq", 17, 1_400_000_000_000, 0) + b"x"
    (tmp_path / "whole").write_bytes(add + add + b"\x03")
    (tmp_path / "broken").write_bytes(add + b"\xee")
    done = ctl(server, "import", str(tmp_path))
    assert done.returncode == 1
    assert f"{tmp_path}/broken: byte {len(add)}: 238 is no kind of record" in done.stderr
    assert "nothing is put; --damaged puts what stands before the damage" in done.stderr
    assert "whole: 1 items were open, and wait again" in done.stderr
    assert {one["queue"]: one["items"] for one in map(json.loads, done.stdout.splitlines())} == {
        "broken": 0,
        "whole": 2,
    }
    os.unlink(tmp_path / "broken.imported")
    assert ctl(server, "import", "--damaged", str(tmp_path / "broken")).returncode == 1
    assert (drained(server, "whole"), drained(server, "broken")) == ([b"x", b"x"], [b"x"])


def test_a_queue_that_is_exported_to_a_full_disk_stays(shared_server: Callable[..., RunningServer]) -> None:
    server = shared_server()
    server.client().set("precious", b"x")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command(server, "export", "precious"), stdout=full, stderr=subprocess.PIPE, timeout=60, check=False
        )
    assert done.returncode == 1
    assert b"No space left" in done.stderr
    assert drained(server, "precious") == [b"x"]


# -- backup and restore


@pytest.mark.long
def test_a_backup_is_made_and_restored(start_server: Callable[..., RunningServer], tmp_path: Path) -> None:
    server = start_server("--backup-dir", str(tmp_path / "backups"))
    server.client().set("work", b"x")
    (saved,) = told(ctl(server, "backup", "monday"))
    assert saved["backup"] == "monday"
    (back,) = told(ctl(server, "restore", str(tmp_path / "backups" / "monday"), "--data", str(tmp_path / "new")))
    assert (back["files"], back["bytes"]) == (saved["files"], saved["bytes"])
    again = ctl(server, "restore", str(tmp_path / "backups" / "monday"), "--data", str(tmp_path / "new"))
    assert again.returncode == 1
    assert "not empty" in again.stderr


# -- a hundred thousand items, killed three times on the way

ITEMS = 100_000
KILLS = 3
BATCH = 100
BODIES = [b"%06d " % number + b"x" * 50 for number in range(ITEMS)]


def fill_memcache(port: int) -> None:
    client = Client(port)
    for start in range(0, ITEMS, 1000):
        client.send(b"".join(b"set work 0 0 %d\r\n%b\r\n" % (len(body), body) for body in BODIES[start : start + 1000]))
        client.expect(b"STORED\r\n" * 1000)
    client.close()


def fill_beanstalkd(port: int) -> None:
    with greenstalk.Client(("127.0.0.1", port), encoding=None, use="work") as client:
        for start in range(0, ITEMS, 1000):
            several = b"".join(b"put 1024 0 120 %d\r\n%b\r\n" % (len(b), b) for b in BODIES[start : start + 1000])
            client._sock.sendall(several)
            for _ in range(1000):
                assert client._reader.readline().startswith(b"INSERTED ")


def fill_redis(port: int) -> None:
    client = redis.Redis(port=port)
    for start in range(0, ITEMS, 1000):
        client.lpush("work", *BODIES[start : start + 1000])
    client.close()


@pytest.fixture
def old_server(start_server: Callable[..., RunningServer], tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """The URL of a server of this kind, which has all items."""
    with ExitStack() as running:

        def start(kind: str) -> str:
            if kind == "redis":
                port = running.enter_context(old_servers.redis_server(tmp_path))
                fill_redis(port)
            elif kind == "beanstalkd":
                port = running.enter_context(old_servers.beanstalkd())
                fill_beanstalkd(port)
            else:
                port = start_server("--dialect", kind).port
                fill_memcache(port)
            return f"{kind}://127.0.0.1:{port}"

        yield start


def count_of(client: Client) -> int:
    return int(client.stats().get("queue_work_items", 0))


def ledger(client: Client) -> list[bytes]:
    found: list[bytes] = []
    while True:
        client.send(b"get work\r\n" * 500)
        some = [body for _ in range(500) if (body := client.item()) is not None]
        found += some
        if len(some) < 500:
            return found


@pytest.mark.long
@pytest.mark.parametrize("kind", ["kestrel", "darner", "siberite", "beanstalkd", "redis", "beanstalkd with keys"])
def test_killed_three_times_nothing_is_lost(
    kind: str, old_server: Callable[[str], str], start_server: Callable[..., RunningServer]
) -> None:
    """Only what was on its way at a kill may be there twice, and with keys not even that."""
    url, new = old_server(kind.split()[0]), start_server()
    words = ("move", url, "--queue", "work", "--batch", str(BATCH), *(["--keys"] if "keys" in kind else []))
    client = new.client()
    for kill in range(KILLS):
        mover = subprocess.Popen(command(new, *words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda kill=kill: count_of(client) > (kill + 1) * ITEMS // (KILLS + 1), within_s=60)  # type: ignore[misc]
        assert mover.poll() is None, "it was killed on the way"
        mover.kill()
        mover.wait()
        time.sleep(0.1)  # the old server sees that the connection is gone
    last = subprocess.run(command(new, *words), capture_output=True, text=True, timeout=100, check=False)
    assert last.returncode == 0, last.stderr
    found = ledger(client)
    assert set(found) == set(BODIES)
    twice = len(found) - ITEMS
    assert twice <= (0 if "keys" in kind else KILLS * BATCH)
    first_seen = list(dict.fromkeys(found))
    assert first_seen == BODIES, "the order is kept"


@pytest.mark.long
def test_interrupted_by_ctrl_c_nothing_is_there_twice(
    old_server: Callable[[str], str], start_server: Callable[..., RunningServer]
) -> None:
    url, new = old_server("redis"), start_server()
    client = new.client()
    mover = subprocess.Popen(command(new, "move", url), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: count_of(client) > ITEMS // 10, within_s=60)
    mover.send_signal(signal.SIGINT)
    said = mover.communicate(timeout=30)[1]
    assert mover.returncode == 1
    assert "interrupted; nothing is lost: the same command goes on" in said
    told(ctl(new, "move", url))
    assert ledger(client) == BODIES
