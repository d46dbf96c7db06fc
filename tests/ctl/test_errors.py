"""The exit statuses that are documented."""

import pytest

from darner_core.ctl.errors import CtlError, NoServer, NothingThere, Refused


@pytest.mark.parametrize(("kind", "status"), [(CtlError, 1), (Refused, 1), (NoServer, 3), (NothingThere, 4)])
def test_each_error_has_its_exit_status(kind: type[CtlError], status: int) -> None:
    assert kind("x").status == status
