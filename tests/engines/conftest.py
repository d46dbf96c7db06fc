from collections.abc import Callable

import pytest

from darner_core.storage.storage import Storage
from tests.support.engines import ENGINES, World


@pytest.fixture(params=ENGINES)
def world(request: pytest.FixtureRequest, open_storage: Callable[[], Storage]) -> World:
    return ENGINES[request.param](open_storage)
