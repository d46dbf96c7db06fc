"""One client's side of one connection: what it has sent, what was answered, and what is in doubt when it ends.

A Connection sends batches of requests. It tells the model of each request before it is sent, and of each answer.
Sending and receiving switch greenlets.
"""

from __future__ import annotations

import struct
from collections import deque
from socket import IPPROTO_TCP, SO_LINGER, SOL_SOCKET, TCP_NODELAY
from typing import Any

import gevent
import gevent.socket

from loadtest.crash.books import NEVER, OPEN, SERIAL_BYTES, WAITING, Book, Doubtful, Item, Op
from loadtest.crash.promises import Model

ANSWER_S = 30.0  # beyond what the request itself may wait
RECV_BYTES = 65536
STATUS = {"set": b"STORED\r\n", "flush": b"END\r\n", "delete": b"DELETED\r\n"}


class Broken(Exception):
    """The connection has ended."""


def encode(op: Op) -> bytes:
    """The request as bytes."""
    key = op.book.name
    noreply = b" noreply" if op.noreply else b""
    if op.verb == "set":
        assert op.item is not None
        head = b"set %b%b %d 0 %d%b\r\n" % (key, b"/sync" if op.sync else b"", op.item.flags, op.item.size, noreply)
        return head + op.item.body() + b"\r\n"
    if op.verb != "get":
        return b"%b %b%b\r\n" % (op.verb.encode(), key, noreply)
    for name, chosen in ((b"/close", op.closes), (b"/abort", op.aborts), (b"/open", op.opens), (b"/peek", op.peeks)):
        if chosen:
            key += name
    if op.wait_ms:
        key += b"/t=%d" % op.wait_ms
    return b"%b %b\r\n" % (b"gets" if op.with_id else b"get", key)


class Link:
    """What the model knows of a connection."""

    def __init__(self, model: Model) -> None:
        """Nothing was sent."""
        self.model = model
        model.links += 1
        self.number = model.links
        self.pending: deque[Op] = deque()
        self.open: Item | None = None
        self.unanswered: list[Item] = []  # sets without an answer, when it has ended

    def sending(self, op: Op) -> None:
        """`op` is about to go out."""
        op.sent = self.model.tick()
        self.model.requests += 1
        if op.item is not None:
            op.item.sent = op.sent
        if op.verb == "delete":
            op.book.deletes += 1
        if op.aborts and self.open is not None:
            self.open.aborting = True
        self.pending.append(op)
        self.model.note(self, "sending", op)

    def awaited(self) -> Op:
        """The request that the next answer is for."""
        return next(op for op in self.pending if not op.noreply)

    def _came(self, what: str, *details: object) -> Op:
        """An answer has come. Returns its request. Those before it want no answer, and have been done."""
        self.model.tick()
        while self.pending[0].noreply:
            self._done(self.pending.popleft())
        op = self.pending.popleft()
        self.model.note(self, what, *details, op)
        return op

    def answered(self, line: bytes) -> None:
        """The answer is no item."""
        op = self._came("answered", line)
        if op.verb == "get":
            if line != b"END\r\n":
                raise op.book.wrong(f"get was answered {line!r}")
            self._let_go(op)
        elif line == STATUS[op.verb]:
            self._done(op)
        elif op.item is not None and b"was deleted while" in line and op.book.deletes:
            op.book.items.pop(op.item.serial, None)
        else:
            raise op.book.wrong(f"{op.verb} was answered {line!r}")

    def item(self, flags: int, body: bytes) -> None:
        """The answer is an item."""
        op = self._came("item", flags, body[:SERIAL_BYTES], len(body))
        self._let_go(op)
        item = self.model.received(op, self, flags, body)
        if op.opens:
            self.open = item

    def _done(self, op: Op) -> None:
        if op.item is not None:
            self.model.put(op.item)
        elif op.verb in ("flush", "delete"):
            self.model.dropped_by(op)

    def _let_go(self, op: Op) -> None:
        """Note what a get did to the item that was open before."""
        item = self.open
        if item is None or not (op.closes or op.aborts):
            return
        self.open = None
        if item.state != OPEN or item.holder is not self:
            return
        if op.closes:
            self.model.gone_for_good(item)
        else:
            item.state, item.holder, item.open_end, item.aborting = WAITING, None, self.model.now, False

    def lost(self) -> None:
        """The connection has ended, and requests without an answer are in doubt."""
        self.model.note(self, "lost", self.open, *self.pending)
        if not self.model.alive:
            self.model.in_doubt += len(self.pending)
        held: Item | Book | None = self.open  # a Book: an item of it that nobody knows, or none
        for op in self.pending:
            if op.item is not None:
                self.unanswered.append(op.item)
            elif op.verb != "get":
                op.book.doubtful.append(Doubtful(op))
            else:
                if op.closes or op.aborts:
                    self._release(held, op.closes)
                    held = None
                if op.opens:
                    held = op.book
                elif op.takes:
                    op.book.takers += 1
        self._release(held, closed=False)
        self.pending.clear()
        self.open = None
        # One that was seen already proves those before it.
        for place in reversed(range(len(self.unanswered))):
            if self.unanswered[place].sure:
                for item in self.unanswered[:place]:
                    self.model.put(item)
                del self.unanswered[: place + 1]
                break

    def _release(self, held: Item | Book | None, closed: bool) -> None:
        if isinstance(held, Book):
            held.takers += closed
            held.holders += not closed
        elif held is not None and held.state == OPEN and held.holder is self:
            held.maybe_gone |= closed
            if self.model.alive or self.model.stopping:
                held.state, held.holder, held.open_end = WAITING, None, NEVER


