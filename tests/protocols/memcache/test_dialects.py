"""The dialects: how each reads a name, and what it lacks."""

import pytest

from darner_core.errors import ClientError, RequestError
from darner_core.protocols.contract import Command
from darner_core.protocols.memcache.dialects import DIALECTS
from darner_core.protocols.memcache.lines import parse_naming, parse_storing
from darner_core.protocols.memcache.reader import LineRequest, RequestReader
from tests.support.feeding import feed


def read(dialect: str, line: bytes) -> LineRequest:
    """The request in `line`, as a reader of this dialect has it."""
    table = {b"get": Command(parse_naming, print), b"set": Command(parse_storing, print)}
    reader = RequestReader(table, {}, 1000, 1000, DIALECTS[dialect])
    found = feed(reader, line + b"\r\n")
    if reader.error is not None:
        raise reader.error
    request: LineRequest = found[0][0]
    return request


@pytest.mark.parametrize(
    ("dialect", "line", "queue", "parent", "cursor", "targets"),
    [
        ("darner", b"get a+b.c", b"a+b.c", b"", b"", ()),
        ("kyototycoon", b"get a+b.c", b"a+b.c", b"", b"", ()),
        ("kestrel", b"get a", b"a", b"", b"", ()),
        ("kestrel", b"get a.b", b"a.b", b"", b"", ()),
        ("kestrel", b"get a+b", b"a+b", b"a", b"", ()),
        ("kestrel", b"get a+b+c", b"a+b+c", b"a", b"", ()),
        ("kestrel", b"get a+", b"a+", b"", b"", ()),
        ("kestrel", b"get +a", b"+a", b"", b"", ()),
        ("kestrel", b"set a+b 0 0 0\r\n", b"a+b", b"a", b"", ()),
        ("siberite", b"get a+b", b"a+b", b"", b"", ()),
        ("siberite", b"get a.b", b"a", b"", b"b", ()),
        ("siberite", b"get a.b.c", b"a", b"", b"b.c", ()),
        ("siberite", b"get a.", b"a.", b"", b"", ()),
        ("siberite", b"get .a", b".a", b"", b"", ()),
        ("siberite", b"set a+b+a 0 0 0\r\n", b"a+b+a", b"", b"", (b"a", b"b")),
        ("siberite", b"set a+a 0 0 0\r\n", b"a", b"", b"", ()),
    ],
)
def test_a_name_is_read_as_the_dialect_means_it(
    dialect: str, line: bytes, queue: bytes, parent: bytes, cursor: bytes, targets: tuple[bytes, ...]
) -> None:
    request = read(dialect, line)
    assert (request.queue, request.parent, request.cursor, request.targets) == (queue, parent, cursor, targets)


@pytest.mark.parametrize(
    "line", [b"set + 0 0 0\r\n", b"set a+ 0 0 0\r\n", b"set +a 0 0 0\r\n", b"set ++ 0 0 0\r\n", b"set a.b 0 0 0\r\n"]
)
def test_siberite_refuses_names_that_no_item_can_be_put_into(line: bytes) -> None:
    with pytest.raises(RequestError):
        read("siberite", line)


def test_what_an_unknown_verb_is_differs() -> None:
    for name in DIALECTS:
        with pytest.raises(RequestError, match='nknown command "bogus"') as raised:
            read(name, b"bogus")
        assert isinstance(raised.value, ClientError) == (name == "kestrel")
        assert raised.value.reply.startswith(b"ERROR Unknown command") == (name == "siberite")


NOW_MS = 1_700_000_000_123


@pytest.mark.parametrize(
    ("number", "kestrel", "kyoto_tycoon"),
    [
        (0, 0, 0),
        (-1, NOW_MS - 1000, 0),
        (-(2**63), 1, 0),
        (1, NOW_MS + 1000, NOW_MS + 1000),
        (999_999, NOW_MS + 999_999_000, NOW_MS + 999_999_000),
        (1_000_000, 1_000_000_000, NOW_MS + 1_000_000_000),
        (2**24, 2**24 * 1000, NOW_MS + 2**24 * 1000),
        (2**24 + 1, (2**24 + 1) * 1000, (2**24 + 1) * 1000),
        (2**63 - 1, 2**63, 2**63),
    ],
)
def test_the_number_in_a_set_tells_when_an_item_expires(number: int, kestrel: int, kyoto_tycoon: int) -> None:
    assert DIALECTS["kestrel"].expires_at_ms(number, NOW_MS) == kestrel
    assert DIALECTS["kyototycoon"].expires_at_ms(number, NOW_MS) == kyoto_tycoon
