"""What a command sees of its client: the caller keeps what `client.Client` promises."""

from darner_core.operations.client import Client
from darner_core.server.caller import Caller


def test_a_caller_has_all_that_commands_ask_of_a_client() -> None:
    asked = {name for name in vars(Client) if not name.startswith("_")} | set(Client.__annotations__)
    assert {name for name in asked if not hasattr(Caller, name)} == set()
