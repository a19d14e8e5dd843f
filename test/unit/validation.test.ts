/** What is wrong with options and files is said in this project's words, not in those of the schemas. */
import { join } from 'node:path';
import { decodeLine } from 'lib/audit/record.js';
import { readAssignments } from 'lib/data/assignments.js';
import { preprocessorConfigSchema } from 'lib/data/preprocessor-config.js';
import {
  auditLog,
  calibrate,
  Embedder,
  evaluate,
  ImageClassifier,
  InferenceSession,
  inspect,
  quantize,
  renderAudit,
  watch,
} from 'lib/index.js';
import { parsePolicy } from 'lib/skip/policy.js';
import { parseStrict } from 'lib/util/validation.js';
import { z } from 'zod';
import { cli } from '../helpers/cli.js';
import { folderOf, removeFolders } from '../helpers/files.js';
import { foreign } from '../helpers/foreign-network.js';

afterAll(removeFolders);
const MODEL = join(folderOf({ 'net.onnx': foreign() }), 'net.onnx');

async function saysOf(action: () => unknown): Promise<string> {
  try {
    await action();
  } catch (error) {
    expect(error).toMatchObject({ name: 'ResidualSkipError' });
    return (error as Error).message;
  }
  throw new Error('nothing was refused');
}

const configured = (config: object) => () =>
  parseStrict(preprocessorConfigSchema(), config, { code: 'INVALID_DATA', subject: 'p.json' });
const beside = (config: object) => () =>
  ImageClassifier.from(folderOf({ 'model.onnx': foreign(), 'config.json': JSON.stringify(config) }));
const calibrated = (options: object) => () => calibrate(MODEL, [], options);

const CASES: readonly [() => unknown, string][] = [
  [configured({ size: 'a' }), "p.json.size: expected a number or an object, received 'a'"],
  [configured({ size: { height: 'a', width: 3 } }), "p.json.size.height: expected a number, received 'a'"],
  [configured({ size: { height: 3 } }), 'p.json.size.width: expected a number, received nothing'],
  [configured({ size: 0 }), 'p.json.size: expected a number above 0, received 0'],
  [configured({ crop_pct: 2 }), 'p.json.crop_pct: expected a number of at most 1, received 2'],
  [configured({ rescale_offset: true }), 'p.json.rescale_offset: expected false, received true'],
  [configured({ do_resize: 'yes' }), "p.json.do_resize: expected true or false, received 'yes'"],
  [configured({ resample: 1.5 }), 'p.json.resample: expected a whole number, received 1.5'],
  [
    configured({ image_mean: [] }),
    'p.json.image_mean: expected an array of at least 1 element, received an empty array',
  ],
  [configured({ image_std: ['x'] }), "p.json.image_std.0: expected a number, received 'x'"],
  [configured([]), 'p.json: expected an object, received an empty array'],
  [() => parsePolicy({ version: 2 }), 'policy.version: expected 1, received 2'],
  [() => parsePolicy({ blocks: 7 }), 'policy.blocks: expected an object, received 7'],
  [
    () => parsePolicy({ guards: [{ labels: [true], action: 'ask', margin: -1 }] }),
    "policy.guards.0.labels.0: expected a string or a number, received true; policy.guards.0.action: expected 'verify', " +
      "received 'ask'; policy.guards.0.margin: expected a number of at least 0, received -1",
  ],
  [calibrated({ limits: 3 }), 'options.limits: expected an array, received 3'],
  [calibrated({ state: '' }), "options.state: expected a string that isn't empty, received ''"],
  [
    calibrated({ task: 'dogs' }),
    "options.task: expected one of 'single-label', 'multi-label', 'regression', 'ordinal', 'embedding', 'segmentation', 'detection', " +
      "'sequence', 'ranking', 'custom', received 'dogs'",
  ],
  [
    calibrated({ metric: 'speed' }),
    'options.metric: expected one of disagreement, accuracy, probability, ordinal, cosine, recall@k, relative, relative@tolerance, ' +
      "absolute@tolerance, excess@tolerance, labels, missed, added, pixels, miou, boxes, tokens, ctc, ranking, custom, received 'speed'",
  ],
  [() => evaluate(MODEL, [], { energy: 3 as never }), 'options.energy: expected true or false, received 3'],
  [() => watch({ confidence: 3 }), 'watch options.confidence: expected a number below 1, received 3'],
  [() => watch({ window: 3 }), 'watch options.window: expected a number of at least 50, received 3'],
  [() => auditLog(null as never), 'auditLog options: expected an object, received null'],
  [
    () => Embedder.from(MODEL, { pooling: 'sum' as never }),
    "options.pooling: expected one of 'cls', 'max', 'mean', 'mean_sqrt_len_tokens', 'weightedmean', 'lasttoken', received 'sum'",
  ],
  [beside({ id2label: { a: 'cat' } }), 'id2label.a: expected the index of a class as the key'],
  [beside({ id2label: { 0: [3] } }), 'id2label.0: expected a string or a number, received an array'],
  [
    () => readAssignments(join(folderOf({ 'a.json': '{"a.png": []}' }), 'a.json')),
    'a.json.a.png: expected a string or a number, received an empty array',
  ],
];

