"""The server with a fault: an item may fail once more than `max_deliveries` says. Run like darner.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from darner_core import main
from darner_core.engines.local.job_rules import JobRules


def is_last(self: JobRules, failures: int) -> bool:
    return 0 < self.max_deliveries < failures


if __name__ == "__main__":
    JobRules.is_last = is_last  # type: ignore[method-assign]
    main.command()
