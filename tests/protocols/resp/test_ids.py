"""Ids of Disque's jobs, which say where the job is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darner_core.protocols.resp.ids import JobIds
from darner_core.protocols.resp.replies import RespError

IDS = JobIds(bytes(range(20)), b"s" * 16)


def test_an_id_has_forty_characters_in_four_parts() -> None:
    job = IDS.make(7, 12, 86_400, again=True)
    assert len(job) == 40
    assert job.startswith(b"D-00010203-")
    assert job.endswith(b"-05a1")  # 1440 minutes, odd


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**40), st.booleans())
def test_an_id_says_where_its_job_is(queue: int, item: int, ttl_s: int, again: bool) -> None:
    job = IDS.make(queue, item, ttl_s, again)
    assert len(job) == 40
    assert IDS.read(job) == (queue, item)
    assert int(job[-4:], 16) % 2 == again


def test_a_long_life_is_as_long_as_an_id_can_tell() -> None:
    assert IDS.make(1, 1, 2**40, again=True).endswith(b"-ffff")
    assert IDS.make(1, 1, 2**40, again=False).endswith(b"-fffe")


@pytest.mark.parametrize("job", [b"", b"x", b"D-" + b"0" * 38, b"D-0001020g-" + b"A" * 24 + b"-05a1"])
def test_what_looks_otherwise_is_no_id(job: bytes) -> None:
    with pytest.raises(RespError, match="Invalid Job ID format"):
        IDS.read(job)


def test_a_made_up_id_or_one_of_another_server_is_an_unknown_job() -> None:
    job = IDS.make(7, 12, 60, again=True)
    other = JobIds(bytes(20), b"s" * 16)
    assert other.read(job) == (0, 0)
    assert JobIds(bytes(range(20)), b"t" * 16).read(job) == (0, 0)
    assert IDS.read(job[:11] + b"A" * 24 + job[35:]) == (0, 0)
