"""The wire transcripts, each replayed against a real server of its dialect: with whole packets, and with every byte in
one of its own.

Of an item of 200,000 bytes only the first and the last bytes come singly; see `transcript.pieces`. Cases that sleep are
replayed with whole packets only, and those of a dialect all at a time: each has a queue and connections of its own.
"""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from tests.support.harness import RunningServer
from tests.wire import transcript
from tests.wire.transcript import Case, Mismatch, Replay, read_cases

DIALECTS = ("darner", "kestrel", "siberite")
CASES = {dialect: read_cases(Path(__file__).parent / "wire" / f"{dialect}.wire") for dialect in DIALECTS}

# What the server does not do yet.
NOT_YET: dict[str, str] = {}


def sleeps(case: Case) -> bool:
    return any(step.kind == "sleep" for step in case.steps)


def each(wanted: bool) -> pytest.MarkDecorator:
    """Every case with its dialect: those that sleep, or the others."""
    return pytest.mark.parametrize(
        ("dialect", "case"),
        [
            pytest.param(dialect, case, id=f"{dialect}: {case.title}")
            for dialect, cases in CASES.items()
            for case in cases
            if sleeps(case) == wanted
        ],
    )


class Servers:
    """A server for each dialect, which all its cases share. Their logs are looked at in the end."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running: dict[str, RunningServer] = {}
        self._threads = ThreadPoolExecutor(8)
        self._slow: dict[str, Future[None]] = {}  # by the title of the case

    def address(self, dialect: str, poller: str = "auto") -> tuple[str, int]:
        name = f"{dialect} {poller}"
        if name not in self._running:
            self._running[name] = RunningServer(self._directory / name, "--dialect", dialect, "--poller", poller)
        return "127.0.0.1", self._running[name].port

    def quiet_address(self, dialect: str) -> tuple[str, int]:
        """The same while no case that sleeps is going on: some cases change what the whole server does."""
        wait(self._slow.values())
        return self.address(dialect)

    def replay_slow(self, dialect: str, case: Case) -> None:
        """The outcome of a case that sleeps. The first of a dialect begins them all."""
        if case.title not in self._slow:
            for number, one in enumerate(CASES[dialect]):
                if sleeps(one):
                    replay = Replay(self.address(dialect))
                    self._slow[one.title] = self._threads.submit(replay.run, one, f"slow{number}")
        self._slow[case.title].result()

    def end(self) -> None:
        self._threads.shutdown()
        for server in self._running.values():
            server.end()


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    servers = Servers(tmp_path_factory.mktemp("wire"))
    yield servers
    servers.end()


@pytest.fixture(scope="module")
def address(servers: Servers) -> tuple[str, int]:
    """Of a server with the default options."""
    return servers.address("darner")


@each(wanted=True)
def test_cases_that_sleep(servers: Servers, dialect: str, case: Case) -> None:
    servers.replay_slow(dialect, case)


@each(wanted=False)
def test_whole_packets(servers: Servers, dialect: str, case: Case) -> None:
    Replay(servers.quiet_address(dialect)).run(case, f"whole{case.steps[0].line}")


@each(wanted=False)
def test_byte_by_byte(servers: Servers, dialect: str, case: Case) -> None:
    Replay(servers.quiet_address(dialect), bytewise=True).run(case, f"bytewise{case.steps[0].line}")


@each(wanted=False)
@pytest.mark.parametrize("bytewise", [False, True])
def test_under_the_poller_that_runs_everywhere(servers: Servers, dialect: str, case: Case, bytewise: bool) -> None:
    Replay(servers.address(dialect, "gevent"), bytewise).run(case, f"{bytewise}{case.steps[0].line}")


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
    address: tuple[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: str, line: int
) -> None:
    monkeypatch.setattr(transcript, "REPLY_S", 0.5)
    (case,) = read_cases(write(tmp_path / "wrong.wire", steps))
    with pytest.raises(Mismatch, match=rf"^wrong\.wire:{line}: "):
        Replay(address).run(case, "wrong")


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


def test_from_a_shell(address: tuple[str, int], tmp_path: Path) -> None:
    good = write(
        tmp_path / "good.wire",
        "A> set {q} 0 0 3\\r\\nx\\*3\\r\\nget {q}\\r\\n\nA~ STORED\\r\\nVALUE .+\\r\\nxxx\\r\\nEND\\r\\n\n",
    )
    bad = write(tmp_path / "bad.wire", "A> get {q}\\r\\n\nA< STORED\\r\\n\n")
    command = [sys.executable, transcript.__file__, "--port", str(address[1])]
    replayed = subprocess.run([*command, "--bytewise", str(good)], capture_output=True, text=True, check=False)
    assert (replayed.returncode, replayed.stdout) == (0, "1 passed, 0 failed\n")
    replayed = subprocess.run([*command, str(good), str(bad)], capture_output=True, text=True, check=False)
    assert replayed.returncode == 1
    assert replayed.stdout.endswith("got b'END\\r\\n'\n1 passed, 1 failed\n")
