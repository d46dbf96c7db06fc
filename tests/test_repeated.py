"""What may come very often in the log: written once, then counted."""

import logging
from collections.abc import Iterator

import pytest

from darner_core import repeated
from darner_core.repeated import BY_FORM, BY_TEXT, Repeated

log = logging.getLogger("test_repeated")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limit(clock: Clock) -> Iterator[Repeated]:
    limit = Repeated(log, 10, clock)
    log.addFilter(limit)
    yield limit
    log.removeFilter(limit)


def test_the_first_is_written_and_of_the_next_how_many_there_were(
    limit: Repeated, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(5):
        log.error("cannot write: %s", number, extra=BY_FORM)
    limit.tell()
    assert caplog.messages == ["cannot write: 0"]
    clock.now += 10
    limit.tell()
    assert caplog.messages[1:] == ["cannot write: 4 (4 such lines in 10 s)"]
    assert caplog.records[1].levelno == logging.ERROR
    log.error("cannot write: 5", extra=BY_TEXT)
    log.error("cannot write: %s", 6, extra=BY_FORM)  # belongs to the next ten seconds
    assert caplog.messages[2:] == ["cannot write: 5"]


def test_what_has_been_quiet_is_written_at_once_again(
    limit: Repeated, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        log.error("again", extra=BY_TEXT)
        clock.now += 10
        limit.tell()
    assert caplog.messages == ["again"] * 3


def test_lines_are_told_apart_by_their_text_and_others_are_left_alone(
    limit: Repeated, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        for word in ("one", "two"):
            log.error("%s", word, extra=BY_TEXT)
            log.error("%s as always", word)
    assert sorted(caplog.messages) == ["one", "one as always", "one as always", "two", "two as always", "two as always"]
    limit.tell(all_of_them=True)
    assert sorted(caplog.messages[6:]) == ["one (1 such lines in 10 s)", "two (1 such lines in 10 s)"]


def test_no_more_is_kept_in_memory_than_that(
    limit: Repeated, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeated, "MOST_KNOWN", 3)
    for number in [*range(5), *range(5)]:
        log.error("%d", number, extra=BY_TEXT)
    assert caplog.messages == ["0", "1", "2", "3", "4", "3", "4"]
