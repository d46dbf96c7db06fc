#!/usr/bin/env python3
"""Run the server from a checkout:  python darner.py --port 22133"""

import sys

ADVICE = (
    "`make run` installs what the server needs and starts it; so does `python3 -m venv .venv &&"
    " .venv/bin/pip install -r requirements.txt && .venv/bin/python darner.py`"
)

if __name__ == "__main__":
    if sys.platform == "win32":
        sys.exit("darner: the server does not run on Windows; it does in WSL and in a container")
    if sys.version_info < (3, 11):  # noqa: UP036
        sys.exit(f"darner: Python 3.11 or newer is needed, and this is {sys.version.split()[0]}")
    try:
        from darner_core.main import command
    except ModuleNotFoundError as error:
        if (error.name or "darner_core").startswith("darner_core"):
            raise
        sys.exit(f"darner: the Python package {error.name} is not installed. {ADVICE}")
    command()
