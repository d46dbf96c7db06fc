"""The bytes of every reply. Source: memcached's doc/protocol.txt; Darner for what it says differently."""

STORED = b"STORED\r\n"
NOT_STORED = b"NOT_STORED\r\n"
END = b"END\r\n"
DELETED = b"DELETED\r\n"
NOT_FOUND = b"NOT_FOUND\r\n"
TOUCHED = b"TOUCHED\r\n"
NOT_THAT_OPEN = b"ERROR no item with this id is open on this connection\r\n"
NOT_THAT_MANY_OPEN = b"ERROR not that many items of this queue are open on this connection\r\n"
OK = b"OK\r\n"
FLUSHED_ALL = b"Flushed all queues.\r\n"
RELOADED = b"Reloaded config.\r\n"
CRLF = b"\r\n"

# A reply of up to 64 KiB goes out in one piece: npm's memcached loses the first of two pieces.
ONE_PIECE_BYTES = 64 << 10

AFTER_BODY = b"\r\nEND\r\n"
NONE = b""  # noreply, or a request whose reply is a hang-up


def value_head(key: bytes, flags: int, body_bytes: int) -> bytes:
    """The line before an item's body."""
    return b"VALUE %b %d %d\r\n" % (key, flags, body_bytes)


def value_head_with_cas(key: bytes, flags: int, body_bytes: int, item_id: int) -> bytes:
    """The line before an item's body in the reply to `gets`: its fourth number, the "cas unique", is the item's id."""
    return b"VALUE %b %d %d %d\r\n" % (key, flags, body_bytes, item_id)


def count(number: int) -> bytes:
    """How many there were."""
    return b"%d\r\n" % number


def line(text: str) -> bytes:
    return b"%b\r\n" % text.encode()


def history(of_item: bytes) -> bytes:
    return b"HISTORY %b\r\n" % of_item


def version(text: str) -> bytes:
    return b"VERSION %b\r\n" % text.encode()


def stat(name: bytes, value: int | bytes) -> bytes:
    return b"STAT %b %b\r\n" % (name, value if isinstance(value, bytes) else b"%d" % value)
