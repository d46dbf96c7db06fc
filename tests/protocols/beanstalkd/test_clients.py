"""Real client libraries of beanstalkd, as their users use them: each puts, takes, fails, retries, buries, kicks and
acknowledges.

greenstalk and pystalk are Python's. Node's fivebeans and jackd, Ruby's beaneater and PHP's pheanstalk are tried where
they are installed: NODE_PATH says where Node's are, and the others come with Debian's ruby-beaneater and
php-pda-pheanstalk.
"""

import shutil
import subprocess
from collections.abc import Callable

import pytest

from tests.support.beanstalkd import TubeServer

Serve = Callable[..., TubeServer]

PATIENCE_S = 60

FIVEBEANS = """
const { client: Client } = require('fivebeans');
const client = new Client('127.0.0.1', PORT);
const call = (verb, ...words) => new Promise((done, fail) =>
  client[verb](...words, (error, ...values) => error ? fail(error) : done(values)));
client.on('connect', async () => {
  await call('use', 'work'); await call('watch', 'work'); await call('ignore', 'default');
  await call('put', 100, 0, 60, 'first'); await call('put', 50, 0, 60, 'urgent');
  let [id, body] = await call('reserve'); console.log(String(body));
  await call('release', id, 200, 0);
  [id, body] = await call('reserve_with_timeout', 1); console.log(String(body));
  await call('destroy', id);
  [id, body] = await call('reserve'); await call('touch', id); await call('bury', id, 10);
  console.log((await call('stats_job', id))[0].state);
  console.log(String(await call('kick', 10)));
  [id, body] = await call('reserve'); console.log(String(body));
  await call('destroy', id);
  console.log((await call('stats_tube', 'work'))[0]['current-jobs-ready']);
  client.end(); process.exit(0);
});
client.on('error', error => { console.log(error); process.exit(1); });
client.connect();
"""

JACKD = """
const module_ = require('jackd'); const Jackd = module_.default || module_;
(async () => {
  const client = new Jackd();
  await client.connect({ host: '127.0.0.1', port: PORT });
  await client.use('work'); await client.watch('work'); await client.ignore('default');
  await client.put('first', { priority: 100 }); await client.put('urgent', { priority: 50 });
  const text = job => String(job.payload);
  let job = await client.reserve(); console.log(text(job));
  await client.release(job.id, { priority: 200, delay: 0 });
  job = await client.reserveWithTimeout(1); console.log(text(job));
  await client.delete(job.id);
  job = await client.reserve(); await client.touch(job.id); await client.bury(job.id);
  console.log('buried');
  await client.kick(10); console.log(1);
  job = await client.reserve(); console.log(text(job));
  await client.delete(job.id);
  console.log(0);
  await client.disconnect(); process.exit(0);
})().catch(error => { console.log(error); process.exit(1); });
"""

BEANEATER = """
require 'beaneater'
client = Beaneater.new('127.0.0.1:PORT')
tube = client.tubes['work']
client.tubes.watch!('work')
tube.put('first', pri: 100)
tube.put('urgent', pri: 50)
job = client.tubes.reserve
puts job.body
job.release(pri: 200)
job = client.tubes.reserve(1)
puts job.body
job.delete
job = client.tubes.reserve
job.touch
job.bury
puts job.stats.state
tube.kick(10)
puts 1
job = client.tubes.reserve
puts job.body
job.delete
puts tube.stats.current_jobs_ready
client.close
"""

PHEANSTALK = """
require_once 'Pheanstalk/autoload.php';
$client = Pheanstalk\\Pheanstalk::create('127.0.0.1', PORT);
$client->useTube('work')->watch('work')->ignore('default');
$client->put('first', 100, 0, 60);
$client->put('urgent', 50, 0, 60);
$job = $client->reserve();
echo $job->getData(), "\\n";
$client->release($job, 200, 0);
$job = $client->reserveWithTimeout(1);
echo $job->getData(), "\\n";
$client->delete($job);
$job = $client->reserve();
$client->touch($job);
$client->bury($job, 10);
echo $client->statsJob($job)['state'], "\\n";
echo $client->kick(10), "\\n";
$job = $client->reserve();
echo $job->getData(), "\\n";
$client->delete($job);
echo $client->statsTube('work')['current-jobs-ready'], "\\n";
"""

