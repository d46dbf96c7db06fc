"""What `/metrics` tells, read by Prometheus's own parser."""

from typing import Any

from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.support.http import Http

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def families_of(text: str) -> list[Metric]:
    return list(text_string_to_metric_families(text))  # type: ignore[no-untyped-call]


class Scrape:
    def __init__(self, text: str) -> None:
        self.text = text
        self.samples: dict[tuple[str, frozenset[tuple[str, str]]], Any] = {}
        for family in families_of(text):
            for sample in family.samples:
                key = sample.name, frozenset(sample.labels.items())
                assert key not in self.samples, key
                self.samples[key] = sample.value

    def of(self, name: str, **labels: str) -> Any:
        """0 if there is no such sample."""
        return self.samples.get((name, frozenset(labels.items())), 0)

    def queues(self) -> set[str]:
        return {dict(labels)["queue"] for name, labels in self.samples if name == "darner_queue_items"}

    def names(self) -> set[str]:
        return {name for name, _ in self.samples}


def scraped(http: Http) -> Scrape:
    said = http.ask("GET", "/metrics", Accept=OPENMETRICS)
    assert said.status == 200, said
    return Scrape(said.body.decode())
