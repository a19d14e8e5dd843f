/** What a calibration refuses: each with a message that says what would be enough, and with no policy. */
import { createHash } from 'node:crypto';
import type { Backend } from 'lib/backends/backend.js';
import { NativeBackend } from 'lib/backends/native.js';
import { calibrateItems } from 'lib/calibrate/calibrate.js';
import type { CalibrationOptions } from 'lib/calibrate/options.js';
import type { CalibrationItem } from 'lib/calibrate/run/items.js';
import { type Part, partOf } from 'lib/calibrate/split.js';
import { compileModel } from 'lib/model/compile.js';
import { loadModel } from 'lib/model/load.js';
import type { Program } from 'lib/model/program/program.js';
import { Network } from '../../helpers/networks.js';
import { randomFloats } from '../../helpers/random.js';

const PIXELS = 28 * 28;
const LIMIT = 0.05;

/** Noise, with the label `label` where one is given. */
function noise(count: number, label?: number): CalibrationItem[] {
  return Array.from({ length: count }, (_, i) => {
    const input = randomFloats(PIXELS, i + 1);
    return { input, label, sha256: createHash('sha256').update(input).digest('hex') };
  });
}

const outside = (part: Part) => (item: CalibrationItem) => partOf(item.sha256, 1) !== part;

describe('refused', () => {
  let backend: Backend;
  let program: Program;
  beforeAll(async () => {
    backend = new NativeBackend({ threads: 1 });
    const model = await loadModel(new Network('mnist-resnet20').model);
    program = compileModel(model, new Map([['input', { shape: [1, 1, 28, 28] }]]));
  });
  afterAll(() => backend.release());

  const refused = (items: readonly CalibrationItem[], options: CalibrationOptions = {}, of = program) =>
    expect(calibrateItems(backend, of, '', items, { maxDisagreement: LIMIT, ...options })).rejects;
  const invalidData = (message: RegExp) => ({
    code: 'INVALID_DATA',
    message: expect.stringMatching(message),
  });

  test('fewer items than certify anything', async () => {
    await refused(noise(40), { maxDisagreement: 0.01 }).toMatchObject(
      invalidData(
        /of 40 different images, \d+ certify, and a limit of 0\.01 .* needs 299 .* about 569 different images/,
      ),
    );
  });

  test('copies instead of more items', async () => {
    const [one] = noise(1);
    await refused(Array.from({ length: 600 }, () => one!)).toMatchObject(
      invalidData(/of 1 different images/),
    );
  });

  test('no item that certifies', async () => {
    const items = noise(400).filter(outside('certify'));
    expect(items.length).toBeGreaterThan(100);
    await refused(items).toMatchObject(
      invalidData(
        /none certify, and a limit of 0\.05 .* needs 59 .* about \d+ different images would be enough/,
      ),
    );
    await refused(items, { maxDisagreement: undefined, budget: 0.7 }).toMatchObject(
      invalidData(/none certify, and a bound needs 1; .* about \d+ different images would be enough$/),
    );
  });

  test('no item to order settings by', async () => {
    await refused(noise(400).filter(outside('order'))).toMatchObject(
      invalidData(/none of them to order settings; about \d+ different images would be enough/),
    );
  });

  test('one answer for all items', async () => {
    const alike = noise(250).map(({ input, ...item }) => ({
      ...item,
      input: (input as Float32Array).map((x) => 1e-3 * x),
    }));
    await refused(alike, { copies: 0 }).toMatchObject(
      invalidData(/gives all \d+ the same answer, .*; give images of all classes to expect/),
    );
  });

  test('labels that an item lacks, that are no class, or whose names are too few', async () => {
    await refused(noise(150), { metric: 'accuracy' }).toMatchObject(
      invalidData(/'accuracy' needs a label for every item, but item 0 has none/),
    );
    await refused(noise(150, 10)).toMatchObject(
      invalidData(/item 0: its label is 10, but the model's classes are 0 to 9/),
    );
    await refused(noise(150), { labels: ['cat', 'dog'] }).toMatchObject(
      invalidData(/labels: there are 2, but the model has 10 classes/),
    );
  });

  test('NaN among the answers', async () => {
    const broken = noise(250).map((item) => ({ ...item, input: new Float32Array(PIXELS).fill(Number.NaN) }));
    await refused(broken).toMatchObject(
      invalidData(/answers NaN for an item; check its weights, the data and the preprocessing/),
    );
  });

  test('a model without a block that can be skipped', async () => {
    const fixed = { ...program, blocks: program.blocks.map((block) => ({ ...block, skippable: false })) };
    await refused(noise(150), {}, fixed).toMatchObject({
      code: 'UNSUPPORTED_MODEL',
      message: expect.stringMatching(/none of its 9 residual blocks .* can be skipped; `inspect` shows/),
    });
  });

  test('a limit of nothing, and items of another size', async () => {
    await refused(noise(150), { maxDisagreement: 0 }).toMatchObject({ code: 'INVALID_ARGUMENT' });
    const cut = noise(150).map(({ input, ...item }) => ({ ...item, input: input.subarray(1) }));
    await refused(cut).toMatchObject({
      code: 'INVALID_SHAPE',
      message: expect.stringMatching(/783 values, but the model takes 784/),
    });
  });
});