class Connection:
    """A socket and its link."""

    def __init__(self, model: Model, port: int, chunk_bytes: int) -> None:
        """Connects. Raises Broken."""
        self.link = Link(model)
        self._model = model
        self._chunk_bytes = chunk_bytes
        self._received = bytearray()
        self._in_large = False  # a large item has come in part
        try:
            self._socket: Any = gevent.socket.create_connection(("127.0.0.1", port), ANSWER_S)
            self._socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        except OSError as error:
            raise Broken from error

    def ask(self, ops: list[Op]) -> None:
        """Send these requests and take their answers. Raises Broken, Violation."""
        self.send(ops)
        while any(not op.noreply for op in self.link.pending):
            self._take_answer()

    def send(self, ops: list[Op], more: bytes = b"") -> None:
        """Send these requests without waiting for answers. Raises Broken."""
        for op in ops:
            self.link.sending(op)
        try:
            self._socket.sendall(b"".join(map(encode, ops)) + more)
        except OSError as error:
            raise Broken from error

    def stats(self) -> dict[str, str]:
        """What the server says. Raises Broken."""
        self.send([], b"stats\r\n")
        found = {}
        while (line := self._line()) != b"END\r\n":
            _, name, value = line.decode().split()
            found[name] = value
        return found

    def _take_answer(self) -> None:
        op = self.link.awaited()
        with gevent.Timeout(ANSWER_S + op.wait_ms / 1000, op.book.wrong(f"{encode(op)[:80]!r} was not answered")):
            line = self._line()
            if not line.startswith(b"VALUE "):
                self.link.answered(line)
                return
            words = line.split()
            if words[1] != op.book.name or len(words) != 4 + op.with_id:
                raise op.book.wrong(f"{encode(op)[:80]!r} was answered {line!r}")
            size = int(words[3])
            self._in_large = size > self._chunk_bytes
            body = self._read(size + 7)
            self._in_large = False
            if not body.endswith(b"\r\nEND\r\n"):
                raise op.book.wrong(f"an item of {size} bytes was followed by {body[-7:]!r}")
            self.link.item(int(words[2]), body[:size])

    def _line(self) -> bytes:
        while (end := self._received.find(b"\n") + 1) == 0:
            self._receive()
        return self._cut(end)

    def _read(self, size: int) -> bytes:
        while len(self._received) < size:
            self._receive()
        return self._cut(size)

    def _cut(self, size: int) -> bytes:
        data = bytes(self._received[:size])
        del self._received[:size]
        return data

    def _receive(self) -> None:
        try:
            data = self._socket.recv(RECV_BYTES)
        except OSError as error:
            raise Broken from error
        if not data:
            raise Broken
        self._received += data

    def may_have_been_cut_off(self) -> bool:
        """Whether the server may have hung up in the middle of a large item: its queue may have been deleted, or it was
        peeked at and somebody else took it."""
        return not self._model.alive or self._in_large

    def drop(self, reset: bool = False) -> None:
        """Hang up, and leave in doubt what has not been answered."""
        if reset:
            self._socket.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()
        self.link.lost()
