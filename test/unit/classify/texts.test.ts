import { labelOf } from 'lib/classify/images.js';
import { openTexts } from 'lib/classify/texts.js';
import { Embedder, type Pooling, TextClassifier } from 'lib/index.js';
import { softmax } from 'lib/numeric/softmax.js';
import { expectClose } from '../../helpers/compare.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { GraphBuilder, int64s, modelBytes, tensor } from '../../helpers/onnx-builder.js';
import { randomFloats } from '../../helpers/random.js';
import { tokenizerOf } from '../../helpers/text-network.js';

const WORDS = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', 'a', 'good', 'bad', 'film', '##s', '!'];
const [CLS, SEP, UNK] = [2, 3, 1];
const WIDTH = 4;
const CLASSES = 2;
const TABLE = randomFloats(WORDS.length * WIDTH, 1);
const LAYER = randomFloats(WIDTH * CLASSES, 2);

const TOKENIZER = tokenizerOf(WORDS);

/** The rows of TABLE for the tokens; for `classes`, their mean times LAYER. */
function model(kind: 'tokens' | 'classes', length: number | string = 'tokens'): Uint8Array {
  const graph = new GraphBuilder();
  const ids = graph.input('input_ids', ['batch', length], 'int64');
  const mask = graph.input('attention_mask', ['batch', length], 'int64');
  const rows = graph.node('Gather', [graph.constant(tensor(TABLE, [WORDS.length, WIDTH])), ids]);
  if (kind === 'tokens') return modelBytes(graph.output(rows, ['batch', length, WIDTH]));
  const marks = graph.node('Cast', [graph.node('Unsqueeze', [mask, graph.constant(int64s(2))])], { to: 1 });
  const axes = { axes: [1], keepdims: 0 };
  const sum = graph.node('ReduceMean', [graph.node('Mul', [rows, marks])], axes);
  const mean = graph.node('Div', [sum, graph.node('ReduceMean', [marks], axes)]);
  const layer = graph.constant(tensor(LAYER, [WIDTH, CLASSES]));
  return modelBytes(graph.output(graph.node('MatMul', [mean, layer]), ['batch', CLASSES]));
}

function folder(onnx: Uint8Array, more: Readonly<Record<string, unknown>> = {}): string {
  const files = Object.entries({ 'tokenizer.json': TOKENIZER, ...more });
  return folderOf({
    'model.onnx': onnx,
    ...Object.fromEntries(
      files.flatMap(([name, json]) => (json === undefined ? [] : [[name, JSON.stringify(json)]])),
    ),
  });
}

afterAll(removeFolders);

const rowsOf = (ids: readonly number[]) => ids.map((id) => [...TABLE.subarray(id * WIDTH, (id + 1) * WIDTH)]);
const meanOf = (ids: readonly number[]) =>
  rowsOf(ids).reduce((sum, row) => sum.map((x, c) => x + row[c]! / ids.length), Array<number>(WIDTH).fill(0));
const near = (actual: Float32Array, expected: readonly number[]) =>
  expectClose(actual, Float32Array.from(expected), { relative: 1e-5, absolute: 1e-6 });

/** Texts of several lengths, and their tokens. */
const TEXTS: readonly [string, readonly number[]][] = [
  ['A good film!', [CLS, 4, 5, 7, 9, SEP]],
  ['bad', [CLS, 6, SEP]],
  ['good films', [CLS, 5, 7, 8, SEP]],
  ['unheard', [CLS, UNK, SEP]],
  ['', [CLS, SEP]],
];
const options = { backend: 'reference' } as const;

