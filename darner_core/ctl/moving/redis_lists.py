"""Lists of a Redis server as a source.

A batch is moved with LMOVE to a list beside the old one, `darner:moving:{<key>}`, put elsewhere, and then removed from
there with LREM. So nothing is in memory alone: a run that was cut off left its batch in that list, and the next run
begins with it. Two movers of one list at a time would put the same batch twice, and lose nothing.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from darner_core.ctl import names
from darner_core.ctl.errors import CtlError, NoServer
from darner_core.ctl.moving.places import Item, Listed
from darner_core.showing import show

HELD: Final = b"darner:moving:{"

RIGHT, LEFT = "right", "left"


def connect(url: str, timeout_s: float) -> Any:
    """A client of redis-py for such a URL. Raises CtlError."""
    try:
        import redis
    except ModuleNotFoundError:
        advice = "pip install 'darner[move]', or pip install redis, installs what it needs"
        raise CtlError(f"to read from Redis, the Python package redis has to be installed: {advice}") from None
    try:
        return redis.Redis.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s)
    except ValueError as error:
        raise CtlError(f"{url}: {error}") from error


class RedisLists:
    def __init__(self, client: Any, server: str, pops: str = RIGHT) -> None:
        """`pops`: the end at which the workers of these lists take."""
        self._client = client
        self._server = server
        self._from = pops.upper()
        self._batch: list[bytes] = []

    def _ask(self, command: str, *arguments: Any) -> Any:
        return self._all([(command, *arguments)])[0]

    def _all(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The replies to these commands, which are sent together. Raises CtlError."""
        import redis

        try:
            with self._client.pipeline(transaction=False) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                replies: list[Any] = pipeline.execute()
                return replies
        except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
            raise NoServer(f"{self._server} does not answer: {show(str(error))}") from error
        except redis.exceptions.RedisError as error:
            raise CtlError(f"{self._server} refuses: {show(str(error))}") from error

    def queues(self) -> list[Listed]:
        found: set[bytes] = set()
        cursor: Any = b"0"
        while True:
            cursor, keys = self._ask("SCAN", cursor, "COUNT", 1000, "TYPE", "list")
            found.update(_unheld(key) for key in keys)
            if int(cursor) == 0:
                break
        ordered = sorted(found)
        lengths = self._all([("LLEN", key) for one in ordered for key in (one, held(one))]) if ordered else []
        return [Listed(one, lengths[2 * place] + lengths[2 * place + 1]) for place, one in enumerate(ordered)]

    def batch(self, queue: bytes, most: int) -> Iterator[Item]:
        # What a run that was cut off has left goes first. The oldest is the last in the list.
        self._batch = self._ask("LRANGE", held(queue), -most, -1)[::-1]
        if not self._batch:
            moved = self._all([("LMOVE", queue, held(queue), self._from, "LEFT")] * most)
            self._batch = [body for body in moved if body is not None]
        for body in self._batch:
            yield Item(len(body), body)

    def confirm(self, queue: bytes) -> int:
        return self._remove(queue, self._batch)

    def _remove(self, queue: bytes, bodies: Sequence[bytes]) -> int:
        removed: list[int] = self._all([("LREM", held(queue), -1, body) for body in bodies]) if bodies else []
        return len(removed) - sum(removed)  # another mover has had it

    def confirm_some(self, queue: bytes, stored: Sequence[bool]) -> int:
        """What is not stored goes back to the end it came from, the oldest last, so that it is taken first."""
        bodies = [body for body, is_stored in zip(self._batch, stored, strict=True) if is_stored]
        gone = self._remove(queue, bodies)
        while self._ask("LMOVE", held(queue), queue, "LEFT", self._from) is not None:
            pass
        return gone

    def left(self, queue: bytes) -> str:
        count = sum(self._all([("LLEN", queue), ("LLEN", held(queue))]))
        return f"{count:,} in the list {names.write(queue)}" if count else ""

    def told(self) -> list[str]:
        return []

    def close(self) -> None:
        self._client.close()


def held(queue: bytes) -> bytes:
    """The braces keep both lists on one node of a cluster."""
    return HELD + queue + b"}"


def _unheld(key: bytes) -> bytes:
    return key[len(HELD) : -1] if key.startswith(HELD) and key.endswith(b"}") else key
