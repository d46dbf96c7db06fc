"""A server with a listener for beanstalkd's clients, Debian's beanstalkd beside it, and a client in plain bytes."""

import shutil
import socket
import subprocess
import time
from pathlib import Path

from tests.support.harness import REPLY_S, START_S, Client, RunningServer, wait_until
from tests.support.identities import TlsClient, UnixClient

# The real one, to play the same conversations; None where it is not installed.
BEANSTALKD = shutil.which("beanstalkd")

# Of replies that a body follows, by their first word: which word says how long it is.
_WITH_BODY = {b"RESERVED": 2, b"FOUND": 2, b"OK": 1}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


class TubeServer(RunningServer):
    """Ours. `port` is for memcache clients, `tube_port` for those of beanstalkd. `lines`: of the file. `listener`: more
    lines about that of beanstalkd. `fails`: on the disk of tests/servers/failing_disk.py."""

    def __init__(self, data: Path, *lines: str, listener: tuple[str, ...] = (), fails: bool = False) -> None:
        self.program = "tests/servers/failing_disk.py" if fails else "darner.py"
        self.tube_port = free_port()
        file = data.parent / f"{data.name}.toml"
        listening = ["[[listener]]", 'dialect = "beanstalkd"', f"port = {self.tube_port}", *listener]
        file.write_text("\n".join([*lines, *listening, ""]))
        super().__init__(data, "-c", str(file))

    def worker(self) -> "Worker":
        """A new connection; closed when the server's test ends."""
        worker = Worker(self.tube_port)
        self.adopt(worker)
        return worker


class RealBeanstalkd:
    """Debian's beanstalkd, with a binlog."""

    def __init__(self, data: Path, *options: str) -> None:
        assert BEANSTALKD is not None
        self.tube_port = free_port()
        data.mkdir(parents=True, exist_ok=True)
        self._command = [BEANSTALKD, "-l", "127.0.0.1", "-p", str(self.tube_port), "-b", str(data), *options]
        self._workers: list[Worker] = []
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self._listens, START_S)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.tube_port), REPLY_S).close()
        except ConnectionRefusedError:
            return False
        return True

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(REPLY_S)

    def end(self) -> None:
        for worker in self._workers:
            worker.close()
        if self.process.poll() is None:
            self.kill()

    def worker(self) -> "Worker":
        self._workers.append(Worker(self.tube_port))
        return self._workers[-1]


class Worker(Client):
    """One connection of beanstalkd's protocol."""

    def reply(self) -> tuple[bytes, bytes]:
        """(the next line, and the body behind it)."""
        line = self.line().removesuffix(b"\r\n")
        word, *words = line.split(b" ")
        if word not in _WITH_BODY:
            return line, b""
        body = self.read(int(words[_WITH_BODY[word] - 1]))
        self.expect(b"\r\n")
        return line, body

    def command(self, line: str, body: bytes | None = None) -> tuple[bytes, bytes]:
        """The reply to this line."""
        self.send(line.encode() + b"\r\n" + (b"" if body is None else body + b"\r\n"))
        return self.reply()

    def says(self, line: str, reply: str) -> None:
        """The line is answered so."""
        got, body = self.command(line)
        assert got.decode() == reply, f"{line}: expected {reply}, got {got.decode()} {body[:200]!r}"

    def put(self, body: bytes | str = b"x", pri: int = 0, delay: int = 0, ttr: int = 100) -> int:
        """The new job's number."""
        body = body.encode() if isinstance(body, str) else body
        line, _ = self.command(f"put {pri} {delay} {ttr} {len(body)}", body)
        word, _, number = line.partition(b" ")
        assert word == b"INSERTED", line
        return int(number)

    def reserve(self, wait_s: int | None = 0) -> str | None:
        """The body of the job that is reserved now; None: there is none in time. Without a time it waits."""
        line, body = self.command("reserve" if wait_s is None else f"reserve-with-timeout {wait_s}")
        if line == b"TIMED_OUT":
            return None
        assert line.startswith(b"RESERVED "), line
        return body.decode()

    def begin_reserve(self) -> None:
        """Ask for a job, and be known to wait for one."""
        self.send(b"reserve\r\n")
        time.sleep(0.1)

    def reserved(self) -> str:
        """The body of the job for which `begin_reserve` waits."""
        line, body = self.reply()
        assert line.startswith(b"RESERVED "), line
        return body.decode()

    def peek(self, line: str) -> str | None:
        reply, body = self.command(line)
        if reply == b"NOT_FOUND":
            return None
        assert reply.startswith(b"FOUND "), reply
        return body.decode()

    def told(self, line: str) -> dict[str, str]:
        """The mapping that is answered."""
        reply, body = self.command(line)
        assert reply.startswith(b"OK "), reply
        first, *lines, last = body.decode().split("\n")
        assert (first, last) == ("---", ""), body
        return dict(one.split(": ", 1) for one in lines)

    def listed(self, line: str) -> list[str]:
        """The list that is answered."""
        reply, body = self.command(line)
        assert reply.startswith(b"OK "), reply
        first, *lines, last = body.decode().split("\n")
        assert (first, last) == ("---", ""), body
        assert all(one.startswith("- ") for one in lines)
        return [one.removeprefix("- ").strip('"') for one in lines]

    def use(self, tube: str, *also_watched: str) -> None:
        """Put into this tube, and reserve from it and these, not from `default`."""
        self.says(f"use {tube}", f"USING {tube}")
        for number, watched in enumerate((tube, *also_watched)):
            self.says(f"watch {watched}", f"WATCHING {number + 2}")
        self.says("ignore default", f"WATCHING {1 + len(also_watched)}")


class UnixWorker(UnixClient, Worker):
    """Over a Unix socket."""


class TlsWorker(TlsClient, Worker):
    """Over TLS."""
