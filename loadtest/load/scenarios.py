"""The scenarios of the load generator: how fast, how steadily, and is everything still there afterwards?

Each is one function that takes `Options` and returns a dict that can be written as JSON. peers.py says what counts as
a put and a get with each server. Called by flood.py, and by the comparisons.
"""

from __future__ import annotations

import select
import time
from array import array
from collections.abc import Callable
from time import perf_counter
from typing import Any

from loadtest.errors import AnswerError, LoadTestError
from loadtest.load.client import RECV_BYTES, open_socket
from loadtest.load.peers import Peer, Request
from loadtest.load.report import megabytes
from loadtest.load.rings import END_OF_CHAIN, Step, chain
from loadtest.load.session import Numbered, Options, Order, Result, Session, random_text

LARGE_SEND_BUFFER_BYTES = 131072  # else one send of an 8 MB item copies megabytes, and the small ones wait for that
WAIT_MS = 60_000
SETTLE_S = 1.0

# Called when all that a scenario puts is waiting: it may do to the server what it likes (rivals.py kills it and starts
# it again), leaves the session with a client and a process that live, and returns how many items it got.
WhenFull = Callable[[Session], int]


def flood(options: Options) -> Result:
    """Many connections, one request in flight each, half sets and half gets: the plain request rate."""
    connections = options.connections or 100
    with Session("flood", options, connections, options.in_flight or 1) as session:
        return alternate_and_verify(session, "flood")


def pipeline(options: Options) -> Result:
    """Few connections with many requests in flight each, sets and gets in turn: what a round trip costs."""
    with Session("pipeline", options, options.connections or 10, options.in_flight or 32) as session:
        return alternate_and_verify(session, "pipeline")


def alternate_and_verify(session: Session, label: str) -> Result:
    """The body of flood and pipeline."""
    latencies = array("d")
    load = session.new_load()
    session.connect(load, [session.alternate()] * session.connections, latencies)
    session.measure(load, {label: (latencies, session.connections)})
    session.verify_load(load)
    return session.result()


def reliable(options: Options) -> Result:
    """Sets and confirmed gets (get q/close/open) in turn: what it costs that a crashed client loses nothing."""
    connections = options.connections or 100
    with Session("reliable", options, connections) as session:
        latencies = array("d")
        load = session.new_load()
        gets = [session.peer.reliable_get(session.queue, session.body, number) for number in range(connections)]
        session.connect(load, [session.alternate(get) for get in gets], latencies)
        session.measure(load, {"reliable": (latencies, connections)})
        if session.peer.counting_reliable != session.peer.counting:
            session.lines.append(session.peer.counting_reliable)
        session.verify_load(load, confirm=True)
        return session.result()


def packing(options: Options) -> Result:
    """The flood on an empty queue, then on a backlog of --items: does a long queue slow down?"""
    connections = options.connections or 100
    with Session("packing", options, connections, options.in_flight or 1) as session:
        numbered = Numbered(options.item_bytes)
        latencies = array("d")
        load = session.new_load()
        session.connect(load, [session.alternate(known=False)] * connections, latencies)
        empty = session.measure(load, {"packing, empty": (latencies, connections)})[0]
        load.land()
        fill_rate = session.fill(options.items, numbered)
        full = session.measure(load, {"packing, backlog": (latencies, connections)})[0]
        session.main_row = "packing, backlog"
        session.figures = {
            "empty_per_s": empty["requests_per_s"],
            "fill_per_s": round(fill_rate, 1),
            "backlog_per_s": full["requests_per_s"],
            "backlog_share": round(full["requests_per_s"] / empty["requests_per_s"], 3),
        }
        session.lines.append(
            f"fill {options.items:,} items of {options.item_bytes:,} bytes at {fill_rate:,.0f}/s; "
            f"with that backlog {session.figures['backlog_share']:.0%} of the rate on the empty queue"
        )
        session.verify_load(load, filled=options.items)
        return session.result()