describe('TextClassifier', () => {
  test.each(['tokens', 8])('answers like the network on each text alone; length: %s', async (length) => {
    const labels = { id2label: { 0: 'negative', 1: 'positive' } };
    await using classifier = await TextClassifier.from(
      folder(model('classes', length), { 'config.json': labels }),
      options,
    );
    const answers = await classifier.classify(
      TEXTS.map(([text]) => text),
      { trace: true },
    );
    for (const [i, [, ids]] of TEXTS.entries()) {
      const mean = meanOf(ids);
      const scores = Float32Array.from({ length: CLASSES }, (_, k) =>
        mean.reduce((sum, x, c) => sum + x * LAYER[c * CLASSES + k]!, 0),
      );
      const probabilities = softmax(scores);
      const best = probabilities[1]! > probabilities[0]! ? 1 : 0;
      expect(answers[i]).toMatchObject({
        index: best,
        label: ['negative', 'positive'][best],
        trace: { blocks: [] },
      });
      expect(answers[i]!.probability).toBeCloseTo(probabilities[best]!, 5);
      expect(answers[i]!.top.map(({ index }) => index)).toEqual([best, 1 - best]);
    }
    expect(await classifier.classify('bad')).toEqual({ ...answers[1], trace: null });
  });

  test('each class has a sigmoid of its own if texts may belong to several', async () => {
    const text = 'a good film';
    const logits = async (problem_type: string | undefined) => {
      const files = { 'config.json': { id2label: { 0: 'a', 1: 'b' }, problem_type } };
      await using classifier = await TextClassifier.from(folder(model('classes'), files), options);
      const { logits: scores } = await classifier.session.run(classifier.feeds(classifier.prepare(text)));
      const found =
        scores ?? Object.values(await classifier.session.run(classifier.feeds(classifier.prepare(text))))[0]!;
      const { top } = await classifier.classify(text);
      return { top, scores: found.data as Float32Array };
    };
    const { top, scores } = await logits('multi_label_classification');
    for (const { index, probability } of top) {
      expect(probability).toBeCloseTo(1 / (1 + Math.exp(-scores[index]!)), 6);
    }
    const { top: one } = await logits('single_label_classification');
    expect(one[0]!.probability + one[1]!.probability).toBeCloseTo(1, 6);
    expect(one.map(({ label }) => label)).toEqual(top.map(({ label }) => label));
  });

  // What tokenizers 0.21 keeps of a pair, from the tests of its truncation: lengths, room, lengths that are left.
  test.each([
    [0, 8, 7, 0, 7],
    [2, 4, 7, 2, 4],
    [2, 8, 7, 2, 5],
    [4, 4, 7, 3, 4],
    [4, 8, 7, 3, 4],
    [8, 0, 7, 7, 0],
    [8, 2, 7, 5, 2],
    [8, 4, 7, 4, 3],
    [8, 8, 7, 3, 4],
    [8, 8, 6, 3, 3],
  ])(
    "a pair that is too long is cut as by Hugging Face's tokenizers: %d and %d, of which %d fit",
    async (first, second, room, left, right) => {
      const words = (word: string, count: number) => Array<string>(count).fill(word).join(' ');
      const files = { 'tokenizer_config.json': { model_max_length: room + 3 } };
      await using classifier = await TextClassifier.from(folder(model('classes'), files), options);
      const [pair, text] = [words('bad', second), words('good', first)];
      const { data, dims } = classifier.prepare({ text, pair });
      const expected = [CLS, ...Array(left).fill(5), SEP, ...Array(right).fill(6), SEP];
      expect([...data.subarray(0, dims[1])]).toEqual(expected);
    },
  );

  test.each([
    ['tokenizer_config.json', { truncation_side: 'left' }],
    ['tokenizer.json', { ...TOKENIZER, truncation: { max_length: 5, direction: 'Left' } }],
  ])('keeps the end of a text that is too long if %s says so', async (name, json) => {
    const files = { 'config.json': { max_position_embeddings: 5 }, [name]: json };
    await using classifier = await TextClassifier.from(folder(model('classes'), files), options);
    const { data, dims } = classifier.prepare('a good bad film!');
    expect([...data.subarray(0, dims[1])]).toEqual([CLS, 6, 7, 9, SEP]);
  });

  test.each([
    ['no tokenizer', { 'tokenizer.json': undefined }, 'INVALID_DATA', /tokenizer\.json: it doesn't exist/],
    ['a tokenizer without a model', { 'tokenizer.json': {} }, 'INVALID_DATA', /tokenizer\.json.*model/],
    [
      'a model of an unknown type',
      { 'tokenizer.json': { model: { type: 'None', vocab: {} } } },
      'INVALID_DATA',
      /tokenizer\.json: it can't be used/,
    ],
    [
      'labels that are too many',
      { 'config.json': { id2label: { 0: 'a', 1: 'b', 2: 'c' } } },
      'INVALID_DATA',
      /3 labels/,
    ],
  ])('refuses %s', async (_, more, code, message) => {
    const path = folder(model('classes'), more);
    await expect(TextClassifier.from(path, options)).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
  });

  test('refuses a network of images, and texts that are none', async () => {
    const graph = new GraphBuilder();
    graph.output(graph.node('Relu', [graph.input('x', ['n', 3])]), ['n', 3]);
    const path = folder(modelBytes(graph));
    await expect(TextClassifier.from(path, options)).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: expect.stringMatching(/x: float32\[n, 3\]; texts need input_ids/),
    });
    await using classifier = await TextClassifier.from(folder(model('classes')), options);
    await expect(classifier.classify(5 as never)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(classifier.classify('bad', { top: 1 } as never)).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
  });
});

