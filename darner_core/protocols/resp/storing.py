"""How a value that is in memory whole, but is large, is stored piece by piece."""

from darner_core.operations.client import Client
from darner_core.operations.putting import LargePut


def wait_store(item: LargePut, data: bytes, client: Client) -> None:
    """Raises ServerError or StorageError. Switches greenlets."""
    at = 0
    while wanted_bytes := item.wanted_bytes:
        item.wait_add(client, data[at : at + wanted_bytes])
        at += wanted_bytes
        client.wait_turn()
    item.wait_store(client)
    item.require_queues()
