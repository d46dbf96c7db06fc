"""A real file goes through the server line by line, while a consumer and then the server are killed with -9.

Producers and consumers are processes of their own. They connect again when the server has gone, and do again what was
not answered. Each writes down what happened to it before it goes on, so what it knew when it was killed is known:

  - a producer, which lines it had sent and got no STORED for: it puts them again, though they may have been stored
  - a consumer, each line it was handed, when it had asked and when it was answered; and, when the server goes, which
    line it held, whose close was not answered

From that the test knows exactly which lines may come out twice.
"""

import os
import pickle
import socket
import subprocess
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.harness import ROOT, RunningServer

QUEUE = b"lines"
MIN_LINES = 50_000
IN_FLIGHT = (1, 1, 2, 4)  # lines that each producer sends before it waits for their STORED
CONSUMERS = 3  # that live; another one is killed
HELD_AT = 500  # the line at which that one stops, and one of the others too, and holds it until a kill comes
NEVER = -1
PATIENCE_S = 100.0  # how long anything may take; the whole takes about 12 s

StartWorker = Callable[..., "subprocess.Popen[bytes]"]


class Read(NamedTuple):
    """A line that a consumer was handed. Times are those of the machine's one monotonic clock."""

    asked_ns: int
    answered_ns: int
    body: bytes
    after_kill: bool  # by the server that was started after the kill


class Broke(NamedTuple):
    """A consumer lost its connection while it held this line, and was waiting for the next."""

    held: bytes | None


class Unanswered(NamedTuple):
    """A producer lost its connection when it had sent these lines and was not told whether they were stored."""

    bodies: list[bytes]


# -- the real input


def write_source(path: Path) -> None:
    """A file of at least MIN_LINES lines: modules of the standard library, in the order of their names."""
    lines = 0
    with open(path, "wb") as source:
        for module in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
            text = module.read_bytes()
            source.write(text)
            lines += text.count(b"\n")
            if lines >= MIN_LINES:
                return
    raise AssertionError(f"the standard library has only {lines} lines")


def bodies_of(source: Path, producer: int) -> list[bytes]:
    """What this producer puts: its name, the number of the line among its lines, and the line, with its end."""
    with open(source, "rb") as file:
        lines = file.readlines()[producer :: len(IN_FLIGHT)]
    return [b"%d %06d " % (producer, number) + line for number, line in enumerate(lines)]


def producer_and_number(body: bytes) -> tuple[int, int]:
    producer, number, _ = body.split(b" ", 2)
    return int(producer), int(number)


# -- the workers


