#!/usr/bin/env python3
"""Run the server from a checkout:  python darner.py --port 22133"""

from darner_core.main import command

if __name__ == "__main__":
    command()
