"""Single lines, good and bad, that this server and the real beanstalkd answer alike."""

import pytest

from tests.protocols.beanstalkd.conftest import Beans

NONE = 4_000_000_000_000  # there is no such job

LINES = [
    ("nosuchcommand", "UNKNOWN_COMMAND"), ("USE a", "UNKNOWN_COMMAND"), ("", "UNKNOWN_COMMAND"),
    (" use a", "UNKNOWN_COMMAND"), ("put", "UNKNOWN_COMMAND"), ("x" * 300, "BAD_FORMAT"),
    ("put 0 0 1", "BAD_FORMAT"), ("put 0 0 1 1x", "BAD_FORMAT"), ("put 0 0 1 -1", "BAD_FORMAT"),
    ("put -1 0 1 1", "BAD_FORMAT"), ("put x 0 1 1", "BAD_FORMAT"), ("put 4294967296 0 1 1", "BAD_FORMAT"),
    ("put 0 -1 1 1", "BAD_FORMAT"), ("put 0 0 -1 1", "BAD_FORMAT"), ("put 0,0 1 1", "BAD_FORMAT"),
    ("put 0 0 1 99999999999999999999", "BAD_FORMAT"), ("delete x", "BAD_FORMAT"), ("delete -1", "BAD_FORMAT"),
    ("delete 99999999999999999999", "BAD_FORMAT"), ("peek x", "BAD_FORMAT"), ("peek 18446744073709551615", "NOT_FOUND"),
    ("peek-ready x", "BAD_FORMAT"), ("release 1 x 0", "BAD_FORMAT"), ("release 1 0", "BAD_FORMAT"),
    ("release 1 0 x", "BAD_FORMAT"), ("bury 1 x", "BAD_FORMAT"), ("bury x 0", "BAD_FORMAT"), ("touch x", "BAD_FORMAT"),
    ("touch 1x", "BAD_FORMAT"), ("kick x", "BAD_FORMAT"), ("kick-job x", "BAD_FORMAT"), ("kick-job 1x", "BAD_FORMAT"),
    ("reserve-job x", "BAD_FORMAT"), ("reserve x", "BAD_FORMAT"), ("stats-job x", "BAD_FORMAT"),
    ("use -a", "BAD_FORMAT"), ("use a b", "BAD_FORMAT"), ("watch caf\u00e9", "BAD_FORMAT"),
    ("ignore a b", "BAD_FORMAT"),
    ("use a_b", "USING a_b"), ("stats-tube -a", "BAD_FORMAT"), ("statsx", "BAD_FORMAT"), ("list-tubesx", "BAD_FORMAT"),
    (f"peek {2**64}", "BAD_FORMAT"), (f"peek {10**47}", "BAD_FORMAT"), ("peek 1x", "BAD_FORMAT"),
    (f"delete {2**64}", "BAD_FORMAT"), (f"delete {10**47}", "BAD_FORMAT"), ("delete 1x", "BAD_FORMAT"),
    (f"release {2**64} 1 1", "BAD_FORMAT"), (f"release {10**47} 1 1", "BAD_FORMAT"), ("release x", "BAD_FORMAT"),
    ("release 1x", "BAD_FORMAT"), ("touch !@#!@#", "BAD_FORMAT"), ("kick-job !@#!@#", "BAD_FORMAT"),
    ("bury 1x 2", "BAD_FORMAT"), ("bury 1", "BAD_FORMAT"), ("bury 1 2x", "BAD_FORMAT"),
    ("stats-job 1x", "BAD_FORMAT"), ("stats-job 1 2", "BAD_FORMAT"), ("put 0 0 0 4294967296", "BAD_FORMAT"),
    ("put 0 0 0 10b", "BAD_FORMAT"), ("put 0 0 0 --!@#$%^&&**()0b", "BAD_FORMAT"),
    ("put -1kkd 0 100 1", "BAD_FORMAT"),
    ("pause-tube default x", "BAD_FORMAT"), ("pause-tube default", "BAD_FORMAT"), ("pause-tube -a 0", "BAD_FORMAT"),
    (f"delete {NONE}", "NOT_FOUND"), (f"release {NONE} 0 0", "NOT_FOUND"), (f"bury {NONE} 0", "NOT_FOUND"),
    (f"touch {NONE}", "NOT_FOUND"), (f"kick-job {NONE}", "NOT_FOUND"), (f"reserve-job {NONE}", "NOT_FOUND"),
    (f"stats-job {NONE}", "NOT_FOUND"), ("kick 0", "KICKED 0"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "reply"), LINES)
def test_a_line_is_answered_so_and_the_next_is_read(shared: Beans, line: str, reply: str) -> None:
    worker = shared.worker()
    worker.says(line, reply)
    worker.says("use after", "USING after")
