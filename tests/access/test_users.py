"""Password hashes and the file they stand in."""

import base64
import hmac
import os
import pty
import re
import sys
from pathlib import Path

import pytest

from darner_core.access import users
from darner_core.access.users import hash_password, parse_hash, read_users
from darner_core.errors import ConfigError
from tests.support.harness import ROOT, run_darner
from tests.support.identities import cheap_hash

GOOD = cheap_hash(b"secret")


def test_a_hash_matches_its_password_and_no_other() -> None:
    text = hash_password(b"correct horse")
    assert re.fullmatch(r"\$scrypt\$ln=17,r=8,p=1\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}", text)
    made = parse_hash(text)
    assert made.matches(b"correct horse")
    assert not made.matches(b"correct horsf")
    cheap = parse_hash(cheap_hash(b"correct horse"))  # 0.4 s less for each
    for wrong in (b"", b"correct horsf", b"correct horse ", b"Correct horse"):
        assert not cheap.matches(wrong)


def test_a_hash_is_cheap_if_it_costs_less_than_a_new_one() -> None:
    text = "$scrypt$ln={},r={},p={}$" + "A" * 22 + "$" + "A" * 43
    for log_n, r, p, is_cheap in ((17, 8, 1, False), (15, 8, 1, True), (16, 8, 2, False), (16, 8, 1, True)):
        assert parse_hash(text.format(log_n, r, p)).is_cheap is is_cheap


def test_the_same_password_is_hashed_differently_each_time() -> None:
    assert hash_password(b"x") != hash_password(b"x")


def test_a_hash_of_another_implementation_is_understood() -> None:
    """The third vector of RFC 7914, section 12: a shorter key is the beginning of the longer one."""
    key = bytes.fromhex("7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2")
    salt, key_text = (base64.b64encode(part).decode().rstrip("=") for part in (b"SodiumChloride", key))
    assert parse_hash(f"$scrypt$ln=14,r=8,p=1${salt}${key_text}").matches(b"pleaseletmein")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a hash"),
        ("secret", "not a hash"),
        ("$6$salt$key", "not a hash"),
        (GOOD.replace("scrypt", "argon2id"), "not a hash"),
        (GOOD + "$", "not a hash"),
        ("$scrypt$ln=4,r=8,p=1$aaaaaaaaaaaaaaaaa$aaaaa", "not a hash"),
        (GOOD.replace("ln=4", "ln=24"), "at most 256 MiB"),
        (GOOD.replace("p=1", "p=99"), "at most 256 MiB and p=4"),
        (GOOD.replace("r=8", "r=0"), "at most 256 MiB"),
        ("$scrypt$ln=4,r=8,p=1$YWFh$" + GOOD.rpartition("$")[2], "its salt must be 8 to 64 bytes"),
    ],
)
def test_what_is_no_hash_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_hash(text)


@pytest.mark.parametrize("password", [b"", b"x" * 256])
def test_a_password_has_limits(password: bytes) -> None:
    with pytest.raises(ValueError, match="1 to 255 bytes"):
        hash_password(password)


# -- the file


def test_the_file_has_a_user_a_line(tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text(f"# comment\n\nbob:{GOOD}\r\n  äöü:{cheap_hash(b'other')}  \nmachine:*\n")
    found = read_users(str(file))
    assert ["bob" in found, "äöü" in found, "machine" in found, "eve" in found] == [True, True, True, False]
    assert found.check("bob", b"secret")
    assert found.check("äöü", b"other")
    assert not found.check("bob", b"other")
    assert not found.check("eve", b"secret")
    for word in (b"", b"*", b"secret"):
        assert not found.check("machine", word)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("bob", "line 2: a line is name:hash"),
        ("bob:secret", "line 2: not a hash that --hash-password makes"),
        (f"al:{GOOD}", "line 2: user al stands there twice"),
        (f"b b:{GOOD}", "line 2: a user's name is 1 to 250 printable bytes without space and colon, not with # first"),
        (f":{GOOD}", "line 2: a user's name is 1 to 250 printable bytes without space and colon, not with # first"),
    ],
)
def test_a_bad_line_is_named_and_its_hash_is_not_shown(line: str, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text(f"al:{GOOD}\n{line}\n")
    with pytest.raises(ConfigError) as refused:
        read_users(str(file))
    assert str(refused.value) == f"auth_file {file} {complaint}"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing, binary = tmp_path / "missing", tmp_path / "binary"
    with pytest.raises(ConfigError, match=f"auth_file {missing}: No such file or directory"):
        read_users(str(missing))
    binary.write_bytes(b"\xff:\xff")
    with pytest.raises(ConfigError, match=f"auth_file {binary}: not UTF-8"):
        read_users(str(binary))


def test_who_does_not_exist_is_checked_as_long_as_who_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A time cannot be asserted; that the same work is done can."""
    file = tmp_path / "users"
    file.write_text(f"machine:*\nbob:{GOOD}\n")
    found, costs = read_users(str(file)), []
    monkeypatch.setattr(users, "_scrypt", lambda *given: costs.append(given[2:]) or bytes(32))
    for name in ("bob", "eve", "machine"):
        assert not found.check(name, b"guess")
    assert costs == [(4, 8, 1, 32)] * 3


def test_comparisons_take_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr(hmac, "compare_digest", lambda *pair: compared.append(pair) or True)
    assert parse_hash(GOOD).matches(b"wrong")
    assert len(compared) == 1


# -- darner --hash-password


def test_a_password_from_a_pipe_is_hashed() -> None:
    ended = run_darner("--hash-password", typed="pass wörd\n")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert parse_hash(ended.stdout.rstrip("\n")).matches("pass wörd".encode())


def test_with_a_name_it_is_a_line_of_the_file(tmp_path: Path) -> None:
    ended = run_darner("--hash-password", "bob", typed="secret\n")
    file = tmp_path / "users"
    file.write_text(ended.stdout)
    assert read_users(str(file)).check("bob", b"secret")


@pytest.mark.parametrize(
    ("words", "typed", "complaint"),
    [
        ([], "", "a password is 1 to 255 bytes"),
        ([], "x" * 256 + "\n", "a password is 1 to 255 bytes"),
        (["a b"], "x\n", "a user's name is 1 to 250 printable bytes without space and colon, not with # first"),
    ],
)
def test_what_cannot_be_hashed_is_said(words: list[str], typed: str, complaint: str) -> None:
    ended = run_darner("--hash-password", *words, typed=typed)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"darner: command line: --hash-password: {complaint}; see darner --help\n"


@pytest.mark.parametrize(("again", "status"), [(b"secret\n", 0), (b"secert\n", 1)])
def test_at_a_terminal_the_password_is_asked_for_twice(again: bytes, status: int) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, str(ROOT / "darner.py"), "--hash-password"])
    said = b""
    for prompt, typed in ((b"Password: ", b"secret\n"), (b"Password again: ", again)):
        while not said.endswith(prompt):
            said += os.read(terminal, 1000)
        os.write(terminal, typed)
    try:
        while more := os.read(terminal, 1000):
            said += more
    except OSError:
        pass  # how a terminal says that nobody is left at the other end
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == status
    assert b"secret" not in said
    assert (b"$scrypt$" in said) == (status == 0)
    assert (b"the two passwords differ" in said) == (status == 1)
