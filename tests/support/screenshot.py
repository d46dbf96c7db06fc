"""Makes docs/page.png again: `python -m tests.support.screenshot docs/page.png --minutes 60`.

The picture is of a real server with an hour of work behind it, so it takes that hour; with fewer minutes the small
charts are emptier. What the workers do is always the same.
"""

import argparse
import math
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Thread
from typing import NamedTuple

from tests.support.browser import browser_on
from tests.support.harness import RunningServer
from tests.support.http import HTTP, Http, http_port

CONF = """[default]
max_deliveries = 3
[queues.mail]
dead_letter_queue = "mail.dead"
[queues.billing]
dead_letter_queue = "billing.dead"
"""
ROUND_S = 1.0
PICTURE_S = 12.0  # the work goes on while the picture is made
WINDOW = {"width": 1280, "height": 800}
MAX_PICTURE_BYTES = 200_000


class Flow(NamedTuple):
    """What goes through a queue: so many items a second, at most, in waves of so many seconds."""

    queue: str
    into: float
    out: float
    wave_s: float
    failing: float = 0.0  # the part of the items that a worker fails with


FLOWS = (
    Flow("mail", 12, 6.5, 240, 0.02), Flow("billing", 3, 1.6, 400, 0.05), Flow("orders", 9, 4.8, 150),
    Flow("thumbnails", 16, 8.4, 90), Flow("search.index", 6, 3.0, 300), Flow("webhooks", 8, 4.1, 200, 0.04),
    Flow("reports.nightly", 1, 0.4, 600), Flow("push.ios", 7, 3.7, 120), Flow("push.android", 8, 4.2, 130),
)  # fmt: skip


def work(api: Http, seconds: float) -> None:
    chance = random.Random(7)
    began = time.monotonic()
    owed = dict.fromkeys(FLOWS, 0.0)
    while (passed := time.monotonic() - began) < seconds:
        for flow in FLOWS:
            wave = (1 + math.sin(2 * math.pi * passed / flow.wave_s)) / 2
            for _ in range(round(flow.into * wave * ROUND_S * chance.uniform(0.6, 1.4))):
                api.put(flow.queue, b'{"user": %d, "template": "welcome"}' % chance.randrange(100_000))
            owed[flow] += flow.out * ROUND_S
            while owed[flow] >= 1:
                owed[flow] -= 1
                _deal_with_one(api, flow, chance)
        time.sleep(ROUND_S)


def _deal_with_one(api: Http, flow: Flow, chance: random.Random) -> None:
    taken = api.take(flow.queue)
    if taken.status != 200:
        return
    path = f"queues/{flow.queue}/items/{taken.headers['x-darner-id']}"
    fails = chance.random() < flow.failing
    api.post(f"{path}/reject") if fails else api.delete(path)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.support.screenshot", description=__doc__)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    told = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        conf = Path(folder) / "conf.toml"
        conf.write_text(CONF)
        server = RunningServer(Path(folder) / "data", *HTTP, "-c", str(conf))
        try:
            api = Http(http_port(server))
            work(api, told.minutes * 60)
            api.take("reports.nightly", "?ttr=600000")
            api.post("queues/reports.nightly/pause", {"state": "out"})
            going_on = Thread(target=work, args=(api, PICTURE_S))
            going_on.start()
            with browser_on(server, viewport=WINDOW, color_scheme="light") as browser:
                browser.open("queues?sort=waiting&order=desc")
                browser.page.wait_for_timeout(PICTURE_S * 500)  # until the rates are known
                browser.page.screenshot(path=told.picture)
                assert browser.complaints == []
            going_on.join()
            api.close()
        finally:
            server.end()
    size = told.picture.stat().st_size
    assert size <= MAX_PICTURE_BYTES, f"the picture has {size} bytes; {MAX_PICTURE_BYTES} are allowed"


if __name__ == "__main__":
    main()
