"""What each server wants to hear and how its answers read: memcache text, redis, beanstalkd.

Owns the bytes of the three protocols and nothing else: no socket, no clock. A peer builds requests and takes replies
apart. Everything that could make the load loop wait or guess is decided here once, when the request is built: how many
replies it will have, and where possible their very bytes.

What is counted as one put and one get:

============  ====================  ==========================================  =================================
server        put                   get                                         reliable get
============  ====================  ==========================================  =================================
memcache      set                   get                                         get q/close/open (a cache: get)
redis         LPUSH                 RPOP                                        DEL q:open:N with LMOVE q q:open:N
beanstalkd    put                   reserve-with-timeout 0 and delete, as one   the same, it is always reliable
============  ====================  ==========================================  =================================

Redis' reliable get closes connection N's previous item and opens the next in one round trip, like `get q/close/open`,
but is two commands for the server. Beanstalkd's get is two commands and two round trips: the delete needs the job's id.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from loadtest.errors import AnswerError

LINE_END = b"\r\n"


@dataclass(slots=True)
class Request:
    """Bytes to send, with what is known beforehand about the answer."""

    data: bytes
    replies: int  # how many replies end it; beanstalkd's get has two, and so has a redis reliable get
    expected: bytes = b""  # the whole answer if it is known (a get: on a hit), else empty
    puts: int = 0
    gets: int = 0

    @property
    def name(self) -> str:
        """The request line, for error messages; of a redis command the first two words."""
        lines = self.data[:120].split(LINE_END)
        line = b" ".join(lines[2:5:2]) if lines[0].startswith(b"*") else lines[0]
        return line.decode("ascii", "replace")


@dataclass(slots=True)
class Replies:
    """Whole replies taken from received bytes."""

    count: int = 0
    misses: int = 0  # gets answered "nothing there"
    bodies: list[bytes] = field(default_factory=list)  # of the gets that hit, in order
    follow_up: bytes = b""  # what must be sent before the requests are done (beanstalkd's deletes)


class Peer(Protocol):
    """One server's language. Queue names are bytes; bodies must not contain CR LF."""

    name: str
    has_queues: bool  # False if a get leaves the item where it is
    counting: str  # what the reader of the figures must know about a get, if anything
    counting_reliable: str  # and about a reliable get

    def hello(self, queue: bytes) -> Request | None:
        """What a connection that will use this queue sends first, if anything."""

    def put(self, queue: bytes, body: bytes) -> Request:
        """Add one item."""

    def get(self, queue: bytes, body: bytes = b"") -> Request:
        """Take one item if there is one; body is what it will hold, if the caller knows."""

    def reliable_get(self, queue: bytes, body: bytes, connection: int) -> Request:
        """Confirm the item this connection took before, if any, and take the next."""

    def confirm(self, queue: bytes, connection: int) -> Request | None:
        """Confirm the last item of the connection; None where `reliable_get` leaves none open."""

    def delete(self, queue: bytes) -> Request | None:
        """Remove the queue; None where the protocol cannot."""

    def take(self, data: bytes) -> Replies | None:
        """The replies in data, or None if the last is not whole yet; AnswerError for anything else."""


class Memcache:
    """The queue server, or memcached as its measure: there a key stands for a queue of one item."""

    name = "memcache"
    counting = ""
    counting_reliable = "a reliable get is get q/close/open (of a cache: a plain get)"

    def __init__(self) -> None:
        """has_queues: to be set False for a cache, which knows no options after the key."""
        self.has_queues = True

    def hello(self, queue: bytes) -> Request | None:
        """Nothing."""
        return None

    def put(self, queue: bytes, body: bytes) -> Request:
        """`set`; queue may carry options, as in q/sync."""
        data = b"set %b 0 0 %d\r\n%b\r\n" % (queue, len(body), body)
        return Request(data, 1, b"STORED\r\n", puts=1)

    def get(self, queue: bytes, body: bytes = b"") -> Request:
        """`get`; queue may carry options, as in q/t=500."""
        expected = b"VALUE %b 0 %d\r\n%b\r\nEND\r\n" % (queue.split(b"/")[0], len(body), body) if body else b""
        return Request(b"get %b\r\n" % queue, 1, expected, gets=1)

    def reliable_get(self, queue: bytes, body: bytes, connection: int) -> Request:
        """`get q/close/open`."""
        return self.get(queue + b"/close/open" if self.has_queues else queue, body)

    def confirm(self, queue: bytes, connection: int) -> Request | None:
        """`get q/close`, which is answered END."""
        return Request(b"get %b/close\r\n" % queue, 1, b"END\r\n") if self.has_queues else None

    def delete(self, queue: bytes) -> Request | None:
        """`delete`."""
        return Request(b"delete %b\r\n" % queue, 1)

    def take(self, data: bytes) -> Replies | None:
        """See Peer; a get's reply is its VALUE block up to END, or END alone. What did nothing is a miss."""
        replies = Replies()
        at, end = 0, len(data)
        while at < end:
            if data.startswith(b"STORED\r\n", at):
                at += 8
            elif data.startswith(b"END\r\n", at):
                replies.misses += 1
                at += 5
            else:
                line_end = data.find(LINE_END, at)
                if line_end < 0:
                    return None
                if data.startswith(b"VALUE ", at):
                    body_at = line_end + 2
                    body_end = body_at + int(data[data.rindex(b" ", at, line_end) : line_end])
                    at = body_end + 7
                    if at > end:
                        return None
                    if data[body_end:at] != b"\r\nEND\r\n":
                        raise AnswerError(b"a body that is not followed by END but by " + data[body_end:at])
                    replies.bodies.append(data[body_at:body_end])
                elif data[at:line_end] in (b"DELETED", b"NOT_FOUND", b"OK"):
                    at = line_end + 2
                elif data[at:line_end] in (b"NOT_STORED", b"KICKED 0"):
                    replies.misses += 1
                    at = line_end + 2
                elif data.startswith((b"KICKED ", b"TOUCHED"), at):
                    at = line_end + 2
                else:
                    raise AnswerError(data[at:line_end])
            replies.count += 1
        return replies