class Notes:
    """What has happened to a worker. What is written is safe when the worker is killed."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, note: Any) -> None:
        os.write(self._file, pickle.dumps(note))

    @staticmethod
    def read(path: Path) -> Iterator[Any]:
        with open(path, "rb") as file:
            while file.peek(1):
                yield pickle.load(file)


class Connection:
    """To the server that runs now. Raises ConnectionError when it has gone."""

    def __init__(self, directory: Path) -> None:
        while not (directory / "port").exists():
            time.sleep(0.01)
        address = "127.0.0.1", int((directory / "port").read_text())
        self._socket = socket.create_connection(address, PATIENCE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._replies = self._socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def line(self) -> bytes:
        return self._whole(self._replies.readline(), b"\n")

    def item(self) -> bytes | None:
        """The body in the reply to a get, or None."""
        head = self.line()
        if head == b"END\r\n":
            return None
        size = int(head.removeprefix(b"VALUE %b 0 " % QUEUE))
        return self._whole(self._replies.read(size + 7), b"\r\nEND\r\n")[:size]

    def _whole(self, reply: bytes, end: bytes) -> bytes:
        if not reply.endswith(end):
            raise ConnectionError("hung up")
        return reply


def produce(directory: Path, name: str, number: int) -> None:
    notes, connection = Notes(directory / name), Connection(directory)
    bodies = bodies_of(directory / "source", number)
    stored = 0
    while stored < len(bodies):
        sent = bodies[stored : stored + IN_FLIGHT[number]]
        answered = 0
        try:
            connection.send(b"".join(b"set %b 0 0 %d\r\n%b\r\n" % (QUEUE, len(body), body) for body in sent))
            for _ in sent:
                reply = connection.line()
                assert reply == b"STORED\r\n", reply
                answered += 1
        except ConnectionError:
            notes.write(Unanswered(sent[answered:]))
            connection = Connection(directory)
        stored += answered


def consume(directory: Path, name: str, hold_at: int) -> None:
    """Take lines until all have been put and none is left. Hold line `hold_at`, and say so, until the server goes."""
    notes, connection = Notes(directory / name), Connection(directory)
    held, taken, after_kill = None, 0, False
    while True:
        all_put = (directory / "all put").exists()
        asked_ns = time.monotonic_ns()
        try:
            if taken == hold_at and not after_kill:
                print("holding", flush=True)
                connection.line()  # none comes
            connection.send(b"get %b/t=500/close/open\r\n" % QUEUE)
            body = connection.item()
        except ConnectionError:
            notes.write(Broke(held))
            connection, held, after_kill = Connection(directory), None, True
            continue
        if body is not None:
            notes.write(Read(asked_ns, time.monotonic_ns(), body, after_kill))
            taken += 1
        elif all_put:
            return
        held = body


# -- the test


@dataclass
class Account:
    """What the workers wrote down."""

    reads: list[Read]
    unanswered: list[bytes]  # put again
    breaks: list[bytes | None]  # held by consumers when the server was killed
    held_by_killed: bytes  # held by the consumer that was killed

    @classmethod
    def of(cls, directory: Path, producers: list[str], consumers: list[str], killed: str) -> "Account":
        unanswered = [body for name in producers for note in Notes.read(directory / name) for body in note.bodies]
        notes = [note for name in consumers for note in Notes.read(directory / name)]
        reads_of_killed = list(Notes.read(directory / killed))
        reads = reads_of_killed + [note for note in notes if isinstance(note, Read)]
        breaks = [note.held for note in notes if isinstance(note, Broke)]
        return cls(reads, unanswered, breaks, reads_of_killed[-1].body)


def disordered(reads: list[Read], put_again: Counter[bytes]) -> list[bytes]:
    """The lines that were asked for when a later line of the same producer had been received already.

    Lines that were read more than once among these, or put more than once, do not count.
    """
    times = Counter(read.body for read in reads)
    reads = [read for read in reads if times[read.body] == 1 and not put_again[read.body]]
    received = sorted(reads, key=lambda read: read.answered_ns)
    latest: dict[int, int] = {}
    found, position = [], 0
    for read in sorted(reads, key=lambda read: read.asked_ns):
        while received[position].answered_ns < read.asked_ns:
            producer, number = producer_and_number(received[position].body)
            latest[producer] = max(number, latest.get(producer, 0))
            position += 1
        producer, number = producer_and_number(read.body)
        if number < latest.get(producer, 0):
            found.append(read.body)
    return found


def late(reads: list[Read]) -> list[bytes]:
    """The lines that came after the server's kill though a later line of the same producer had come before it."""
    last_before = dict(sorted(producer_and_number(read.body) for read in reads if not read.after_kill))
    after = [read.body for read in reads if read.after_kill]
    return [body for body in after if producer_and_number(body)[1] < last_before.get(producer_and_number(body)[0], 0)]


def set_port(directory: Path, port: int) -> None:
    (directory / "port.new").write_text(str(port))
    (directory / "port.new").rename(directory / "port")


def wait_for(workers: list["subprocess.Popen[bytes]"]) -> None:
    for worker in workers:
        assert worker.wait(PATIENCE_S) == 0


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[StartWorker]:
    """Start a worker process. None outlives the test."""
    workers = []

    def start(work: str, name: str, number: int) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "tests.test_end_to_end", work, str(tmp_path), name, str(number)]
        workers.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE))
        return workers[-1]

    yield start
    for worker in workers:
        worker.kill()
        worker.wait()
        assert worker.stdout is not None
        worker.stdout.close()


