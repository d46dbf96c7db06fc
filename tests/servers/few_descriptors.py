"""The server with a limit of $DESCRIPTORS file descriptors. Run like darner.py."""

import os
import resource
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from darner_core import main

if __name__ == "__main__":
    number = int(os.environ["DESCRIPTORS"])
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))
    main.command()