class Redis:
    """A redis list as the queue: in at the left, out at the right."""

    name = "redis"
    has_queues = True
    counting = "a set is LPUSH, a get is RPOP"
    counting_reliable = (
        "a reliable get is DEL q:open:N with LMOVE q q:open:N, sent together: 2 commands counted as 1 request"
    )

    def hello(self, queue: bytes) -> Request | None:
        """Nothing."""
        return None

    @staticmethod
    def _command(*words: bytes) -> bytes:
        return b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])

    def put(self, queue: bytes, body: bytes) -> Request:
        """LPUSH, answered with the list's length, so its bytes are not known beforehand."""
        return Request(self._command(b"LPUSH", queue, body), 1, puts=1)

    def get(self, queue: bytes, body: bytes = b"") -> Request:
        """RPOP."""
        expected = b"$%d\r\n%b\r\n" % (len(body), body) if body else b""
        return Request(self._command(b"RPOP", queue), 1, expected, gets=1)

    def reliable_get(self, queue: bytes, body: bytes, connection: int) -> Request:
        """DEL of the connection's own list of open items (it holds one), then LMOVE of the next into it."""
        opened = b"%b:open:%d" % (queue, connection)
        move = self._command(b"LMOVE", queue, opened, b"RIGHT", b"LEFT")
        return Request(self._command(b"DEL", opened) + move, 2, gets=1)

    def confirm(self, queue: bytes, connection: int) -> Request | None:
        """DEL of the connection's open item."""
        return Request(self._command(b"DEL", b"%b:open:%d" % (queue, connection)), 1)

    def delete(self, queue: bytes) -> Request | None:
        """DEL."""
        return Request(self._command(b"DEL", queue), 1)

    def take(self, data: bytes) -> Replies | None:
        """See Peer; knows integers, bulk strings and errors, which is all that the requests above are answered."""
        replies = Replies()
        at, end = 0, len(data)
        while at < end:
            line_end = data.find(LINE_END, at)
            if line_end < 0:
                return None
            if data.startswith(b"$-1", at):
                replies.misses += 1
                at = line_end + 2
            elif data.startswith(b"$", at):
                body_end = line_end + 2 + int(data[at + 1 : line_end])
                if body_end + 2 > end:
                    return None
                replies.bodies.append(data[line_end + 2 : body_end])
                at = body_end + 2
            elif data.startswith(b":", at):
                at = line_end + 2
            else:
                raise AnswerError(data[at:line_end])
            replies.count += 1
        return replies


class Beanstalkd:
    """A tube as the queue. A connection chooses its tube in its hello, so `queue` is ignored afterwards."""

    name = "beanstalkd"
    has_queues = True
    counting = "a get is reserve-with-timeout 0 and then delete: 2 commands and round trips counted as 1 request"
    counting_reliable = counting

    def hello(self, queue: bytes) -> Request | None:
        """Use and watch the tube, and no other."""
        return Request(b"use %b\r\nwatch %b\r\nignore default\r\n" % (queue, queue), 3)

    def put(self, queue: bytes, body: bytes) -> Request:
        """`put` with priority 0, no delay and 120 s to run: longer than any run here holds a job."""
        return Request(b"put 0 0 120 %d\r\n%b\r\n" % (len(body), body), 1, puts=1)

    def get(self, queue: bytes, body: bytes = b"") -> Request:
        """`reserve-with-timeout 0`; its reply brings the delete as follow-up, and both together are the get."""
        return Request(b"reserve-with-timeout 0\r\n", 2, gets=1)

    def reliable_get(self, queue: bytes, body: bytes, connection: int) -> Request:
        """A get: beanstalkd's is always reliable."""
        return self.get(queue)

    def confirm(self, queue: bytes, connection: int) -> Request | None:
        """Nothing is left open."""
        return None

    def delete(self, queue: bytes) -> Request | None:
        """A tube goes when it is empty."""
        return None

    def take(self, data: bytes) -> Replies | None:
        """See Peer; TIMED_OUT counts as both replies of a get, since no delete follows."""
        replies = Replies()
        deletes = []
        at, end = 0, len(data)
        while at < end:
            line_end = data.find(LINE_END, at)
            if line_end < 0:
                return None
            if data.startswith(b"RESERVED ", at):
                job, body_bytes = data[at + 9 : line_end].split(b" ")
                body_end = line_end + 2 + int(body_bytes)
                if body_end + 2 > end:
                    return None
                replies.bodies.append(data[line_end + 2 : body_end])
                deletes.append(b"delete %b\r\n" % job)
                at = body_end + 2
            else:
                word = data[at:line_end].split(b" ")[0]
                if word == b"TIMED_OUT":
                    replies.misses += 1
                    replies.count += 1
                elif word not in (b"INSERTED", b"DELETED", b"USING", b"WATCHING"):
                    raise AnswerError(data[at:line_end])
                at = line_end + 2
            replies.count += 1
        replies.follow_up = b"".join(deletes)
        return replies


PROTOCOLS: dict[str, type[Memcache | Redis | Beanstalkd]] = {peer.name: peer for peer in (Memcache, Redis, Beanstalkd)}
