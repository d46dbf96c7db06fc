"""The server with a fault: what a transaction of Redis has done is written after each of its commands, and between them
the server may be killed. Run like darner.py."""

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from darner_core import main
from darner_core.protocols.resp import commands
from darner_core.protocols.resp.session import RespSession

PAUSE_S = 0.02
do_one = commands.Resp._answer


def answer(run: Any, request: Any, session: RespSession) -> bytes:
    done = do_one(run, request, session)
    session._journal.commit()  # type: ignore[attr-defined]
    time.sleep(PAUSE_S)
    return done


if __name__ == "__main__":
    commands.Resp._answer = staticmethod(answer)  # type: ignore[method-assign]
    main.command()
