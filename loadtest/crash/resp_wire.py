"""A connection of RESP2 for harnesses."""

from __future__ import annotations

from loadtest.errors import Refused, Violation
from loadtest.wire import Wire

Answer = bytes | list["Answer"] | None


class RespWire(Wire):
    """Commands are words; numbers and simple strings are answered as bytes."""

    def send_words(self, *words: bytes) -> None:
        """Send a command without waiting for the answer."""
        self.send(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words))

    def command(self, *words: bytes) -> Answer:
        """Send a command. Returns the answer. Raises Refused for an error."""
        self.send_words(*words)
        return self.answer()

    def bulk(self, *words: bytes) -> bytes | None:
        """Send a command that is answered with one value, or none."""
        answer = self.command(*words)
        if isinstance(answer, list):
            raise Violation(f"{words[0]!r} is answered {answer!r}")
        return answer

    def several(self, *words: bytes) -> list[Answer]:
        """Send a command that is answered with an array; none is an empty one."""
        answer = self.command(*words)
        if isinstance(answer, bytes):
            raise Violation(f"{words[0]!r} is answered {answer!r}")
        return answer or []

    def answer(self) -> Answer:
        """The next one."""
        line = self.line()
        kind, rest = line[:1], line[1:]
        if kind == b"-":
            raise Refused(line.decode())
        if kind in (b"+", b":"):
            return rest
        if kind not in (b"$", b"*"):
            raise Violation(f"{line!r} instead of an answer")
        size = int(rest)
        if size < 0:
            return None
        if kind == b"*":
            return [self.answer() for _ in range(size)]
        body = self.read(size)
        if (end := self.read(2)) != b"\r\n":
            raise Violation(f"a value ends with {end!r}")
        return body
