"""What is shown of the server itself."""

import logging

from darner_core.server.overview import LINES, LastLines, Overview


def test_the_last_lines_of_the_log_are_kept() -> None:
    log = logging.getLogger("test_overview")
    log.propagate = False
    lines = LastLines()
    log.addHandler(lines)
    for number in range(LINES + 3):
        log.warning("line %d", number)
    assert [text for _, _, text in lines.lines][:1] == ["line 3"]
    assert lines.lines[-1][1:] == ("WARNING", f"line {LINES + 2}")
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("bad\nthing")
    assert lines.lines[-1][1:] == ("ERROR", "bad\\nthing: ValueError('why')")


def test_lines_are_kept_from_the_start_to_the_end() -> None:
    overview = Overview(set(), [], {"debug"})
    overview.start()
    logging.getLogger("test_overview_2").error("kept")
    overview.stop()
    logging.getLogger("test_overview_2").error("not kept")
    assert [text for _, _, text in overview.last_lines(10)] == ["kept"]
    assert overview.listeners() == []
