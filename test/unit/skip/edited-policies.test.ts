/** A policy that was edited after it was certified promises nothing, and says so. */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { InferenceSession, loadPolicy, type SkipPolicy, watch } from 'lib/index.js';
import { sealed } from 'lib/skip/load-policy.js';
import { hashPromised, parsePolicy } from 'lib/skip/policy.js';
import { settingsOf } from '../../../server/src/models/settings.js';
import { cli } from '../../helpers/cli.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { foreign, pictures } from '../../helpers/foreign-network.js';
import { promising } from '../../helpers/policies.js';

afterAll(removeFolders);

let warned: jest.SpyInstance;
beforeEach(() => {
  warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => {});
});
afterEach(() => warned.mockRestore());

// biome-ignore lint/suspicious/noExplicitAny: edits reach any place of a policy
type Json = any;

const certified = (policy: SkipPolicy): Json =>
  structuredClone(sealed(parsePolicy(policy) as ReturnType<typeof promising>));

const [A, B, C] = ['a', 'b', 'c'].map((digit) => digit.repeat(64));
const head = (threshold: number) => ({
  after: 'layer1.0',
  threshold,
  features: 'mean',
  layers: [{ weight: 'AAAAAA==', bias: 'AAAAAA==' }],
});
const front = {
  name: 'small',
  file: 'small.onnx',
  sha256: C,
  size: [16, 16],
  scale: [1, 2, 3],
  offset: [0, 0, 1],
};
const POLICY: Json = certified(
  promising(0.01, {
    ...{
      model: { sha256: A },
      reference: { sha256: B },
      precision: 'bfloat16',
      preprocessing: '0'.repeat(16),
    },
    ...{ default: 'run', blocks: { 'layer1.1': { threshold: 0.5 }, 'layer2.1': 'skip' } },
    ...{ fronts: [{ ...front, classes: [0, 2, null], confidence: 'margin' }] },
    heads: { exits: [{ after: 'small', threshold: 0.75 }, head(0.5)], gates: [] },
    ...{ guards: [{ labels: ['cat'], margin: 0.25 }], labels: ['cat', 'dog', 'owl'] },
    expected: { multiplyAddsSkipped: 0.5, blocksSkipped: 0.5, latencyReduction: 0.25 },
  }),
);
const EDITED =
  /^policy: it was edited after it was certified \(.*\), so that it promises nothing; .*calibrate again/;

test.each<[string, (policy: Json) => void]>([
  ['the model', (p) => (p.model.sha256 = C)],
  ['no model', (p) => delete p.model],
  ['the original', (p) => (p.reference.sha256 = A)],
  ['the precision', (p) => (p.precision = 'float32')],
  ['the preprocessing', (p) => delete p.preprocessing],
  ['the default', (p) => (p.default = 'gate')],
  ["a gate's threshold", (p) => (p.blocks['layer1.1'].threshold = 0.50001)],
  ['a block', (p) => (p.blocks['layer2.1'] = 'run')],
  ['one block less', (p) => delete p.blocks['layer2.1']],
  ["a front's size", (p) => (p.fronts[0].size = [16, 17])],
  ["a front's network", (p) => (p.fronts[0].sha256 = B)],
  ["a front's pixels", (p) => p.fronts[0].scale.reverse()],
  ["a front's classes", (p) => p.fronts[0].classes.reverse()],
  ["a front's confidence", (p) => delete p.fronts[0].confidence],
  ["a front's threshold", (p) => (p.heads.exits[0].threshold = 0.7)],
  ["an exit's threshold", (p) => (p.heads.exits[1].threshold = 0.4)],
  ["a head's weights", (p) => (p.heads.exits[1].layers[0].bias = 'AACAPw==')],
  ["a head's features", (p) => (p.heads.exits[1].features = 'rows')],
  ['the order of exits', (p) => p.heads.exits.reverse()],
  ['no heads', (p) => delete p.heads],
  ["a guard's margin", (p) => (p.guards[0].margin = 0.1)],
  ['no guards', (p) => delete p.guards],
  ['the labels', (p) => p.labels.reverse()],
  ['the limit', (p) => (p.promise.limit = 0.001)],
  ['the confidence', (p) => (p.promise.confidence = 0.99)],
  ['the metric', (p) => (p.promise.metric = 'probability')],
])('promises nothing when this is edited: %s', (_, edit) => {
  const edited = structuredClone(POLICY);
  edit(edited);
  const { promise, ...rest } = edited;
  expect(promise.settings).toBe(POLICY.promise.settings);
  expect(loadPolicy(edited)).toEqual(rest);
  expect(warned.mock.calls).toEqual([[expect.stringMatching(EDITED), { code: 'RESIDUAL_SKIP_NOTE' }]]);
});

/** With the keys of objects the other way round. */
const reordered = (value: Json): Json =>
  Array.isArray(value)
    ? value.map(reordered)
    : typeof value === 'object' && value !== null
      ? Object.fromEntries(
          Object.entries(value)
            .reverse()
            .map(([key, one]) => [key, reordered(one)]),
        )
      : value;

