"""Kills the server with -9 while items go into many queues at once, expire, and are read by cursors; and checks them.

    python -m loadtest.crash.together --rounds 100
    python -m loadtest.crash.together --rounds 100 --seed 4711

What kill.py checks of single queues, this does of what belongs together. Each round: some tenths of a second of
load, a kill at a random moment, a start, and then:

- fanout: an item put into a parent is in the parent and all its children, or nowhere; it is there if that was answered;
- the same for `set a+b+c` in the siberite dialect, and for an alias;
- the same for jobs, which have delays, priorities and keys;
- order: each producer's items come in the order in which it sent them, and what was not answered is only the end;
- a limited queue that drops its oldest holds the latest that were put, as many as it may;
- what expires is gone from the parent and all children, and is where expired items go, once for each of them;
- a child's own consumer, by reliable reads: what it has confirmed never comes again, all else is still there;
- cursors go on at their place: nothing confirmed comes again, nothing unconfirmed is lost, though the queue's own
  consumer has taken what they had open.

A promise that is broken is one line, and exit status 1; the data directory is kept.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from random import Random, randrange

from loadtest.crash.clients import Producer, Reader, kick_all, take_all
from loadtest.errors import LoadTestError, RequestLost, Violation
from loadtest.program import run
from loadtest.progress import Bar
from loadtest.servers import Server, free_port, our_server
from loadtest.wire import Wire

CHILDREN = [b"parent+%d" % number for number in range(10)]
FANOUT = [b"parent", *CHILDREN]
CONSUMED = b"parent+consumed"  # a child that is read while the load goes on
SEVERAL = [b"one", b"two", b"three"]
ALIASED = [b"left", b"right"]
JOBS = [b"jobs", b"jobs+1", b"jobs+2"]
SEVERAL_JOBS = [b"first", b"second"]
ALIASED_JOBS = [b"east", b"west"]
BRIEF = [b"brief", b"brief+1", b"brief+2"]
DEAD = b"dead"
LIMITED = b"limited"
MAX_ITEMS = 40
FEED = b"feed"
CURSORS = (b"slow", b"fast")

OPTIONS = f"""
[queues.{LIMITED.decode()}]
max_items = {MAX_ITEMS}
discard_old_when_full = true

[queues.brief]
expire_to_queue = "{DEAD.decode()}"

