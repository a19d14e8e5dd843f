/** A folder with a model and a policy runs with that policy, whoever opens it. */
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  Embedder,
  evaluate,
  ImageClassifier,
  InferenceSession,
  locateModel,
  type SkipPolicy,
  Tensor,
  TextClassifier,
} from 'lib/index.js';
import { cli, cliJson } from '../helpers/cli.js';
import { folderOf, removeFolders } from '../helpers/files.js';
import { foreign, pictures, SIDE } from '../helpers/foreign-network.js';
import { promising } from '../helpers/policies.js';
import { textNetwork } from '../helpers/text-network.js';

afterAll(removeFolders);

const hashOf = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
const NETWORK = foreign({ output: 'logits' });
const OWN = { model: { sha256: hashOf(NETWORK) } };
/** It skips all blocks, so that nobody can overlook it. */
const POLICY = promising(0.03, { ...OWN, default: 'skip' }) as SkipPolicy;
const folderWith = (policy: object) =>
  folderOf({
    'model.onnx': NETWORK,
    'policy.json': JSON.stringify(policy),
    'preprocessor_config.json': '{}',
  });

const FOLDER = folderWith(POLICY);
const FILE = join(FOLDER, 'policy.json');
const MODEL = join(FOLDER, 'model.onnx');
const input = new Tensor('float32', new Float32Array(3 * SIDE * SIDE).fill(0.5), [1, 3, SIDE, SIDE]);

/** Blocks that a session runs. */
async function ranIn(session: InferenceSession): Promise<number> {
  const { trace } = await session.runTraced({ picture: input });
  return trace.items[0]!.blocks.filter(({ ran }) => ran).length;
}

describe('a session', () => {
  test.each<[string, string, SkipPolicy | string | undefined, number, object]>([
    ['its folder', FOLDER, undefined, 0, { source: FILE, promise: { limit: 0.03, confidence: 0.95 } }],
    ['its file', MODEL, undefined, 6, { source: 'model', promise: null }],
    ["its folder with 'full'", FOLDER, 'full', 6, { source: 'full', promise: null }],
    ["its folder with 'model'", FOLDER, 'model', 6, { source: 'model', promise: null }],
    ['its folder with a policy', FOLDER, { blocks: { 0: 'skip' } }, 5, { source: null, promise: null }],
    ['its file with the policy', MODEL, FILE, 0, { source: FILE, promise: { metric: 'disagreement' } }],
  ])('of %s runs and says so', async (_, path, policy, ran, info) => {
    await using session = await InferenceSession.create(path, { policy });
    expect(await ranIn(session)).toBe(ran);
    expect(session.policy).toMatchObject(info);
    expect(session.policy.sha256).toBe(session.context.policySha256);
  });

  test("only policy.json is a folder's policy, also beside the folder onnx", async () => {
    const others = folderOf({ 'model.onnx': NETWORK, 'policy.int8.json': '{}', 'other.json': '{}' });
    expect(await locateModel(others)).toEqual({ model: join(others, 'model.onnx'), folder: others });
    const root = folderOf({ 'onnx/model.onnx': NETWORK, 'policy.json': JSON.stringify(POLICY) });
    await using session = await InferenceSession.create(root);
    expect(session.policy.source).toBe(join(root, 'policy.json'));
  });

  test.each([
    ['another model', { model: { sha256: '0'.repeat(64) } }, 'POLICY_MISMATCH', /SHA-256 0{64}, but this/],
    ['other blocks', { blocks: { nowhere: 'skip' } }, 'INVALID_POLICY', /nowhere/],
    [
      'guards of another network',
      { reference: { sha256: '1'.repeat(64) }, guards: [{ labels: [1] }] },
      'INVALID_POLICY',
      /option original/,
    ],
  ])('refuses a policy for %s: names both files and the way out', async (_, policy, code, why) => {
    const folder = folderWith(policy);
    const error = await InferenceSession.create(folder).catch((thrown) => thrown);
    expect(error).toMatchObject({ code, message: expect.stringMatching(why) });
    for (const part of [join(folder, 'policy.json'), join(folder, 'model.onnx'), 'calibrate', "'full'"])
      expect(error.message).toContain(part);
    await using session = await InferenceSession.create(folder, { policy: 'full' });
    expect(await ranIn(session)).toBe(6);
  });

  test('of a model with open lengths refuses it as early', async () => {
    const folder = textNetwork('classes', {
      files: { 'policy.json': { model: { sha256: '0'.repeat(64) } } },
    });
    await expect(InferenceSession.create(folder)).rejects.toMatchObject({ code: 'POLICY_MISMATCH' });
  });

  test('reads it once: what the caller changes later does not matter', async () => {
    const policy: { default: 'run' | 'skip' } = { default: 'skip' };
    const creating = InferenceSession.create(MODEL, { policy });
    policy.default = 'run';
    await using session = await creating;
    expect(await ranIn(session)).toBe(0);
  });
});

