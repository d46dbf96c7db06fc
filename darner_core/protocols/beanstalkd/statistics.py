"""What beanstalkd tells of itself: of one job, of one tube, of the server, and which tubes there are.

Keys, and their order, are beanstalkd 1.12's. What there is no such thing of here is 0: the file of a job, and what is
told of a binlog. A count of commands is one since the start.
"""

import os
import platform
import resource
import secrets
import socket
import time
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import Any

from darner_core import VERSION
from darner_core.access.rights import GET
from darner_core.config.options import Config
from darner_core.engines.items import Items, State
from darner_core.engines.jobs import Pause
from darner_core.operations.client import Client
from darner_core.operations.operations import Operations
from darner_core.operations.session import Session
from darner_core.operations.stats import SUMMED_A_TURN
from darner_core.operations.status import READONLY
from darner_core.protocols.beanstalkd import replies
from darner_core.protocols.beanstalkd.reader import NOT_IN_TUBES, TubeRequest
from darner_core.protocols.beanstalkd.replies import NOT_FOUND
from darner_core.protocols.beanstalkd.tubes import DEFAULT, Tube, Tubes, TubeSession
from darner_core.protocols.contract import Reply
from darner_core.protocols.escaping import name_elsewhere, said
from darner_core.slicing import slices

# How a client's request is counted: these verbs, in this order.
COUNTED = (
    b"put", b"peek", b"peek-ready", b"peek-delayed", b"peek-buried", b"reserve", b"reserve-with-timeout", b"delete",
    b"release", b"use", b"watch", b"ignore", b"bury", b"kick", b"touch", b"stats", b"stats-job", b"stats-tube",
    b"list-tubes", b"list-tube-used", b"list-tubes-watched", b"pause-tube",
)  # fmt: skip

STATES = {State.READY: b"ready", State.DELAYED: b"delayed", State.BURIED: b"buried", State.OPEN: b"reserved"}

_OF_ALL = (b"urgent", b"ready", b"reserved", b"delayed", b"buried")


