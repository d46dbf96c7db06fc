"""A beanstalkd server as a source. Source: its doc/protocol.txt; what it does beside that, from running 1.12.

Ready jobs are reserved, and deleted when they are stored elsewhere. Delayed ones are not reserved, because a job whose
reader goes away comes back without its delay: they are looked at, put with what is left of the delay, and deleted by
their ids. So are buried ones, if the caller wants them.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from darner_core.ctl.moving.places import Item, Listed
from darner_core.ctl.moving.wire import Wire

_YAML: Final = re.compile(rb"([a-z-]+): (.*)")
_STATES: Final = ("ready", "delayed", "buried", "reserved")


class _Job(NamedTuple):
    id: int
    body: bytes


class Beanstalkd:
    def __init__(self, wire: Wire, takes_buried: bool = False) -> None:
        self._wire = wire
        self._takes_buried = takes_buried
        self._watched = b"default"
        self._ids: list[int] = []  # of the batch
        self._reserves = False  # the batch holds reserved jobs

    # -- what there is

    def queues(self) -> list[Listed]:
        listed = []
        for name in self._list():
            counts = self._counts(name)
            wanted = counts["ready"] + counts["delayed"] + (counts["buried"] if self._takes_buried else 0)
            note = "" if self._takes_buried or not counts["buried"] else f"{counts['buried']:,} buried jobs stay there"
            if counts["paused"]:
                paused = f"it is paused for {counts['paused']:,} s, and hands out no job until then"
                note = f"{note}; {paused}" if note else paused
            listed.append(Listed(name, wanted, note))
        return listed

    def instance(self) -> bytes:
        """A name for this process of the server: without a binlog, the next one gives the same ids to other jobs."""
        self._wire.send(b"stats\r\n")
        return _pairs(self._yaml() or []).get(b"id", b"")

    def _list(self) -> list[bytes]:
        self._wire.send(b"list-tubes\r\n")
        lines = self._yaml() or []
        return sorted(_unquoted(line.removeprefix(b"- ")) for line in lines if line.startswith(b"- "))

    def _counts(self, tube: bytes) -> dict[str, int]:
        self._wire.send(b"stats-tube %b\r\n" % tube)
        told = _pairs(self._yaml() or [])
        counts = {state: int(told.get(b"current-jobs-%b" % state.encode(), b"0")) for state in _STATES}
        return {**counts, "paused": int(told.get(b"pause-time-left", b"0")) if told.get(b"pause", b"0") != b"0" else 0}

    def _yaml(self) -> list[bytes] | None:
        line = self._wire.line()
        if line == b"NOT_FOUND":
            return None
        if not line.startswith(b"OK "):
            raise self._wire.unexpected(line)
        body = self._wire.exactly(int(line[3:]) + 2)
        return body.splitlines()

    def left(self, queue: bytes) -> str:
        counts = self._counts(queue)
        return ", ".join(f"{counts[state]:,} {state}" for state in _STATES if counts[state])

    def told(self) -> list[str]:
        return []

    # -- taking

    def batch(self, queue: bytes, most: int) -> Iterator[Item]:
        self._watch(queue)
        self._ids, self._reserves = [], True
        jobs = self._reserve(most)
        told = self._told([job.id for job in jobs])
        if jobs:
            for job in jobs:
                self._ids.append(job.id)
                yield _item(job, told[job.id])
            return
        self._reserves = False
        for which in (b"peek-delayed", b"peek-buried") if self._takes_buried else (b"peek-delayed",):
            self._wire.send(which + b"\r\n")
            seen = self._job(self._wire.line(), b"FOUND", b"NOT_FOUND")
            if seen is not None:
                self._ids.append(seen.id)
                yield _item(seen, self._told([seen.id])[seen.id])
                return

    def _watch(self, tube: bytes) -> None:
        if tube == self._watched:
            return
        self._wire.send(b"watch %b\r\nignore %b\r\nuse %b\r\n" % (tube, self._watched, tube))
        for word in (b"WATCHING ", b"WATCHING ", b"USING "):
            if not (line := self._wire.line()).startswith(word):
                raise self._wire.unexpected(line)
        self._watched = tube

    def _reserve(self, most: int) -> list[_Job]:
        self._wire.send(b"reserve-with-timeout 0\r\n" * most)
        found = [self._job(self._wire.line(), b"RESERVED", b"TIMED_OUT", b"DEADLINE_SOON") for _ in range(most)]
        return [job for job in found if job is not None]

    def _job(self, line: bytes, word: bytes, *none: bytes) -> _Job | None:
        if line in none:
            return None
        words = line.split(b" ")
        if words[0] != word or len(words) != 3:
            raise self._wire.unexpected(line)
        return _Job(int(words[1]), self._wire.exactly(int(words[2]) + 2)[:-2])

    def _told(self, ids: list[int]) -> dict[int, dict[bytes, bytes]]:
        self._wire.send(b"".join(b"stats-job %d\r\n" % one for one in ids))
        return {one: _pairs(self._yaml() or []) for one in ids}

    # -- confirming

    def confirm(self, queue: bytes) -> int:
        return self._delete(self._ids)

    def _delete(self, ids: list[int]) -> int:
        self._wire.send(b"".join(b"delete %d\r\n" % one for one in ids))
        gone = 0
        for _ in ids:
            line = self._wire.line()
            if line not in (b"DELETED", b"NOT_FOUND"):
                raise self._wire.unexpected(line)
            gone += line == b"NOT_FOUND"  # its time was over, and it went to somebody else
        return gone

    def confirm_some(self, queue: bytes, stored: Sequence[bool]) -> int:
        gone = self._delete([one for one, is_stored in zip(self._ids, stored, strict=True) if is_stored])
        others = [one for one, is_stored in zip(self._ids, stored, strict=True) if not is_stored]
        if self._reserves and others:
            told = self._told(others)
            self._wire.send(b"".join(b"release %d %b 0\r\n" % (one, told[one].get(b"pri", b"1024")) for one in others))
            for _ in others:
                self._wire.line()
        return gone

    def close(self) -> None:
        self._wire.close()


def _item(job: _Job, told: dict[bytes, bytes]) -> Item:
    is_delayed = told.get(b"state") == b"delayed"
    return Item(
        len(job.body), job.body, id=job.id, pri=int(told.get(b"pri", b"1024")),
        ttr_ms=1000 * int(told.get(b"ttr", b"0")), delay_ms=1000 * int(told.get(b"time-left", b"0")) * is_delayed,
    )  # fmt: skip


def _pairs(lines: list[bytes]) -> dict[bytes, bytes]:
    return {pair[1]: _unquoted(pair[2]) for line in lines if (pair := _YAML.fullmatch(line)) is not None}


def _unquoted(text: bytes) -> bytes:
    """beanstalkd 1.13 quotes names."""
    return text[1:-1] if len(text) > 1 and text[:1] == text[-1:] == b'"' else text
