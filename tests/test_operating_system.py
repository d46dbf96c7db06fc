"""The heap gives back what was freed, where the C library can. What comes of it: tests/test_limits.py."""

import os
import subprocess
import sys

import pytest

from darner_core import heap

HOLES = """
import os
from darner_core import heap
def resident(): return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
blocks = [bytes(50_000) for _ in range(2000)]
kept = blocks[::20]
blocks = None
before = resident()
heap.trim()
assert before - resident() > 50_000_000, before - resident()
"""


@pytest.mark.skipif(heap._TRIM is None or not os.path.exists("/proc/self/statm"), reason="glibc on Linux can")
def test_holes_between_what_lives_are_given_back() -> None:
    subprocess.run([sys.executable, "-c", HOLES], check=True, timeout=30)


def test_without_it_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "_TRIM", None)
    heap.trim()
