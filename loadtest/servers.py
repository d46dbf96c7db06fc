"""Starts and ends the servers that are compared: this one, memcached, redis and beanstalkd.

Owns the command lines, the ports and the temporary directories. The promise: a server lives inside its `with` block and
not a moment longer, however the block ends; on Linux not even if this process is killed. It knows nothing of load or
figures.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from loadtest.errors import LoadTestError, Violation

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
START_S = 60.0  # a peer that reads gigabytes of its log first takes a while
STOP_S = 10.0  # our server has 5
LOOK_AGAIN_S = 0.005
# Below Linux's range for outgoing connections, so that none of the generator's own takes the port meanwhile.
FIRST_PORT, LAST_PORT = 20_000, 32_000

PORT, DIRECTORY = "PORT", "DIR"  # words of a command that stand for what is only known when it starts
OURS = "darner"
FLOOR = "floor"  # what any server in Python could reach at most; see floor.py

# What is changed from the defaults makes the comparison possible, not faster: connections enough for every scenario,
# items of 8 MB accepted, and for redis the durability asked for and no snapshots beside it.
PEERS = {
    "memcached": f"memcached -t 1 -l {HOST} -p {PORT} -c 12000 -m 1024 -I 16m",
    "redis": f"redis-server --bind {HOST} --port {PORT} --dir {DIRECTORY} --maxclients 12000 --appendonly yes "
    "--appendfsync everysec --save ''",
    "beanstalkd": f"beanstalkd -l {HOST} -p {PORT} -b {DIRECTORY} -z 16000000",
    FLOOR: f"{shlex.quote(sys.executable)} -m loadtest.compare.floor --port {PORT}",
}
ALL = (OURS, *PEERS)
PROTOCOL = {OURS: "memcache", "memcached": "memcache", "redis": "redis", "beanstalkd": "beanstalkd", FLOOR: "memcache"}
VERSION_OPTION = {"memcached": "-V", "redis": "--version", "beanstalkd": "-v", FLOOR: "--version"}

# Run by the interpreter that will run the server, which may be another than ours.
ASK_PYTHON = """
import importlib.metadata, json, platform, shlex, sysconfig
arguments = shlex.split(sysconfig.get_config_var("CONFIG_ARGS") or "")
build = [a for a in arguments if a.startswith(("--enable-optimizations", "--with-lto", "--with-pydebug"))]
versions = {name: importlib.metadata.version(name) for name in ("gevent", "rocksdict")}
print(json.dumps({"python": platform.python_version(), "build": build} | versions))
"""


_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def end_with_parent() -> None:
    """Run in a new process: Linux is to kill it when the thread that started it ends, even by kill -9."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass(frozen=True)
class Kind:
    """A server that can be started: its name, its version and its command, in which PORT and DIR are placeholders."""

    name: str
    version: str
    command: tuple[str, ...]

    @property
    def protocol(self) -> str:
        """Which of peers.py's protocols it speaks."""
        return PROTOCOL[self.name]

    @property
    def shown(self) -> str:
        """The command as it is shown to readers, whose Python is elsewhere."""
        command = ("python", *self.command[1:]) if self.name in (OURS, FLOOR) else self.command
        return shlex.join(command)


def our_server(python: str, options: list[str], program: str = "darner.py") -> Kind:
    """This server under some interpreter, or one that `program` starts; options are added to its command line."""
    python = os.path.abspath(python) if os.sep in python else python  # it is started in another directory
    command = (python, program, "--host", HOST, "--port", PORT, "--data", DIRECTORY, *options)
    return Kind(OURS, output([python, program, "--version"]).split()[-1], command)


def installed_peer(name: str) -> Kind | None:
    """One of PEERS, or None if it is not on this machine."""
    words = shlex.split(PEERS[name])
    if shutil.which(words[0]) is None:
        return None
    if name == "memcached" and os.geteuid() == 0:
        words += ["-u", "nobody"]  # as root it refuses to start without
    # "memcached 1.6.18", "Redis server v=7.0.15 sha=...", "beanstalkd 1.12"
    said = output([*(words[:3] if name == FLOOR else words[:1]), VERSION_OPTION[name]]).split()
    version = next((word.removeprefix("v=") for word in said if word.removeprefix("v=")[0].isdigit()), "unknown")
    return Kind(name, version, tuple(words))


def python_of(kind: Kind) -> dict[str, object]:
    """Version and build of our server's interpreter, and versions of the libraries it uses."""
    found: dict[str, object] = json.loads(output([kind.command[0], "-c", ASK_PYTHON]))
    return found