[aliases]
everyone = ["left", "right"]
everywhere = ["east", "west"]
"""

LOAD_S = (0.1, 0.5)
BRIEF_SHARE = 0.25  # of the rounds have items that expire, which takes longer
BRIEF_LOAD_S = (1.0, 2.5)  # so that some expire while there is load, and when the server is killed
BRIEF_S = 1  # the shortest expiry that a set can name
EXPIRED_S = 10.0  # within which all expired items have been swept
ANSWER_S = 30.0


def waiting(stats: dict[str, str], name: bytes) -> int:
    """How many items of this queue wait."""
    return int(stats.get(f"queue_{name.decode()}_items", 0))


class Trial:
    """One data directory, its server, and what must be in it."""

    def __init__(self, server: Server, ports: dict[str, int], seed: str) -> None:
        """The server runs."""
        self.server = server
        self.ports = ports
        self.rng = Random(seed)
        self.producers = [
            Producer("fan1", b"parent", "kestrel"),
            Producer("fan2", b"parent", "kestrel"),
            Producer("several", b"+".join(SEVERAL), "siberite"),
            Producer("alias", b"everyone", "darner"),
            Producer("fanjob1", b"jobs", "kestrel", options=b"/delay=300/pri=5", has_keys=True),
            Producer("fanjob2", b"jobs", "kestrel", options=b"/delay=3600000"),
            Producer("severaljob", b"+".join(SEVERAL_JOBS), "siberite", options=b"/delay=100", has_keys=True),
            Producer("aliasjob", b"everywhere", "darner", options=b"/pri=7", has_keys=True),
            Producer("limited", LIMITED, "darner"),
            Producer("brief", b"brief", "kestrel", BRIEF_S),
            Producer("feed", FEED, "siberite"),
        ]
        self.consumer = Reader(CONSUMED, "kestrel")
        self.cursors = {name: Reader(FEED + b"." + name, "siberite") for name in CURSORS}
        self.taken: set[bytes] = set()  # by the feed's own consumer
        self.taking: bytes | None = None  # what it has asked for: a kill may come behind the write and before the reply
        self.feed: list[bytes] = []  # all that there ever was, as far as it is known
        self.trouble: BaseException | None = None
        self.checked = self.in_doubt = self.expired = 0
        self.stored: dict[str, int] = {}  # up to which number, by producer, as the last check has found
        self.wait_until_all_listen()
        wire = self.connect("kestrel")
        for child in [*CHILDREN, CONSUMED, *JOBS[1:], *BRIEF[1:]]:
            wire.get(child)
        wire.close()
        wire = self.connect("siberite")
        wire.send(b"set %b 0 0 7\r\na first\r\n" % FEED)  # a cursor begins with what is there
        wire.line()
        self.feed.append(b"a first")
        for name in CURSORS:
            wire.get(FEED + b"." + name + b"/open")
            wire.get(FEED + b"." + name + b"/abort")
        wire.close()

    def wait_until_all_listen(self) -> None:
        """Wait until the server, which listens at one port, listens at the others, too."""
        deadline = time.monotonic() + ANSWER_S
        for dialect in self.ports:
            while True:
                try:
                    self.connect(dialect).close()
                    break
                except RequestLost:
                    if time.monotonic() > deadline:
                        raise LoadTestError(f"nobody listens at the port for {dialect}") from None
                    time.sleep(0.005)

    def connect(self, dialect: str) -> Wire:
        """Raises RequestLost."""
        return Wire(self.ports[dialect], ANSWER_S)

    def _thread(self, run: Callable[..., None], dialect: str, *arguments: object) -> threading.Thread:
        def work() -> None:
            try:
                wire = self.connect(dialect)
                try:
                    run(wire, *arguments)
                finally:
                    wire.close()
            except RequestLost:
                pass
            except BaseException as error:
                self.trouble = self.trouble or error

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread

    def round(self) -> None:
        """Load, a kill, a start and the check. Raises Violation, LoadTestError."""
        rng = self.rng
        brief = rng.random() < BRIEF_SHARE
        producers = [producer for producer in self.producers if brief or not producer.expiry_s]
        threads = [self._thread(one.run, one.dialect, Random(rng.random())) for one in producers]
        readers = [self.consumer, *self.cursors.values()]
        threads += [self._thread(reader.run, reader.dialect, Random(rng.random())) for reader in readers]
        if rng.random() < 0.5:
            threads.append(self._thread(self._take_feed, "siberite", Random(rng.random())))
        time.sleep(rng.uniform(*(BRIEF_LOAD_S if brief else LOAD_S)))
        self.server.kill()
        for thread in threads:
            thread.join(ANSWER_S)
            if thread.is_alive():
                raise Violation("a client hangs though the server has been killed")
        if self.trouble is not None:
            raise self.trouble
        self.server.launch()
        self.server.wait_until_it_listens()
        self.wait_until_all_listen()
        self.check()
        self.server.check()

    def _take_feed(self, wire: Wire, rng: Random) -> None:
        """The feed's own consumer. It takes only what each cursor has open or has seen: then nothing may be lost."""
        while True:
            time.sleep(rng.random() * 0.02)
            head = wire.get(FEED + b"/peek")
            if head is None or not all(self._has_seen(reader, head) for reader in self.cursors.values()):
                continue
            self.taking = head
            body = wire.get(FEED)
            if body is not None:
                self.taken.add(body)
            self.taking = None

    @staticmethod
    def _has_seen(reader: Reader, body: bytes) -> bool:
        return body in reader.confirmed or body in reader.in_doubt or body == reader.open

    # -- the check

    def check(self) -> None:
        """Empty everything, and see that all is as promised. Raises Violation."""
        wire = self.connect("darner")  # in which every name is a queue's
        by_name = {producer.name: producer for producer in self.producers}
        self._everywhere(wire, FANOUT, [by_name["fan1"], by_name["fan2"]])
        self._everywhere(wire, SEVERAL, [by_name["several"]])
        self._everywhere(wire, ALIASED, [by_name["alias"]])
        for name in (*JOBS, *SEVERAL_JOBS, *ALIASED_JOBS):
            kick_all(wire, name)
        self._everywhere(wire, JOBS, [by_name["fanjob1"], by_name["fanjob2"]])
        self._everywhere(wire, SEVERAL_JOBS, [by_name["severaljob"]])
        self._everywhere(wire, ALIASED_JOBS, [by_name["aliasjob"]])
        self._consumed(wire, [by_name["fan1"], by_name["fan2"]])
        self._limited(wire, by_name["limited"])
        if by_name["brief"].sent > by_name["brief"].first:
            self._brief(wire, by_name["brief"])
        self._feed(by_name["feed"])
        for producer in self.producers:
            producer.first = producer.answered = producer.sent
        wire.close()

    def _everywhere(self, wire: Wire, names: list[bytes], producers: list[Producer]) -> None:
        """Each item is in all of these queues or in none."""
        found = {name: take_all(wire, name) for name in names}
        for producer in producers:
            mine = {}
            for name, bodies in found.items():
                of_producer = [body for body in bodies if body.startswith(producer.name.encode() + b" ")]
                mine[name] = producer.look(of_producer, name.decode())
            if len(set(mine.values())) != 1:
                raise Violation(f"items of {producer.name} are in some queues and not in others: {mine}")
            stored = mine[names[0]]
            self.checked += (stored - producer.first) * len(names)
            self.in_doubt += producer.sent - producer.answered
            self.stored[producer.name] = stored

    def _consumed(self, wire: Wire, producers: list[Producer]) -> None:
        left = take_all(wire, CONSUMED)
        reader = self.consumer
        again = set(left) & reader.confirmed
        if again:
            raise Violation(f"{CONSUMED.decode()}: confirmed, and comes again: {sorted(again)[:3]}")
        if len(set(left)) != len(left):
            raise Violation(f"{CONSUMED.decode()}: items come twice")
        for producer in producers:
            mine = [body for body in left if body.startswith(producer.name.encode() + b" ")]
            if mine != sorted(mine):
                raise Violation(f"{CONSUMED.decode()}: items of {producer.name} are not in order")
            expected = {producer.body(number) for number in range(producer.first, self.stored[producer.name])}
            lost = expected - set(left) - reader.confirmed - reader.in_doubt
            if lost:
                raise Violation(f"{CONSUMED.decode()}: neither confirmed nor there: {sorted(lost)[:3]}")
        reader.confirmed.clear()
        reader.in_doubt.clear()
        reader.open = None

    def _limited(self, wire: Wire, producer: Producer) -> None:
        found = [int(body.split()[1]) for body in take_all(wire, LIMITED)]
        sent = producer.sent - producer.first
        if found != list(range(found[0], found[0] + len(found))) if found else producer.answered > producer.first:
            raise Violation(f"{LIMITED.decode()}: {found[:3]} to {found[-3:]} are not what was put last")
        if found and (
            len(found) > MAX_ITEMS
            or not producer.answered <= found[-1] + 1 <= producer.sent
            or len(found) < min(MAX_ITEMS, found[-1] + 1 - producer.first)
        ):
            raise Violation(
                f"{LIMITED.decode()}: holds {found[0]} to {found[-1]}, answered {producer.answered}, sent {sent}"
            )
        self.checked += len(found)

    def _brief(self, wire: Wire, producer: Producer) -> None:
        """All items have expired or will soon. Each is in no queue, and where expired items go three times or not at
        all."""
        deadline = time.monotonic() + EXPIRED_S
        while any(waiting(wire.stats(), name) for name in BRIEF):
            if time.monotonic() > deadline:
                raise Violation(f"brief: something has not expired within {EXPIRED_S:.0f} s")
            time.sleep(0.05)
        if any(wire.get(name) is not None for name in BRIEF):
            raise Violation("brief: an expired item comes")
        counts = Counter(take_all(wire, DEAD))
        wrong = {body: count for body, count in counts.items() if count != len(BRIEF)}
        if wrong:
            raise Violation(f"{DEAD.decode()}: not once from each queue: {sorted(wrong.items())[:3]}")
        numbers = sorted(int(body.split()[1]) for body in counts)
        stored = producer.look([producer.body(number) for number in numbers], DEAD.decode())
        self.expired += len(BRIEF) * (stored - producer.first)

    def _feed(self, producer: Producer) -> None:
        """Read what each cursor has not shown yet, and compare."""
        wire = self.connect("siberite")
        shown = {name: take_all(wire, reader.name) for name, reader in self.cursors.items()}
        there = take_all(wire, FEED)
        if self.taking is not None and self.taking not in there:
            self.taken.add(self.taking)
        self.taking = None
        numbered = [body for body in (*self.taken, *there) if body.startswith(b"feed ")]
        stored = producer.look(sorted(numbered), "feed") if numbered else producer.first
        everything = [*self.feed, *(producer.body(number) for number in range(producer.first, stored))]
        for name, reader in self.cursors.items():
            where = reader.name.decode()
            again = reader.confirmed & set(shown[name])
            if again:
                raise Violation(f"{where}: confirmed, and comes again: {sorted(again)[:3]}")
            expected = [body for body in everything if body not in reader.confirmed and body not in reader.in_doubt]
            got = [body for body in shown[name] if body not in reader.in_doubt]
            if got != expected:
                lost = [body for body in expected if body not in got]
                raise Violation(f"{where}: lost {lost[:3]}, shows {got[:3]} to {got[-3:]} where {expected[:3]} is next")
            if shown[name] != sorted(shown[name]):
                raise Violation(f"{where}: not in order")
            self.checked += len(got)
            reader.confirmed.clear()
            reader.in_doubt.clear()
            reader.open = None
        self.feed = []
        self.taken.clear()
        wire.close()


