"""A few seconds of what `make fuzz` does at length."""

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import fuzz_beanstalkd, fuzz_kestrel, fuzz_protocol, fuzz_resp, fuzz_server
from tests.support.beanstalkd import BEANSTALKD, RealBeanstalkd, TubeServer
from tests.support.harness import ROOT, RunningServer
from tests.support.resp_clients import RespServer

CORPUS = fuzz_protocol.seeds()
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=100)


@pytest.mark.parametrize("path", sorted(fuzz_protocol.CORPUS.iterdir()), ids=lambda path: path.name)
def test_the_parser_bears_the_corpus(path: Path) -> None:
    fuzz_protocol.check(path.read_bytes())


@unhurried
@given(st.binary(max_size=2), st.lists(st.sampled_from([*CORPUS, *fuzz_protocol.WORDS]), max_size=12))
def test_the_parser_bears_any_sequence_of_it(cut: bytes, said: list[bytes]) -> None:
    fuzz_protocol.check(cut.ljust(2, b"\0") + b"".join(said))


@unhurried
@given(st.binary(max_size=600))
def test_the_parser_bears_anything(data: bytes) -> None:
    fuzz_protocol.check(data)


def test_the_parser_bears_mutations_of_the_corpus() -> None:
    assert fuzz_protocol.run_random(runs=10_000, seed=random.randrange(1 << 32), most_s=60) == 10_000


def test_kestrels_other_protocols_bear_mutations_of_what_their_clients_say() -> None:
    for seed in fuzz_kestrel.SEEDS:
        fuzz_kestrel.check(seed)
    assert fuzz_kestrel.run_random(runs=5_000, seed=random.randrange(1 << 32), most_s=60) == 5_000


def test_resp_bears_mutations_of_what_its_clients_say() -> None:
    for seed in fuzz_resp.SEEDS:
        fuzz_resp.check(seed)
    assert fuzz_resp.run_random(runs=5_000, seed=random.randrange(1 << 32), most_s=60) == 5_000


def test_resp_answers_whatever_its_commands_are_told(tmp_path: Path) -> None:
    server = RespServer(tmp_path / "data", "--chunk-bytes", "16 KiB")
    seed = random.randrange(1 << 32)
    try:
        assert fuzz_resp.talk(server, runs=4_000, seed=seed) == 4_000, seed
    finally:
        server.end()


def test_the_fuzzer_runs_with_what_is_installed(tmp_path: Path) -> None:
    """With atheris where there is one, else without."""
    command = [sys.executable, "-m", "tests.fuzz.fuzz_protocol", "-runs=2000", str(tmp_path), str(fuzz_protocol.CORPUS)]
    if fuzz_protocol.atheris is None:
        command.remove(str(tmp_path))
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert "Done 2000 runs" in ended.stderr or "2000 random mutations" in ended.stdout


def test_each_client_hears_what_it_should_and_nothing_of_the_others(
    start_server: Callable[..., RunningServer],
) -> None:
    server = start_server(*fuzz_server.OPTIONS)
    assert fuzz_server.run(server, runs=12_000, seed=random.randrange(1 << 32)) >= 12_000


@pytest.mark.long
@pytest.mark.skipif(BEANSTALKD is None, reason="beanstalkd is not installed")
def test_random_conversations_are_answered_as_beanstalkd_does_it(tmp_path: Path) -> None:
    ours, real = TubeServer(tmp_path / "ours"), RealBeanstalkd(tmp_path / "real")
    try:
        assert fuzz_beanstalkd.run(ours, real, runs=1000, seed=random.randrange(1 << 32)) >= 1000
    finally:
        ours.end()
        real.end()


def test_what_is_wrong_in_a_reply_is_seen() -> None:
    """A check that sees nothing would find nothing wrong."""
    right = b"STORED\r\nVALUE q 0 2\r\nab\r\nEND\r\nEND\r\nERROR what\r\nVERSION 1.0.0\r\n"
    for end in range(len(right) + 1):
        assert fuzz_server.why_no_replies(right[:end]) == ""
    for wrong in (b"STORES\r\n", b"VALUE q 0 2\r\nabc\r\nEND\r\n", b"END\r\nab\r\n", b"ERROR \x01\r\n"):
        assert fuzz_server.why_no_replies(wrong) != ""