SAID = ["urgent", "first", "buried", "1", "urgent", "0"]


@pytest.fixture
def server(ours: Serve) -> TubeServer:
    return ours()


def test_greenstalk(server: TubeServer) -> None:
    greenstalk = pytest.importorskip("greenstalk")
    with greenstalk.Client(("127.0.0.1", server.tube_port), use="work", watch=["work"]) as client:
        client.put("first", priority=100)
        client.put("urgent", priority=50)
        job = client.reserve()
        assert job.body == "urgent"
        client.release(job, priority=200)
        job = client.reserve(timeout=1)
        assert job.body == "first"
        client.delete(job)
        with pytest.raises(greenstalk.NotFoundError):
            client.delete(job)
        job = client.reserve()
        client.touch(job)
        client.bury(job, priority=10)
        assert client.peek_buried().id == job.id
        assert client.stats_job(job)["state"] == "buried"
        assert client.kick(10) == 1
        client.delete(client.reserve_job(job.id))
        with pytest.raises(greenstalk.TimedOutError):
            client.reserve(timeout=0)
        client.put("soon", ttr=1)
        client.reserve()
        with pytest.raises(greenstalk.DeadlineSoonError):
            client.reserve()
        client.put(b"later", delay=1000)
        assert client.peek_delayed().body == "later"
        client.pause_tube("work", 1)
        assert client.tubes() == ["default", "work"]
        assert (client.using(), client.watching()) == ("work", ["work"])
        assert client.stats()["current-jobs-delayed"] == client.stats_tube("work")["current-jobs-delayed"] == 1
        with pytest.raises(greenstalk.JobTooBigError):
            client.put("x" * 70_000)


def test_pystalk(server: TubeServer) -> None:
    pystalk = pytest.importorskip("pystalk")
    client = pystalk.BeanstalkClient("127.0.0.1", server.tube_port, auto_decode=True)
    client.use("work")
    client.watch("work")
    client.put_job("first", pri=100)
    client.put_job("urgent", pri=50)
    job = client.reserve_job()
    assert job.job_data == "urgent"
    client.release_job(job.job_id, pri=200)
    assert [one.job_data for one in client.reserve_iter()] == ["first", "urgent"]
    client.bury_job(job.job_id, pri=10)
    assert client.stats_job(job.job_id)["state"] == "buried"
    assert client.peek_buried().job_data == "urgent"
    client.kick_jobs(10)
    assert client.reserve_job().job_data == "urgent"
    client.delete_job(job.job_id)
    with pytest.raises(pystalk.BeanstalkError) as refused:
        client.reserve_job(timeout=0)
    assert refused.value.message == "TIMED_OUT"
    client.put_job_into("elsewhere", "there")
    assert "elsewhere" in client.list_tubes()
    client.pause_tube("work", 1000)
    client.unpause_tube("work")
    assert client.stats_tube("work")["current-jobs-reserved"] == 1
    client.close()


def run_script(command: list[str], probe: str, script: str, server: TubeServer) -> list[str]:
    """What the script prints. It is skipped if the `probe`, which loads the library, fails."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    probed = subprocess.run([*command, probe], capture_output=True, timeout=PATIENCE_S, check=False)
    if probed.returncode:
        pytest.skip(f"no library: {probe}")
    ended = subprocess.run(
        [*command, script.replace("PORT", str(server.tube_port))],
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout.split()


@pytest.mark.parametrize(
    ("command", "probe", "script"),
    [
        pytest.param(["node", "-e"], "require('fivebeans')", FIVEBEANS, id="fivebeans"),
        pytest.param(["node", "-e"], "require('jackd')", JACKD, id="jackd"),
        pytest.param(["ruby", "-e"], "require 'beaneater'", BEANEATER, id="beaneater"),
        pytest.param(["php", "-r"], "require_once 'Pheanstalk/autoload.php';", PHEANSTALK, id="pheanstalk"),
    ],
)
def test_clients_of_other_languages(server: TubeServer, command: list[str], probe: str, script: str) -> None:
    assert run_script(command, probe, script, server) == SAID
