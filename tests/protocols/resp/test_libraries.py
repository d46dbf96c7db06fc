"""Client libraries of Redis and Disque, as their users use them: each puts, takes, fails, retries and acknowledges.

redis-py and pydisque are among the packages for development. redis-cli is run if it is installed; the libraries of npm
(disqueue-node, thunk-disque, ioredis) if NODE_PATH names the directory where they are.
"""

import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import END_S
from tests.support.resp_clients import RespServer

HERE = Path(__file__).resolve().parent


@pytest.fixture(params=[2, 3])
def redis(request: pytest.FixtureRequest, server: RespServer) -> Iterator[Any]:
    """redis-py, by each version of the protocol."""
    library = pytest.importorskip("redis")
    client = library.Redis(port=server.resp_port, protocol=request.param)
    yield client
    client.close()


def test_redis_py_speaks_as_it_does_by_default(server: RespServer) -> None:
    library = pytest.importorskip("redis")
    with library.Redis(port=server.resp_port, client_name="worker") as client:
        assert client.ping()
        assert client.client_getname() in ("worker", b"worker")
        assert client.info("server")["redis_version"] == "6.2.0"
        assert client.config_get("maxmemory") == {"maxmemory": "0"}


def test_redis_py_with_lists(redis: Any) -> None:
    assert redis.lpush("work", "a", "b", "c") == 3
    assert list(redis.brpop(["urgent", "work"], timeout=1)) == [b"work", b"a"]
    assert redis.lmove("work", "doing", "RIGHT", "LEFT") == b"b"
    assert redis.lrange("doing", 0, -1) == [b"b"]
    assert redis.lrem("doing", 1, "b") == 1
    assert redis.rpush("work", "b") == 2  # the work was not done
    assert redis.rpop("work", 2) == [b"b", b"c"]
    assert redis.rpop("work") is None
    assert redis.brpop("work", timeout=0.05) is None
    assert redis.exists("work", "doing") == 0


def test_redis_py_with_a_pipeline_and_a_transaction(redis: Any) -> None:
    with redis.pipeline(transaction=True) as pipe:
        pipe.lpush("work", "a").lpush("work", "b").llen("work").rpop("work")
        assert pipe.execute() == [1, 2, 2, b"a"]
    with redis.pipeline(transaction=False) as pipe:
        for number in range(1000):
            pipe.rpush("many", number)
        assert pipe.execute() == list(range(1, 1001))
    assert sorted(redis.scan_iter()) == [b"many", b"work"]


def test_redis_py_with_jobs(redis: Any) -> None:
    job = redis.execute_command("ADDJOB", "work", "body", 0, "RETRY", 1)
    assert redis.execute_command("GETJOB", "FROM", "work") == [[b"work", job, b"body"]]
    assert redis.execute_command("NACK", job) == 1
    assert redis.execute_command("GETJOB", "FROM", "work") == [[b"work", job, b"body"]]
    assert redis.execute_command("GETJOB", "TIMEOUT", 5000, "FROM", "work") == [[b"work", job, b"body"]]
    assert redis.execute_command("ACKJOB", job) == 1
    assert redis.execute_command("GETJOB", "NOHANG", "FROM", "work") is None


def test_redis_py_with_users(tmp_path: Path) -> None:
    library = pytest.importorskip("redis")
    from tests.support.identities import write_users

    users = write_users(tmp_path / "users", worker="secret")
    tables = '[users.worker]\nput = ["work"]\nget = ["work"]\n'
    server = RespServer(tmp_path / "data", "--auth-file", str(users), tables=tables)
    try:
        with library.Redis(port=server.resp_port, username="worker", password="secret") as client:
            assert client.lpush("work", "a") == 1
            with pytest.raises(library.exceptions.NoPermissionError):
                client.lpush("other", "a")
        with (
            library.Redis(port=server.resp_port, username="worker", password="wrong") as client,
            pytest.raises(library.exceptions.AuthenticationError),
        ):
            client.ping()
    finally:
        server.end()


def test_pydisque(server: RespServer) -> None:
    client = pytest.importorskip("pydisque.client").Client([f"127.0.0.1:{server.resp_port}"])
    client.connect()
    first = client.add_job("work", "first", timeout=100, retry=1)
    client.add_job("work", "delayed", timeout=100, delay=60)
    assert client.qlen("work") == 1
    assert client.get_job(["work"]) == [(b"work", first, b"first")]
    client.nack_job(first)
    ((_, job, body, nacks, again),) = client.get_job(["work"], withcounters=True)
    assert (job, body, nacks, again) == (first, b"first", 1, 0)
    assert client.working(first) == 1
    assert client.get_job(["work"], timeout=5000)[0][1] == first  # nobody has acknowledged it
    assert client.show(first, return_dict=True)[b"state"] == b"active"
    client.ack_job(first)
    assert client.show(first) is None
    assert [body for _, _, body in client.get_job(["work"], nohang=True) or ()] == []
    assert client.qstat("work", return_dict=True)[b"jobs-in"] == 2
    assert client.info()


def redis_cli(server: RespServer, *words: str, typed: str | None = None) -> str:
    program = shutil.which("redis-cli")
    if program is None:
        pytest.skip("there is no redis-cli here")
    said = subprocess.run(
        [program, "-p", str(server.resp_port), *words], input=typed, capture_output=True, text=True, timeout=END_S,
        check=False,
    )  # fmt: skip
    return said.stdout.rstrip("\n")


def test_redis_cli(server: RespServer) -> None:
    job = redis_cli(server, "ADDJOB", "work", "body", "0")
    assert redis_cli(server, "GETJOB", "FROM", "work").split("\n") == ["work", job, "body"]
    assert redis_cli(server, "NACK", job) == "1"
    assert redis_cli(server, "GETJOB", "NOHANG", "FROM", "work").split("\n") == ["work", job, "body"]
    assert redis_cli(server, "ACKJOB", job) == "1"
    said = redis_cli(server, "-3", typed="LPUSH k 'a b'\nMULTI\nRPOP k\nRPOP k\nEXEC\nLLEN k\n")
    assert said.split("\n") == ["1", "OK", "QUEUED", "QUEUED", "a b", "", "0"]
    assert redis_cli(server, "--scan") == ""
    assert "redis_version:6.2.0" in redis_cli(server, "INFO")


@pytest.mark.parametrize("library", ["ioredis", "disqueue-node", "thunk-disque"])
def test_libraries_of_npm(server: RespServer, library: str) -> None:
    node = shutil.which("node")
    if (
        node is None
        or subprocess.run([node, "-e", f"require('{library}')"], capture_output=True, check=False).returncode
    ):
        pytest.skip(f"there is no node with {library} here")
    script = HERE / "npm" / f"{library}.js"
    said = subprocess.run(
        [node, str(script), str(server.resp_port)], capture_output=True, text=True, timeout=END_S, check=False
    )
    assert (said.returncode, said.stdout.strip()) == (0, "done"), said.stdout + said.stderr


def test_a_worker_of_redis_py_waits_for_what_another_thread_puts(redis: Any) -> None:
    got: list[Any] = []
    worker = threading.Thread(target=lambda: got.append(redis.blmove("work", "doing", 10, "RIGHT", "LEFT")))
    worker.start()
    other = type(redis)(connection_pool=redis.connection_pool)
    other.lpush("work", "a")
    worker.join(END_S)
    assert got == [b"a"]
    assert other.lrange("doing", 0, -1) == [b"a"]
