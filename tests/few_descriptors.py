"""The server, with as many file descriptors as $DESCRIPTORS says. Run as darner.py is."""

import os
import resource
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from darner_core import main

if __name__ == "__main__":
    number = int(os.environ["DESCRIPTORS"])
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))
    main.command()
