"""Names of queues on their way, and items."""

import pytest

from darner_core.ctl.errors import CtlError
from darner_core.ctl.moving.places import Item, our_name


def test_a_name_that_no_queue_can_have_is_escaped_as_the_listeners_do() -> None:
    from darner_core.protocols.escaping import queue_name

    for name in (b"work", b"mail/out", b"a b", b"50%", b"\x00\x7f", b"\xff"):
        assert our_name(name) == queue_name(name)


@pytest.mark.parametrize("name", [b"", b"x" * 251, b"/" * 84])
def test_a_name_that_is_too_long_is_said(name: bytes) -> None:
    with pytest.raises(CtlError, match="1 to 250"):
        our_name(name)


def test_pieces_are_the_body() -> None:
    assert list(Item(1, b"x").pieces()) == [b"x"]
    assert list(Item(2, iter((b"x", b"y"))).pieces()) == [b"x", b"y"]
