// Many workers make sessions and run them; every other one is terminated in mid-run.
import { isMainThread, parentPort, Worker } from 'node:worker_threads';
import { InferenceSession, Tensor } from 'residual-skip';
import { MODEL } from './report.cjs';

const WORKERS = 8;

async function work() {
  const session = await InferenceSession.create(MODEL, { threads: 2 });
  const input = new Tensor('float32', new Float32Array(64 * 28 * 28), [64, 1, 28, 28]);
  const runs = [session.run({ input }), session.run({ input })];
  parentPort.postMessage('running');
  for (const { logits } of await Promise.all(runs)) parentPort.postMessage(logits.dims.join('x'));
  await session.release();
}

function start(index) {
  return new Promise((resolve, reject) => {
    const messages = [];
    const worker = new Worker(new URL(import.meta.url));
    worker.on('message', (message) => {
      messages.push(message);
      if (index % 2 === 1) worker.terminate();
    });
    worker.on('error', reject);
    worker.on('exit', () => resolve(messages));
  });
}

if (isMainThread) {
  const results = await Promise.all(Array.from({ length: WORKERS }, (_, index) => start(index)));
  console.log(JSON.stringify(results.filter((_, index) => index % 2 === 0)));
} else {
  await work();
}
