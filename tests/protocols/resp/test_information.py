"""INFO."""

from tests.support.resp_clients import RespClient


def info(client: RespClient, *sections: str) -> dict[str, str]:
    lines = client.do("INFO", *sections).decode().split("\r\n")
    return dict(line.split(":", 1) for line in lines if line and not line.startswith("#"))


def test_what_clients_look_for_is_there(client: RespClient) -> None:
    told = info(client)
    assert (told["loading"], told["role"], told["redis_mode"]) == ("0", "master", "standalone")
    assert {"disque_version", "redis_version", "darner_version", "connected_clients", "aof_state"} <= told.keys()
    assert info(client, "all").keys() == info(client, "default").keys() == told.keys()


def test_jobs_and_queues_are_counted(client: RespClient) -> None:
    before = int(info(client)["registered_jobs"])
    client.do("LPUSH", "k", "a", "b")
    told = info(client, "jobs", "Queues")
    assert told == {"registered_jobs": str(before + 2), "registered_queues": "1"}


def test_one_section_or_none(client: RespClient) -> None:
    assert client.do("INFO", "jobs").startswith(b"# Jobs\r\nregistered_jobs:")
    assert client.do("INFO", "weather") == b""
    assert client.do("INFO").count(b"\r\n\r\n# ") == 9
