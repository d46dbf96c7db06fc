"""The server in a hurry: thresholds that take hours to reach are reached within a second. Run like darner.py.

It records states, removes dead ranges, compacts and removes logs all the time, so that a kill meets it while it does.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from darner_core import main
from darner_core.engines.local import compaction, journal
from darner_core.server import server

HASTE: tuple[tuple[ModuleType, str, float], ...] = (
    (journal, "STATE_EVERY", 7),
    (journal, "RECLAIM_ITEMS", 50),
    (journal, "RECLAIM_BYTES", 20_000),
    (compaction, "COMPACT_BYTES", 200_000),
    (compaction, "COMPACT_QUIET_BYTES", 20_000),
    (compaction, "TRIM_WAL_BYTES", 100_000),
    (server, "TICK_S", 0.05),
)

if __name__ == "__main__":
    for module, name, value in HASTE:
        assert hasattr(module, name), f"{module.__name__} has no {name} any more"
        setattr(module, name, value)
    main.command()
