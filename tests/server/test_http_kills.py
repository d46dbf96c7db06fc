"""The server is killed with -9 while clients put, take, release and acknowledge over HTTP: what they were answered is
so after the next start.
"""

import http.client
import random
import threading
import time
from collections.abc import Callable

import pytest

from tests.support.harness import RunningServer
from tests.support.http import HTTP, Http, http_port

CLIENTS = 6


class Worker(threading.Thread):
    """Keeps account of what it was answered. What it was not answered may have happened, or not."""

    def __init__(self, port: int, number: int, seed: int) -> None:
        super().__init__()
        self._http = Http(port)
        self._number = number
        self._chance = random.Random(seed)
        self.put: set[str] = set()  # bodies
        self.gone: set[str] = set()
        self.doubtful: set[str] = set()

    def run(self) -> None:
        try:
            for count in range(100_000):
                self._step(f"{time.time_ns()}-{self._number}-{count}")
        except (OSError, http.client.HTTPException):
            self._http.close()

    def _step(self, body: str) -> None:
        size = 200_000 if self._chance.random() < 0.02 else 0
        self.doubtful.add(body)
        self._http.put("q", body.encode() + b" " * size, "?pri=7" if self._chance.random() < 0.2 else "")
        self.doubtful.discard(body)
        self.put.add(body)
        if self._chance.random() < 0.3:
            return
        said = self._http.take("q", "?ttr=60000")
        if said.status == 204:
            return
        taken, item = said.body.decode().strip(), f"queues/q/items/{said.headers['x-darner-id']}"
        if self._chance.random() < 0.2:
            assert self._http.post(f"{item}/release").status == 204
            return
        self.doubtful.add(taken)
        assert self._http.delete(item).status == 204
        self.doubtful.discard(taken)
        self.gone.add(taken)


@pytest.mark.long
def test_what_was_answered_is_so_after_a_kill(start_server: Callable[..., RunningServer]) -> None:
    server = start_server(*HTTP)
    chance = random.Random(1)
    there: set[str] = set()
    for _ in range(8):
        workers = [Worker(http_port(server), number, chance.randrange(1 << 30)) for number in range(CLIENTS)]
        for worker in workers:
            worker.start()
        time.sleep(chance.uniform(0.3, 1.5))
        server.kill()
        for worker in workers:
            worker.join()
        server.start()
        put, gone, doubtful = (
            set[str]().union(*(getattr(one, name) for one in workers)) for name in ("put", "gone", "doubtful")
        )
        reader = Http(http_port(server))
        found: list[str] = []
        while (said := reader.take("q", "?n=1000")).status == 200:
            if said.headers["content-type"] == "application/json":
                found += [one["body"].strip() for one in said.json["items"]]
            else:
                found.append(said.body.decode().strip())
        reader.close()
        assert len(found) == len(set(found)), "an item is there twice"
        must, may = (there | put) - gone - doubtful, (there | put | doubtful) - gone
        assert must <= set(found) <= may
        there = set(found)
        server.kill()  # which gives back what the reader has taken
        server.start()