def rounds(python: str, program: str, seed: str, count: int, quiet: bool) -> str:
    """Run `count` rounds on one data directory. Returns a line about them. Raises Violation, LoadTestError."""
    bar = Bar("together", count, "rounds", quiet)
    ports = {dialect: free_port() for dialect in ("kestrel", "siberite")}
    listeners = "".join(f'[[listener]]\nport = {port}\ndialect = "{name}"\n\n' for name, port in ports.items())
    words = ["--max-column-families", "3", "--window-bytes", "1MiB"]
    with Server(our_server(python, words, program), listeners + OPTIONS) as server:
        ports["darner"] = server.port
        trial = Trial(server, ports, seed)
        done = 0
        try:
            for done in range(count):
                bar.show(done)
                trial.round()
        except LoadTestError as error:
            bar.clear()
            server.kill()
            kept = tempfile.mkdtemp(prefix="together-kept-")
            shutil.copytree(server.folder, kept, dirs_exist_ok=True)
            raise Violation(f"round {done + 1} of {count}, seed {seed}: {error}; kept: {kept}") from error
        finally:
            bar.clear()
    return (
        f"{count} rounds, nothing lost: {trial.checked:,} items where they belong, {trial.expired:,} expired, "
        f"{trial.in_doubt:,} sets in doubt at kills; seed {seed}"
    )


def main() -> None:
    """Raises Violation, LoadTestError."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20, help="default 20")
    parser.add_argument("--seed", default=str(randrange(1 << 32)), help="default: another one each time")
    parser.add_argument("--python", default=sys.executable, help="interpreter that runs the server")
    parser.add_argument("--program", default="darner.py", help="the server to be killed, default darner.py")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    options = parser.parse_args()
    print(rounds(options.python, options.program, options.seed, options.rounds, options.quiet))


if __name__ == "__main__":
    run("together", main)
