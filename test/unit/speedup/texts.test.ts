/** `speedup` on networks of texts, whose lengths have programs of their own. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { nativeInfo } from 'lib/backends/addon.js';
import { TextClassifier } from 'lib/index.js';
import { writeLadder } from 'lib/speedup/folder.js';
import { type Speedup, speedup } from 'lib/speedup/speedup.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { randomTexts, textNetwork, tokenizerOf } from '../../helpers/text-network.js';

const LIMIT = 0.2;
/** Layers differ in little, so that a front of one agrees with all of them where it is sure. */
const model = textNetwork('classes', { layers: 20, scale: 0.004 });
const front = textNetwork('classes', { layers: 1, scale: 0.004 });
const texts = [...new Set(randomTexts(700, 5))];
const OPTIONS = { maxDisagreement: LIMIT, threads: 1, seed: 2, onNote: () => {} } as const;

beforeAll(() => {
  process.env.XDG_STATE_HOME = folderOf({});
});
afterAll(() => {
  delete process.env.XDG_STATE_HOME;
  removeFolders();
});

/** Texts to which the ladder's folder answers otherwise than the network. */
async function changed(folder: string): Promise<number> {
  await using ladder = await TextClassifier.from(folder);
  await using full = await TextClassifier.from(model, { policy: 'full' });
  const [ours, theirs] = [await ladder.classify(texts), await full.classify(texts)];
  return ours.filter(({ label }, i) => label !== theirs[i]!.label).length;
}

test('a front and exits of texts are fitted and certified, and the folder opens with its tokenizer', async () => {
  const fit = join(folderOf({}), 'fit.csv');
  writeFileSync(fit, `text\n${randomTexts(600, 9).join('\n')}\n`);
  const result: Speedup = await speedup(model, texts, { ...OPTIONS, fit, front: [front] });
  const names = new Set(result.parts.map(({ name }) => name));
  // Exits of networks in front are those of the 8-bit form: the given front has one layer.
  expect(names).toContain('model-int8');
  for (const name of names) expect(name).toMatch(/^(model-int8\/)?[^/]*$/);
  const { calibration } = result;
  expect(calibration!.policy.promise!.limit).toBe(LIMIT);
  const folder = join(folderOf({}), 'ladder');
  await writeLadder(result, model, folder);
  expect(await changed(folder)).toBeLessThanOrEqual(LIMIT * texts.length);
});

test('a front of several layers has exits of its own at every length', async () => {
  const deep = textNetwork('classes', { layers: 5, scale: 0.004 });
  const { parts } = await speedup(model, texts, { ...OPTIONS, front: [deep] });
  expect(parts.some(({ name }) => name.includes('/'))).toBe(true);
  for (const { risk } of parts) expect(risk).toBeLessThan(1);
});

test('labels of a front say which classes are meant', async () => {
  const labels = { 'config.json': { id2label: { 0: 'good', 1: 'bad', 2: 'fair' } } };
  const other = textNetwork('classes', { layers: 1, files: labels });
  const { parts } = await speedup(model, texts, { ...OPTIONS, minutes: 1e-6, front: [front, other] });
  const [same, moved] = parts.map(({ risk }) => risk);
  // The same network, with its classes in another order.
  expect(same).toBeLessThan(0.1);
  expect(moved).toBeGreaterThan(0.5);
});

test('a front that reads other tokens is refused', async () => {
  const other = textNetwork('classes', {
    files: { 'tokenizer.json': tokenizerOf(['[PAD]', '[UNK]', '[CLS]', '[SEP]', 'word1']) },
  });
  await expect(speedup(model, texts, { ...OPTIONS, front: [other] })).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
    message: expect.stringMatching(/^front .*: its tokenizer\.json is another than that of the model; give/),
  });
});

test('the network in bfloat16 is tried where the processor multiplies it, unless it is told not to', async () => {
  const options = { ...OPTIONS, minutes: 1 };
  const tried = async (more: object) => {
    const { parts } = await speedup(model, texts, { ...options, ...more });
    return parts.find(({ name }) => name.startsWith('model-bfloat16'));
  };
  const { fastestPrecision } = nativeInfo();
  const name = fastestPrecision === 'float32' ? undefined : `model-${fastestPrecision}`;
  expect((await tried({}))?.network).toBe(name);
  expect(await tried({ bfloat16: false })).toBeUndefined();
});
