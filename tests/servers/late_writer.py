"""The server with a fault: it answers before it writes, and writes only now and then. Run like darner.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from darner_core import main
from darner_core.engines.local import engine
from darner_core.engines.local.journal import Journal

EVERY = 10  # turns


class LateJournal(Journal):
    turns = 0

    def commit(self) -> bool:
        self.turns += 1
        return self.turns % EVERY == 0 and super().commit()


if __name__ == "__main__":
    engine.Journal = LateJournal  # type: ignore[attr-defined]
    main.command()
