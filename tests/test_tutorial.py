"""The tutorial docs/jobs.md, played from its beginning to its end: files are written, commands run, requests sent, as a
reader would do it, and what the page shows must come.
"""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from darner_core.config.queues import QueueOptions
from tests.support.harness import REPLY_S, ROOT, RunningServer

PAGE = ROOT / "docs" / "jobs.md"

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"# (\S+\.(?:py|toml))\n")
PUTS = ("set ", "add ")
VERBS = (*PUTS, "get ", "kick ", "pause ")
PYTHON, DARNER = "$ .venv/bin/python ", "$ .venv/bin/darner -c jobs.toml"

# What is different each time: ages, times, ports.
VARYING = (
    (re.compile(r"(?<=client=127\.0\.0\.1:)\d+|(?<=put=)\d+"), "+"),
    (re.compile(r"\b(?:\d+m )?[\d.]+s +-"), "+ -"),
    (re.compile(r"due in 9m \d+s"), "due in 9m +"),
)


def same_each_time(text: str) -> str:
    for pattern, instead in VARYING:
        text = pattern.sub(instead, text)
    return re.sub(r" +", " ", text)


def blocks() -> Iterator[tuple[str, str]]:
    """The language and the text of each block of the page."""
    return ((found[1], found[2]) for found in BLOCK.finditer(PAGE.read_text()))


class Reader:
    """Somebody who does what the page says, in a folder of their own."""

    def __init__(self, folder: Path, start_server: Callable[..., RunningServer]) -> None:
        self.folder = folder
        self.start_server = start_server
        self.server: RunningServer | None = None
        self.done: list[str] = []

    def write(self, name: str, text: str) -> None:
        port = str(self.server.port) if self.server is not None else "22133"
        (self.folder / name).write_text(text.replace("22133", port))

    def run(self, command: str) -> str:
        """What it prints."""
        self.done.append(command)
        if command.startswith(PYTHON):
            words = [sys.executable, command.removeprefix(PYTHON)]
        else:
            assert command.startswith(f"{DARNER} --dump "), command
            assert self.server is not None
            options = command.removeprefix(DARNER).split()
            words = [sys.executable, str(ROOT / "darner.py"), "-c", "jobs.toml", "-d", str(self.server.data), *options]
        ended = subprocess.run(words, cwd=self.folder, capture_output=True, text=True, timeout=2 * REPLY_S, check=False)
        assert ended.stderr == ""
        return ended.stdout

    def type(self, command: str) -> None:
        """Start the server, or run this command and compare."""
        first, _, shown = command.partition("\n")
        if first == DARNER:
            self.server = self.start_server("-c", str(self.folder / "jobs.toml"))
        elif not first.startswith(("$ python3 -m venv", "$ .venv/bin/pip")):
            assert same_each_time(self.run(first)) == same_each_time(shown), first

    def talk(self, conversation: str) -> None:
        """Send the requests, with the items of puts, and compare the replies."""
        assert self.server is not None
        client = self.server.client()
        before = ""
        for line in conversation.splitlines():
            if line.startswith(VERBS) or before.startswith(PUTS):
                client.send(f"{line}\r\n".encode())
            else:
                client.expect(f"{line}\r\n".encode())
            before = line
            self.done.append(line)


def test_the_page_about_jobs(tmp_path: Path, start_server: Callable[..., RunningServer]) -> None:
    reader = Reader(tmp_path, start_server)
    for language, text in blocks():
        name = FILE_NAME.match(text)
        if name:
            reader.write(name[1], text)
        elif text.startswith("$ "):
            for command in re.split(r"^(?=\$ )", text, flags=re.MULTILINE)[1:]:
                reader.type(command)
        elif not language:
            reader.talk(text)
    programs = ["producer", "worker", "again", "worker", "slow"]
    assert [command for command in reader.done if PYTHON in command] == [f"{PYTHON}{name}.py" for name in programs]
    assert {"kick mail 10", "kick work 1", "add orders/key=4711 0 0 8", "pause orders in 60"} <= set(reader.done)


def test_the_options_that_the_page_shows(tmp_path: Path, start_server: Callable[..., RunningServer]) -> None:
    (options,) = (text for language, text in blocks() if language == "toml" and not FILE_NAME.match(text))
    (tmp_path / "options.toml").write_text(options)
    client = start_server("-c", str(tmp_path / "options.toml")).client()
    client.set("mail.out", b"a")
    assert client.get("mail.out/open/ttr") == b"a"
    client.ask(b"get mail.out/reject\r\n", b"END\r\n")
    assert client.get("dead/open") == b"a"
    client.ask(b"get dead/reject\r\n", b"END\r\n")
    assert client.stats()["queue_dead_buried"] == "1"
    for reply in b"STORED\r\n", b"NOT_STORED\r\n":
        client.ask(b"add orders/key=k 0 0 1\r\na\r\n", reply)
        client.get("orders")  # for a day its key stays taken


def test_only_ages_times_and_ports_may_differ() -> None:
    first = "4.1s   -   due in 9m 55s  failures=5 last=nack client=127.0.0.1:42310 put=1795871392067"
    second = "1m 12s   -   due in 9m 2s  failures=5 last=nack client=127.0.0.1:9 put=1795871399999"
    assert same_each_time(first) == same_each_time(second)
    for word, other in ("failures=5", "failures=4"), ("nack", "loss"), ("9m", "1h"), ("127.0.0.1", "10.0.0.7"):
        assert same_each_time(first) != same_each_time(first.replace(word, other))


def test_the_table_of_options_has_the_built_in_values() -> None:
    _, _, section = PAGE.read_text().partition("\n## Options of queues\n")
    rows = re.findall(r"^\| `(\w+)` \| (\d+|none)", section, re.MULTILINE)
    assert len(rows) == 8
    for name, built_in in rows:
        default = getattr(QueueOptions(), name)
        assert built_in == (str(default) if default else "none" if default == b"" else "0"), name