test.each(CASES.map(([action, message]) => ({ action, message })))(
  '$message',
  async ({ action, message }) => {
    const said = await saysOf(action);
    expect(said.endsWith(message) ? message : said).toBe(message);
  },
);

test.each([
  [
    { type: 'note' },
    "type: expected one of 'header', 'item', 'full', 'energy', 'checkpoint', 'end', received 'note'",
  ],
  [{ type: 'header', schema: 'x' }, "schema: expected one of 1, 2, received 'x'"],
])('a line of the audit log: %j', (record, problem) => {
  const line = JSON.stringify({ ...record, link: '0123456789abcdef' });
  expect(decodeLine(line)).toEqual({ problem });
});

test('no options and no file are answered in the words of the schemas', async () => {
  const odd = [0, -1, 1.5, 1e9, Number.NaN, '', 'x', true, null, [], ['x'], [0], {}, { x: 1 }, () => {}, 1n];
  const session = await InferenceSession.create(MODEL);
  const classifier = await ImageClassifier.from(MODEL);
  const takers: [readonly string[], (options: never) => unknown][] = [
    [
      ['threads', 'isa', 'backend', 'policy', 'observers', 'executionProviders', 'freeDimensionOverrides'],
      (options) => InferenceSession.create(MODEL, options),
    ],
    [['signal', 'policy', 'tag', 'terminate', 'logSeverityLevel'], (options) => session.run({}, options)],
    [['topK', 'trace', 'signal'], (options) => classifier.classify([], options)],
    [
      [
        'maxDisagreement',
        'limits',
        'metric',
        'guards',
        'seed',
        'copies',
        'groupsFrom',
        'maxPixels',
        'onProgress',
      ],
      (options) => calibrate(MODEL, [], options),
    ],
    [['limit', 'labelsFrom', 'onNote'], (options) => evaluate(MODEL, [], options)],
    [['shapes'], (options) => inspect(MODEL, options)],
    [['seed', 'float'], (options) => quantize(MODEL, [], options)],
    [['shadow', 'scores', 'window', 'onTrip'], watch],
    [['path', 'sample', 'maxBytes', 'top', 'labels'], auditLog],
    [['model', 'images', 'preprocessor'], (options) => renderAudit('nowhere', options)],
    [
      ['blocks', 'default', 'heads', 'guards', 'promise', 'expected', 'settings', 'labels', 'model'],
      parsePolicy,
    ],
    [['size', 'image_mean', 'crop_size', 'resample', 'rescale_factor'], (config) => configured(config)()],
  ];
  const said: string[] = [];
  for (const [names, taker] of takers) {
    for (const name of names) {
      for (const value of odd) {
        try {
          await taker({ [name]: value } as never);
        } catch (error) {
          said.push((error as Error).message);
        }
      }
    }
  }
  await session.release();
  await classifier.release();
  expect(said.length).toBeGreaterThan(400);
  const raw =
    /Invalid|Too (small|big)|Unrecognized|[<>]=?\d|must match|expected (string|number|object|int)\b/;
  expect(said.filter((message) => raw.test(message))).toEqual([]);
});

test('the command says it in the same words', async () => {
  const policy = join(folderOf({ 'p.json': '{"blocks": 7}' }), 'p.json');
  const { code, err } = await cli('run', MODEL, 'cat.png', '--policy', policy);
  expect({ code, err }).toEqual({
    code: 1,
    err: `residual-skip: policy '${policy}'.blocks: expected an object, received 7 [INVALID_POLICY]\n`,
  });
});

test('what a schema says itself stays', () => {
  const schema = z.strictObject({ a: z.number({ error: 'expected a price' }) });
  const check = (value: unknown) => () => parseStrict(schema, value, { code: 'INVALID_DATA', subject: 'it' });
  expect(check({ a: 'x' })).toThrow('it.a: expected a price');
  expect(check({ a: 1, b: 2 })).toThrow("it: unknown key 'b'; expected one of 'a'");
});
