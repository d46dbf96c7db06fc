"""The programs in README.md and docs/, run as they stand there against a real server."""

import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from loadtest.servers import free_port
from tests.support.harness import REPLY_S, ROOT, Client, RunningServer

README = (ROOT / "README.md").read_text()
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WORKER, PRODUCER = PYTHON.findall(README)
LIBRARIES: list[str] = PYTHON.findall((ROOT / "docs" / "protocol.md").read_text())
(CHECK,) = PYTHON.findall((ROOT / "docs" / "production.md").read_text())

KYOTOTYCOON = ("--dialect", "kyototycoon")


def at_port(example: str, port: int) -> str:
    assert "22133" in example
    return example.replace("22133", str(port))


def run_example(example: str, port: int) -> tuple[str, str]:
    """What this example prints, and what it complains of."""
    command = [sys.executable, "-c", at_port(example, port)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=REPLY_S, check=False)
    return ended.stdout, ended.stderr


# -- README.md


def test_the_conversation_is_what_the_server_says(start_server: Callable[..., RunningServer]) -> None:
    found = re.search(r"^Escape character is.*?\n(.*?)^Connection closed", README, re.MULTILINE | re.DOTALL)
    assert found
    client = start_server().client()
    before = ""
    for line in found[1].splitlines():
        if line.startswith(("set ", "get ", "quit")) or before.startswith("set "):
            client.send(line.encode() + b"\r\n")
        else:
            client.expect(line.encode() + b"\r\n")
        before = line
    assert client.read(1) == b""


class Worker:
    """README's worker in a process of its own."""

    def __init__(self, program: str, port: int, log: Path) -> None:
        self.log = log
        with open(log, "w") as opened:
            command = [sys.executable, "-c", at_port(program, port)]
            self.process = subprocess.Popen(command, stdout=opened, stderr=subprocess.STDOUT)

    def wait_prints(self, text: str) -> None:
        deadline = time.monotonic() + REPLY_S
        while text not in self.log.read_text():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    workers: list[Worker] = []

    def start(port: int, program: str = WORKER) -> Worker:
        workers.append(Worker(program, port, tmp_path / f"worker{len(workers)}.log"))
        return workers[-1]

    yield start
    for worker in workers:
        worker.kill()


def queue_is_empty(client: Client) -> bool:
    client.send(b"get mail/peek\r\n")
    return client.line() == b"END\r\n"


def test_the_worker_does_what_the_producer_puts(
    start_server: Callable[..., RunningServer], start_worker: Callable[..., Worker]
) -> None:
    server = start_server(*KYOTOTYCOON)
    worker = start_worker(server.port)
    assert run_example(PRODUCER, server.port) == ("", "")
    worker.wait_prints("done: hello\n")
    server.kill()
    worker.wait_prints("will be tried again: ")


def test_a_worker_that_dies_or_fails_leaves_its_job_to_the_next(
    start_server: Callable[..., RunningServer], start_worker: Callable[..., Worker]
) -> None:
    server = start_server(*KYOTOTYCOON)
    assert run_example(PRODUCER, server.port) == ("", "")
    prints = 'print("done:", job.decode(), flush=True)'
    assert prints in WORKER
    fails = start_worker(server.port, WORKER.replace(prints, "raise OSError('no mail server')"))
    fails.wait_prints("will be tried again: no mail server\n")
    fails.kill()
    dies = start_worker(server.port, WORKER.replace(prints, "print('begun', flush=True); time.sleep(60)"))
    dies.wait_prints("begun\n")
    assert queue_is_empty(server.client())
    dies.kill()
    start_worker(server.port).wait_prints("done: hello\n")


# -- docs/protocol.md


def example_of(library: str) -> str:
    example, *others = (example for example in LIBRARIES if library in example)
    assert not others
    return example


@pytest.mark.parametrize(
    ("library", "options", "printed"),
    [("pylibmc", (), "{'id': 1}\n"), ("pymemcache", ("--reply-key", "request"), "b'hello'\n")],
)
def test_the_example_of_a_client_library(
    library: str, options: tuple[str, ...], printed: str, start_server: Callable[..., RunningServer]
) -> None:
    server = start_server(*options)
    assert run_example(example_of(library), server.port) == (printed, "")
    server.client().ask(b"get work\r\n", b"END\r\n")  # the last item, too, was confirmed


def test_without_the_option_that_pymemcache_needs_it_never_sees_the_item(
    start_server: Callable[..., RunningServer],
) -> None:
    assert run_example(example_of("pymemcache"), start_server().port)[0] == ""


# -- docs/production.md


def check(program: str, port: int) -> tuple[str, int]:
    """What the check for a monitoring prints, and its exit status."""
    program = program.replace("/var/lib/darner", "/")
    command = [sys.executable, "-c", program, "127.0.0.1", str(port)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=REPLY_S, check=False)
    assert ended.stderr == ""
    return ended.stdout, ended.returncode


def test_the_check_of_a_monitoring(start_server: Callable[..., RunningServer]) -> None:
    server = start_server()
    program = CHECK.replace("10 << 30", "1")  # the disk of the tests may have less
    assert check(program, server.port) == ("good\n", 0)
    client = server.client()
    client.ask(b"set mail 0 0 1\r\na\r\nset mail 0 0 1\r\nb\r\nget mail\r\n", b"STORED\r\n" * 2)
    assert check(program, server.port) == ("good\n", 0)
    assert check(program.replace("1_000_000", "0"), server.port) == ("queue_mail_items is 1\n", 1)
    server.client().ask(b"set later/delay=600000 0 0 1\r\nc\r\n", b"STORED\r\n")  # it does not wait for a worker
    assert check(program.replace("1_000_000", "0"), server.port) == ("queue_mail_items is 1\n", 1)
    client.ask(b"status readonly\r\n", b"VALUE mail 0 1\r\na\r\nEND\r\nEND\r\n")
    assert check(program, server.port) == ("the status is READONLY\n", 1)
    server.kill()
    said, status = check(program, server.port)
    assert said.startswith("no answer: ")
    assert status == 2


# -- docs/README.md


def test_the_first_page_leads_to_a_worker_that_works(
    start_server: Callable[..., RunningServer], start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    first = (ROOT / "docs" / "README.md").read_text()
    (program,) = PYTHON.findall(first)
    found = re.search(r"^```toml\n(.*?)^```$", first, re.MULTILINE | re.DOTALL)
    curl = re.search(r"^curl (.*)$", first, re.MULTILINE)
    assert found
    assert curl
    beanstalkd, http = free_port(), free_port()
    file = tmp_path / "darner.toml"
    file.write_text(found[1].replace("11300", str(beanstalkd)))
    start_server("--config", str(file), "--http", f"127.0.0.1:{http}")
    worker = start_worker(beanstalkd, program.replace("11300", "22133"))
    _, body, url = shlex.split(curl[1].replace("22180", str(http)))
    with urlopen(Request(url, body.encode())) as answer:
        assert answer.status == 201
    worker.wait_prints("sending a mail to alice@example.com\n")
