"""What only some systems have: what it does here, and what happens where it is missing."""

import os
import resource
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from darner_core import operating_system
from darner_core.operating_system import UNKNOWN_BYTES

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux has it")

HOLES = """
import os
from darner_core.operating_system import trim_heap
def resident(): return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
blocks = [bytes(50_000) for _ in range(2000)]
kept = blocks[::20]
blocks = None
before = resident()
trim_heap()
assert before - resident() > 50_000_000, before - resident()
"""


@pytest.mark.skipif(
    operating_system._TRIM is None or not os.path.exists("/proc/self/statm"), reason="glibc on Linux can"
)
def test_holes_between_what_lives_are_given_back() -> None:
    """What comes of it: tests/test_limits.py."""
    subprocess.run([sys.executable, "-c", HOLES], check=True, timeout=30)


def test_where_the_heap_cannot_be_trimmed_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operating_system, "_TRIM", None)
    operating_system.trim_heap()


@on_linux
def test_two_directories_change_places(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert operating_system.exchange(str(tmp_path / "a"), str(tmp_path / "b"))
    assert os.listdir(tmp_path / "a") == ["b"]


def test_where_names_cannot_be_exchanged_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not operating_system.exchange(str(tmp_path / "a"), str(tmp_path / "b"))
    monkeypatch.setattr(operating_system, "_RENAME", None)
    assert not operating_system.exchange(str(tmp_path), str(tmp_path))


@on_linux
def test_the_start_of_the_machine_has_a_name_that_stays() -> None:
    assert operating_system.boot_id() == operating_system.boot_id() != b""


def test_free_space_is_known_without_statvfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert operating_system.free_bytes(str(tmp_path)) > 0
    monkeypatch.delattr(os, "statvfs")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=10, used=7, free=3))
    assert operating_system.free_bytes(str(tmp_path)) == 3


@on_linux
def test_bytes_in_the_kernel_are_counted() -> None:
    one, other = socket.socketpair()
    with one, other:
        one.send(b"12345")
        assert operating_system.unread_bytes(other.fileno()) == 5
        assert operating_system.unsent_bytes(one.fileno()) > 0


def test_where_the_kernel_does_not_count_a_read_is_assumed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operating_system, "termios", None)
    assert operating_system.unread_bytes(0) == UNKNOWN_BYTES
    assert operating_system.unsent_bytes(0) == 0


@on_linux
def test_accepted_sockets_inherit_how_hosts_are_watched() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        operating_system.watch_host(listening, 7, 3, 2, 90)
        with socket.create_connection(listening.getsockname()), listening.accept()[0] as accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
            assert [accepted.getsockopt(socket.IPPROTO_TCP, name) for name in names] == [7, 3, 2, 90_000]


def test_options_of_tcp_that_the_system_lacks_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT", "TCP_QUICKACK"):
        monkeypatch.delattr(socket, name, raising=False)
    with socket.socket() as listening:
        operating_system.watch_host(listening, 7, 3, 2, 90)
        operating_system.acknowledge_at_once(listening)
        assert listening.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


def test_without_limits_all_descriptors_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operating_system, "resource", None)
    assert operating_system.raise_descriptor_limit(1 << 30) == 1 << 30


@pytest.mark.parametrize(
    ("soft", "hard", "needed", "allowed", "raised"),
    [
        (100, 200, 50, 50, None),
        (100, 200, 150, 150, 150),
        (100, 200, 300, 200, 200),
        (100, resource.RLIM_INFINITY, 300, 300, 300),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 300, 300, None),
    ],
)
def test_the_limit_of_open_files_is_raised_as_far_as_it_is_needed_and_allowed(
    soft: int, hard: int, needed: int, allowed: int, raised: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: found.append(limits))
    assert operating_system.raise_descriptor_limit(needed) == allowed
    assert found == ([] if raised is None else [(raised, hard)])
