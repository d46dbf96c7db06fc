// Lists and jobs by ioredis. Prints "done" if all went as it should.
const assert = require('assert');
const Redis = require('ioredis');

const redis = new Redis(Number(process.argv[2]), '127.0.0.1');

(async () => {
  assert.strictEqual(await redis.lpush('work', 'a', 'b'), 2);
  assert.deepStrictEqual(await redis.brpop('work', 1), ['work', 'a']);
  assert.strictEqual(await redis.lmove('work', 'doing', 'RIGHT', 'LEFT'), 'b');
  assert.strictEqual(await redis.rpush('work', 'b'), 1); // it was not done
  assert.strictEqual(await redis.lrem('doing', 1, 'b'), 1);
  assert.strictEqual(await redis.rpop('work'), 'b');
  assert.strictEqual(await redis.rpop('work'), null);

  const job = await redis.call('ADDJOB', 'jobs', 'body', 0, 'RETRY', 1);
  assert.deepStrictEqual(await redis.call('GETJOB', 'FROM', 'jobs'), [['jobs', job, 'body']]);
  assert.strictEqual(await redis.call('NACK', job), 1);
  assert.deepStrictEqual(await redis.call('GETJOB', 'FROM', 'jobs'), [['jobs', job, 'body']]);
  assert.deepStrictEqual(await redis.call('GETJOB', 'TIMEOUT', 5000, 'FROM', 'jobs'), [['jobs', job, 'body']]);
  assert.strictEqual(await redis.call('ACKJOB', job), 1);

  assert.deepStrictEqual(await redis.multi().lpush('k', 'x').rpop('k').exec(), [[null, 1], [null, 'x']]);
  await redis.quit();
  console.log('done');
})().catch((error) => { console.error(error); process.exit(1); });
