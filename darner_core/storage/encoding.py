"""How RocksDB writes numbers, byte strings and checksums in its files. Pure.

Source: RocksDB wiki, "Write Ahead Log File Format"; util/coding.h and util/crc32c.h for varints and masking.
"""

try:
    from google_crc32c import value as _fast_crc32c
except ImportError:  # it is optional, and 400 times faster
    _fast_crc32c = None


def varint(data: bytes, at: int) -> tuple[int, int]:
    """(number, where what follows begins) of the number at `at`. Raises IndexError if it is cut short."""
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7


def counted_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    """(bytes, where what follows begins) of a byte string that stands behind its length. Raises IndexError or
    ValueError if it is cut short."""
    size, at = varint(data, at)
    if at + size > len(data):
        raise ValueError("cut short")
    return data[at : at + size], at + size


def masked_crc(data: bytes) -> int:
    """The CRC-32C of `data` as it stands in files."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _crc_table() -> list[int]:
    table = []
    for number in range(256):
        for _ in range(8):
            number = (number >> 1) ^ (0x82F63B78 if number & 1 else 0)
        table.append(number)
    return table


_CRC = _crc_table()


def crc32c_by_table(data: bytes) -> int:
    crc, table = 0xFFFFFFFF, _CRC
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


crc32c = crc32c_by_table if _fast_crc32c is None else _fast_crc32c
