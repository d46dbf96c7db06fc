"""INFO: figures of the server under the names that clients and tools of Disque and Redis look for.

Figures that mean nothing here are left out, or 0 if clients stop without them.
"""

import os
import resource
import sys
from collections.abc import Callable
from typing import Final

from darner_core import VERSION
from darner_core.config.options import Config
from darner_core.operations.client import Client
from darner_core.operations.operations import Operations
from darner_core.operations.stats import Totals
from darner_core.protocols.contract import Reply
from darner_core.protocols.resp import replies
from darner_core.protocols.resp.cluster import Cluster
from darner_core.protocols.resp.reader import Entry, RespRequest
from darner_core.protocols.resp.replies import RespError
from darner_core.protocols.resp.session import RespSession
from darner_core.protocols.resp.versions import REDIS_VERSION

DISQUE_VERSION: Final = b"1.0-rc1"

_Pairs = list[tuple[bytes, int | bytes]]


class Information:
    """The command, bound to the statistics."""

    def __init__(self, operations: Operations, config: Config, cluster: Cluster) -> None:
        self._statistics = operations.statistics
        self._availability = operations.availability
        self._queues = operations.queues
        self._config = config
        self._cluster = cluster
        self._sections: dict[bytes, Callable[[dict[bytes, int | bytes]], _Pairs]] = {
            b"server": self._server,
            b"clients": self._clients,
            b"memory": self._memory,
            b"jobs": self._jobs,
            b"queues": self._of_queues,
            b"persistence": self._persistence,
            b"stats": self._stats,
            b"replication": self._replication,
            b"cpu": self._cpu,
            b"keyspace": self._keyspace,
        }

    def entries(self) -> dict[bytes, Entry]:
        return {b"info": Entry(self.info)}

    def info(self, request: RespRequest, body: None, session: RespSession) -> Reply:
        asked = [word.lower() for word in request.arguments]
        if not asked or {b"all", b"default", b"everything"} & set(asked):
            asked = list(self._sections)
        if session.executes:
            raise RespError("INFO cannot be in a transaction")
        return lambda client: self._wait_info([name for name in self._sections if name in asked], client)

    def _wait_info(self, sections: list[bytes], client: Client) -> bytes:
        totals: Totals = self._statistics.wait_totals(client)
        figures = dict(self._statistics.of_server(totals))
        told = (
            b"# %b\r\n%b" % (name.capitalize(), b"".join(map(_line, self._sections[name](figures))))
            for name in sections
        )
        return replies.bulk(b"\r\n".join(told))

    def _server(self, figures: dict[bytes, int | bytes]) -> _Pairs:
        uptime = figures[b"uptime"]
        assert isinstance(uptime, int)
        return [
            (b"disque_version", DISQUE_VERSION),
            (b"redis_version", REDIS_VERSION),
            (b"redis_mode", b"standalone"),
            (b"darner_version", VERSION.encode()),
            (b"os", sys.platform.encode()),
            (b"arch_bits", 64),
            (b"process_id", os.getpid()),
            (b"tcp_port", self._cluster.port()),
            (b"uptime_in_seconds", uptime),
            (b"uptime_in_days", uptime // 86_400),
        ]

    @staticmethod
    def _clients(figures: dict[bytes, int | bytes]) -> _Pairs:
        return [(b"connected_clients", figures[b"curr_connections"])]

    def _memory(self, figures: dict[bytes, int | bytes]) -> _Pairs:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return [(b"used_memory_peak", peak), (b"maxmemory", 0), (b"maxmemory_policy", b"noeviction")]

    @staticmethod
    def _jobs(figures: dict[bytes, int | bytes]) -> _Pairs:
        return [(b"registered_jobs", figures[b"curr_items"])]

    def _of_queues(self, figures: dict[bytes, int | bytes]) -> _Pairs:
        return [(b"registered_queues", len(self._queues))]

    def _persistence(self, figures: dict[bytes, int | bytes]) -> _Pairs:
        refuses = b"err" if self._availability.no_room else b"ok"
        return [(b"loading", 0), (b"aof_enabled", 1), (b"aof_state", b"on"), (b"aof_last_write_status", refuses)]

    @staticmethod
    def _stats(figures: dict[bytes, int | bytes]) -> _Pairs:
        return [
            (b"total_connections_received", figures[b"total_connections"]),
            (b"rejected_connections", figures[b"rejected_connections"]),
            (b"total_net_input_bytes", figures[b"bytes_read"]),
            (b"total_net_output_bytes", figures[b"bytes_written"]),
        ]

    @staticmethod
    def _replication(figures: dict[bytes, int | bytes]) -> _Pairs:
        return [(b"role", b"master"), (b"connected_slaves", 0)]

    @staticmethod
    def _cpu(figures: dict[bytes, int | bytes]) -> _Pairs:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return [(b"used_cpu_sys", b"%.2f" % used.ru_stime), (b"used_cpu_user", b"%.2f" % used.ru_utime)]

    def _keyspace(self, figures: dict[bytes, int | bytes]) -> _Pairs:
        return [(b"db0", b"keys=%d,expires=0,avg_ttl=0" % len(self._queues))] if self._queues else []


def _line(pair: tuple[bytes, int | bytes]) -> bytes:
    name, value = pair
    return b"%b:%b\r\n" % (name, value if isinstance(value, bytes) else b"%d" % value)
