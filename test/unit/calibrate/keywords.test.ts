/** A trained network of sounds, from WAV files to a promise that holds on sounds that nothing has seen. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { calibrate } from 'lib/calibrate/calibrate.js';
import { evaluate } from 'lib/measure/evaluate.js';
import { Tensor } from 'lib/tensor/tensor.js';
import '../../helpers/few-timed.js';
import '../../helpers/short-training.js';
import { cliJson } from '../../helpers/cli.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { RATE, trainedKeywordNetwork, utterances, WORDS, wavOf } from '../../helpers/keyword-network.js';

let folder: string;

beforeAll(async () => {
  process.env.XDG_STATE_HOME = folderOf({});
  folder = folderOf({
    'model.onnx': await trainedKeywordNetwork(400),
    'config.json': JSON.stringify({ id2label: Object.fromEntries(WORDS.entries()) }),
    'preprocessor_config.json': JSON.stringify({ sampling_rate: RATE }),
  });
});
afterAll(() => {
  delete process.env.XDG_STATE_HOME;
  removeFolders();
});

/** A folder of WAV files, of which each word has one of its own. */
function recordings(name: string, count: number, seed: number): string {
  const root = join(folder, name);
  for (const word of WORDS) mkdirSync(join(root, word), { recursive: true });
  for (const [i, { word, samples }] of utterances(count, seed).entries()) {
    writeFileSync(join(root, WORDS[word]!, `${String(i).padStart(4, '0')}.wav`), wavOf(samples));
  }
  return root;
}

const LIMIT = 0.05;

test('the promise holds on sounds that it has not seen, and each leaves at a depth of its own', async () => {
  const items = (count: number, seed: number) =>
    utterances(count, seed).map(({ word, samples }) => ({
      feeds: { samples: new Tensor('float32', samples, [1, 1, samples.length]) },
      label: word,
    }));
  const options = { penalties: 8, threads: 1 };
  const { policy } = await calibrate(folder, items(700, 2), { ...options, maxDisagreement: LIMIT });
  expect(policy.promise).toMatchObject({ metric: 'disagreement', limit: LIMIT });
  expect(JSON.stringify(policy.heads)).toMatch(/"features":"pyramid"/);
  const held = 1500;
  const { skip, full } = await evaluate(folder, items(held, 3), { threads: 1, policy });
  // It was trained, and a network that only guesses is right on a quarter.
  expect(full.accuracy!).toBeGreaterThan(0.8);
  expect(1 - skip.agreement!).toBeLessThan(LIMIT + 3 * Math.sqrt((LIMIT * (1 - LIMIT)) / held));
  expect(1 - skip.agreement!).toBeGreaterThan(0);
  expect(policy.expected!.multiplyAddsSkipped).toBeGreaterThan(0.2);
});

test('the commands go from folders of WAV files to an answer for each', async () => {
  const [training, held] = [recordings('calibration', 480, 4), recordings('held', 120, 5)];
  const policy = join(folder, 'words.policy.json');
  await cliJson(
    ...[
      'calibrate',
      folder,
      '--data',
      training,
      '-o',
      policy,
      '--max-disagreement',
      '0.08',
      '--penalties',
      '6',
    ],
  );
  const found = (await cliJson('eval', folder, '--data', held, '--policy', policy)) as {
    full: { accuracy: number };
    skip: { agreement: number };
  };
  expect(found.full.accuracy).toBeGreaterThan(0.8);
  expect(found.skip.agreement).toBeGreaterThan(0.84);
  const rows = (await cliJson('run', folder, join(held, 'left'), '--policy', policy)) as {
    input: string;
    top: { label: string }[];
  }[];
  expect(rows).toHaveLength(30);
  expect(rows.filter(({ top }) => top[0]!.label === 'left').length).toBeGreaterThan(20);
});