class Statistics:
    """The commands, bound to the queues."""

    def __init__(self, operations: Operations, config: Config, tubes: Tubes) -> None:
        self._queues = operations.queues
        self._stats = operations.stats
        self._statistics = operations.statistics
        self._jobs = operations.jobs
        self._items: Items = operations.items
        self._time_ms = operations.time_ms
        self._status = operations.host
        self._max_job_bytes = config.max_job_bytes
        self._tubes = tubes
        self._id = secrets.token_hex(8).encode()  # of this process, as beanstalkd's
        self.commands: Counter[bytes] = Counter()

    # -- one job

    def stats_job(self, request: TubeRequest, body: None, session: TubeSession) -> bytes:
        located = self._items.numbered(request.job)
        if located is None:
            return NOT_FOUND
        queue, item_id = located
        session.require(GET, queue)
        seen = self._items.find(queue, item_id)
        if seen is None:
            return NOT_FOUND
        now_ms = self._time_ms()
        is_open = seen.state is State.OPEN
        left_s = 0
        if is_open:
            left_s = max(0, self._items.left_ms(queue, item_id)) // 1000
        elif seen.state is State.DELAYED:
            left_s = max(0, seen.due_ms - now_ms) // 1000
        ended = seen.nacks + seen.timeouts + seen.losses + seen.buries
        return replies.yaml_map((
            (b"id", request.job),
            (b"tube", tube_name(queue)),
            (b"state", STATES[seen.state]),
            (b"pri", seen.pri),
            (b"age", max(0, now_ms - seen.added_at_ms) // 1000),
            (b"delay", max(0, seen.due_ms - seen.added_at_ms) // 1000 if seen.due_ms else 0),
            (b"ttr", seen.ttr_ms // 1000),
            (b"time-left", left_s),
            (b"file", 0),
            (b"reserves", ended + is_open),
            (b"timeouts", seen.timeouts),
            (b"releases", seen.nacks),
            (b"buries", seen.buries),
            (b"kicks", seen.kicks),
        ))  # fmt: skip

    # -- one tube

    def stats_tube(self, request: TubeRequest, body: None, session: TubeSession) -> bytes:
        name = request.queue
        session.require(GET, name)
        queue, tube = self._queues.get(name), self._tubes.find(name)
        if queue is None and name != DEFAULT and not (tube is not None and tube.is_held):
            return NOT_FOUND
        tube = tube or Tube(request.tube)
        figures = self._of_queue(name)
        pause, left_ms = self._jobs.paused(name)
        return replies.yaml_map((
            (b"name", request.tube),
            *((b"current-jobs-" + state, figures[state]) for state in _OF_ALL),
            (b"total-jobs", queue.total_items if queue is not None else 0),
            (b"current-using", tube.using),
            (b"current-watching", tube.watching),
            (b"current-waiting", tube.waiting),
            (b"cmd-delete", tube.deletes),
            (b"cmd-pause-tube", tube.pauses),
            (b"pause", max(1, -(-left_ms // 1000)) if pause in (Pause.OUT, Pause.ALL) else 0),
            (b"pause-time-left", left_ms // 1000),
        ))  # fmt: skip

    def _of_queue(self, name: bytes) -> Counter[bytes]:
        """Its jobs by their states."""
        figures: Counter[bytes] = Counter(self._jobs.figures(name))
        queue = self._queues.get(name)
        if not figures and queue is not None and not queue.unreadable:  # one that uses nothing of jobs
            figures[b"ready"], figures[b"reserved"] = queue.waiting_items, queue.open_reads
        return figures

    # -- which tubes there are

    def list_tubes(self, request: TubeRequest, body: None, session: TubeSession) -> Reply:
        return self._wait_list

    def _wait_list(self, client: Client) -> bytes:
        names: dict[bytes, None] = {}
        everyone = chain([DEFAULT], self._queues, self._tubes.held())
        for number, some in enumerate(slices(everyone, SUMMED_A_TURN)):
            if number:
                client.wait_turn()
            names.update((name, None) for name in some if client.may_see(name))
        return replies.yaml_list(map(tube_name, names))

    def list_tube_used(self, request: TubeRequest, body: None, session: TubeSession) -> bytes:
        return b"USING %b\r\n" % tube_name(session.used)

    def list_tubes_watched(self, request: TubeRequest, body: None, session: TubeSession) -> bytes:
        return replies.yaml_list(map(tube_name, session.watched))

    # -- the server

    def stats(self, request: TubeRequest, body: None, session: Session) -> Reply:
        return self._wait_stats

    def _wait_stats(self, client: Client) -> bytes:
        totals = self._statistics.wait_totals(client)
        jobs: Counter[bytes] = Counter()
        tubes = 0
        everyone = dict.fromkeys(chain([DEFAULT], self._queues, self._tubes.held()))
        for number, names in enumerate(slices(everyone, SUMMED_A_TURN)):
            if number:
                client.wait_turn()
            for name in names:
                tubes += 1
                jobs.update(self._of_queue(name))
        usage = resource.getrusage(resource.RUSAGE_SELF)
        tell: Iterator[tuple[bytes, Any]] = chain(
            ((b"current-jobs-" + state, jobs[state]) for state in _OF_ALL),
            ((b"cmd-" + verb, self.commands[verb]) for verb in COUNTED),
            (
                (b"job-timeouts", jobs[b"timeouts"]),
                (b"total-jobs", totals.total_items),
                (b"max-job-size", self._max_job_bytes),
                (b"current-tubes", tubes),
                (b"current-connections", self._tubes.connections),
                (b"current-producers", self._tubes.producers),
                (b"current-workers", self._tubes.workers),
                (b"current-waiting", self._tubes.waiting),
                (b"total-connections", self._stats.total_connections),
                (b"pid", os.getpid()),
                (b"version", replies.quoted(VERSION)),
                (b"rusage-utime", b"%.6f" % usage.ru_utime),
                (b"rusage-stime", b"%.6f" % usage.ru_stime),
                (b"uptime", int(time.monotonic() - self._stats.started)),
                (b"binlog-oldest-index", 0),
                (b"binlog-current-index", 0),
                (b"binlog-records-migrated", 0),
                (b"binlog-records-written", 0),
                (b"binlog-max-size", 0),
                (b"draining", b"true" if self._status.status.shown.strictness >= READONLY.strictness else b"false"),
                (b"id", self._id),
                (b"hostname", replies.quoted(socket.gethostname())),
                (b"os", replies.quoted(platform.version())),
                (b"platform", replies.quoted(platform.machine())),
            ),
        )
        return replies.yaml_map(tell)

    def counting(self, verb: bytes, run: Any) -> Any:
        """`run`, which counts how often it is asked."""
        commands = self.commands
        commands[verb] += 0

        def counted(request: TubeRequest, body: Any, session: TubeSession) -> Reply:
            commands[verb] += 1
            reply: Reply = run(request, body, session)
            return reply

        return counted


def tube_name(queue: bytes) -> bytes:
    """What this queue is called as a tube."""
    return said(name_elsewhere(queue), NOT_IN_TUBES)
