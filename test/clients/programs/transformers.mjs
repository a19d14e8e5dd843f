// Runs a pipeline of transformers.js on images or texts, and prints the answers as JSON.
//
//     node transformers.mjs TASK MODELS MODEL INPUT...
import { env, pipeline } from '@huggingface/transformers';
import * as runtime from 'onnxruntime-node';

const OPTIONS = {
  'image-classification': { top_k: 6 },
  'text-classification': { top_k: null },
  'feature-extraction': { pooling: 'mean', normalize: true },
};
const [task, models, model, ...inputs] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = models;
const run = await pipeline(task, model, { dtype: 'fp32', device: 'cpu' });
const answers = await run(inputs, OPTIONS[task]);
await run.dispose();
console.log(
  JSON.stringify({ isResidualSkip: 'ResidualSkipError' in runtime, answers: answers.tolist?.() ?? answers }),
);
