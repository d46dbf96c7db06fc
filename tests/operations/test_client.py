"""What a command sees of its client: the connection keeps what `client.Client` promises."""

from darner_core.operations.client import Client
from darner_core.server.connection import Connection


def test_a_connection_has_all_that_commands_ask_of_a_client() -> None:
    asked = {name for name in vars(Client) if not name.startswith("_")} | set(Client.__annotations__)
    assert {name for name in asked if not hasattr(Connection, name)} == set()
