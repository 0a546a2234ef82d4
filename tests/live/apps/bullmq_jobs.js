// BullMQ: jobs, a flow of parents and children, delays, retries, priorities, events. Its scripts build keys from a
// prefix among their arguments, so that it asks for a hash tag in its own option `prefix` on any cluster.
const assert = require("assert");
const { FlowProducer, Queue, QueueEvents, Worker } = require("bullmq");

const options = { connection: { host: "127.0.0.1", port: Number(process.argv[2]) }, prefix: "{bull}" };

(async () => {
  const queue = new Queue("sums", options);
  const events = new QueueEvents("sums", options);
  await events.waitUntilReady();
  const worker = new Worker("sums", async (job) => {
    if (job.name === "again" && job.attemptsMade < 2) throw new Error("on purpose");
    return job.data.left + job.data.right;
  }, { ...options, concurrency: 4 });
  const jobs = await queue.addBulk([...Array(40).keys()].map((left) => ({ name: "add", data: { left, right: 1 } })));
  for (const [at, job] of jobs.entries()) assert.equal(await job.waitUntilFinished(events, 30000), at + 1);
  const late = await queue.add("add", { left: 1, right: 1 }, { delay: 100, priority: 3 });
  assert.equal(await late.waitUntilFinished(events, 30000), 2);
  const again = await queue.add("again", { left: 2, right: 2 }, { attempts: 3, backoff: 10 });
  assert.equal(await again.waitUntilFinished(events, 30000), 4);
  const flow = new FlowProducer(options);
  const tree = await flow.add({
    name: "add", queueName: "sums", data: { left: 3, right: 3 },
    children: [1, 2].map((left) => ({ name: "add", queueName: "sums", data: { left, right: 0 } })),
  });
  assert.equal(await tree.job.waitUntilFinished(events, 30000), 6);
  assert.deepEqual(Object.values(await tree.job.getChildrenValues()).sort(), [1, 2]);
  assert.equal((await queue.getJobCounts("completed")).completed, 45);
  await worker.close();
  await queue.obliterate({ force: true });
  await Promise.all([flow.close(), events.close(), queue.close()]);
})().catch((error) => { console.error(error); process.exit(1); });
