"""The dialects: how each reads a name, and what it lacks."""

import pytest

from darner_core.dialects import DIALECTS
from darner_core.errors import ClientError, RequestError
from darner_core.protocol import Command, Request, RequestReader, parse_naming, parse_storing


def read(dialect: str, line: bytes) -> Request:
    """The request in `line`, as a reader of this dialect has it."""
    table = {b"get": Command(parse_naming, print), b"set": Command(parse_storing, print)}
    reader = RequestReader(table, {}, 1000, 1000, DIALECTS[dialect])
    found = reader.feed(line + b"\r\n")
    if reader.error is not None:
        raise reader.error
    return found[0][0]


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
        ("siberite", b"set a+a 0 0 0\r\n", b"a+a", b"", b"", ()),
    ],
)
def test_a_name_is_read_as_the_dialect_means_it(
    dialect: str, line: bytes, queue: bytes, parent: bytes, cursor: bytes, targets: tuple[bytes, ...]
) -> None:
    request = read(dialect, line)
    assert (request.queue, request.parent, request.cursor, request.targets) == (queue, parent, cursor, targets)


@pytest.mark.parametrize("line", [b"set a+ 0 0 0\r\n", b"set +a 0 0 0\r\n", b"set a.b 0 0 0\r\n"])
def test_siberite_refuses_names_that_no_item_can_be_put_into(line: bytes) -> None:
    with pytest.raises(RequestError):
        read("siberite", line)


def test_what_an_unknown_verb_is_differs() -> None:
    for name in DIALECTS:
        with pytest.raises(RequestError, match='unknown command "bogus"') as raised:
            read(name, b"bogus")
        assert isinstance(raised.value, ClientError) == (name == "kestrel")
