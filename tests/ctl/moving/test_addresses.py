"""Which server a URL means."""

import pytest

from darner_core.ctl.errors import CtlError, NoServer
from darner_core.ctl.moving.addresses import open_source
from tests.support.old_servers import free_port


@pytest.mark.parametrize("url", ["localhost:22133", "kestrle://localhost", "kestrel:localhost", "", "http://x"])
def test_a_url_that_says_no_kind_is_refused(url: str) -> None:
    with pytest.raises(CtlError, match="does not say the kind of server"):
        open_source(url)


def test_a_near_miss_is_asked_about() -> None:
    with pytest.raises(CtlError, match="kestrel"):
        open_source("kestrle://localhost")


@pytest.mark.parametrize("kind", ["kestrel", "darner", "siberite", "beanstalkd"])
def test_no_server_there_is_said_without_the_password(kind: str) -> None:
    port = free_port()
    with pytest.raises(NoServer, match=f"no server answers at {kind}://127.0.0.1:{port}: "):
        open_source(f"{kind}://user:secret@127.0.0.1:{port}")


def test_a_port_that_is_none_is_refused() -> None:
    with pytest.raises(CtlError, match="Port"):
        open_source("darner://localhost:99999")
