"""The words in which a beanstalkd client is answered."""

import pytest

from darner_core.errors import ClientError, Incomplete, MalformedRequest, RequestError, ServerError
from darner_core.protocols.beanstalkd import replies


@pytest.mark.parametrize(
    ("error", "reply"),
    [
        (replies.NoRoom("the disk is full"), b"OUT_OF_MEMORY\r\n"),
        (ServerError("the disk cannot be written"), b"INTERNAL_ERROR\r\n"),
        (ClientError("user bob may not put into queue q"), b"UNKNOWN_COMMAND\r\n"),
        (MalformedRequest("what"), b"INTERNAL_ERROR\r\n"),
        (Incomplete("the rest of the line did not come for 60 s"), b"BAD_FORMAT\r\n"),
    ],
)
def test_each_error_has_a_word(error: RequestError, reply: bytes) -> None:
    assert replies.error_reply(error) == reply


def test_a_mapping_is_yaml_with_its_length_before_it() -> None:
    reply = replies.yaml_map([(b"id", 1), (b"tube", b"default")])
    assert reply == b"OK 24\r\n---\nid: 1\ntube: default\n\r\n"
    assert len(b"---\nid: 1\ntube: default\n") == 24


def test_a_list_is_yaml_with_its_length_before_it() -> None:
    assert replies.yaml_list([b"default", b"q"]) == b"OK 18\r\n---\n- default\n- q\n\r\n"


def test_a_text_is_quoted() -> None:
    assert replies.quoted('#1 "x"') == b'"#1 \\"x\\""'


def test_a_job_has_its_number_and_size_before_it() -> None:
    assert replies.job_head(b"RESERVED", 7, 3) == b"RESERVED 7 3\r\n"
    assert replies.inserted(7) == b"INSERTED 7\r\n"
