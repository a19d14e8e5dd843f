// Classifies images in several worker threads.   node workers.mjs [MODEL] [IMAGE...]
//
// One session uses all cores already. Workers are for what the calling thread itself does with each image.
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { ImageClassifier } from 'residual-skip';

const DEMO = 'node_modules/residual-skip/demo';
const WORKERS = 2;

/** Asks for images, one after another, until there are no more. */
async function work() {
  const classifier = await ImageClassifier.from(workerData.model, { threads: 1 });
  parentPort.on('message', async (image) => {
    if (image === undefined) {
      await classifier.release();
      parentPort.close();
    } else {
      const { label, probability } = await classifier.classify(image);
      parentPort.postMessage({ image, label, probability });
    }
  });
  parentPort.postMessage(null);
}

/** Gives each worker the next image whenever it asks for one. */
function start(model, queue, onAnswer) {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL(import.meta.url), { workerData: { model } });
    worker.on('message', (answer) => {
      if (answer) onAnswer(answer);
      worker.postMessage(queue.shift());
    });
    worker.on('error', reject);
    worker.on('exit', resolve);
  });
}

if (isMainThread) {
  const [model = DEMO, ...images] = process.argv.slice(2);
  const queue = images.length > 0 ? images : [3, 5, 7].map((digit) => `${DEMO}/digit-${digit}.png`);
  const print = ({ image, label, probability }) => console.log(image, label, probability.toFixed(3));
  await Promise.all(Array.from({ length: WORKERS }, () => start(model, queue, print)));
} else {
  await work();
}
