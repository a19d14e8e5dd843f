/** A file beside a model that says something else than when its policy was certified is named. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { calibrate } from 'lib/calibrate/calibrate.js';
import type { CalibrateOptions } from 'lib/calibrate/options.js';
import { Embedder, Reranker, TextClassifier } from 'lib/index.js';
import { evaluate } from 'lib/measure/evaluate.js';
import type { SkipPolicy } from 'lib/skip/policy.js';
import { Tensor } from 'lib/tensor/tensor.js';
import '../../helpers/few-timed.js';
import { cli } from '../../helpers/cli.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { GraphBuilder, modelBytes, tensor } from '../../helpers/onnx-builder.js';
import { randomFloats } from '../../helpers/random.js';
import { randomTexts, textNetwork } from '../../helpers/text-network.js';

const TEXTS = [...new Set(randomTexts(420, 3))];
const QUICK = { penalties: 4, threads: 1, maxDisagreement: 0.3 } satisfies CalibrateOptions;

beforeAll(() => {
  process.env.XDG_STATE_HOME = folderOf({});
});
afterAll(() => {
  delete process.env.XDG_STATE_HOME;
  removeFolders();
});

/** What tests change of the files. */
interface File {
  readonly normalizer: object;
  readonly model: { readonly vocab: Readonly<Record<string, number>> };
}

/** Rewrites a JSON file beside a model; returns what restores it. */
function edit(model: string, name: string, change: (json: File) => unknown, indent?: number): () => void {
  const file = join(model, name);
  const before = readFileSync(file, 'utf8');
  writeFileSync(file, JSON.stringify(change(JSON.parse(before)), null, indent));
  return () => writeFileSync(file, before);
}

/** The notes of a class that opens a model with a policy. */
async function notesOf(
  kind: { from: typeof TextClassifier.from | typeof Embedder.from | typeof Reranker.from },
  model: string,
  policy: SkipPolicy,
): Promise<string[]> {
  const notes: string[] = [];
  await using _ = await kind.from(model, { policy, onNote: (note) => void notes.push(note) });
  return notes;
}

const OTHER_TOKENS = expect.stringMatching(
  /^policy: the texts that certified it were prepared otherwise \(tokenizer\.json.*calibrate again$/,
);

describe('a classifier of texts', () => {
  let model: string;
  let policy: SkipPolicy;

  beforeAll(async () => {
    model = textNetwork('classes');
    ({ policy } = await calibrate(model, TEXTS, QUICK));
  });

  const edits: [string, string, (json: File) => unknown][] = [
    [
      'another word',
      'tokenizer.json',
      (json) => {
        const { word1, word2, ...vocab } = json.model.vocab;
        return { ...json, model: { ...json.model, vocab: { ...vocab, word1: word2, word2: word1 } } };
      },
    ],
    [
      'case that counts',
      'tokenizer.json',
      (json) => ({ ...json, normalizer: { ...json.normalizer, lowercase: false } }),
    ],
    ['fewer tokens', 'config.json', (json) => ({ ...json, max_position_embeddings: 8 })],
  ];
  test.each(edits)('names %s', async (_, file, change) => {
    expect(policy.preprocessing).toMatch(/^[0-9a-f]{16}$/);
    expect(await notesOf(TextClassifier, model, policy)).toEqual([]);
    const restore = edit(model, file, change);
    try {
      expect(await notesOf(TextClassifier, model, policy)).toEqual([OTHER_TOKENS]);
      const { preprocessing: __, ...old } = policy;
      expect(await notesOf(TextClassifier, model, old)).toEqual([]);
      const notes: string[] = [];
      const onNote = (note: string) => void notes.push(note);
      await evaluate(model, TEXTS.slice(0, 4), { policy, labelsFrom: 'none', onNote });
      expect(notes).toEqual([OTHER_TOKENS]);
    } finally {
      restore();
    }
  });

  test('keeps quiet about another layout of the file', async () => {
    const restore = edit(model, 'tokenizer.json', (json) => ({ ...json, decoder: null }), 2);
    expect(await notesOf(TextClassifier, model, policy)).toEqual([]);
    restore();
  });

  test('names labels in another order', async () => {
    const restore = edit(model, 'config.json', () => ({ id2label: { 0: 'bad', 1: 'good', 2: 'fair' } }));
    expect(await notesOf(TextClassifier, model, policy)).toEqual([
      expect.stringMatching(
        /^policy: it calls class 1 'fair', but the model's labels call it 'good';.*config\.json/,
      ),
    ]);
    restore();
    const { labels: _, ...unnamed } = policy;
    expect(await notesOf(TextClassifier, model, unnamed)).toEqual([]);
  });

  test('warns the process where nobody listens, and on the command line', async () => {
    const restore = edit(model, 'tokenizer.json', (json) => ({ ...json, normalizer: null }));
    const warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => {});
    await using _ = await TextClassifier.from(model, { policy });
    expect(warned.mock.calls).toEqual([[OTHER_TOKENS, { code: 'RESIDUAL_SKIP_NOTE' }]]);
    warned.mockRestore();
    writeFileSync(join(model, 'policy.json'), JSON.stringify(policy));
    const { err } = await cli('run', model, 'word1 word2');
    expect(err).toMatch(/^note: policy: the texts that certified it were prepared otherwise/m);
    restore();
  });
});