def drain(options: Options) -> Result:
    """Fill --items numbered items, then only gets until empty: the drain rate, and is the order kept?"""
    with Session("drain", options, 1, options.in_flight or 32) as session:
        numbered = Numbered(options.item_bytes)
        with session.cpu() as fill_cpu:
            fill_rate = session.fill(options.items, numbered)
        if not session.peer.has_queues:
            raise LoadTestError("drain needs a server with queues: this one's gets leave the items there")
        order = Order()
        begun = perf_counter()
        with session.cpu() as cpu:
            got = session.drain(order.take, options.items)
        drain_rate = got / (perf_counter() - begun)
        for label, rate, shares in (("drain, filling", fill_rate, fill_cpu), ("drain, draining", drain_rate, cpu)):
            row = {"label": label, "connections": 1, "in_flight": session.in_flight, "requests_per_s": round(rate, 1)}
            session.rows.append(row | shares)
        session.main_row = "drain, draining"
        session.figures = {"fill_per_s": round(fill_rate, 1), "drain_per_s": round(drain_rate, 1)}
        session.verify(options.items, got, 0, unordered=order.wrong)
        if not order.wrong:
            session.lines.append("every item came out in the order it was put")
        return session.result()


def fairness(options: Options) -> Result:
    """Small requests alone, then beside two connections that set and get 8 MB in turn: do small ones suffer?"""
    connections = options.connections or 50
    with Session("fairness", options, connections) as session:
        small, large, large_queue = array("d"), array("d"), session.queue + b"-large"
        large_body = random_text(options.large_bytes)
        load = session.new_load()
        session.connect(load, [session.alternate()] * connections, small)
        alone = session.measure(load, {"fairness, small alone": (small, connections)})[0]
        session.other_queues.append(large_queue)
        load.connect(
            large_queue, [session.alternate(queue=large_queue, body=large_body)] * 2, large, LARGE_SEND_BUFFER_BYTES
        )
        groups = {"fairness, small beside": (small, connections), "fairness, large": (large, 2)}
        beside, big = session.measure(load, groups)
        large_rate = big["requests_per_s"] * options.large_bytes
        session.main_row = "fairness, small beside"
        session.figures = {
            "small_alone_p99_us": alone["p99_us"],
            "small_beside_p99_us": beside["p99_us"],
            "large_bytes_per_s": large_rate,
        }
        session.lines.append(
            f"large items of {options.large_bytes:,} bytes: {large_rate / 1e6:,.0f} MB/s, sets and gets together; "
            f"p99 of the small ones {alone['p99_us']:,.0f} us alone, {beside['p99_us']:,.0f} us beside them"
        )
        session.verify_load(load)
        return session.result()


def memory(options: Options, when_full: WhenFull | None = None) -> Result:
    """--items items waiting: resident memory, open files and disk use, and the disk use 30 s after they are got."""
    with Session("memory", options, 1) as session:
        before = session.server.footprint()
        fill_rate = session.fill(options.items, Numbered(options.item_bytes))
        full = session.server.footprint()
        files = session.server.open_files()
        got = when_full(session) if when_full else 0
        got += session.drain(items=options.items) if session.peer.has_queues else 0
        drained = session.server.footprint()
        bar = session.bar("waiting to see what disk use comes to", options.settle_seconds, "s")
        begun = perf_counter()
        while (passed_s := perf_counter() - begun) < options.settle_seconds:
            bar.show(passed_s)
            time.sleep(min(0.1, options.settle_seconds - passed_s))
        bar.clear()
        settled = session.server.footprint()
        moments = {"before": before, "full": full, "drained": drained, "settled": settled}
        session.figures = {
            f"{moment}_{key}": value for moment, figures in moments.items() for key, value in figures.items()
        }
        session.figures |= {"fill_per_s": round(fill_rate, 1), "open_files": files}
        session.lines.append(f"{options.items:,} items of {options.item_bytes:,} bytes put at {fill_rate:,.0f}/s")
        for name, key in (("resident", "resident_bytes"), ("disk", "disk_bytes")):
            session.lines.append(
                f"{name}: before {megabytes(before[key])}, full {megabytes(full[key])}, "
                f"drained {megabytes(drained[key])}, "
                f"{options.settle_seconds:.0f} s later {megabytes(settled[key])}"
            )
        session.lines.append(f"open files with the items waiting: {'unknown' if files is None else files}")
        session.verify(options.items, got, 0)
        return session.result()


