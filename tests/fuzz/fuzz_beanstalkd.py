"""Random conversations with this server and with the real beanstalkd, side by side: they answer the same.

    python -m tests.fuzz.fuzz_beanstalkd --runs 100000 [--seed 1]

Several clients put, reserve, release, bury, kick, delete and look, in tubes that they share. The numbers of jobs are
compared as "the n-th that was put"; ages and what is left of a time are not compared. It needs beanstalkd installed.
"""

import argparse
import random
import re
import select
import sys
import tempfile
import time
from pathlib import Path

from tests.support.beanstalkd import RealBeanstalkd, TubeServer

CLIENTS = 3
STEPS = 60  # of one conversation, in tubes of its own
STILL_S = 0.004  # which of two jobs is older is told to the millisecond

# What time changes, and what the two tell differently: see docs/beanstalkd.md.
NOT_COMPARED = re.compile(rb"(age|delay|time-left|file|pause-time-left): .*\n")
VERBS = (
    ["put"] * 24 + ["reserve"] * 16 + ["reserve-job"] * 4 + ["wait"] * 3 + ["delete"] * 10 + ["release"] * 10
    + ["bury"] * 6 + ["kick"] * 4 + ["kick-job"] * 3 + ["touch"] * 2 + ["peek"] * 3 + ["peek-ready"] * 3
    + ["peek-delayed"] * 2 + ["peek-buried"] * 2 + ["watch"] * 3 + ["ignore"] * 3 + ["use"] * 4 + ["stats-job"] * 6
    + ["stats-tube"] * 4 + ["pause-tube"] * 1 + ["list-tube-used", "list-tubes-watched", "hang up"]
)  # fmt: skip
PRIS = (0, 1, 1, 1023, 1024, 1024, 5_000_000_000 // 2)


class Side:
    """One of the two servers, as one conversation sees it."""

    def __init__(self, server: TubeServer | RealBeanstalkd, tubes: list[str]) -> None:
        self._server = server
        self.clients = [server.worker() for _ in range(CLIENTS)]
        for client in self.clients:
            client.use(tubes[0])
        self._watcher = server.worker()  # so all tubes exist: ours keeps those that are empty
        self._watcher.use(*tubes)
        self.jobs: list[bytes] = []  # their numbers, in the order in which they were put

    def again(self, which: int, tube: str) -> None:
        self.clients[which].close()
        time.sleep(0.03)  # the server has to see it
        self.clients[which] = self._server.worker()
        self.clients[which].use(tube)

    def normal(self, reply: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        """The reply, with the jobs numbered from 0."""
        line, body = reply
        words = line.split(b" ")
        if words[0] == b"INSERTED":
            self.jobs.append(words[1])
        if words[0] in (b"INSERTED", b"RESERVED", b"FOUND"):
            words[1] = b"#%d" % self.jobs.index(words[1])
        if words[0] == b"OK":
            words, body = words[:1], b"\n".join(sorted(body.split(b"\n"))) if b"\n- " in body else body
            body = NOT_COMPARED.sub(b"", re.sub(rb"^---\nid: \d+\n", b"", body)).replace(b'"', b"")
        return b" ".join(words), body

    def close(self) -> None:
        for client in (*self.clients, self._watcher):
            client.close()


class Conversation:
    def __init__(self, ours: Side, real: Side, dice: random.Random, tubes: list[str]) -> None:
        self._sides = ours, real
        self._dice = dice
        self._tubes = tubes
        self._waiting: set[int] = set()
        self.said: list[str] = []

    def _line(self, verb: str) -> str:
        """With {0}, {1} … for the jobs that were put."""
        dice = self._dice
        known = len(self._sides[0].jobs)
        job = f"{{{dice.randrange(known)}}}" if known else "4000000000"
        tube = dice.choice(self._tubes)
        pri = dice.choice(PRIS)
        delay = dice.choice((0, 0, 0, 1000, 2000))
        match verb:
            case "put":
                body = dice.choice(("", "a", "body", "x" * 40_000)) + str(len(self.said))
                return f"put {pri} {delay} 1000 {len(body)}\r\n{body}"
            case "reserve":
                return "reserve-with-timeout 0"
            case "wait":
                return "reserve"
            case "release":
                return f"release {job} {pri} {delay}"
            case "bury":
                return f"bury {job} {pri}"
            case "kick":
                # Of several that are made ready at once a client that waits gets the first to be kicked from one of
                # the two, and the most urgent from the other.
                return f"kick {dice.randrange(2 if self._waiting else 4)}"
            case "pause-tube":
                return f"pause-tube {tube} 1"
            case "watch" | "ignore" | "use" | "stats-tube":
                return f"{verb} {tube}"
            case "reserve-job" | "delete" | "kick-job" | "touch" | "peek" | "stats-job":
                return f"{verb} {job}"
        return verb

    def _differ(self, which: int, first: object, second: object) -> None:
        assert first == second, f"client {which}: ours {str(first)[:500]}, beanstalkd {str(second)[:500]}"

    def step(self) -> None:
        dice = self._dice
        which = dice.choice([one for one in range(CLIENTS) if one not in self._waiting])
        verb = dice.choice(VERBS)
        if verb == "wait" and self._waiting:  # the real one does not always serve the one first who came first
            return
        if verb == "hang up":
            if self._waiting:  # what comes back at once may be several jobs: see `kick`
                return
            self.said.append(f"{which}: hangs up")
            for side in self._sides:
                side.again(which, self._tubes[0])
            return
        line = self._line(verb)
        self.said.append(f"{which}: {line[:60]!r}")
        for side in self._sides:
            numbers = [number.decode() for number in side.jobs]
            side.clients[which].send((line.format(*numbers) if "{" in line else line).encode() + b"\r\n")
        if verb == "wait":
            self._waiting.add(which)
        else:
            self._hear(which)
        if verb == "pause-tube":
            time.sleep(1.1)
        time.sleep(STILL_S)
        for waiting in sorted(self._waiting):
            if self._speak(waiting):
                self._waiting.discard(waiting)
                self._hear(waiting)

    def _hear(self, which: int) -> None:
        ours, real = (side.normal(side.clients[which].reply()) for side in self._sides)
        self._differ(which, ours, real)

    def _speak(self, which: int) -> bool:
        """Whether the two servers answer this client, who waits. They must agree about it."""
        sockets = [side.clients[which].socket for side in self._sides]
        ready = select.select(sockets, [], [], 0.01)[0]
        if len(ready) == 1:
            ready = [one for one in sockets if select.select([one], [], [], 1.0)[0]]
        assert len(ready) != 1, f"client {which}: only {'ours' if ready[0] is sockets[0] else 'beanstalkd'} answers"
        return bool(ready)


def run(ours: TubeServer, real: RealBeanstalkd, runs: int, seed: int, most_s: float = 1e9) -> int:
    """How many requests were tried. Raises AssertionError at the first that is answered differently."""
    tried = 0
    until = time.monotonic() + most_s
    while tried < runs and time.monotonic() < until:
        dice = random.Random(seed)
        tubes = [f"{seed}-{name}" for name in "abc"]
        sides = [Side(ours, tubes), Side(real, tubes)]
        conversation = Conversation(sides[0], sides[1], dice, tubes)
        try:
            for _ in range(STEPS):
                conversation.step()
                tried += 1
        except BaseException:
            print(f"seed {seed}:", *conversation.said, sep="\n", file=sys.stderr)
            raise
        finally:
            for side in sides:
                side.close()
        seed += 1
    return tried


def main() -> None:
    parser = argparse.ArgumentParser(description="compare with the real beanstalkd")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ours, real = TubeServer(Path(folder) / "ours"), RealBeanstalkd(Path(folder) / "real")
        try:
            tried = run(ours, real, options.runs, options.seed)
        finally:
            ours.end()
            real.end()
    print(f"{tried} requests, answered alike")


if __name__ == "__main__":
    main()
