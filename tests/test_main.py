"""The server as a user at a shell meets it: what it prints, how it ends, and what it does not touch."""

import io
import json
import logging
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Options, Rdict

from darner_core import VERSION
from darner_core.config.options import OPTIONS
from darner_core.errors import StorageError
from darner_core.main import LogFormatter
from darner_core.storage import records
from darner_core.storage.storage import Storage
from tests.support.harness import REPLY_S, ROOT, START_S, RunningServer, run_darner

StartServer = Callable[..., RunningServer]


def refusal(*words: str) -> str:
    """The one line that the server says instead of starting."""
    ended = run_darner(*words)
    assert ended.returncode == 1, ended
    assert "listening" not in ended.stdout
    assert re.fullmatch(r"darner: [^\n]+\n", ended.stderr), ended.stderr
    return ended.stderr.removeprefix("darner: ").rstrip("\n")


def open_small(path: Path) -> Storage:
    return Storage(
        str(path),
        max_column_families=64,
        block_cache_bytes=8 << 20,
        write_buffer_bytes=16 << 20,
        max_wal_bytes=64 << 20,
        max_open_files=64,
    )


# -- it starts


def test_the_log_begins_with_what_runs_where(server: RunningServer) -> None:
    lines = server.printed().splitlines()
    stamps = [re.fullmatch(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) INFO (.+)", line) for line in lines]
    assert [stamp and stamp[2] for stamp in stamps] == [
        "darner: queue server",
        f"version: {VERSION}",
        f"data dir: {server.data}",
        "starting up",
        "recovered: 0 queues, 0 items, 0 bytes",
        f"listening on: 127.0.0.1 port {server.port}",
        "ready: listening",
    ]
    server.client().ask(b"version\r\n", b"VERSION %b\r\n" % VERSION.encode())


def test_connections_are_logged_only_where_that_is_asked_for(start_server: StartServer) -> None:
    quiet, talkative = start_server(), start_server("--debug")
    for server in (quiet, talkative):
        server.client().set("q", b"x")
        server.stop()
    assert "DEBUG connected: 127.0.0.1:" in talkative.log
    assert "connected" not in quiet.log


def test_the_log_may_be_lines_of_json(start_server: StartServer) -> None:
    server = start_server("--log-format", "json")
    server.client().ask(b'delete a"\xff\r\n', b"DELETED\r\n")
    assert server.stop() == 0
    lines = [json.loads(line) for line in server.log.splitlines()]
    assert all(list(line) == ["time", "level", "message"] for line in lines)
    assert (lines[0]["level"], lines[0]["message"]) == ("INFO", "darner: queue server")
    assert datetime.fromisoformat(lines[0]["time"]).utcoffset() == timedelta()
    assert [line["message"] for line in lines if line["message"].endswith(r'delete a"\xff')]


def test_options_come_from_a_file_and_the_command_line_wins(start_server: StartServer, tmp_path: Path) -> None:
    file = tmp_path / "darner.toml"
    file.write_text('port = 1\ndata = "/nowhere"\nmax_item_bytes = 10\nreply_key = "request"\n')
    client = start_server("-c", str(file), "--max-item-bytes", "20").client()
    client.ask(b"set q 0 0 20\r\n12345678901234567890\r\n", b"STORED\r\n")
    client.ask(b"set q 0 0 21\r\n123456789012345678901\r\n", b"SERVER_ERROR object too large for cache\r\n")
    client.ask(b"get q/t=1\r\n", b"VALUE q/t=1 0 20\r\n")


def test_the_example_file_is_good_to_start_with(start_server: StartServer) -> None:
    client = start_server("-c", str(ROOT / "conf" / "darner.toml")).client()
    client.set("q", b"x")
    assert client.get("q") == b"x"


# -- it does not start


def test_a_port_that_is_in_use_is_named(server: RunningServer, tmp_path: Path) -> None:
    line = refusal("--port", str(server.port), "--data", str(tmp_path / "other"))
    assert line == f"cannot listen on 127.0.0.1 port {server.port}: Address already in use"
    assert not (tmp_path / "other").exists()  # what the start has made
    assert server.client().get("q") is None


def test_an_address_that_is_not_ours_is_named(tmp_path: Path) -> None:
    line = refusal("--host", "192.0.2.1", "--port", "0", "--data", str(tmp_path / "data"))
    assert line == "cannot listen on 192.0.2.1 port 0: Cannot assign requested address"


@pytest.mark.parametrize("host", ["not a host", "a..b", "x" * 300])
def test_a_host_that_does_not_exist_is_named_with_the_reason(host: str, tmp_path: Path) -> None:
    line = refusal("--host", host, "--port", "0", "--data", str(tmp_path / "data"))
    assert line.startswith(f"cannot listen on {host} port 0: ")
    assert "Unknown error" not in line


def test_a_data_directory_belongs_to_one_server_at_a_time(server: RunningServer) -> None:
    client = server.client()
    client.set("q", b"x")
    line = refusal("--port", "0", "--data", str(server.data))
    assert line == f"data directory {server.data}: in use by another server"
    client.set("q", b"y")
    assert [client.get("q"), client.get("q")] == [b"x", b"y"]


def test_a_data_directory_is_free_again_when_its_server_was_killed(server: RunningServer) -> None:
    server.client().set("q", b"x")
    server.kill()
    server.start()
    assert server.client().get("q") == b"x"


def test_a_data_directory_that_cannot_be_made_is_named_with_the_reason(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    assert refusal("--port", "0", "--data", str(file)).startswith(f"data directory {file}: ")
    # Not even root can make a directory there.
    below = file / "below" / "data"
    assert refusal("--port", "0", "--data", str(below)) == f"data directory {below}: Not a directory"
    assert file.read_text() == "precious"


def test_a_directory_with_other_files_is_left_alone(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "holiday.jpg").write_bytes(b"sun")
    line = refusal("--port", "0", "--data", str(home))
    assert line.startswith(f"data directory {home}: holds other files and no queues")
    assert [path.name for path in home.iterdir()] == ["holiday.jpg"]


def open_raw(path: Path) -> Any:
    return Rdict(str(path), Options(raw_mode=True), {"default": Options(raw_mode=True)})


def open_plain(path: Path) -> Any:
    return Rdict(str(path))


@pytest.mark.parametrize("open_theirs", [open_raw, open_plain])
def test_a_database_of_another_program_is_left_alone(open_theirs: Callable[[Path], Any], tmp_path: Path) -> None:
    path = tmp_path / "theirs"
    theirs = open_theirs(path)
    theirs[b"key"] = b"value"
    theirs.close()
    assert refusal("--port", "0", "--data", str(path)).startswith(f"data directory {path}: ")
    # Their program opens it as before: no column families that it does not know of, no other settings.
    theirs = open_theirs(path)
    assert theirs[b"key"] == b"value"
    theirs.close()


def test_a_data_directory_of_another_format_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "data"
    storage = open_small(path)
    storage.close()
    (path / records.FORMAT_FILE).write_bytes(b"darner 999\n")
    line = refusal("--port", "0", "--data", str(path))
    assert line.startswith(f"data directory {path}: of format 'darner 999', this server reads 'darner 3'; drain it")


def test_a_first_start_that_was_cut_off_can_be_repeated(start_server: StartServer, tmp_path: Path) -> None:
    """These files are there before the directory is a database: so a kill -9 in its first milliseconds leaves it."""
    data = tmp_path / "data0"  # where start_server puts its first
    data.mkdir()
    for name in ("FORMAT.new", "000000.dbtmp", "LOCK", "LOG", "rocksdict-config.json"):
        (data / name).touch()
    (data / "FORMAT").write_bytes(records.FORMAT)
    assert start_server().client().get("q") is None


def test_damaged_files_are_told_of_in_one_line(server: RunningServer, tmp_path: Path) -> None:
    client = server.client()
    for number in range(100):
        client.set("q", b"%d" % number * 100)
    server.stop()
    server.start()  # moves what is in the write-ahead log to tables
    server.stop()
    tables = sorted(server.data.glob("*.sst"))
    assert tables
    for table in tables:
        damaged = tmp_path / "damaged"
        shutil.copytree(server.data, damaged)
        content = bytearray(table.read_bytes())
        content[20:40] = bytes(byte ^ 0xFF for byte in content[20:40])
        (damaged / table.name).write_bytes(content)
        try:
            other = RunningServer(damaged)
        except AssertionError as error:  # it needs that table to start
            said = str(error)
            assert re.search(rf"\ndarner: [^\n]+{table.name}[^\n]*\n$", said)
        else:
            client = other.client()
            client.send(b"get q\r\n")
            line = client.line()
            assert line.startswith(b"SERVER_ERROR ") or (line + client.read(107)).endswith(b"0" * 100 + b"\r\nEND\r\n")
            other.end()
        shutil.rmtree(damaged)


def test_a_bad_option_is_named_and_nothing_is_made(tmp_path: Path) -> None:
    data = tmp_path / "data"
    file = tmp_path / "darner.toml"
    file.write_text("port = 99999\n")
    where = ["--data", str(data)]
    said = 'command line: unrecognized arguments: --prot 1; did you mean "--port"?; see darner --help'
    assert refusal(*where, "--prot", "1") == said
    assert refusal(*where, "--port", "x") == "command line: --port = 'x': must be a number from 0 to 65535"
    assert refusal(*where, "-c", str(file)) == f"{file}: line 1: port = 99999: must be a number from 0 to 65535"
    file.write_text("prot = 1\n")
    assert refusal(*where, "-c", str(file)) == f'{file}: line 1: unknown option prot: did you mean "port"?'
    assert refusal(*where, "-c", f"{file}.no") == f"{file}.no: No such file or directory"
    assert not data.exists()


# -- it answers and ends


@pytest.mark.parametrize("word", ["--version", "-v"])
def test_version_is_one_line(word: str) -> None:
    ended = run_darner(word)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"darner {VERSION}\n", "")


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_lists_every_option(word: str) -> None:
    ended = run_darner(word)
    assert (ended.returncode, ended.stderr) == (0, "")
    for option in OPTIONS:
        assert f"--{option.name.replace('_', '-')}" in ended.stdout
    assert "--config" in ended.stdout


def test_packages_that_are_missing_are_named_in_one_line_with_what_to_do(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-S", str(ROOT / "darner.py")],  # -S: without site-packages
        capture_output=True, text=True, cwd=tmp_path, timeout=START_S, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert re.fullmatch(r"darner: the Python package \w+ is not installed\. `make run` [^\n]+\n", ended.stderr), ended


def test_the_installed_command_is_the_same_program() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "from darner_core.main import command; command()", "--prot"],
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
        cwd=ROOT,
    )
    assert (ended.returncode, ended.stderr) == (
        1,
        'darner: command line: unrecognized arguments: --prot; did you mean "--port"?; see darner --help\n',
    )


