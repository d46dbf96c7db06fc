"""How a login is read; `test_guard` has what comes of it."""

import pytest

from darner_core.protocols.contract import BadLogin, Login, NoLogin
from darner_core.protocols.memcache.login import MAX_BODY_BYTES, MAX_LINE_BYTES, read_login

LOGIN = b"set k 0 0 10\r\nbob secret\r\n"


def test_a_login_is_read_once_it_is_whole() -> None:
    for end in range(len(LOGIN)):
        assert read_login(LOGIN[:end]) is None
    assert read_login(LOGIN + b"get q\r\n") == Login(b"bob", b"secret", b"STORED\r\n", b"get q\r\n")


def test_a_password_may_have_spaces_and_a_login_may_want_no_reply() -> None:
    assert read_login(b"SET k 1 2 6 NoReply\na b  c\r\n") == Login(b"a", b"b  c", b"", b"")


@pytest.mark.parametrize("line", [b"get q", b"set k 0 0", b"set k 0 0 x", b"", b"\x16", b"set k 0 0 1 yes"])
def test_another_request_is_no_login(line: bytes) -> None:
    with pytest.raises(NoLogin):
        read_login(line + b"\r\n")


def test_what_cannot_become_a_login_is_told_before_it_is_whole() -> None:
    for beginning in (b"\x80", b"s" * (MAX_LINE_BYTES + 1)):
        with pytest.raises(NoLogin):
            read_login(beginning)
    with pytest.raises(BadLogin, match=f"^a body of {MAX_BODY_BYTES + 1} bytes$"):
        read_login(b"set k 0 0 %d\r\n" % (MAX_BODY_BYTES + 1))


def test_the_log_is_not_told_what_may_be_a_password() -> None:
    with pytest.raises(BadLogin, match=r"^a body that is not name and password$"):
        read_login(b"set k 0 0 6\r\nsecret\r\n")
    with pytest.raises(BadLogin, match=r"^a body that does not end$"):
        read_login(b"set k 0 0 9\r\nbob secret\r\n")
