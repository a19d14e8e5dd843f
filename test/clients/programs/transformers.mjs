// Classifies images with the pipeline of transformers.js, and prints the answers as JSON.
//
//     node transformers.mjs MODELS MODEL IMAGE...
import { env, pipeline } from '@huggingface/transformers';
import * as runtime from 'onnxruntime-node';

const [models, model, ...images] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = models;
const classify = await pipeline('image-classification', model, { dtype: 'fp32', device: 'cpu' });
const answers = await classify(images, { top_k: 6 });
await classify.dispose();
console.log(JSON.stringify({ isResidualSkip: 'ResidualSkipError' in runtime, answers }));
