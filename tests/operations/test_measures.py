"""Histograms: what they count, and how many there can be."""

from darner_core.operations.measures import MOST_VERBS, OTHER, SHORT, Histogram, Measures


def test_a_value_is_counted_at_the_first_bound_that_is_not_less() -> None:
    histogram = Histogram((1.0, 2.0))
    for seconds in (0.5, 1.0, 1.5, 2.5):
        histogram.observe(seconds)
    assert (histogram.counts, histogram.count, histogram.sum) == ([2, 1, 1], 4, 5.5)


def test_a_sample_counts_for_all_that_it_stands_for() -> None:
    histogram = Histogram(SHORT)
    histogram.observe(0.5, 100)
    assert (histogram.count, histogram.sum) == (100, 50.0)


def test_requests_are_told_apart_by_dialect_and_verb() -> None:
    measures = Measures()
    measures.request("darner", "get", 0.1)
    measures.request("resp", "get", 0.1, 2)
    counts = {key: histogram.count for key, histogram in measures.requests.items()}
    assert counts == {("darner", "get"): 1, ("resp", "get"): 2}


def test_verbs_that_clients_make_up_take_no_more_memory_than_some() -> None:
    measures = Measures()
    for number in range(1000):
        measures.request("darner", f"verb{number}", 0.1)
    measures.request("darner", "v" * 10_000, 0.1)
    assert len(measures.requests) == MOST_VERBS + 1
    assert measures.requests["darner", OTHER].count == 1000 - MOST_VERBS + 1
