// Cases of cases.mjs about texts: a batch whose texts have different lengths, and lengths that the engine hasn't met before.
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Embedder, InferenceSession } from '../dist/index.js';
import { feedsOf, inRow, median } from './harness.mjs';

/** Texts of a batch, and tokens of the shortest and of the longest. */
const [TEXTS, SHORTEST, LONGEST] = [32, 5, 128];
/** Milliseconds beyond which a new length is listed. */
const LIMIT = 2;

const WORDS = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', ...Array.from({ length: 1000 }, (_, i) => `word${i}`)];
const special = (id) => ({ SpecialToken: { id, type_id: 0 } });
const TOKENIZER = {
  added_tokens: [],
  normalizer: null,
  decoder: null,
  pre_tokenizer: { type: 'WhitespaceSplit' },
  post_processor: {
    type: 'TemplateProcessing',
    single: [special('[CLS]'), { Sequence: { id: 'A', type_id: 0 } }, special('[SEP]')],
    pair: [],
    special_tokens: Object.fromEntries(
      ['[CLS]', '[SEP]'].map((id) => [id, { id, ids: [WORDS.indexOf(id)], tokens: [id] }]),
    ),
  },
  model: {
    type: 'WordLevel',
    unk_token: '[UNK]',
    vocab: Object.fromEntries(WORDS.map((word, id) => [word, id])),
  },
};

/** A folder with the model and a tokenizer of whole words. */
async function openEmbedder(model, threads) {
  const folder = mkdtempSync(join(tmpdir(), 'texts-'));
  try {
    copyFileSync(model, join(folder, 'model.onnx'));
    writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(TOKENIZER));
    return await Embedder.from(folder, { threads });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Largest difference between vectors and means of the other runtime's tokens, as a share of the largest element. */
function difference(vectors, { data, dims }, prepared) {
  const [, , width] = dims;
  const worst = vectors.map(({ vector }, i) => {
    const tokens = prepared[i].dims[1];
    const mean = Float64Array.from({ length: width }, (_, c) => {
      let sum = 0;
      for (let k = 0; k < tokens; k++) sum += data[(i * LONGEST + k) * width + c];
      return sum / tokens;
    });
    const largest = Math.max(...mean.map(Math.abs));
    return Math.max(...mean.map((value, c) => Math.abs(value - vector[c]))) / largest;
  });
  return Math.max(...worst);
}

/** Texts of 5 to 128 tokens: Embedder runs each at its own length, onnxruntime-node fills them up. Vectors are compared. */
export async function textBatch(model, { threads }, ort) {
  const embedder = await openEmbedder(model, threads);
  const session = await ort.InferenceSession.create(resolve(model), { intraOpNumThreads: threads });
  // Lengths spread evenly, in a shuffled order; two of each length go for the special tokens.
  const texts = Array.from({ length: TEXTS }, (_, i) => {
    const tokens = Math.round(SHORTEST + ((LONGEST - SHORTEST) * ((i * 13) % TEXTS)) / (TEXTS - 1));
    return Array.from({ length: tokens - 2 }, (_, k) => `word${(i * 31 + k * 7) % 1000}`).join(' ');
  });
  const prepared = texts.map((text) => embedder.prepare(text));
  const filled = (row) => {
    const data = new BigInt64Array(TEXTS * LONGEST);
    for (const [i, { data: rows, dims }] of prepared.entries()) {
      for (let k = 0; k < dims[1]; k++) data[i * LONGEST + k] = BigInt(rows[row * dims[1] + k]);
    }
    return new ort.Tensor('int64', data, [TEXTS, LONGEST]);
  };
  const feeds = { input_ids: filled(0), attention_mask: filled(1), token_type_ids: filled(2) };
  const variants = [
    { title: 'onnxruntime-node, filled up', runs: inRow(() => session.run(feeds)) },
    { title: 'Embedder, each at its own length', runs: inRow(() => embedder.embed(texts)) },
  ];
  const close = async () => {
    const { last_hidden_state: padded } = await session.run(feeds);
    const off = difference(await embedder.embed(texts), padded, prepared);
    await Promise.all([embedder, session].map((each) => each.release()));
    const tokens = prepared.reduce((sum, { dims }) => sum + dims[1], 0);
    return `${tokens} tokens, ${TEXTS * LONGEST} filled up; largest difference over largest element ${off.toExponential(1)}`;
  };
  return { variants, close };
}

/** CPU time of the first run of each length, in a shuffled order on one thread, minus that of the fastest of three more. */
export async function newLengths(model) {
  const session = await InferenceSession.create(model, { threads: 1 });
  const cpuOf = (feeds) => {
    const before = process.cpuUsage();
    session.runSync(feeds);
    const { user, system } = process.cpuUsage(before);
    return (user + system) / 1000;
  };
  const count = LONGEST - 4;
  const costs = Array.from({ length: count }, (_, i) => 5 + ((i * 37) % count)).map((length) => {
    const feeds = feedsOf(session, length);
    const first = cpuOf(feeds);
    return { length, ms: first - Math.min(cpuOf(feeds), cpuOf(feeds), cpuOf(feeds)) };
  });
  await session.release();
  const of = (list) => `${median(list.map(({ ms }) => ms)).toFixed(2)} ms`;
  const slow = costs.filter(({ ms }) => ms > LIMIT).map(({ length, ms }) => `${length} (${ms.toFixed(1)})`);
  return [
    `${count} lengths: median ${of(costs)}, of the second half ${of(costs.slice(count / 2))}`,
    `above ${LIMIT} ms: ${slow.join(', ') || 'none'}`,
  ];
}
