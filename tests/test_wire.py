"""The wire transcripts, replayed against a real server: with whole packets, and with every byte in one of its own.

Of an item of 200,000 bytes only the first and the last bytes come singly; see `transcript.pieces`.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import RunningServer
from tests.wire import transcript
from tests.wire.transcript import Case, Mismatch, Replay, read_cases

DARNER = Path(__file__).parent / "wire" / "darner.wire"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server for all cases. Its log is looked at when they are done."""
    server = RunningServer(tmp_path_factory.mktemp("wire") / "data")
    yield server
    server.end()


def address(server: RunningServer) -> tuple[str, int]:
    return "127.0.0.1", server.port


@pytest.mark.parametrize("case", read_cases(DARNER), ids=lambda case: case.title)
def test_whole_packets(server: RunningServer, case: Case) -> None:
    Replay(address(server)).run(case, f"whole{case.steps[0].line}")


@pytest.mark.parametrize("case", read_cases(DARNER), ids=lambda case: case.title)
def test_byte_by_byte(server: RunningServer, case: Case) -> None:
    Replay(address(server), bytewise=True).run(case, f"bytewise{case.steps[0].line}")


# -- the replay itself: a transcript that the server does not keep to is found out


def write(path: Path, steps: str) -> Path:
    path.write_text(f"# A transcript.\n\n== a case\n{steps}")
    return path


@pytest.mark.parametrize(
    ("steps", "line"),
    [
        pytest.param("A> get {q}\\r\\n\nA< STORED\\r\\n\n", 5, id="other bytes"),
        pytest.param("A> get {q}\\r\\nget {q}\\r\\n\nA< END\\r\\n\n", 3, id="too many bytes"),
        pytest.param("A> get {q}\\r\\nget {q}\\r\\n\nA< END\\r\\n\nA.\n", 6, id="something instead of nothing"),
        pytest.param("A> get {q}\\r\\nget {q}\\r\\n\nA< END\\r\\n\nA# eof\n", 6, id="something instead of a hang-up"),
        pytest.param("A> frobnicate\\r\\n\nA< ERROR and more than it says\\r\\n\n", 5, id="a hang-up instead of bytes"),
        pytest.param("A> frobnicate\\r\\n\nA~ SERVER_ERROR.*\\r\\n\n", 5, id="a hang-up instead of a match"),
        pytest.param("A> set {q} 0 0 1\\r\\nx\\r\\n\nA~ STO\n", 5, id="a match of only the beginning"),
    ],
)
def test_what_differs_is_found_and_its_line_named(
    server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: str, line: int
) -> None:
    monkeypatch.setattr(transcript, "REPLY_S", 0.5)
    (case,) = read_cases(write(tmp_path / "wrong.wire", steps))
    with pytest.raises(Mismatch, match=rf"^wrong\.wire:{line}: "):
        Replay(address(server)).run(case, "wrong")


@pytest.mark.parametrize("step", ["A", "A? what", "A! leave", "A# end", "sleep long", "hello"])
def test_a_line_that_is_no_step_is_refused(tmp_path: Path, step: str) -> None:
    with pytest.raises(ValueError, match=r"^odd\.wire:5: .*" + step[0]):
        read_cases(write(tmp_path / "odd.wire", f"A.\n{step}\n"))


def test_byte_by_byte_sends_all_of_it_in_order() -> None:
    for size in (0, 1, 300, 4000, 4001, 5000, 200_000):
        data = bytes(number % 251 for number in range(size))
        sent = list(transcript.pieces(data))
        assert b"".join(sent) == data
        assert {len(piece) for piece in sent[:300] + sent[-10:]} <= {1}


def test_from_a_shell(server: RunningServer, tmp_path: Path) -> None:
    good = write(
        tmp_path / "good.wire",
        "A> set {q} 0 0 3\\r\\nx\\*3\\r\\nget {q}\\r\\n\nA~ STORED\\r\\nVALUE .+\\r\\nxxx\\r\\nEND\\r\\n\n",
    )
    bad = write(tmp_path / "bad.wire", "A> get {q}\\r\\n\nA< STORED\\r\\n\n")
    command = [sys.executable, transcript.__file__, "--port", str(server.port)]
    replayed = subprocess.run([*command, "--bytewise", str(good)], capture_output=True, text=True, check=False)
    assert (replayed.returncode, replayed.stdout) == (0, "1 passed, 0 failed\n")
    replayed = subprocess.run([*command, str(good), str(bad)], capture_output=True, text=True, check=False)
    assert replayed.returncode == 1
    assert replayed.stdout.endswith("got b'END\\r\\n'\n1 passed, 1 failed\n")
