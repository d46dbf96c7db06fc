"""Who may ask what over HTTP, and which pages may."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.harness import RunningServer
from tests.support.http import HTTP, Connect, Http
from tests.support.identities import write_users


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, shared_server: Callable[..., RunningServer]) -> RunningServer:
    folder = tmp_path_factory.mktemp("users")
    users = write_users(folder / "users", alice="secret", boss="secret")
    conf = folder / "conf.toml"
    conf.write_text(
        f'auth_file = "{users}"\n[users.alice]\nput = ["mail.*"]\nget = ["mail.in"]\n'
        '[users.boss]\nput = ["*"]\nget = ["*"]\nadmin = ["*"]\n'
    )
    return shared_server(*HTTP, "-c", str(conf))


def test_a_name_and_a_password_are_asked_for(guarded: RunningServer, connect_http: Connect) -> None:
    said = connect_http(guarded).get("queues")
    assert (said.status, said.headers["www-authenticate"]) == (401, 'Basic realm="darner", charset="UTF-8"')
    assert connect_http(guarded, "alice", "wrong").get("queues").detail == "the name or the password is wrong"
    assert connect_http(guarded, "nobody", "secret").get("queues").status == 401
    assert connect_http(guarded, "alice", "secret").get("queues").status == 200


@pytest.mark.parametrize("header", ["Basic", "Basic ?", "Basic YWxpY2U=", "Bearer x", "Basic " + "A" * 2000])
def test_a_login_that_is_none(guarded: RunningServer, connect_http: Connect, header: str) -> None:
    assert connect_http(guarded).get("queues", Authorization=header).status == 401


def test_a_user_does_what_its_rights_allow(guarded: RunningServer, connect_http: Connect) -> None:
    alice, boss = connect_http(guarded, "alice", "secret"), connect_http(guarded, "boss", "secret")
    alice.put("mail.in", b"x")
    alice.put("mail.out", b"x")
    boss.put("news", b"x")
    assert alice.take("mail.in").status == 200
    for said in (alice.take("mail.out"), alice.post("queues/news/items", b"x"), alice.delete("queues/mail.in")):
        assert said.status == 403
    assert alice.take("mail.out").detail == "user alice may not get from queue mail.out"
    assert alice.post("take?q=mail.in&q=news").status == 403
    assert {one["name"] for one in alice.get("queues").json["queues"]} == {"mail.in", "mail.out"}
    assert alice.get("queues/news").status == 403
    assert boss.get("queues/news").status == 200
    assert boss.get("session").json["may_admin"] is True
    assert (alice.get("session").json["user"], alice.get("session").json["may_admin"]) == ("alice", False)


def test_health_is_told_to_everybody(guarded: RunningServer, connect_http: Connect) -> None:
    assert connect_http(guarded).get("/health/live").status == 200
    assert connect_http(guarded).get("/health/ready").status == 200


def test_a_password_is_looked_at_with_each_request(guarded: RunningServer, connect_http: Connect) -> None:
    http = connect_http(guarded, "alice", "secret")
    assert http.get("session").status == 200
    http.headers.clear()
    assert http.get("session").status == 401


@pytest.mark.parametrize("header", ["Origin", "Cookie", "Sec-Fetch-Site"])
def test_a_browser_changes_something_only_with_the_token(http: Http, queue: str, header: str) -> None:
    for method, path in (("POST", f"queues/{queue}/items"), ("DELETE", f"queues/{queue}"), ("PUT", f"queues/{queue}")):
        http.headers = {header: "x"}
        said = http.ask(method, path, b"x")
        assert (said.status, "X-Darner-Token" in said.detail) == (403, True)
        http.headers["X-Darner-Token"] = http.get("session").json["token"]
        assert http.ask(method, path, b"x").status in (201, 204)


def test_the_token_of_one_user_is_not_that_of_another(guarded: RunningServer, connect_http: Connect) -> None:
    alice, boss = connect_http(guarded, "alice", "secret"), connect_http(guarded, "boss", "secret")
    token = alice.get("session").json["token"]
    said = boss.post("queues/q/items", b"x", Origin="http://evil.example", X_Darner_Token=token)
    assert said.status == 403


def test_a_foreign_host_is_not_answered(http: Http) -> None:
    said = http.get("queues", Host="evil.example:22180")
    assert (said.status, "evil.example" in said.detail) == (421, True)
    for host in ("localhost", "localhost:22180", "127.0.0.1:1", "[::1]:22180", "10.0.0.1", "LOCALHOST."):
        assert http.get("queues", Host=host).status == 200


def test_only_from_some_places_operators_commands_are_taken(
    start_server: Callable[..., RunningServer], connect_http: Connect, tmp_path: Path
) -> None:
    server = start_server(*HTTP, "--admin-from", "unix")
    http = connect_http(server)
    http.put("q", b"x")
    said = http.delete("queues/q")
    assert (said.status, said.detail) == (
        403,
        'delete is not taken from 127.0.0.1: admin_from = ["unix"] does not name it',
    )


def test_the_log_says_who_has_changed_what(http: Http, http_server: RunningServer, queue: str) -> None:
    http.delete(f"queues/{queue}")
    assert f"delete {queue}" in http_server.printed()
