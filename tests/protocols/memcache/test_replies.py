"""The bytes of the replies, as clients of memcached and of Darner read them."""

from darner_core.protocols.memcache import replies


def test_an_item_is_a_head_a_body_and_an_end() -> None:
    assert replies.value_head(b"q", 0, 5) + b"hello" + replies.AFTER_BODY == b"VALUE q 0 5\r\nhello\r\nEND\r\n"
    assert (
        replies.value_head(b"q/open", 2**32 - 1, 0) + replies.AFTER_BODY == b"VALUE q/open 4294967295 0\r\n\r\nEND\r\n"
    )


def test_clients_that_ask_with_gets_read_a_fourth_number() -> None:
    assert replies.value_head_with_cas(b"q", 7, 5, 2**64 - 1) == b"VALUE q 7 5 18446744073709551615\r\n"


def test_names_come_back_byte_for_byte() -> None:
    name = bytes(range(0x80, 0x100))
    assert replies.value_head(name, 0, 0) == b"VALUE " + name + b" 0 0\r\n"


def test_a_statistic_is_a_number_or_a_text() -> None:
    assert replies.stat(b"curr_items", 12) == b"STAT curr_items 12\r\n"
    assert replies.stat(b"version", b"1.2.3") == b"STAT version 1.2.3\r\n"
    assert replies.version("1.2.3") == b"VERSION 1.2.3\r\n"


def test_what_clients_compare_with_is_what_they_expect() -> None:
    assert replies.STORED == b"STORED\r\n"
    assert replies.END == b"END\r\n"
    assert replies.DELETED == b"DELETED\r\n"
    assert replies.FLUSHED_ALL == b"Flushed all queues.\r\n"
    assert replies.NONE == b""
