"""One client's failure is that client's end, and nobody else's."""

import logging

import pytest

from darner_core.server.careful import careful, cut_off


class Client:
    def __init__(self, fails_to_end: bool = False) -> None:
        self.fails_to_end = fails_to_end
        self.served: list[int] = []
        self.ends = 0

    @careful
    def serve(self, number: int) -> None:
        self.served.append(10 // number)

    def hang_up(self) -> None:
        self.ends += 1
        if self.fails_to_end:
            raise KeyError("no end")


def test_a_client_that_is_served_goes_on() -> None:
    client = Client()
    client.serve(5)
    assert (client.served, client.ends) == ([2], 0)


@pytest.mark.parametrize("fails_to_end", [False, True])
def test_a_client_that_cannot_be_served_is_cut_off(caplog: pytest.LogCaptureFixture, fails_to_end: bool) -> None:
    client = Client(fails_to_end)
    with caplog.at_level(logging.ERROR):
        client.serve(0)
    assert client.ends == 1
    said = ["a client could not be served", *["a client could not be hung up on"] * fails_to_end]
    assert [record.getMessage() for record in caplog.records] == said


def test_cutting_off_raises_nothing() -> None:
    cut_off(Client(fails_to_end=True))
