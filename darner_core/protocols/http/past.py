"""What a queue has been like over the last hour, for the page. Pure reading; nothing here switches."""

from collections.abc import Sequence
from http import HTTPStatus

from darner_core.operations.operations import Operations
from darner_core.protocols.http import parameters
from darner_core.protocols.http.contract import Answer, Asked, Endpoint, Problem
from darner_core.protocols.http.names import shown

_MINUTES = 60


class PastOfQueues:
    def __init__(self, operations: Operations) -> None:
        self._queues = operations.queues
        self._history = operations.history

    def endpoints(self) -> Sequence[Endpoint]:
        minutes = {"minutes": parameters.number("How far back.", 1, _MINUTES)}
        answers = {200: "A value for each step, the oldest first.", 404: "There is no such queue."}
        about = "What the queue has been like over the last hour."
        path = "/api/v1/queues/{queue}/history"
        return (Endpoint("GET", path, self.history, about, parameters=minutes, answers=answers),)

    def history(self, asked: Asked) -> Answer:
        if asked.queue not in self._queues or not asked.client.may_see(asked.queue):
            raise Problem(HTTPStatus.NOT_FOUND, f"there is no queue {shown(asked.queue)}")
        assert self._history is not None, "a server with an HTTP listener has one"
        return Answer(self._history.history(asked.queue, asked.told.get("minutes", _MINUTES)))