# -- it stops


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_and_the_log_says_so(server: RunningServer, number: int) -> None:
    client = server.client()
    client.set("q", b"x")
    assert server.stop(number) == 0
    assert [line.split(" ", 3)[3] for line in server.log.splitlines()[-2:]] == ["stopping", "shut down"]
    client.expect_hang_up()


def test_the_signal_that_log_rotation_sends_does_nothing(server: RunningServer) -> None:
    server.process.send_signal(signal.SIGUSR1)
    server.client().set("q", b"a")
    assert server.process.poll() is None


def test_what_was_stopped_starts_again_on_the_same_port_at_once(server: RunningServer) -> None:
    clients = [server.client() for _ in range(3)]
    clients[0].set("q", b"x")
    assert clients[1].get("q/open") == b"x"
    assert server.stop() == 0
    server.options = ("--port", str(server.port))
    server.start()
    assert server.client().get("q") == b"x"


def test_a_second_signal_does_not_wait_for_anyone(server: RunningServer) -> None:
    producer, slow = server.client(), server.client()
    slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    body = bytes(60_000)
    for _ in range(500):
        producer.set("q", body)
    slow.send(b"get q\r\n" * 500)
    slow.read(1000)  # and no more: the server cannot get rid of the rest
    server.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + REPLY_S
    while "stopping" not in server.printed():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert server.stop(signal.SIGTERM) == 1
    assert server.log.splitlines()[-1].endswith("INFO shut down at once")
    server.start()
    assert server.client().get("q") == body


def test_a_log_message_is_one_printable_line_whatever_is_in_it() -> None:
    bad = "q\u009b31m\u0085ERROR\u202e\n\r\x1b[2J\x00\udcff"
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(LogFormatter("%(levelname)s %(message)s"))
    logger = logging.Logger("test")
    logger.addHandler(handler)
    logger.warning("queue %s is grün", bad)
    logger.error("%s", StorageError(bad))
    try:
        raise StorageError(bad)
    except StorageError:
        logger.exception("a request failed")
    lines = out.getvalue().split("\n")
    shown = r"q\x9b31m\x85ERROR\u202e\n\r\x1b[2J\x00\udcff"
    assert lines[:4] == [f"WARNING queue {shown} is grün", f"ERROR {shown}", "ERROR a request failed",
                         "Traceback (most recent call last):"]  # fmt: skip
    assert all(line.isprintable() for line in lines)