def queues(options: Options, when_full: WhenFull | None = None) -> Result:
    """One connection creates --queues queues while another sets at a modest pace: does creating hold others up?"""
    with Session("queues", options, 2) as session:
        if session.peer.name == "beanstalkd":
            raise LoadTestError("queues needs a protocol whose puts name their queue: memcache or redis")
        server = session.server
        load = session.new_load()
        probe = session.probe(load, session.queue)
        session.measure(load, {"queues, others before": (probe, 1)})
        before_bytes, before = server.resident_bytes(), len(probe)
        names = [b"%b-%d" % (session.queue, number) for number in range(options.queues)]
        created = array("d")
        creator = load.connect(
            names[0], [chain([Step([session.peer.put(name, session.body)]) for name in names])], created
        )[0]
        bar = session.bar("creating", options.queues, "queues")
        with session.cpu() as cpu:
            elapsed_s = load.run(600.0, lambda _passed_s: bar.show(len(created)), lambda: creator.step is END_OF_CHAIN)
        bar.clear()
        creating_s = sum(created)  # exact, unlike elapsed_s: each put begins when the one before is answered
        beside = session.row("queues, others beside", probe[before:], elapsed_s, 1, cpu)
        session.row("queues, creating", created, creating_s, 1, cpu)
        after_bytes = server.resident_bytes()
        each = (
            (after_bytes - before_bytes) / options.queues
            if after_bytes is not None and before_bytes is not None
            else None
        )
        session.main_row = "queues, creating"
        session.figures = {
            "created": len(created),
            "creating_seconds": round(creating_s, 3),
            "others_beside_p99_us": beside["p99_us"],
            "resident_before_bytes": before_bytes,
            "resident_after_bytes": after_bytes,
            "resident_over_empty_bytes": each and round(each * options.queues),
            "resident_bytes_per_queue": each and round(each),
            "open_files": server.open_files(),
        }
        session.lines.append(
            f"{len(created):,} queues created in {creating_s:.2f} s; resident {megabytes(before_bytes)} before, "
            f"{megabytes(after_bytes)} after; open files {server.open_files() or 'unknown'}"
        )
        load.land()
        puts, gets = load.totals()
        gets += when_full(session) if when_full else 0
        left_over = session.drain() if session.peer.has_queues else 0
        bar = session.bar("emptying", options.queues, "queues")
        for first in range(0, len(names), 32):
            some = names[first : first + 32]
            gets += len(session.client.ask([session.peer.get(name) for name in some]))
            session.client.ask([request for name in some if (request := session.peer.delete(name))])
            bar.show(first)
        bar.clear()
        session.verify(puts, gets, left_over)
        return session.result()