test.each<[string, string]>([
  ['as it was written', JSON.stringify(POLICY)],
  ['with spaces', JSON.stringify(POLICY, null, 4)],
  ['in another order', JSON.stringify(reordered(POLICY))],
  ['with numbers that are written otherwise', JSON.stringify(POLICY).replaceAll('0.5,', '5.00e-1,')],
  ['of a schema, without a version', JSON.stringify({ ...POLICY, $schema: 'x', version: undefined })],
  ['whose savings were measured again', JSON.stringify({ ...POLICY, expected: undefined })],
  [
    'whose front was renamed',
    JSON.stringify({ ...POLICY, fronts: [{ ...POLICY.fronts[0], file: 'x.onnx' }] }),
  ],
  ['with bolder settings', JSON.stringify({ ...POLICY, settings: [promising(0.1, {})] })],
  ['of an older version', JSON.stringify(promising(0.01, { default: 'skip' }))],
])('promises what it did %s', (_, text) => {
  const path = join(folderOf({ 'policy.json': text }), 'policy.json');
  const { promise } = JSON.parse(text);
  for (const source of [path, JSON.parse(text)]) {
    const loaded = loadPolicy(source);
    expect(loaded.promise).toEqual(promise);
    // Also where a program writes what it has read.
    expect(loadPolicy(JSON.parse(JSON.stringify(loaded))).promise).toEqual(promise);
  }
  expect(warned).not.toHaveBeenCalled();
});

test('the hash is that of canonical JSON, which later versions must find as well', () => {
  const policy = promising(0.01, { guards: [{ labels: [1] }], fronts: [front], settings: [] });
  const canonical =
    '{"blocks":{},"fronts":[{"name":"small","offset":[0,0,1],"scale":[1,2,3],' +
    `"sha256":"${C}","size":[16,16]}],"guards":[{"labels":[1]}],"promise":{"confidence":0.95,"events":0,` +
    '"items":3000,"limit":0.01,"metric":"disagreement","pValue":0.01,"risk":0,"upperBound":0.01}}';
  expect(hashPromised(parsePolicy(policy))).toBe(createHash('sha256').update(canonical).digest('hex'));
});

test('of several settings, the edited ones alone lose their promise', async () => {
  const [own, bold, bolder] = [0.01, 0.02, 0.05].map((limit) =>
    certified(promising(limit, { blocks: { 0: 'run' } })),
  );
  bold.blocks[0] = 'skip';
  const path = join(folderOf({ 'p.json': JSON.stringify({ ...own, settings: [bold, bolder] }) }), 'p.json');
  const promises = (await settingsOf([path])).map(({ name, promise }) => [name, promise?.limit]);
  expect(promises).toEqual([
    ['full', 0],
    ['0.01', 0.01],
    ['0.05', 0.05],
    ['p', undefined],
  ]);
  expect(warned.mock.calls).toEqual([
    [
      expect.stringMatching(/^policy '.*p\.json', settings\.0: it was edited/),
      { code: 'RESIDUAL_SKIP_NOTE' },
    ],
  ]);
});

const MODELS = resolve(__dirname, '../../../models');
const SHIPPED = readdirSync(MODELS, { recursive: true, encoding: 'utf8' }).filter((name) =>
  /policy(\.int8)?\.json$/.test(name),
);

test.each(SHIPPED)(
  'models/%s and its settings promise something, and nothing once they are edited',
  (name) => {
    const { settings = [], ...own } = JSON.parse(readFileSync(join(MODELS, name), 'utf8'));
    for (const policy of [own, ...settings]) {
      expect(loadPolicy(policy).promise?.limit).toBe(policy.promise.limit);
      policy.heads.exits[0].threshold -= 0.1;
      expect(loadPolicy(policy).promise).toBeUndefined();
    }
  },
);

describe('a model whose policy was edited', () => {
  const NETWORK = foreign({ output: 'logits' });
  const sha256 = createHash('sha256').update(NETWORK).digest('hex');
  const policy = certified(promising(0.03, { model: { sha256 }, default: 'skip' }));
  const folder = folderOf({
    'model.onnx': NETWORK,
    'preprocessor_config.json': '{}',
  });
  let image: string;
  beforeAll(async () => {
    image = join(await pictures(1), 'day 0', '0.png');
  });
  const write = (value: object) => writeFileSync(join(folder, 'policy.json'), JSON.stringify(value));
  const edited = { ...policy, default: 'run' };

  test('its session, and what watches it, know of no promise', async () => {
    for (const [given, limit] of [
      [policy, 0.03],
      [edited, undefined],
    ] as const) {
      write(given);
      const watching = watch({ shadow: 1 });
      await using session = await InferenceSession.create(folder, { observers: [watching] });
      const { promise, voided } = session.policy;
      expect([promise?.limit, voided?.limit]).toEqual(limit ? [limit, undefined] : [undefined, 0.03]);
      // One in a hundred where nothing is promised.
      expect(watching.stats().watch.limit).toBe(limit ?? 0.01);
    }
  });

  test('commands say that it promises nothing, and why', async () => {
    write(policy);
    const before = await cli('run', folder, image);
    expect(before.out + before.err).toMatch(/it promises that at most 3\.00 %/);
    write({ ...edited, blocks: { 0: 'skip' } });
    const after = await cli('run', folder, image);
    expect(after.out + after.err).toMatch(/it promises nothing: it was edited after it was certified/);
    expect(after.out + after.err).not.toContain('3.00 %');
    expect(warned).toHaveBeenCalledTimes(1);
  });
});
