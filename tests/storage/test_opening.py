"""Opening RocksDB: the settings of each way, and what is said of damage."""

import pytest

from darner_core.storage import opening

IN_A_BLOCK = (
    "Corruption: block checksum mismatch: stored(context removed) = 1, computed = 2, type = 4  in /a b/000011.sst "
    "offset 16263 size 16200"
)
IN_A_FOOTER = (
    "Corruption: Bad table magic number: expected 1, found 2 in /a b/000011.sst  The file /a b/MANIFEST-000005 may be"
    " corrupted."
)
GONE = (
    "IO error: No such file or directory: While open a file for random read: /x/000013.sst: No such file or directory"
)


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (IN_A_BLOCK, "Corruption: 000011.sst is damaged at byte 16263 (a block of 16200 bytes)"),
        (IN_A_FOOTER, "Corruption: Bad table magic number: expected 1, found 2 in /a b/000011.sst"),
        ("Corruption: checksum mismatch The file /x/MANIFEST-000005 may be corrupted.", None),
        (GONE, None),
    ],
)
def test_damage_is_told_from_other_errors_and_names_the_file(message: str, shown: str | None) -> None:
    assert opening.is_damage(message)
    assert opening.is_damage(Exception(message))
    assert opening.file_named(message) == (shown or message)


@pytest.mark.parametrize("message", ["IO error: No space left on device", "IO error: While lock file: /x/LOCK"])
def test_a_disk_that_refuses_is_not_damage(message: str) -> None:
    assert not opening.is_damage(message)