describe('Embedder', () => {
  const POOLED: Readonly<Record<Pooling, (ids: readonly number[]) => number[]>> = {
    cls: (ids) => rowsOf(ids)[0]!,
    lasttoken: (ids) => rowsOf(ids).at(-1)!,
    mean: meanOf,
    max: (ids) => rowsOf(ids).reduce((most, row) => most.map((x, c) => Math.max(x, row[c]!))),
    mean_sqrt_len_tokens: (ids) => meanOf(ids).map((x) => x * Math.sqrt(ids.length)),
    weightedmean: (ids) => meanOf(ids.flatMap((id, i) => Array<number>(i + 1).fill(id))),
  };

  test.each(Object.entries(POOLED) as [Pooling, (ids: readonly number[]) => number[]][])(
    'pools by %s, padding left out',
    async (pooling, expected) => {
      for (const length of ['tokens', 8]) {
        await using embedder = await Embedder.from(folder(model('tokens', length)), { ...options, pooling });
        const found = await embedder.embed(TEXTS.map(([text]) => text));
        for (const [i, [, ids]] of TEXTS.entries()) near(found[i]!.vector, expected(ids));
      }
    },
  );

  test.each([
    ['tokenizer_config.json', { padding_side: 'left' }],
    ['tokenizer.json', { ...TOKENIZER, padding: { pad_id: 0, direction: 'Left' } }],
  ])('fills texts up at the left if %s says so', async (name, json) => {
    for (const pooling of ['mean', 'lasttoken', 'weightedmean'] as const) {
      const path = folder(model('tokens', 8), { [name]: json });
      await using embedder = await Embedder.from(path, { ...options, pooling });
      for (const [text, ids] of TEXTS) {
        const prepared = embedder.prepare(text);
        const free = 8 - ids.length;
        expect([...prepared.data.subarray(0, 16)]).toEqual([
          ...[...Array<number>(free).fill(0), ...ids],
          ...[...Array<number>(free).fill(0), ...ids.map(() => 1)],
        ]);
        const expected = POOLED[pooling](ids);
        near((await embedder.embed(text)).vector, expected);
        near(embedder.vectorOf(await embedder.session.run(embedder.feeds(prepared)), prepared), expected);
      }
    }
    const [left, right] = await Promise.all(
      [{ [name]: json }, {}].map(async (files) => {
        await using embedder = await Embedder.from(folder(model('tokens', 8), files), options);
        return embedder.preparation();
      }),
    );
    expect(left).not.toBe(right);
  });

  test('refuses to pool without the tokens of a prompt', async () => {
    const files = (prompt: string) => ({
      '1_Pooling/config.json': { pooling_mode_mean_tokens: true, include_prompt: false },
      'config_sentence_transformers.json': { prompts: { query: prompt }, default_prompt_name: 'query' },
    });
    await expect(Embedder.from(folder(model('tokens'), files('a ')), options)).rejects.toMatchObject({
      code: 'INVALID_DATA',
      message: expect.stringMatching(/include_prompt is false, but the tokens of the prompt can't be left/),
    });
    // Without a prompt, nothing is left out.
    await using embedder = await Embedder.from(folder(model('tokens'), files('')), options);
    near((await embedder.embed('bad')).vector, meanOf([CLS, 6, SEP]));
  });

  test("follows sentence-transformers' files", async () => {
    const more = {
      '1_Pooling/config.json': {
        word_embedding_dimension: WIDTH,
        pooling_mode_cls_token: true,
        pooling_mode_mean_tokens: true,
      },
      'modules.json': [
        { idx: 2, name: '2', path: '2_Normalize', type: 'sentence_transformers.models.Normalize' },
      ],
      // In place of the tokenizer's own length.
      'sentence_bert_config.json': { max_seq_length: 4 },
      'tokenizer.json': { ...TOKENIZER, truncation: { max_length: 3 } },
    };
    await using embedder = await Embedder.from(folder(model('tokens'), more), options);
    expect([embedder.pooling, embedder.normalizes]).toEqual([['cls', 'mean'], true]);
    // Four tokens are left of six.
    const ids = [CLS, 4, 5, SEP];
    const raw = [...rowsOf(ids)[0]!, ...meanOf(ids)];
    near(
      (await embedder.embed('A good film!')).vector,
      raw.map((x) => x / Math.hypot(...raw)),
    );
  });

  test('begins texts as sentence-transformers does', async () => {
    const normalizer = { type: 'BertNormalizer', clean_text: true, lowercase: false };
    const named = { prompts: { query: 'a ' }, default_prompt_name: 'query' };
    const more = (prompts: unknown) => ({
      'tokenizer.json': { ...TOKENIZER, normalizer },
      'sentence_bert_config.json': { max_seq_length: 8, do_lower_case: true },
      'config_sentence_transformers.json': prompts,
    });
    const idsOf = async (files: Readonly<Record<string, unknown>>) => {
      await using embedder = await Embedder.from(folder(model('tokens'), files), options);
      const { data, dims } = embedder.prepare('GOOD film');
      return [[...data.subarray(0, dims[1])], await embedder.preparation()] as const;
    };
    const [ids, id] = await idsOf(more({ prompts: { query: 'a ' }, default_prompt_name: null }));
    expect(ids).toEqual([CLS, 5, 7, SEP]);
    const [prompted, promptedId] = await idsOf(more(named));
    expect(prompted).toEqual([CLS, 4, 5, 7, SEP]);
    const [plain, plainId] = await idsOf({ 'tokenizer.json': { ...TOKENIZER, normalizer } });
    expect(plain).toEqual([CLS, UNK, 7, SEP]);
    expect(new Set([id, promptedId, plainId]).size).toBe(3);
    const unknown = { ...named, default_prompt_name: 'passage' };
    await expect(idsOf(more(unknown))).rejects.toMatchObject({
      code: 'INVALID_DATA',
      message: expect.stringMatching(/default_prompt_name is "passage", which is none of the prompts/),
    });
  });

  test('refuses a module that is not in the network', async () => {
    const type = 'sentence_transformers.models.Dense';
    const modules = (...types: string[]) => ({ 'modules.json': types.map((one) => ({ type: one })) });
    await expect(Embedder.from(folder(model('tokens'), modules(type)), options)).rejects.toMatchObject({
      code: 'INVALID_DATA',
      message: expect.stringMatching(/modules\.json: it has the module sentence_transformers\.models\.Dense/),
    });
    // A network that gives the vectors of texts has all modules.
    const whole = folder(model('classes'), modules(type, 'sentence_transformers.models.Normalize'));
    await using embedder = await Embedder.from(whole, options);
    expect(embedder.normalizes).toBe(true);
  });

  test('takes the mean without such files', async () => {
    await using embedder = await Embedder.from(folder(model('tokens')), options);
    expect([embedder.pooling, embedder.normalizes]).toEqual([['mean'], false]);
    near((await embedder.embed('bad')).vector, meanOf([CLS, 6, SEP]));
  });

  test('refuses a pooling that nobody knows', async () => {
    const path = folder(model('tokens'), { '1_Pooling/config.json': { pooling_mode_cls_token: false } });
    await expect(Embedder.from(path, options)).rejects.toMatchObject({
      code: 'INVALID_DATA',
      message: expect.stringMatching(/no pooling that is known/),
    });
    await expect(Embedder.from(path, { ...options, pooling: 'none' as never })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
  });
});

describe('labels', () => {
  test('a number is an index, also where a label is a number', async () => {
    const labels = ['1', '2', '3'];
    const reader = { labels, prepare: () => undefined };
    const file = `${folderOf({ 'a.jsonl': '{"text":"x","label":1}\n{"text":"x","label":"1"}\n' })}/a.jsonl`;
    const { list } = await openTexts(file, reader as never, {}, 'data');
    expect((list as readonly { label: number }[]).map(({ label }) => label)).toEqual([1, 0]);
  });

  test('one that several classes have is refused', () => {
    expect(labelOf('hen', 'a', ['crane', 'hen', 'crane'])).toBe(1);
    expect(labelOf(2, 'a', ['crane', 'hen', 'crane'])).toBe(2);
    expect(() => labelOf('crane', 'a', ['crane', 'hen', 'crane'])).toThrow(
      /^a: several classes of the model have the label "crane"; give the index of one$/,
    );
  });
});