test('classifiers of images and texts, and embedders', async () => {
  await using images = await ImageClassifier.from(FOLDER);
  await using full = await ImageClassifier.from(FOLDER, { policy: 'full' });
  expect([await ranIn(images.session), await ranIn(full.session)]).toEqual([0, 6]);
  const files = { 'policy.json': { default: 'skip' } };
  await using texts = await TextClassifier.from(textNetwork('classes', { files }));
  const { trace } = await texts.classify('word1 word2', { trace: true });
  expect(trace!.blocks.map(({ ran }) => ran)).toEqual([false, false, false, false]);
  const folder = textNetwork('vectors', { files });
  await using embedder = await Embedder.from(folder);
  expect(embedder.session.policy.source).toBe(join(folder, 'policy.json'));
});

describe('evaluation and the commands', () => {
  const data = pictures(6);

  test('evaluate compares the policy of the folder with the full network', async () => {
    const { policy, skip } = await evaluate(FOLDER, await data, { labelsFrom: 'none' });
    expect(policy).toMatchObject({ source: FILE, promise: { limit: 0.03 } });
    expect(skip.blocksSkipped).toBe(1);
    expect(await evaluate(MODEL, await data, { labelsFrom: 'none' })).toMatchObject({
      policy: { source: 'model' },
      skip: { blocksSkipped: 0 },
    });
  });

  test('run', async () => {
    const [{ policy, promise, blocks }] = (await cliJson('run', FOLDER, await data)) as [
      { policy: string; promise: object; blocks: object },
    ];
    expect({ policy, promise }).toEqual({
      policy: FILE,
      promise: { metric: 'disagreement', limit: 0.03, confidence: 0.95 },
    });
    expect(blocks).toMatchObject({ total: 6, skipped: 6 });
    const said = `policy: ${FILE}; it promises that at most 3.00 % of the answers change, with 95 % confidence\n`;
    expect((await cli('run', FOLDER, await data)).out).toContain(said);
    expect((await cli('run', FOLDER, await data, '--full')).out).toContain(
      'policy: full, every block runs\n',
    );
    const { out } = await cli('run', MODEL, await data);
    expect(out).toContain("policy: model, the file's own gates and exits decide; it promises nothing\n");
  });

  test('eval and profile', async () => {
    const evaluated = ['eval', FOLDER, '--data', await data, '--no-labels'];
    expect(await cliJson(...evaluated)).toMatchObject({
      policy: { source: FILE },
      skip: { blocksSkipped: 1 },
    });
    expect((await cli(...evaluated, '--policy', 'full')).out).toContain('policy: full, every block runs\n');
    const profiled = ['profile', FOLDER, '--runs', '2', '--json'];
    const blocksOf = async (...args: string[]) => JSON.parse((await cli(...args)).out);
    expect(await blocksOf(...profiled)).toMatchObject({ policy: { source: FILE }, blocks: [] });
    expect((await blocksOf(...profiled, '--policy', 'full')).blocks).toHaveLength(6);
  });

  test.each([
    ['the policy of the folder', FOLDER, []],
    ['full', FOLDER, ['--policy', 'full']],
    ['the model', MODEL, []],
  ])('replay takes the policy that the log names: %s', async (_, model, args) => {
    const log = join(folderOf({}), 'trace.ndjson');
    await cliJson('record', model, '--data', await data, '-o', log, ...args);
    const report = { recorded: 6, identical: 6, circumstances: [], differences: [] };
    expect(await cliJson('replay', log, '--data', await data)).toMatchObject(report);
  });

  test('replay asks for a policy that is not in the folder', async () => {
    const folder = folderOf({ 'model.onnx': NETWORK, 'preprocessor_config.json': '{}' });
    const elsewhere = join(folderOf({ 'mine.json': JSON.stringify(POLICY) }), 'mine.json');
    const log = join(folderOf({}), 'trace.ndjson');
    await cliJson('record', folder, '--data', await data, '-o', log, '--policy', elsewhere);
    expect(await cli('replay', log, '--data', await data)).toMatchObject({
      code: 1,
      err: expect.stringMatching(
        new RegExp(`isn't in the folder of '${folder}.*; give its file with --policy`),
      ),
    });
    const found = await cliJson('replay', log, '--data', await data, '--policy', elsewhere);
    expect(found).toMatchObject({ identical: 6, circumstances: [] });
    // Any policy file of the folder will do.
    writeFileSync(join(folder, 'policy.mine.json'), readFileSync(elsewhere));
    expect(await cliJson('replay', log, '--data', await data)).toMatchObject({ identical: 6 });
  });
});
