"""The server with short time limits for who does not get to the point. Run as darner.py is."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from darner_core.main import command
from darner_core.server import acceptor, tls

acceptor.LOGIN_S = tls.HANDSHAKE_S = 0.3

command()
