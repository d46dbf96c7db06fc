// Jobs by thunk-disque. Prints "done" if all went as it should.
const assert = require('assert');
const disque = require('thunk-disque');

const client = disque.createClient(Number(process.argv[2]), '127.0.0.1', { usePromise: true });

(async () => {
  const job = await client.addjob('work', 'body', 0, 'RETRY', 1);
  for (let times = 0; times < 2; times += 1) {
    const [[queue, id, body]] = await client.getjob('FROM', 'work');
    assert.deepStrictEqual([queue, id, body], ['work', job, 'body']);
    if (!times) assert.strictEqual(await client.nack(job), 1);
  }
  const [[, again]] = await client.getjob('TIMEOUT', 5000, 'FROM', 'work'); // nobody has acknowledged it
  assert.strictEqual(again, job);
  assert.strictEqual(await client.ackjob(job), 1);
  console.log('done');
  process.exit(0);
})().catch((error) => { console.error(error); process.exit(1); });
