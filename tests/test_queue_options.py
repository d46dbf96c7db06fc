"""The options of queues, and where each is set."""

from darner_core.queue_options import BUILT_IN, QueueRules


def test_a_queue_that_nobody_names_has_the_built_in_options() -> None:
    assert QueueRules().of(b"q") == BUILT_IN
    assert QueueRules().named == ()
