#!/usr/bin/env python3
"""Run the server from a checkout:  python darner.py --port 22133"""

import sys

from darner_core.main import main

if __name__ == "__main__":
    sys.exit(main())
