"""Numbers, byte strings and checksums as RocksDB writes them."""

import pytest

from darner_core.storage.encoding import counted_bytes, crc32c, crc32c_by_table, varint


def test_the_checksum_is_crc_32c() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the catalogue's check value
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4


def test_the_checksum_is_the_same_without_google_crc32c() -> None:
    for data in (b"", b"123456789", bytes(range(256)) * 9):
        assert crc32c(data) == crc32c_by_table(data)


def test_numbers_have_seven_bits_a_byte_the_lowest_first() -> None:
    assert varint(b"?\x07", 1) == (7, 2)
    assert varint(b"\xac\x02!", 0) == (300, 2)


def test_a_byte_string_stands_behind_its_length() -> None:
    assert counted_bytes(b"\x03abcd", 0) == (b"abc", 4)
    with pytest.raises(ValueError, match="cut short"):
        counted_bytes(b"\x03ab", 0)
