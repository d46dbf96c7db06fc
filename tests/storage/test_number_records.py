"""The bytes of public numbers: they must not change."""

import struct

import pytest

from darner_core.storage import number_records as records
from darner_core.storage.number_records import Block

BLOCK = Block(7, 2, 2**51, 1024)
GOLDEN = "00000002 0008000000000000 00000400".replace(" ", "")


def test_what_is_written_is_what_it_always_was() -> None:
    assert records.block_key(7).hex() == "62" + "0000000000000007"
    assert records.pack_block(BLOCK).hex() == GOLDEN
    assert records.MARK_KEY.hex() == "62" + "0000000000000000"
    assert records.pack_mark(9).hex() == "0000000000000009"
    assert records.IDENTITY_KEY == b"n"


def test_what_was_written_is_understood() -> None:
    assert records.unpack_block(records.block_key(7), bytes.fromhex(GOLDEN)) == BLOCK
    assert records.unpack_mark(records.pack_mark(9)) == 9
    assert records.unpack_identity(b"a" * 20 + b"b" * 16) == (b"a" * 20, b"b" * 16)


def test_nonsense_is_refused() -> None:
    with pytest.raises(struct.error):
        records.unpack_block(b"bx", b"")
    with pytest.raises(struct.error):
        records.unpack_mark(b"")
    with pytest.raises(ValueError, match="35 bytes"):
        records.unpack_identity(bytes(35))
