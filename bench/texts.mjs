// A batch of 32 texts of 5 to 128 tokens: Embedder, which runs each at its own length, against onnxruntime-node, which fills them up.
//   python3 bench/export_models.py minilm_l6 && node bench/texts.mjs [MODEL] [THREADS]
// The two take turns. CPU time of the process, in which the calling thread's waiting for the end of a run counts, and time that passes, for a quiet
// machine; vectors are pooled from both and compared.
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Embedder } from '../dist/index.mjs';
import { median } from './sessions.mjs';

const [model = 'bench/models/minilm_l6.onnx', threads = '1'] = process.argv.slice(2);
const ort = createRequire(process.env.RESIDUAL_SKIP_ONNXRUNTIME ?? import.meta.url)('onnxruntime-node');
const [TEXTS, LEAST, MOST, ROUNDS] = [32, 5, 128, 8];

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

const folder = mkdtempSync(join(tmpdir(), 'texts-'));
copyFileSync(model, join(folder, 'model.onnx'));
writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(TOKENIZER));
const embedder = await Embedder.from(folder, { threads: Number(threads) });
const session = await ort.InferenceSession.create(resolve(model), { intraOpNumThreads: Number(threads) });
rmSync(folder, { recursive: true });

// Lengths spread evenly, in a shuffled order; two of each length go for the special tokens.
const texts = Array.from({ length: TEXTS }, (_, i) => {
  const tokens = Math.round(LEAST + ((MOST - LEAST) * ((i * 13) % TEXTS)) / (TEXTS - 1));
  return Array.from({ length: tokens - 2 }, (_, k) => `word${(i * 31 + k * 7) % 1000}`).join(' ');
});
const prepared = texts.map((text) => embedder.prepare(text));
const filled = (row) => {
  const data = new BigInt64Array(TEXTS * MOST);
  for (const [i, { data: rows, dims }] of prepared.entries()) {
    for (let k = 0; k < dims[1]; k++) data[i * MOST + k] = BigInt(rows[row * dims[1] + k]);
  }
  return new ort.Tensor('int64', data, [TEXTS, MOST]);
};
const feeds = { input_ids: filled(0), attention_mask: filled(1), token_type_ids: filled(2) };

async function measure(action) {
  const [before, start] = [process.cpuUsage(), performance.now()];
  const answer = await action();
  const passed = performance.now() - start;
  const { user, system } = process.cpuUsage(before);
  return { 'CPU time': (user + system) / 1000, 'time passed': passed, answer };
}

const KINDS = ['CPU time', 'time passed'];
const rounds = [];
let [vectors, padded] = [];
for (let round = 0; round <= ROUNDS; round++) {
  const own = await measure(() => embedder.embed(texts));
  const other = await measure(() => session.run(feeds));
  [vectors, padded] = [own.answer, other.answer.last_hidden_state];
  if (round > 0) rounds.push({ own, other });
}

const width = padded.dims[2];
const worst = vectors.map(({ vector }, i) => {
  const tokens = prepared[i].dims[1];
  const mean = Float64Array.from({ length: width }, (_, c) => {
    let sum = 0;
    for (let k = 0; k < tokens; k++) sum += padded.data[(i * MOST + k) * width + c];
    return sum / tokens;
  });
  const largest = Math.max(...mean.map(Math.abs));
  return Math.max(...mean.map((value, c) => Math.abs(value - vector[c]))) / largest;
});
const tokens = prepared.reduce((sum, { dims }) => sum + dims[1], 0);
console.log(`${TEXTS} texts, ${tokens} tokens, ${TEXTS * MOST} filled up; ${threads} threads`);
for (const kind of KINDS) {
  const [own, other] = ['own', 'other'].map((which) => rounds.map((round) => round[which][kind]));
  const of = (list) => `median ${median(list).toFixed(0)}, least ${Math.min(...list).toFixed(0)} ms`;
  console.log(
    `${kind}: Embedder ${of(own)}; onnxruntime-node ${of(other)}; ratio of the medians ${(median(other) / median(own)).toFixed(2)}, ` +
      `of the least ${(Math.min(...other) / Math.min(...own)).toFixed(2)}`,
  );
}
console.log(`largest difference over largest element: ${Math.max(...worst).toExponential(1)}`);
await embedder.release();
