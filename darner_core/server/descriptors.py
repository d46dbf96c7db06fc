"""File descriptors: how many there may be, and how many clients that leaves room for.

RocksDB must always get its files: a table that cannot be opened is a request that fails, and a write-ahead log that
cannot be opened is a server that stops writing. So clients are turned away before the last descriptors are taken.
"""

from darner_core.errors import StartError
from darner_core.operating_system import raise_descriptor_limit

# Beside RocksDB's table files and the clients: the write-ahead logs and what else RocksDB keeps open (about 15), the
# files that two compactions and a flush write, the listener, the loop's own, standard input and output (about 40 were
# seen under load), and the clients that are being told that they are too many.
RESERVED_DESCRIPTORS = 64

# How many clients at a time are told that they are too many, and given a moment to read it.
MAX_TURNED_AWAY = 64

# How many clients are accepted before anybody looks whether they are too many: in a flood, connections are accepted
# faster than their greenlets begin.
MAX_KNOCKING = 32


def room_for_clients(max_connections: int, max_open_files: int) -> int:
    """Raise this process's limit as far as it is needed and allowed; how many clients there may be, at most
    `max_connections`. Raises StartError if there is no room for any."""
    beside = max_open_files + RESERVED_DESCRIPTORS + MAX_TURNED_AWAY + MAX_KNOCKING
    allowed = raise_descriptor_limit(beside + max_connections)
    if allowed <= beside:
        raise StartError(
            f"too few file descriptors: {allowed}, of which max_open_files and the server's own take {beside}; "
            "raise the limit (ulimit -n), or lower max_open_files"
        )
    return allowed - beside