@pytest.mark.long
@pytest.mark.parametrize("poller", ["auto", "gevent"])
def test_a_file_comes_out_as_it_went_in_though_a_consumer_and_the_server_are_killed(
    tmp_path: Path, start_server: Callable[..., RunningServer], start_worker: StartWorker, poller: str
) -> None:
    server = start_server("--poller", poller)
    write_source(tmp_path / "source")
    bodies = [body for number in range(len(IN_FLIGHT)) for body in bodies_of(tmp_path / "source", number)]
    observer = server.client()
    set_port(tmp_path, server.port)
    producers = [f"producer {number}" for number in range(len(IN_FLIGHT))]
    consumers = [f"consumer {number}" for number in range(CONSUMERS)]
    producing = [start_worker("produce", name, number) for number, name in enumerate(producers)]
    consuming = [start_worker("consume", name, NEVER if number else HELD_AT) for number, name in enumerate(consumers)]
    killed = start_worker("consume", "killed consumer", HELD_AT)
    for holding in (killed, consuming[0]):
        assert holding.stdout is not None
        assert holding.stdout.readline() == b"holding\n"
    killed.kill()

    while int(observer.stats()["cmd_set"]) < len(bodies) // 2:
        time.sleep(0.01)
    (tmp_path / "port").unlink()
    server.kill()
    still_producing = [worker.poll() is None for worker in producing]
    server.start()
    set_port(tmp_path, server.port)

    wait_for(producing)
    (tmp_path / "all put").touch()
    wait_for(consuming)

    account = Account.of(tmp_path, producers, consumers, "killed consumer")
    assert any(still_producing), "the kill came too late to disturb"
    assert len(account.breaks) == len(consumers), "the kill has to be felt by each consumer, once"

    # Every line comes out, byte for byte, and nothing else does.
    times = Counter(read.body for read in account.reads)
    assert times.keys() == set(bodies)

    # The two that were held at a kill come out again, and others only if they may.
    put_again = Counter(account.unanswered)
    may_again = put_again + Counter(account.breaks) + Counter([account.held_by_killed])
    assert [body for body, count in times.items() if count > 1 + may_again[body]] == []
    assert [times[body] for body in (account.held_by_killed, account.breaks[0]) if body is not None] == [2, 2]

    # In order, wherever a line was put once and handed out once by the same server.
    for after_kill in (False, True):
        assert disordered([read for read in account.reads if read.after_kill == after_kill], put_again) == []

    # Each consumer had one line open when the server was killed: the one it held, or, if the server had got as far as
    # to close that, the next, which then comes late and is written down once because the answer to it was lost.
    lates = late([read for read in account.reads if times[read.body] == 1])
    open_again = [body for body in account.breaks if body is not None and times[body] > 1 + put_again[body]]
    assert len(lates) + len(open_again) <= len(consumers)

    # The queue is empty, and what was closed stays closed.
    for _ in range(2):
        client = server.client()
        stats = client.stats()
        assert (stats["curr_items"], stats["queue_lines_items"], stats["queue_lines_open_transactions"]) == ("0",) * 3
        assert client.get("lines") is None
        server.kill()
        server.start()

    print(
        f"{len(bodies)} lines; {sum(times.values()) - len(times)} came out twice: {len(open_again) + 1} that were open"
        f" and {len(put_again)} put again at most; {len(lates)} late; {sum(still_producing)} producers interrupted;"
        f" {sum(not read.after_kill for read in account.reads)} had come out at the kill"
    )


if __name__ == "__main__":
    # By the module's name, not as __main__, so that the test can read the notes.
    from tests import test_end_to_end

    {"produce": test_end_to_end.produce, "consume": test_end_to_end.consume}[sys.argv[1]](
        Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    )