def waiters(options: Options) -> Result:
    """Long-polling clients on one queue, then single puts: memory per waiter, and how soon some waiter has the item."""
    connections = options.connections or 10_000
    with Session("waiters", options, connections) as session:
        session.need_queue_server()
        server, clock = session.server, perf_counter
        before_bytes = server.resident_bytes()
        wait = session.peer.get(session.queue + b"/t=%d" % WAIT_MS).data
        epoll, sockets = select.epoll(), {}
        try:
            bar = session.bar("connecting", connections, "waiters")
            for number in range(connections):
                sock = open_socket(session.peer, (options.host, options.port), session.queue)
                sockets[sock.fileno()] = sock
                epoll.register(sock.fileno(), select.EPOLLIN)
                bar.show(number)
            time.sleep(SETTLE_S)
            connected_bytes = server.resident_bytes()
            for sock in sockets.values():
                sock.sendall(wait)
            bar.clear()
            time.sleep(SETTLE_S)
            waiting_bytes, files = server.resident_bytes(), server.open_files()

            latencies = array("d")
            puts = gets = timeouts = 0
            bar = session.bar("putting", options.seconds, "s")
            begun = clock()
            with session.cpu() as cpu:
                while (now := clock()) - begun < options.seconds:
                    bar.show(now - begun)
                    session.client.send([session.peer.put(session.queue, session.body)])
                    puts += 1
                    received = 0
                    while not received:
                        if not (events := epoll.poll(10.0)):
                            raise LoadTestError(f"no waiter received the item of put {puts:,} within 10 s")
                        arrived = clock()
                        for fd, _events in events:
                            bodies = read_reply(session.peer, sockets[fd], wait)
                            received += len(bodies)
                            timeouts += not bodies
                            sockets[fd].sendall(wait)
                    latencies.append(arrived - now)
                    session.client.collect()
                    gets += received
            session.row("waiters", latencies, clock() - begun, connections, cpu)
            bar.clear()
        finally:
            for sock in sockets.values():
                sock.close()
            epoll.close()
        session.figures = {"resident_before_bytes": before_bytes, "resident_connected_bytes": connected_bytes}
        session.figures |= {"resident_waiting_bytes": waiting_bytes, "open_files": files, "timeouts": timeouts}
        if before_bytes is not None and connected_bytes is not None and waiting_bytes is not None:
            session.figures["bytes_per_waiter"] = round((waiting_bytes - before_bytes) / connections)
            session.lines.append(
                f"{(waiting_bytes - before_bytes) / connections:,.0f} bytes of resident memory per waiter, of which "
                f"{(connected_bytes - before_bytes) / connections:,.0f} for being connected; open files {files:,}"
            )
        session.lines.append("a latency is from sending the put until a waiter's answer can be read; one put at a time")
        time.sleep(SETTLE_S)  # the server must have seen the waiters go, or it would give them what we drain
        session.verify(puts, gets, session.drain())
        return session.result()


def read_reply(peer: Peer, sock: Any, request: bytes) -> list[bytes]:
    """One get's whole answer from a blocking socket; the body in a list, or nothing for a miss."""
    data = b""
    while True:
        received = sock.recv(RECV_BYTES)
        if not received:
            raise LoadTestError(f"server closed the connection instead of answering {request.strip().decode()!r}")
        data += received
        try:
            replies = peer.take(data)
        except AnswerError as error:
            raise LoadTestError(f"server answered {str(error)!r} to {request.strip().decode()!r}") from error
        if replies:
            return replies.bodies


def sync(options: Options) -> Result:
    """set q/sync from one client, then from --connections: is the fsync shared, and do other clients feel it?"""
    connections = options.connections or 100
    with Session("sync", options, connections) as session:
        session.need_queue_server()
        synced = Request(session.peer.put(session.queue + b"/sync", session.body).data, 1, b"STORED\r\n", puts=1)
        load, plain = session.new_load(), session.queue + b"-plain"
        session.other_queues.append(plain)
        probe = session.probe(load, plain)
        alone = session.measure(load, {"sync, plain sets alone": (probe, 1)})[0]
        latencies, step = array("d"), Step([synced])
        load.connect(session.queue, [step], latencies)
        groups = {"sync, 1 client": (latencies, 1), "sync, plain beside 1": (probe, 1)}
        single, _ = session.measure(load, groups)
        load.connect(session.queue, [step] * (connections - 1), latencies)
        groups = {
            f"sync, {connections} clients": (latencies, connections),
            f"sync, plain beside {connections}": (probe, 1),
        }
        many, beside = session.measure(load, groups)
        session.main_row = f"sync, {connections} clients"
        session.figures = {
            "sync_1_per_s": single["requests_per_s"],
            "sync_many_per_s": many["requests_per_s"],
            "sync_ratio": round(many["requests_per_s"] / single["requests_per_s"], 2),
            "plain_alone_p99_us": alone["p99_us"],
            "plain_beside_p99_us": beside["p99_us"],
            "plain_p99_ratio": round(beside["p99_us"] / alone["p99_us"], 2),
        }
        session.lines.append(
            f"{connections} clients get {session.figures['sync_ratio']:.1f} times the synced sets of one; plain sets: "
            f"p99 {alone['p99_us']:,.0f} us alone, {beside['p99_us']:,.0f} us beside them"
        )
        session.verify_load(load)
        return session.result()


SCENARIOS: dict[str, Callable[[Options], Result]] = {
    function.__name__: function
    for function in (flood, pipeline, reliable, packing, drain, fairness, memory, queues, waiters, sync)
}