test('an embedder names another pooling', async () => {
  const model = textNetwork('tokens');
  const { policy } = await calibrate(model, TEXTS, { ...QUICK, metric: 'cosine' });
  expect(await notesOf(Embedder, model, policy)).toEqual([]);
  const notes: string[] = [];
  const onNote = (note: string) => void notes.push(note);
  await using _ = await Embedder.from(model, { policy, pooling: 'cls', onNote });
  expect(notes).toEqual([OTHER_TOKENS]);
});

test('a reranker runs the policy of its pairs without a note, and names another tokenizer', async () => {
  const model = textNetwork('score');
  const pairs = TEXTS.map((text, i) => ({ text, pair: TEXTS[(i + 1) % TEXTS.length]! }));
  const { policy } = await calibrate(model, pairs, { ...QUICK, metric: 'relative' });
  expect(await notesOf(Reranker, model, policy)).toEqual([]);
  edit(model, 'tokenizer.json', (json) => ({ ...json, normalizer: null }));
  expect(await notesOf(Reranker, model, policy)).toEqual([OTHER_TOKENS]);
});

test('sounds that are normalised otherwise are named', async () => {
  const graph = new GraphBuilder();
  let stream = graph.input('samples', ['batch', 16]);
  for (const seed of [1, 2]) {
    const weights = graph.constant(
      tensor(
        randomFloats(16 * 16, seed).map((x) => x * 0.1),
        [16, 16],
      ),
    );
    stream = graph.node('Add', [stream, graph.node('Relu', [graph.node('MatMul', [stream, weights])])]);
  }
  const model = folderOf({
    'model.onnx': modelBytes(graph.output(stream, ['batch', 16])),
    'preprocessor_config.json': JSON.stringify({ sampling_rate: 8000 }),
  });
  const items = Array.from({ length: 400 }, (_, i) => ({
    samples: new Tensor('float32', randomFloats(16, i + 10), [1, 16]),
  }));
  const { policy } = await calibrate(model, items, { ...QUICK, metric: 'relative' });
  const noted = async () => {
    const notes: string[] = [];
    await evaluate(model, items.slice(0, 4), { policy, onNote: (note) => void notes.push(note) });
    return notes;
  };
  expect(await noted()).toEqual([]);
  edit(model, 'preprocessor_config.json', (json) => ({ ...json, do_normalize: true }));
  expect(await noted()).toEqual([
    expect.stringMatching(/^policy: the sounds that certified it were prepared otherwise/),
  ]);
});
