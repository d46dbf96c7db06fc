"""What a service manager such as systemd is told, and the sockets that it hands over: sd_notify(3), sd_listen_fds(3).

It speaks through environment variables. Without them, as at a terminal, nothing is told and nothing is handed over.
"""

import os
import socket
import time
from collections.abc import MutableMapping

from darner_core.config.values import UNIX
from darner_core.errors import StartError

# Descriptors that are handed over begin with this one.
FIRST_DESCRIPTOR = 3


class ServiceManager:
    """Who has started this process, and wants to know how it is."""

    def __init__(self, environment: MutableMapping[str, str] | None = None) -> None:
        """Takes the variables out of `environment`: they are not for processes that this one may start."""
        found = os.environ if environment is None else environment
        self._address = found.pop("NOTIFY_SOCKET", "")
        period_us = _number(found.pop("WATCHDOG_USEC", ""))
        is_watched = found.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_s = period_us / 1e6 if is_watched else 0.0  # it must hear of us this often; 0: it need not
        count = _number(found.pop("LISTEN_FDS", ""))
        is_heir = found.pop("LISTEN_PID", "") == str(os.getpid())
        found.pop("LISTEN_FDNAMES", "")
        self._descriptors = range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + count) if is_heir else range(0)

    def take_sockets(self) -> list[socket.socket]:
        """The sockets that it has handed over. Raises StartError if one is not a listening stream."""
        descriptors, self._descriptors = self._descriptors, range(0)
        sockets = []
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
            try:
                handed = socket.socket(fileno=descriptor)
            except OSError as error:
                raise StartError(f"the service manager hands over descriptor {descriptor}: {error.strerror}") from None
            sockets.append(handed)
            is_stream = handed.type == socket.SOCK_STREAM
            if not is_stream or not handed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                raise StartError(
                    f"the service manager hands over {address_of(handed)}, which is no listening stream: "
                    "its unit must say ListenStream="
                )
        return sockets

    def ready(self, status: str) -> None:
        """Clients are served, for the first time or again after `reloading`."""
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._tell("STOPPING=1", "STATUS=stopping")

    def alive(self) -> None:
        """The loop goes round. A server whose loop has stood still for `watchdog_s` is killed and started again."""
        self._tell("WATCHDOG=1")

    def _tell(self, *lines: str) -> None:
        """Raises nothing: whether somebody listens is not the server's matter."""
        if not self._address:
            return
        # "@" stands for the zero byte before the name of a socket that has no file.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as teller:
                teller.setblocking(False)
                teller.sendto("\n".join(lines).encode(), address)
        except OSError:
            pass


def address_of(bound: socket.socket) -> str:
    """A bound socket's address, as errors and the log write it."""
    name = bound.getsockname()
    if bound.family == socket.AF_UNIX:
        return UNIX + os.fsdecode(name)
    return f"{name[0]} port {name[1]}" if isinstance(name, tuple) else str(name)


def _number(written: str) -> int:
    return int(written) if written.isascii() and written.isdigit() else 0
