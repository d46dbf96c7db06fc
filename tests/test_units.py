"""The systemd units in conf/, as far as that can be seen without systemd: its own checks, and the sandbox."""

import ctypes
import errno
import os
import re
import shutil
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path

import pytest

from tests.support.harness import REPLY_S, ROOT, Client

SERVICE = ROOT / "conf" / "darner.service"

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")


def analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, timeout=30)


@needs_systemd
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    program = Path(sys.executable).parent / "python"
    unit = re.sub("(?m)^ExecStart=.*", f"ExecStart={program} darner.py", SERVICE.read_text())
    (tmp_path / "darner.service").write_text(unit)
    shutil.copy(ROOT / "conf" / "darner.socket", tmp_path)
    checked = analyze("verify", tmp_path / "darner.service", tmp_path / "darner.socket")
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


@needs_systemd
def test_the_sandbox_leaves_little_exposed() -> None:
    checked = analyze("security", "--offline=yes", "--threshold=20", SERVICE)  # of 100: 2.0 of 10
    assert checked.returncode == 0, checked.stdout


def calls_of(group: str) -> set[str]:
    """The system calls that systemd counts to this group."""
    found = set()
    for line in analyze("syscall-filter", group).stdout.splitlines()[1:]:
        word = line.strip()
        if word.startswith("@"):
            found |= calls_of(word)
        elif word and not word.startswith("#"):
            found.add(word)
    return found


def in_sandbox(allowed: set[str]) -> None:
    """From here on this process is refused all other system calls, and memory that it could write and then run."""
    seccomp = ctypes.CDLL(find_library("seccomp"))
    seccomp.seccomp_init.restype = ctypes.c_void_p
    refuse, allow = 0x00050000 | errno.EPERM, 0x7FFF0000  # SCMP_ACT_ERRNO, SCMP_ACT_ALLOW
    sandbox = ctypes.c_void_p(seccomp.seccomp_init(refuse))
    for name in allowed:
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:
            seccomp.seccomp_rule_add(sandbox, ctypes.c_uint32(allow), number, 0)
    if seccomp.seccomp_load(sandbox):
        os._exit(99)
    ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)  # PR_SET_MDWE, of Linux 6.3; older ones refuse, and then it is not tried


@needs_systemd
@pytest.mark.skipif(find_library("seccomp") is None, reason="no libseccomp here")
def test_the_server_needs_nothing_that_the_sandbox_refuses(tmp_path: Path) -> None:
    assert "SystemCallFilter=@system-service\nSystemCallFilter=~@privileged\n" in SERVICE.read_text()
    allowed = (calls_of("@system-service") | calls_of("@default")) - calls_of("@privileged")
    assert {"read", "epoll_wait"} <= allowed
    log = tmp_path / "log"
    with open(log, "w") as file:
        server = subprocess.Popen(
            [sys.executable, str(ROOT / "darner.py"), "--port", "0", "--data", str(tmp_path / "data")],
            stdout=file,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: in_sandbox(allowed),
        )
    try:
        while not (found := re.search(r"port (\d+)\n(.*\n)*.*ready: listening", log.read_text())):
            assert server.poll() is None, log.read_text()
        client = Client(int(found[1]))
        client.send(b"set q/sync 0 0 1\r\nx\r\n")  # fsync, in a thread
        client.expect(b"STORED\r\n")
        client.set("large", bytes(3 << 20))
        assert client.get("large") == bytes(3 << 20)
        assert client.get("q") == b"x"
        client.close()
    finally:
        server.terminate()
        assert server.wait(REPLY_S) == 0, log.read_text()
