"""The words of jobs. What an engine does with them: test_jobs of the engine."""

from darner_core.engines.jobs import NEUTRAL, JobOptions


def test_a_put_that_asks_for_nothing_makes_a_neutral_item() -> None:
    assert JobOptions() == JobOptions(0, NEUTRAL, 0, b"", False)
