"""The server, with other options built in for every queue: reads last a second, and three may be open at a time. Run as
darner.py is."""

import os
import sys
from dataclasses import replace

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from darner_core import main, message_queue
from darner_core.queue_options import BUILT_IN

if __name__ == "__main__":
    options = replace(BUILT_IN, open_transaction_timeout_s=1, max_open_reads=3)
    message_queue.MessageQueue.__init__.__defaults__ = (options,)  # type: ignore[misc]
    main.command()
