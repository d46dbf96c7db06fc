"""Vocabularies from which verbs are taken away, as readers and sessions see it."""

from collections.abc import Callable
from typing import Any

import pytest

from darner_core.config.options import Config
from darner_core.errors import RequestError, Unavailable
from darner_core.protocols.contract import Command
from darner_core.protocols.memcache import commands
from darner_core.protocols.memcache.commands import Memcache
from darner_core.protocols.memcache.reader import LineRequest
from darner_core.protocols.vocabularies import Vocabularies
from darner_core.storage.storage import Storage
from tests.operations.test_session import House
from tests.support.operations_on import operations_on


def run(request: LineRequest, body: Any, session: list[str]) -> bytes:
    """Notes what would have been done."""
    done = [word for word in ("opens", "closes", "aborts", "peeks") if getattr(request, word)]
    session.append(f"{request.verb.decode()} {' '.join(done)}".strip())
    return b"done"


class Noting(Memcache):
    """The memcache protocol, whose commands do nothing."""

    def table(self) -> dict[bytes, Command]:
        table = super().table()
        return {
            verb: command._replace(run=run, placed=run if command.placed is not None else None)
            for verb, command in table.items()
        }


class Refusing(Vocabularies):
    def forbid(self, no_writes: str, no_reads: str) -> None:
        """As the server does when another status comes into force."""
        self._operations.availability.no_writes = no_writes
        self._operations.availability.no_reads = no_reads
        self.refuse()


class Talk:
    """One client's reader."""

    def __init__(self, vocabularies: Refusing, dialect: str = "darner", *refused: str) -> None:
        vocabulary = vocabularies.of(dialect, *refused)
        self._reader = vocabulary.new_reader()
        self.done: list[str] = []

    def say(self, data: bytes) -> str:
        """What is wrong with it, and "" if nothing is."""
        try:
            for request, body in self._reader.requests(data):
                request.run(request, body, self.done)
        except RequestError as error:
            return self._told(error)
        error, self._reader.error = self._reader.error, None  # type: ignore[misc]
        return self._told(error) if error is not None else ""

    def _told(self, error: RequestError) -> str:
        assert isinstance(error, Unavailable)
        assert error.hangs_up
        return error.reply.decode()


@pytest.fixture
def vocabularies(open_storage: Callable[[], Storage], monkeypatch: pytest.MonkeyPatch) -> Refusing:
    monkeypatch.setattr(commands, "Memcache", Noting)
    return Refusing(operations_on(House(open_storage)), Config())


def test_what_is_refused_is_refused_to_all_dialects_and_those_who_are_in(vocabularies: Refusing) -> None:
    talks = [Talk(vocabularies, dialect) for dialect in ("darner", "kestrel", "siberite", "kyototycoon")]
    for talk in talks:
        assert talk.say(b"set q 0 0 1\r\nx\r\nget q\r\n") == ""
    vocabularies.forbid("it is night", "")
    for talk in talks:
        assert talk.say(b"get q\r\nset q 0 0 1\r\nx\r\n") == "SERVER_ERROR set is refused: it is night\r\n"
        assert [done.split()[0] for done in talk.done] == ["set", "get", "get"]
    vocabularies.forbid("it is night", "it is late")
    for talk in talks:
        assert talk.say(b"stats\r\nget q\r\n") == "SERVER_ERROR get is refused: it is late\r\n"
    vocabularies.forbid("", "")
    for talk in talks:
        assert talk.say(b"set q 0 0 1\r\nx\r\nget q\r\n") == ""
        assert [done.split()[0] for done in talk.done] == ["set", "get", "get", "stats", "set", "get"]


def test_what_was_read_and_not_yet_served_is_refused_too(vocabularies: Refusing) -> None:
    vocabulary = vocabularies.of("darner")
    reader = vocabulary.new_reader()
    requests = reader.requests(b"get q\r\n" * 3)
    next(requests)
    vocabularies.forbid("", "it is late")
    assert list(requests) == []
    assert str(reader.error) == "get is refused: it is late"


def test_an_item_whose_line_has_come_before_is_refused(vocabularies: Refusing) -> None:
    talk = Talk(vocabularies)
    assert talk.say(b"set q 0 0 5\r\nhe") == ""
    vocabularies.forbid("it is night", "")
    assert talk.say(b"llo\r\n") == "SERVER_ERROR set is refused: it is night\r\n"
    assert talk.done == []


@pytest.mark.parametrize("dialect", ["darner", "kestrel", "siberite"])
@pytest.mark.parametrize("queue", [b"q", b"a+b", b"a.b"])  # some of them run what is `placed`
def test_what_closes_or_gives_back_is_never_refused(vocabularies: Refusing, dialect: str, queue: bytes) -> None:
    vocabularies.forbid("it is night", "it is late")
    talk = Talk(vocabularies, dialect)
    assert talk.say(b"get %b/close\r\nget %b/abort\r\nget %b/close/t=5\r\n" % (queue, queue, queue)) == ""
    assert talk.done == ["get closes", "get aborts", "get closes"]
    for options in (b"", b"/open", b"/peek", b"/t=5"):
        assert talk.say(b"get %b%b\r\n" % (queue, options)) == "SERVER_ERROR get is refused: it is late\r\n"
    assert len(talk.done) == 3
    for _ in range(2):
        assert talk.say(b"get %b/close/open\r\n" % queue) == "SERVER_ERROR get is refused: it is late\r\n"
    assert talk.done[3:] == ["get closes", "get closes"]


def test_where_a_delete_acknowledges_it_is_never_refused(vocabularies: Refusing) -> None:
    vocabularies.forbid("it is night", "it is late")
    assert Talk(vocabularies, "kyototycoon").say(b"delete q\r\n") == ""
    assert Talk(vocabularies).say(b"delete q\r\n") == "SERVER_ERROR delete is refused: it is night\r\n"


def test_a_client_may_be_refused_more_than_others_for_ever(vocabularies: Refusing) -> None:
    late, usual = Talk(vocabularies, "darner", "too many"), Talk(vocabularies)
    later = Talk(vocabularies, "darner", "too many", "too many")
    for _ in range(2):
        assert late.say(b"get q\r\nset q 0 0 1\r\nx\r\n") == "SERVER_ERROR set is refused: too many\r\n"
        assert later.say(b"stats\r\nget q\r\n") == "SERVER_ERROR get is refused: too many\r\n"
        assert usual.say(b"get q\r\nset q 0 0 1\r\nx\r\n") == ""
        vocabularies.forbid("it is night", "")
        assert late.say(b"set q 0 0 1\r\nx\r\n") == "SERVER_ERROR set is refused: it is night\r\n"
        vocabularies.forbid("", "")
    assert vocabularies.of("darner", "too many") is vocabularies.of("darner", "too many")
