"""What a command sees of its client: the caller keeps what `client.Client` promises. And how long replies are sent."""

from types import SimpleNamespace
from typing import Any, cast

from darner_core.operations.client import LATER, SCARCE_PIECE_BYTES, Client, Pieces, now_or_later
from darner_core.server.client_greenlet import ClientGreenlet


def test_a_caller_has_all_that_commands_ask_of_a_client() -> None:
    asked = {name for name in vars(Client) if not name.startswith("_")} | set(Client.__annotations__)
    assert {name for name in asked if not hasattr(ClientGreenlet, name)} == set()


def pieces_of(scarce: bool, *added: bytes) -> list[bytes]:
    """What is sent at a time, the rest last."""
    sent: list[bytes] = []
    client: Any = SimpleNamespace(wait_sent=sent.append)
    pieces = Pieces(client, cast(Any, SimpleNamespace(scarce=scarce)), 2 * SCARCE_PIECE_BYTES)
    for data in added:
        pieces.wait_add(data)
    return [*sent, pieces.take()]


def test_a_long_reply_goes_out_in_as_few_pieces_as_its_bytes_allow() -> None:
    half = b"x" * SCARCE_PIECE_BYTES
    assert pieces_of(False, half, half, b"y", half) == [half + half, b"y" + half]
    assert pieces_of(False, 3 * half, b"y") == [3 * half, b"y"]
    assert pieces_of(True, half, half, b"y") == [half, half, b"y"]
    assert pieces_of(False) == [b""]


def test_what_has_to_be_waited_for_is_answered_by_a_function_of_the_client() -> None:
    client: Any = object()
    assert now_or_later(5, str, cast(Any, None)) == "5"
    found: Any = LATER
    later: Any = now_or_later(found, lambda found: lambda of: (found, of), lambda of: 7)
    assert later(client) == (7, client)
