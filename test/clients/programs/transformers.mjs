// Runs a pipeline of transformers.js on images or texts, or a cross-encoder on a query and documents, and prints the answers as JSON.
//
//     node transformers.mjs TASK MODELS MODEL INPUT...
import { AutoModelForSequenceClassification, AutoTokenizer, env, pipeline } from '@huggingface/transformers';
import * as runtime from 'onnxruntime-node';

const OPTIONS = {
  'image-classification': { top_k: 6 },
  'text-classification': { top_k: null },
  'feature-extraction': { pooling: 'mean', normalize: true },
};
const [task, models, model, ...inputs] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = models;
const answers = await (task === 'reranking' ? scores(inputs) : answersOf(inputs));
console.log(
  JSON.stringify({ isResidualSkip: 'ResidualSkipError' in runtime, answers: answers.tolist?.() ?? answers }),
);

async function answersOf(all) {
  const run = await pipeline(task, model, { dtype: 'fp32', device: 'cpu' });
  const found = await run(all, OPTIONS[task]);
  await run.dispose();
  return found;
}

/** As the cards of cross-encoders say: all pairs in one batch, filled up to the longest. */
async function scores([query, ...documents]) {
  const tokenizer = await AutoTokenizer.from_pretrained(model);
  const network = await AutoModelForSequenceClassification.from_pretrained(model, {
    dtype: 'fp32',
    device: 'cpu',
  });
  const queries = documents.map(() => query);
  const { logits } = await network(
    tokenizer(queries, { text_pair: documents, padding: true, truncation: true }),
  );
  await network.dispose();
  return logits.tolist().map(([score]) => score);
}
