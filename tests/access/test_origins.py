"""How the log names a client, and from where an operator's commands are taken."""

import pytest

from darner_core.access.origins import INSIDE, AdminFrom, Origin
from darner_core.errors import ClientError


class Place:
    """A listener, and the settings."""

    def __init__(self, *places: str) -> None:
        self.admin_from = AdminFrom(places)

    def name_client(self, address: object) -> str:
        return "{}:{}".format(*address) if isinstance(address, tuple) else "unix:/run/a\x9bb"


def origin(host: str = "", *places: str) -> Origin:
    place = Place(*places)
    return Origin((host, 4711) if host else "", place, place)


def taken(verb: bytes, host: str, *places: str) -> bool:
    try:
        origin(host, *places).require_admin(verb)
    except ClientError:
        return False
    return True


def test_a_client_is_its_user_at_its_address() -> None:
    client = origin("10.0.0.7")
    assert str(client) == "10.0.0.7:4711"
    client.user = "bob"
    assert str(client) == "bob@10.0.0.7:4711"
    assert str(origin()) == r"unix:/run/a\x9bb"
    assert str(INSIDE) == "inside"


def test_a_dead_letter_calls_it_what_it_is_called_by_then() -> None:
    client = origin("10.0.0.7")
    assert client.name == client.name == b"10.0.0.7:4711"
    client.user = "b\xf6b"
    assert client.name == "b\xf6b@10.0.0.7:4711".encode()
    assert origin().name == rb"unix:/run/a\x9bb"


@pytest.mark.parametrize("host", ["", "127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
def test_without_the_option_this_machine_may_do_everything(host: str) -> None:
    assert taken(b"flush_all", host)
    assert taken(b"shutdown", host)


@pytest.mark.parametrize("host", ["10.0.0.7", "2001:db8::7", "fe80::7%eth0", "::ffff:10.0.0.7"])
def test_without_the_option_others_may_not_shut_down(host: str) -> None:
    assert taken(b"flush_all", host)
    assert not taken(b"shutdown", host)


@pytest.mark.parametrize(
    ("places", "yes", "no"),
    [
        (["loopback"], ["127.0.0.1", "127.0.0.2", "::1"], ["", "10.0.0.7"]),
        (["unix"], [""], ["127.0.0.1", "::1"]),
        (["10.1.0.0/16"], ["10.1.2.3", "::ffff:10.1.2.3"], ["10.2.0.1", "127.0.0.1", "", "::1"]),
        (["10.0.0.7", "2001:db8::/32"], ["10.0.0.7", "2001:db8::1"], ["10.0.0.8", "2001:db9::1", "fe80::1%eth0"]),
        (["0.0.0.0/0", "unix"], ["10.0.0.7", "127.0.0.1", ""], ["::1"]),
    ],
)
def test_with_it_the_places_it_names_may_and_no_others(places: list[str], yes: list[str], no: list[str]) -> None:
    for verb in (b"flush_all", b"shutdown", b"delete"):
        assert [host for host in yes if not taken(verb, host, *places)] == []
        assert [host for host in no if taken(verb, host, *places)] == []


def test_a_refusal_says_what_from_where_and_which_option() -> None:
    with pytest.raises(ClientError) as refused:
        origin("10.0.0.7", "loopback", "10.1.0.0/16").require_admin(b"flush_all")
    assert str(refused.value) == (
        'flush_all is not taken from 10.0.0.7: admin_from = ["loopback", "10.1.0.0/16"] does not name it'
    )
    with pytest.raises(ClientError) as refused:
        origin("10.0.0.7").require_admin(b"shutdown")
    assert str(refused.value) == (
        "shutdown is not taken from 10.0.0.7: without admin_from only loopback and Unix sockets may do that"
    )


def test_a_neighbourhood_is_what_one_client_has_as_a_rule() -> None:
    assert origin("10.0.0.7").neighbourhood == "10.0.0.7"
    assert origin("2001:db8:1:2:3::4").neighbourhood == origin("2001:db8:1:2:ffff::").neighbourhood
    assert origin("2001:db8:1:2::").neighbourhood != origin("2001:db8:1:3::").neighbourhood
    assert origin("fe80::7%eth0").neighbourhood == "fe80:0000:0000:0000"
    assert origin("").neighbourhood == ""
