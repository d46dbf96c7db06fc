"""`/metrics`, as Prometheus and OpenMetrics read it: figures of the server and its queues, and histograms.

prometheus_client writes all of it, a slice of samples at a time, so that other clients are served in between. The
endpoint switches.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import nlargest
from itertools import accumulate, islice
from typing import Any, Final, NamedTuple

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from darner_core.config.options import Config
from darner_core.errors import StorageError
from darner_core.operations.measures import Histogram
from darner_core.operations.operations import Operations
from darner_core.protocols.http.contract import Answer, Asked, Endpoint
from darner_core.protocols.http.names import shown
from darner_core.slicing import slices

PATH: Final = "/metrics"
EOF: Final = b"# EOF\n"

# How many samples are written in one turn, and how many queues are looked at: 1 to 2 ms each.
WRITTEN_AT_ONCE: Final = 100
LOOKED_AT_ONCE: Final = 50
CHOSEN_AT_ONCE: Final = 300

_SAMPLED: Final = " Sampled: counts and sums are estimates, see docs/metrics.md."


class _Figure(NamedTuple):
    name: str
    about: str
    counts: bool  # a counter, not a gauge
    of: Callable[[Any], float | None]  # None: it is not known


def _gauge(name: str, about: str, of: Callable[[Any], float | None]) -> _Figure:
    return _Figure(name, about, False, of)


def _counter(name: str, about: str, of: Callable[[Any], float | None]) -> _Figure:
    return _Figure(name, about, True, of)


def _told(figure: bytes) -> Callable[[Any], float | None]:
    return lambda figures: float(figures[figure])


# Of what `stats` tells. The names of counters get _total behind them.
OF_SERVER: Final = (
    _gauge("darner_uptime_seconds", "Since the start.", _told(b"uptime")),
    _gauge("darner_items", "Items that wait, in all queues.", _told(b"curr_items")),
    _gauge("darner_bytes", "Bytes of their bodies.", _told(b"bytes")),
    _counter("darner_items_put", "Items put into queues since the start.", _told(b"total_items")),
    _gauge("darner_connections", "Clients that are connected.", _told(b"curr_connections")),
    _counter("darner_connections_accepted", "Clients that have connected.", _told(b"total_connections")),
    _counter("darner_connections_rejected", "Clients beyond max_connections.", _told(b"rejected_connections")),
    _counter("darner_puts", "Puts that were taken, by all protocols.", _told(b"cmd_set")),
    _counter("darner_peeks", "Looks at an item.", _told(b"cmd_peek")),
    _counter("darner_get_hits", "Gets that were answered with an item.", _told(b"get_hits")),
    _counter("darner_get_misses", "Gets for which there was none.", _told(b"get_misses")),
    _counter("darner_received_bytes", "Bytes that clients have sent.", _told(b"bytes_read")),
    _counter("darner_sent_bytes", "Bytes that were sent to clients.", _told(b"bytes_written")),
    _gauge("darner_queues", "Queues that exist.", _told(b"queues")),
    _counter("darner_queues_created", "Queues that were made.", _told(b"queue_creates")),
    _counter("darner_queues_deleted", "Queues that were deleted.", _told(b"queue_deletes")),
    _counter("darner_queues_expired", "Those of them that nobody had used for too long.", _told(b"queue_expires")),
    _gauge("darner_queues_damaged", "Queues that cannot be read.", _told(b"queues_damaged")),
    _gauge("darner_queues_awaited", "Queues that do not exist, and clients wait for.", _told(b"queues_awaited")),
    _gauge("darner_window_memory_ratio", "How much of window_bytes is used.", _told(b"reserved_memory_ratio")),
    _gauge("darner_disk_free_bytes", "Bytes that may still be written to the disk.", lambda told: told[b"free"]),
    _gauge("darner_refuses_puts", "1 while no client may put: full disk, status.", _told(b"refuses_puts")),
    _gauge("darner_refuses_gets", "1 while no client may get.", _told(b"refuses_gets")),
)  # fmt: skip

OF_QUEUE: Final = (
    _gauge("darner_queue_items", "Items that wait.", lambda of: of.queue.waiting_items),
    _gauge("darner_queue_bytes", "Bytes of their bodies.", lambda of: of.queue.waiting_bytes),
    _gauge("darner_queue_open_items", "Items that clients have taken and not acknowledged.",
        lambda of: of.queue.open_reads),
    _gauge("darner_queue_delayed_items", "Items that wait for their time.", lambda of: of.jobs.get(b"delayed", 0)),
    _gauge("darner_queue_buried_items", "Items that wait to be kicked.", lambda of: of.jobs.get(b"buried", 0)),
    _gauge("darner_queue_age_seconds", "How long the head has been waiting.", lambda of: of.age_ms / 1000),
    _gauge("darner_queue_waiters", "Clients that wait for an item.", lambda of: of.waiters),
    _counter("darner_queue_put", "Items put since the start.", lambda of: of.queue.total_items),
    _counter("darner_queue_gone", "Items that have left: taken, acknowledged, expired, flushed.", lambda of: of.gone),
    _counter("darner_queue_failures", "Times that an item came back without having been dealt with.",
        lambda of: of.jobs.get(b"failures", 0)),
    _counter("darner_queue_dead_lettered", "Items that have failed too often.",
        lambda of: of.jobs.get(b"dead_lettered", 0)),
    _counter("darner_queue_expired", "Items that nobody took in time.", lambda of: of.queue.expired_items),
    _counter("darner_queue_discarded", "Items that had to make room.", lambda of: of.queue.discarded),
    _gauge("darner_queue_paused", "Whether it is paused: 1 takes nothing, 2 gives nothing, 3 both.",
        lambda of: of.jobs.get(b"paused", 0)),
    _gauge("darner_queue_damaged", "1 if it cannot be read.", lambda of: bool(of.queue.damage)),
)  # fmt: skip


class _QueueNow(NamedTuple):
    """What a queue is like when it is looked at."""

    name: str
    queue: Any
    jobs: dict[bytes, int]
    age_ms: int
    waiters: int
    gone: int | None


class Metrics:
    def __init__(self, operations: Operations, config: Config) -> None:
        self._operations = operations
        self._most = config.metrics_max_queues
        self._labelled: dict[bytes, None] = {}  # the queues that were told last, which are told again
        self._process = ProcessCollector(registry=None)

    def endpoints(self) -> Sequence[Endpoint]:
        answers = {200: "The metrics, as OpenMetrics if `Accept` asks for that, else as Prometheus's text."}
        return (Endpoint("GET", PATH, self.metrics, "Figures for a monitoring system.", answers=answers),)

    def metrics(self, asked: Asked) -> Answer:
        write, kind = choose_encoder(asked.env.get("HTTP_ACCEPT", ""))
        written = list(self._wait_written(asked.client, write))
        if kind.startswith("application/openmetrics-text"):
            written.append(EOF)
        return Answer(b"".join(written), kind=kind)

    def _wait_written(self, client: Any, write: Callable[[Collector], bytes]) -> Iterator[bytes]:
        before = ""
        for family in self._wait_families(client):
            text = write(_One(family)).removesuffix(EOF)
            if family.name == before:
                text = b"".join(line for line in text.splitlines(keepends=True) if not line.startswith(b"# "))
            before = family.name
            yield text

    # -- what there is

    def _wait_families(self, client: Any) -> Iterator[Metric]:
        """All families, long ones in parts of the same name."""
        yield from self._wait_of_server(client)
        yield from self._process.collect()
        yield from self._wait_histograms(client)
        queues, left_out = self._wait_queues(client)
        about = "Queues that are not told one by one, because there are more than metrics_max_queues."
        yield GaugeMetricFamily("darner_queues_without_labels", about, value=left_out)
        for figure in OF_QUEUE:
            for some in slices(queues, WRITTEN_AT_ONCE):
                client.wait_turn()
                family = _family(figure, ["queue"])
                for queue in some:
                    value = figure.of(queue)
                    if value is not None:
                        family.add_metric([queue.name], value)
                if family.samples:
                    yield family

    def _wait_of_server(self, client: Any) -> Iterator[Metric]:
        operations, available = self._operations, self._operations.availability
        statistics = operations.statistics
        told: dict[bytes, Any] = dict(statistics.of_server(statistics.wait_totals(client)))
        told[b"queues"] = len(operations.queues)
        told[b"refuses_puts"] = bool(available.no_room or available.no_writes or available.stopping)
        told[b"refuses_gets"] = bool(available.no_reads or available.stopping)
        try:
            told[b"free"] = operations.free_bytes()
        except StorageError:
            told[b"free"] = None
        yield InfoMetricFamily("darner", "The server.", {"version": told[b"version"].decode()})
        for figure in OF_SERVER:
            value = figure.of(told)
            if value is not None:
                family = _family(figure, [])
                family.add_metric([], value)
                yield family

    def _wait_histograms(self, client: Any) -> Iterator[Metric]:
        measures = self._operations.measures
        if measures is None:
            return
        for name, about, histogram in (
            ("darner_queue_time_seconds", "From an item's put until it is first taken." + _SAMPLED, measures.queued),
            ("darner_acknowledge_time_seconds", "From then until it is acknowledged." + _SAMPLED, measures.held),
            ("darner_commit_seconds", "Writing what a turn has changed." + _SAMPLED, measures.commit),
            ("darner_fsync_seconds", "Each fsync.", measures.fsync),
            ("darner_loop_lag_seconds", "How much too late the loop does what is due; looked at four times a second.",
                measures.lag),
        ):  # fmt: skip
            yield _histogram(HistogramMetricFamily(name, about), [], histogram)
        about = "From a request's receipt until its reply is sent, where nothing has to be waited for." + _SAMPLED
        for labels, histogram in list(measures.requests.items()):
            client.wait_turn()
            family = HistogramMetricFamily("darner_request_seconds", about, labels=["dialect", "verb"])
            yield _histogram(family, labels, histogram)

    # -- queues

    def _wait_queues(self, client: Any) -> tuple[list[_QueueNow], int]:
        """Those that get labels, and how many do not."""
        chosen, left_out = self._wait_choose(client)
        found: dict[str, _QueueNow] = {}
        for number, names in enumerate(slices(chosen, LOOKED_AT_ONCE)):
            if number:
                client.wait_turn()
            for name in names:
                queue = self._queue(name)
                if queue is not None:
                    left_out += queue.name in found  # bytes that are no text are shown as another's text
                    found.setdefault(queue.name, queue)
        return list(found.values()), left_out

    def _wait_choose(self, client: Any) -> tuple[list[bytes], int]:
        """Queues that were told before are told again, so that no line breaks off. The others come in the order of what
        was put into them since the start."""
        queues, kept, most = self._operations.queues, self._labelled, self._most
        before: list[bytes] = []
        best: list[tuple[int, bytes]] = []
        seen = 0
        for number, names in enumerate(slices(queues, CHOSEN_AT_ONCE)):
            if number:
                client.wait_turn()
            some = [(queues[name], name) for name in names if name in queues and client.may_see(name)]
            seen += len(some)
            before += [name for _, name in some if name in kept]
            new = [(self._activity(queue), name) for queue, name in some if name not in kept]
            best = nlargest(most, best + new) if len(best) + len(new) > most else best + new
        best.sort(reverse=True)
        chosen = before[:most]
        chosen += [name for _, name in islice(best, most - len(chosen))]
        if seen == len(queues):  # a client that sees all of them
            self._labelled = dict.fromkeys(chosen)
        return chosen, seen - len(chosen)

    @staticmethod
    def _activity(queue: Any) -> int:
        return 0 if queue.unreadable else queue.total_items + queue.waiting_items

    def _queue(self, name: bytes) -> _QueueNow | None:
        operations = self._operations
        queue: Any = operations.queues.get(name)
        if queue is None:
            return None
        if queue.unreadable:
            return _QueueNow(shown(name), _Unreadable, {}, 0, 0, None)
        gone = operations.history.gone(name) if operations.history is not None else None
        age_ms, waiters = operations.statistics.age_ms(queue), operations.statistics.waiters(name)
        return _QueueNow(shown(name), queue, operations.jobs.figures(name), age_ms, waiters, gone)


class _Unreadable:
    """The figures of a queue of which nothing is known."""

    waiting_items = waiting_bytes = open_reads = total_items = expired_items = discarded = 0
    damage = "damaged"


class _One(Collector):
    """One family, as the library's writers want it."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        return (self._family,)


def _family(figure: _Figure, labels: list[str]) -> Any:
    return (CounterMetricFamily if figure.counts else GaugeMetricFamily)(figure.name, figure.about, labels=labels)


def _histogram(family: HistogramMetricFamily, labels: Sequence[str], histogram: Histogram) -> HistogramMetricFamily:
    bounds = [*map(str, histogram.bounds), "+Inf"]
    family.add_metric(labels, list(zip(bounds, accumulate(histogram.counts), strict=True)), histogram.sum)
    return family
