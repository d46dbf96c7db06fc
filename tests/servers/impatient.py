"""The server with short time limits for clients that are slow to log in or to shake hands. Run like darner.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from darner_core.main import command
from darner_core.server import acceptor, tls

acceptor.LOGIN_S = tls.HANDSHAKE_S = 0.3

command()
