"""What systemd is told of a server, and the sockets that it hands over."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from darner_core.errors import StartError
from darner_core.server.service_manager import ServiceManager
from tests.support.harness import REPLY_S, ROOT, Client, RunningServer

Start = Callable[..., RunningServer]


class Manager:
    """The service manager's end of what it is told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(REPLY_S)

    def told(self) -> str:
        """What is told next, but for signs of life."""
        while True:
            said = self._socket.recv(1000).decode()
            if said != "WATCHDOG=1":
                return said

    def hears(self, seconds: float) -> bool:
        """Whether it hears anything within this time."""
        self._socket.settimeout(seconds)
        try:
            self._socket.recv(1000)
        except TimeoutError:
            return False
        finally:
            self._socket.settimeout(REPLY_S)
        return True

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(manager.path))
    yield manager
    manager.close()


def test_it_is_told_when_clients_are_served_and_when_no_more(manager: Manager, start_server: Start) -> None:
    server = start_server()
    assert manager.told() == "READY=1\nSTATUS=serves clients"
    server.process.send_signal(signal.SIGHUP)
    reloading, since = manager.told().split("\n")
    assert reloading == "RELOADING=1"
    assert since.startswith("MONOTONIC_USEC=")
    assert manager.told() == "READY=1\nSTATUS=serves clients"
    assert server.stop() == 0
    assert manager.told() == "STOPPING=1\nSTATUS=stopping"


def test_a_reload_that_fails_is_over_too(manager: Manager, start_server: Start, tmp_path: Path) -> None:
    file = tmp_path / "darner.toml"
    file.write_text("debug = true\n")
    server = start_server("--config", str(file))
    manager.told()
    file.write_text("debug = maybe\n")
    server.process.send_signal(signal.SIGHUP)
    assert manager.told().startswith("RELOADING=1\n")
    assert manager.told() == "READY=1\nSTATUS=serves clients"
    assert "not reloaded" in server.printed()


def test_a_server_whose_loop_stands_still_shows_no_sign_of_life(
    manager: Manager, start_server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "300000")
    server = start_server()
    manager.told()
    assert manager.hears(REPLY_S)
    assert manager.hears(REPLY_S)
    server.process.send_signal(signal.SIGSTOP)
    time.sleep(0.1)
    while manager.hears(0.01):  # what was said before
        pass
    assert not manager.hears(1)
    server.process.send_signal(signal.SIGCONT)
    assert manager.hears(REPLY_S)


def test_a_manager_that_does_not_listen_costs_nothing(
    start_server: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    client = start_server().client()
    client.set("q", b"x")
    assert client.get("q") == b"x"


def test_an_abstract_socket_is_told() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("")  # the kernel chooses a name without a file
        name = listening.getsockname().decode()
        environment = {"NOTIFY_SOCKET": "@" + name[1:], "HOME": "/"}
        ServiceManager(environment).alive()
        assert listening.recv(100) == b"WATCHDOG=1"
        assert environment == {"HOME": "/"}  # so that no child speaks for the server


def test_the_watchdog_is_meant_for_one_process() -> None:
    me = str(os.getpid())
    assert ServiceManager({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": me}).watchdog_s == 2.5
    assert ServiceManager({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": "1"}).watchdog_s == 0
    assert ServiceManager({"WATCHDOG_USEC": "soon", "WATCHDOG_PID": me}).watchdog_s == 0


# -- sockets that are handed over


BECOME_SERVER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def run_with(handed: socket.socket, data: Path, *options: str) -> subprocess.Popen[str]:
    """A server that is handed this socket, as descriptor 3."""
    server = [str(ROOT / "darner.py"), "--data", str(data), *options]
    return subprocess.Popen(
        [sys.executable, "-c", BECOME_SERVER, str(handed.fileno()), *server],
        pass_fds=[handed.fileno()],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_clients_that_come_before_the_server_starts_are_served(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as handed:
        port = handed.getsockname()[1]
        client = Client(port)  # the kernel holds it until somebody accepts
        server = run_with(handed, tmp_path / "data", "--port", str(port))
        try:
            client.set("q", b"x")
            assert client.get("q") == b"x"
        finally:
            client.close()
            server.terminate()
            log = server.communicate(timeout=REPLY_S)[0]
        assert f"listening on: 127.0.0.1 port {port}\n" in log
        assert server.returncode == 0
        Client(port).close()  # the socket is still there for the next server


def test_the_file_of_a_socket_that_was_handed_over_stays(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as handed:
        handed.bind(str(path))
        handed.listen()
        server = run_with(handed, tmp_path / "data", "--host", f"unix:{path}")
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(REPLY_S)
            client.connect(str(path))
            client.sendall(b"version\r\n")
            assert client.recv(100).startswith(b"VERSION ")
        server.terminate()
        server.communicate(timeout=REPLY_S)
        assert server.returncode == 0
        assert path.exists()


def test_a_socket_at_another_address_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as handed:
        server = run_with(handed, tmp_path / "data", "--port", "0")
        log = server.communicate(timeout=REPLY_S)[0]
        port = handed.getsockname()[1]
    said = f"the service manager hands over 127.0.0.1 port {port}, where the server is not to listen"
    assert f"darner: {said}\n" in log
    assert server.returncode == 1


def test_a_socket_of_another_kind_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handed:
        handed.bind(("127.0.0.1", 0))
        server = run_with(handed, tmp_path / "data", "--port", "0")
        log = server.communicate(timeout=REPLY_S)[0]
    assert "which is no listening stream: its unit must say ListenStream=" in log
    assert server.returncode == 1


def test_a_descriptor_that_is_no_socket_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    monkeypatch.setattr("darner_core.server.service_manager.FIRST_DESCRIPTOR", reading)
    manager = ServiceManager({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"})
    with pytest.raises(StartError, match=f"descriptor {reading}: Socket operation on non-socket"):
        manager.take_sockets()
    os.close(reading)
    os.close(writing)


def test_sockets_for_another_process_are_left_alone() -> None:
    assert ServiceManager({"LISTEN_PID": "1", "LISTEN_FDS": "1"}).take_sockets() == []
