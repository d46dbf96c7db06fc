"""What is printed, and in which form."""

import pytest

from darner_core.ctl.output import Output, body_json, duration, printable, size


@pytest.mark.parametrize(
    ("ms", "shown"),
    [
        (0, "0.0s"), (300, "0.3s"), (52_000, "52s"), (60_000, "1m"), (427_000, "7m 7s"), (9_060_000, "2h 31m"),
        (273_600_000, "3d 4h"),
    ],
)  # fmt: skip
def test_durations(ms: int, shown: str) -> None:
    assert duration(ms) == shown


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 KiB"), (150 << 20, "150 MiB"), (1 << 50, "1,024.0 TiB")],
)
def test_sizes(number: int, shown: str) -> None:
    assert size(number) == shown


def test_a_body_is_text_in_json_if_it_can_be() -> None:
    assert body_json("ä".encode()) == {"body": "ä"}
    assert body_json(b"\xff") == {"body_base64": "/w=="}


def test_a_body_on_a_terminal_cannot_move_the_cursor() -> None:
    assert printable(b"\x1b[2Ja\nb\xff") == r"\x1b[2Ja\nb\xff"
    assert printable(b"abc", 2) == "ab…"


def test_text_is_not_taken_for_markup(capsys: pytest.CaptureFixture[str]) -> None:
    Output(False).say("[bold]x[/bold] [/]")
    assert capsys.readouterr().out == "[bold]x[/bold] [/]\n"
