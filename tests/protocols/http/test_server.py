"""The server over HTTP."""

import time

from darner_core import VERSION
from tests.support.http import Http


def test_a_session_tells_a_page_what_it_needs(http: Http) -> None:
    found = http.get("session").json
    token, now_ms = found.pop("token"), found.pop("now_ms")
    assert found == {"user": None, "version": VERSION, "may_admin": True, "readonly": False, "status": "UP"}
    assert len(token) == 64
    assert abs(now_ms - time.time() * 1000) < 60_000
