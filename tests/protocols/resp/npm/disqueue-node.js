// Jobs by disqueue-node. Prints "done" if all went as it should.
const assert = require('assert');
const Disqueue = require('disqueue-node');

const client = new Disqueue({ host: '127.0.0.1', port: Number(process.argv[2]) });

const asked = (method, options) => new Promise((resolve, reject) => {
  client[method](options, (error, found) => (error ? reject(error) : resolve(found)));
});

client.on('error', (error) => { console.error(error); process.exit(1); });
client.on('connected', async () => {
  try {
    const job = await asked('addJob', { queue: 'work', job: 'body', timeout: 0, retry: 1 });
    for (let times = 0; times < 2; times += 1) {
      const [got] = await asked('getJob', { queue: 'work', count: 1 });
      assert.strictEqual(got.body, 'body');
      assert.strictEqual(got.jobId || got.id, job);
      if (!times) assert.strictEqual(await asked('nack', job), 1);
    }
    const [again] = await asked('getJob', { queue: 'work', count: 1 }); // nobody has acknowledged it
    assert.strictEqual(again.body, 'body');
    assert.strictEqual(await asked('ackJob', job), 1);
    console.log('done');
    process.exit(0);
  } catch (error) { console.error(error); process.exit(1); }
});
