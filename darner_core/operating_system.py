"""What only some operating systems have, each with a plain fallback. No other module asks which system it runs on.

Linux has all of it. Elsewhere (macOS; Windows for development) a fallback costs precision or memory, never an item.
"""

import ctypes
import os
import shutil
import socket
import struct
from collections.abc import Callable
from typing import Any

try:
    import fcntl
    import resource
    import termios
except ImportError:  # Windows
    fcntl = resource = termios = None  # type: ignore[assignment]

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h

# What a socket is assumed to have received where the system does not tell: as much as one read takes.
UNKNOWN_BYTES = 64 << 10


def _library_call(name: str) -> Any:
    """A function of the C library; None: it has none of that name."""
    try:
        return getattr(ctypes.CDLL(None, use_errno=True), name, None)
    except (OSError, TypeError):  # Windows, where no one library has all functions
        return None


_TRIM: Callable[[int], int] | None = _library_call("malloc_trim")  # glibc's
_RENAME = _library_call("renameat2")


def trim_heap() -> None:
    """Give memory that has been freed back to the operating system. 1 to 5 ms for a heap of 100 MB.

    What clients send is kept in blocks of all sizes between objects that live longer. Freed, such blocks are holes in
    the heap, which the C library keeps unless it is asked.
    """
    if _TRIM is not None:
        _TRIM(0)


def boot_id() -> bytes:
    """An id that changes with each start of the machine; b"" where there is none: then a loss of power cannot be told
    from a kill."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return file.read()
    except OSError:
        return b""


def exchange(one: str, other: str) -> bool:
    """Exchange two names of files in one step. False: the system cannot, and nothing has happened."""
    if _RENAME is None:
        return False
    return bool(_RENAME(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)


def free_bytes(path: str) -> int:
    """How many bytes may still be written to the file system of `path`. Raises OSError."""
    if hasattr(os, "statvfs"):
        disk = os.statvfs(path)
        return disk.f_bavail * disk.f_frsize
    return shutil.disk_usage(path).free


# -- sockets


def unread_bytes(fd: int) -> int:
    """How many bytes the kernel has received on this socket that have not been read."""
    return _ask(fd, "FIONREAD", UNKNOWN_BYTES)


def unsent_bytes(fd: int) -> int:
    """How many bytes were written to this socket that the other end has not acknowledged."""
    return _ask(fd, "TIOCOUTQ", 0)


def _ask(fd: int, request: str, unknown: int) -> int:
    number = getattr(termios, request, None)
    if number is None:
        return unknown
    try:
        return int(struct.unpack("i", fcntl.ioctl(fd, number, bytes(4)))[0])
    except OSError:
        return unknown


def watch_host(listening: socket.socket, idle_s: int, interval_s: int, count: int, unread_s: int) -> None:
    """Have the kernel find out which clients' hosts are gone, as far as the system allows. Accepted sockets inherit it.
    With `idle_s` 0, hosts of silent clients are not asked."""
    if idle_s:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name in ("TCP_KEEPIDLE", "TCP_KEEPALIVE"):  # the second is macOS's name for the first
            if _set_tcp_option(listening, name, idle_s):
                break
        _set_tcp_option(listening, "TCP_KEEPINTVL", interval_s)
        _set_tcp_option(listening, "TCP_KEEPCNT", count)
    _set_tcp_option(listening, "TCP_USER_TIMEOUT", unread_s * 1000)


def acknowledge_at_once(connected: socket.socket) -> None:
    _set_tcp_option(connected, "TCP_QUICKACK", 1)


def _set_tcp_option(of: socket.socket, name: str, value: int) -> bool:
    """False: the system has no such option."""
    option = getattr(socket, name, None)
    if option is None:
        return False
    of.setsockopt(socket.IPPROTO_TCP, option, value)
    return True


# -- descriptors


def raise_descriptor_limit(needed: int) -> int:
    """Raise this process's limit of open files as far as needed and allowed; how many files may be open now, at most
    `needed`."""
    if resource is None:
        return needed
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return needed
    soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return int(soft)