def output(command: list[str]) -> str:
    """What a command prints; LoadTestError if it cannot be run or fails."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    except OSError as error:
        raise LoadTestError(f"cannot run {command[0]}: {error.strerror}") from error
    except subprocess.CalledProcessError as error:
        said = (error.stderr or "").strip().splitlines()[-1:]  # of a traceback, what it is about
        raise LoadTestError(f"{command[0]} failed: {' '.join(said)}") from error
    except subprocess.TimeoutExpired as error:
        raise LoadTestError(f"{command[0]} does not end") from error
    return done.stdout


def free_port() -> int:
    """A port on loopback that nobody listens on."""
    for _ in range(100):
        port = random.randrange(FIRST_PORT, LAST_PORT)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((HOST, port))
            except OSError:
                continue
        return port
    raise LoadTestError("found no free port")


class Server:
    """A running server with a port and a data directory of its own.

    It is ended by SIGKILL: its data goes with it, so there is nothing to wait for, and nothing that could hang.
    """

    def __init__(self, kind: Kind, config: str = "") -> None:
        """It starts at the beginning of the `with` block. config: the text of a configuration file, for our server."""
        self.kind = kind
        self.config = config
        self.port = 0
        self.folder = Path()
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix=f"compare-{self.kind.name}-"))
        try:
            self.port = free_port()
            self.data.mkdir()
            if self.config:
                self.configure(self.config)
            self.launch()
            self.wait_until_it_listens()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def data(self) -> Path:
        """Its data directory."""
        return self.folder / "data"

    @property
    def pid(self) -> int:
        """Its process."""
        assert self.process is not None
        return self.process.pid

    def configure(self, config: str) -> None:
        """Write another configuration file, which is read at the next start or `reload`."""
        self.config = config
        self._config_file.write_text(config)

    @property
    def _config_file(self) -> Path:
        return self.folder / "darner.toml"

    def launch(self) -> None:
        """Start the process, without waiting for it; again after `kill` on the same port and data."""
        words = {PORT: str(self.port), DIRECTORY: str(self.data)}
        config = ("-c", str(self._config_file)) if self._config_file.exists() else ()
        with open(self.folder / "log", "ab") as log:
            # In a process group of its own, or Ctrl-C would reach it too, and look like a server that died.
            self.process = subprocess.Popen(
                [*(words.get(word, word) for word in self.kind.command), *config],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
                preexec_fn=end_with_parent,
            )

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> int:
        """Send SIGTERM, and wait for the end. Returns the exit status. Violation if it does not end in time."""
        assert self.process is not None
        self.process.terminate()
        return self.wait_stopped()

    def wait_stopped(self) -> int:
        """Wait for the end of a server that has been told to stop. Returns the exit status. Violation if it does not
        end in time."""
        assert self.process is not None
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            raise Violation(f"the server did not stop within {STOP_S:.0f} s of SIGTERM") from None

    def check(self) -> None:
        """LoadTestError if it has ended by itself or has had an accident."""
        if self.process is not None and self.process.poll() is not None:
            raise LoadTestError(f"{self.kind.name} ended with status {self.process.returncode}: {self._log()[-500:]}")
        if "Traceback" in self._log():
            raise LoadTestError(f"{self.kind.name} has had an accident: {self._log()[-2000:]}")

    def wait_until_it_listens(self, port: int = 0) -> None:
        """Wait until it takes connections, at its own port or another that its configuration names. Raises
        LoadTestError if it ends before, or never does."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            self.check()
            try:
                socket.create_connection((HOST, port or self.port), timeout=START_S).close()
            except OSError:
                time.sleep(LOOK_AGAIN_S)
            else:
                return
        raise LoadTestError(f"{self.kind.name} does not listen after {START_S:.0f} s: {self._log()[-500:]}")

    def _log(self) -> str:
        try:
            return (self.folder / "log").read_text(errors="replace").strip()
        except FileNotFoundError:
            return ""


class ServerProcess:
    """The server as /proc shows it; every figure is None if no process was named."""

    def __init__(self, pid: int | None, data: Path | None) -> None:
        """pid: the server; data: the directory it keeps its data in."""
        self.pid, self.data = pid, data
        if pid is not None and not Path(f"/proc/{pid}").is_dir():
            raise LoadTestError(f"no process {pid}")
        if data is not None and not data.is_dir():
            raise LoadTestError(f"no directory {data}")

    def cpu_s(self) -> float | None:
        """Processor time so far, of all threads."""
        text = self._read("stat")
        if text is None:
            return None
        fields = text.rpartition(")")[2].split()  # the name before it may hold anything
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int | None:
        """VmRSS."""
        text = self._read("status")
        if text is None:
            return None
        return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("VmRSS:")), 0)

    def open_files(self) -> int | None:
        """Descriptors, sockets included."""
        if self.pid is None:
            return None
        try:
            return len(os.listdir(f"/proc/{self.pid}/fd"))
        except OSError as error:
            raise LoadTestError(f"cannot look at the open files of process {self.pid}: {error.strerror}") from error

    def disk_bytes(self) -> int | None:
        """Blocks allocated below the data directory; files may vanish while we look."""
        if self.data is None:
            return None
        total = 0
        for folder, _folders, names in os.walk(self.data):
            for name in names:
                try:
                    total += os.stat(os.path.join(folder, name)).st_blocks * 512
                except FileNotFoundError:
                    continue
        return total

    def footprint(self) -> dict[str, int | None]:
        """Resident memory and disk use at this moment."""
        return {"resident_bytes": self.resident_bytes(), "disk_bytes": self.disk_bytes()}

    def _read(self, name: str) -> str | None:
        if self.pid is None:
            return None
        try:
            return Path(f"/proc/{self.pid}/{name}").read_text()
        except OSError as error:
            raise LoadTestError(f"cannot look at process {self.pid}: {error.strerror}") from error
