"""How long a job that has failed waits, when it is not handed out again, and what its history says."""

import pytest

from darner_core.engines.jobs import MAX_DELAY_MS
from darner_core.engines.local.job_rules import LOSS, NACK, TIMEOUT, JobRules, failed, history
from darner_core.storage.job_records import MAX_COUNT, MAX_NOTE_BYTES, READY, Job


def test_without_options_a_job_comes_back_at_once_and_for_ever() -> None:
    rules = JobRules()
    assert [rules.delay_ms(failures) for failures in (1, 2, 1000)] == [0, 0, 0]
    assert not rules.is_last(65535)


@pytest.mark.parametrize(
    ("rules", "delays"),
    [
        (JobRules(retry_delay_ms=100), [100, 100, 100]),
        (JobRules(retry_delay_ms=100, retry_backoff=2), [100, 200, 400]),
        (JobRules(retry_delay_ms=100, retry_backoff=1.5), [100, 150, 225]),
        (JobRules(retry_delay_ms=100, retry_backoff=10, max_retry_delay_ms=500), [100, 500, 500]),
        (JobRules(retry_delay_ms=900, max_retry_delay_ms=500), [500, 500, 500]),
    ],
)
def test_the_delay_grows_from_failure_to_failure(rules: JobRules, delays: list[int]) -> None:
    assert [rules.delay_ms(failures) for failures in (1, 2, 3)] == delays


def test_no_delay_is_too_long_for_a_record() -> None:
    assert JobRules(retry_delay_ms=1, retry_backoff=1000).delay_ms(MAX_COUNT) == MAX_DELAY_MS


class NeverAsked(float):
    def __rmul__(self, other: object) -> float:
        raise AssertionError("there is no delay that could grow")


def test_without_a_delay_a_backoff_costs_nothing_however_often_a_job_has_failed() -> None:
    assert JobRules(retry_backoff=NeverAsked(2)).delay_ms(MAX_COUNT) == 0


def test_the_last_failure_is_that_with_the_number_of_deliveries() -> None:
    assert [JobRules(max_deliveries=2).is_last(failures) for failures in (1, 2, 3)] == [False, True, True]


def test_failures_are_counted_by_how_they_came_about_and_do_not_overflow() -> None:
    job = Job(READY, 1, 2)
    for how in (NACK, TIMEOUT, TIMEOUT, LOSS, LOSS, LOSS):
        job = failed(job, how)
    assert (job.nacks, job.timeouts, job.losses, job.failures) == (1, 2, 3, 6)
    for how in (NACK, TIMEOUT, LOSS):
        full = Job(READY, 1, 2, nacks=MAX_COUNT, timeouts=MAX_COUNT, losses=MAX_COUNT)
        assert failed(full, how) == full


def test_the_history_of_a_dead_letter_is_short_whatever_the_names_are() -> None:
    job = Job(READY, 1, 2, nacks=2, losses=1)
    assert history(b"jobs", 7, job, LOSS, "10.0.0.1:5", 1000) == (
        b"from=jobs id=7 failures=3 last=loss client=10.0.0.1:5 put=1000"
    )
    long = history(b"q" * 250, 2**53, job, TIMEOUT, "c" * 500, 2**44)
    assert len(long) <= MAX_NOTE_BYTES
    assert b" failures=3 last=timeout client=ccc" in long


def test_names_of_any_letters_are_cut_between_two_letters() -> None:
    note = history("ä".encode() * 125, 7, Job(0, 5, 3), NACK, "🦉" * 60 + "@10.0.0.1:5", 1000)
    assert len(note) <= MAX_NOTE_BYTES
    assert "client=" + "🦉" * 15 + " put=1000" in note.decode()
