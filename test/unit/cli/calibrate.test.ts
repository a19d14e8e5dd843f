import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { calibrate } from 'lib/calibrate/calibrate.js';
import { decodeImage } from 'lib/data/image.js';
import { parsePolicy, type SkipPolicy } from 'lib/skip/policy.js';
import { z } from 'zod';
import '../../helpers/few-timed.js';
import { cli, cliJson } from '../../helpers/cli.js';
import { DIST, describeBuilt, ROOT } from '../../helpers/dist.js';
import { folderOf, png, removeFolders } from '../../helpers/files.js';
import { untimed } from '../../helpers/policies.js';
import { uniform } from '../../helpers/random.js';

const MODEL = join(ROOT, 'test/models/cifar10-resnet32');
const IMAGES = join(ROOT, 'examples/images');
const CLASSES: string[] = Object.values(
  JSON.parse(readFileSync(join(MODEL, 'config.json'), 'utf8')).id2label,
);
const PIXELS = 1024;
/** Of each of the twenty example images. */
const COPIES = 12;
const folder = folderOf({});
const data = join(folder, 'data');
afterAll(removeFolders);

/** `copies` variations of every example image in CIFAR-10's binary format: mirrored, shifted and made darker. */
async function writeBatch(copies: number): Promise<void> {
  const random = uniform(5);
  const records: Buffer[] = [];
  for (const name of readdirSync(IMAGES).sort()) {
    const { data: pixels } = await decodeImage(join(IMAGES, name));
    const label = CLASSES.indexOf(name.split('-')[0]!);
    for (let copy = 0; copy < copies; copy++) {
      const [shift, mirror, gain] = [Math.floor(3 * random()), random() < 0.5, 0.6 + 0.4 * random()];
      const record = Buffer.alloc(1 + 3 * PIXELS);
      record[0] = label;
      for (let i = 0; i < PIXELS; i++) {
        const [x, y] = [i % 32, i >> 5];
        const from = 32 * Math.min(31, y + shift) + (mirror ? 31 - x : x);
        for (let c = 0; c < 3; c++) record[1 + c * PIXELS + i] = gain * pixels[3 * from + c]!;
      }
      records.push(record);
    }
  }
  mkdirSync(data);
  writeFileSync(join(data, 'test_batch.bin'), Buffer.concat(records));
}

const settingSchema = z.looseObject({
  events: z.int(),
  items: z.int(),
  risk: z.number(),
  worstPValue: z.number(),
  latency: z.looseObject({ items: z.int().min(5) }),
});
const resultSchema = z.strictObject({
  promise: z.looseObject({ limit: z.number(), items: z.int(), metric: z.string() }),
  expected: z.looseObject({ multiplyAddsSkipped: z.number() }),
  chosen: z.int(),
  settings: z.array(settingSchema),
  contributions: z.array(
    z.strictObject({
      kind: z.enum(['exit', 'gate', 'confidence']),
      block: z.string(),
      rate: z.number(),
      multiplyAddsSkipped: z.number(),
    }),
  ),
  rungs: z.array(
    z.strictObject({
      name: z.string().nullable(),
      answered: z.number(),
      events: z.int(),
      work: z.number(),
    }),
  ),
  classes: z.array(z.looseObject({ label: z.string(), items: z.int() })),
  duplicates: z.int(),
  resumed: z.strictObject({ taken: z.int(), computed: z.int() }),
});

/** Enough settings to choose from. */
const FEW = ['--penalties', '4', '--copies', '0'];
let written = 0;
async function calibrateJson(...args: string[]) {
  const output = join(folder, `policy-${written++}.json`);
  const result = resultSchema.parse(
    await cliJson('calibrate', MODEL, '--data', data, '-o', output, ...FEW, ...args),
  );
  return { ...result, output, policy: parsePolicy(JSON.parse(readFileSync(output, 'utf8'))) };
}

beforeAll(() => writeBatch(COPIES));

describe('calibrate', () => {
  const state = join(folder, 'state');

  test('writes a policy that run and eval take, and tells what it promises', async () => {
    const result = await calibrateJson('--max-disagreement', '0.3', '--state', state);
    expect(result.chosen).toBeGreaterThanOrEqual(0);
    expect(result.settings[result.chosen]!.worstPValue).toBeLessThanOrEqual(0.05);
    const { promise, expected } = result.policy;
    expect(promise).toMatchObject({ metric: 'disagreement', limit: 0.3, confidence: 0.95 });
    expect(expected!.latency!.fullMs.p50).toBeGreaterThan(0);
    expect(expected!.latencyReduction).toBeCloseTo(
      1 - expected!.latency!.policyMs.p50 / expected!.latency!.fullMs.p50,
      12,
    );
    expect(result.resumed).toMatchObject({ taken: 0 });
    const saved = result.contributions.reduce((sum, { multiplyAddsSkipped }) => sum + multiplyAddsSkipped, 0);
    expect(saved).toBeCloseTo(expected!.multiplyAddsSkipped, 9);

    const report = (await cliJson('eval', MODEL, '--data', data, '--policy', result.output)) as {
      skip: { agreement: number; multiplyAddsSkipped: number };
    };
    expect(report.skip.agreement).toBeGreaterThan(0.7);
    expect(report.skip.multiplyAddsSkipped).toBeGreaterThan(0);
    const { code } = await cli('run', MODEL, IMAGES, '--policy', result.output);
    expect(code).toBe(0);
  });

  test('another calibration takes from a named state what both have in common', async () => {
    const result = await calibrateJson('--max-disagreement', '0.3', '--confidence', '0.9', '--state', state);
    expect(result.resumed.taken).toBeGreaterThan(0);
    expect(result.resumed.computed).toBe(0);
  });

  test('draws a table and a sentence', async () => {
    const output = join(folder, 'drawn.json');
    const { code, out, err } = await cli(
      ...['calibrate', MODEL, '--data', data, '-o', output, '--max-disagreement', '0.3', '--state', state],
      ...[...FEW, '--per-class', '--max-group-disagreement', '0.9'],
    );
    expect({ code, err }).toEqual({ code: 0, err: '' });
    expect(out).toMatch(
      /Certified on \d+ items: at most 30\.00 % of the answers change, and at most 90\.00 % in each/,
    );
    expect(out).toMatch(/^airplane +\d+ +\d+ /m);
    expect(out).toContain(`policy: ${output}`);
    // The tests before certified other policies on the same images.
    expect(out).toMatch(/warning: [2-9] different calibrations have read the images that certify/);
  });

  test('labels make it a promise on right answers, for every class by its label', async () => {
    const rates = ['--max-disagreement', '0.3', '--max-group-disagreement', '0.9'];
    const { promise, classes } = await calibrateJson('--labels', '--per-class', ...rates, '--state', state);
    expect(promise.metric).toBe('accuracy');
    expect(classes.map(({ label }) => label)).toEqual(CLASSES);
    const groups = promise.groups as { kind: string; name: string; items: number; promised: boolean }[];
    expect(groups.map(({ kind, name }) => [kind, name])).toEqual(CLASSES.map((name) => ['class', name]));
    expect(groups.reduce((sum, { items }) => sum + items, 0)).toBe(promise.items);
    const drawn = ['calibrate', MODEL, '--data', data, '-o', join(folder, 'lost.json'), '--labels', ...FEW];
    const { out } = await cli(...drawn, '--max-disagreement', '0.3', '--state', state);
    expect(out).toMatch(/^ +lost +mean loss/);
  });

  test('groups come from a file by the name of the image', async () => {
    const items = 20 * COPIES;
    const lines = Array.from({ length: items }, (_, i) => `test_batch.bin[${i}],${i % 2 ? 'odd' : 'even'}`);
    const groups = join(folder, 'groups.csv');
    writeFileSync(groups, lines.join('\n'));
    const rates = ['--max-disagreement', '0.3', '--max-group-disagreement', '0.4'];
    const { promise } = await calibrateJson('--groups', groups, ...rates, '--state', state);
    expect(promise.groups).toMatchObject([
      { kind: 'group', name: 'even', promised: true, limit: 0.4 },
      { kind: 'group', name: 'odd', promised: true, limit: 0.4 },
    ]);
    writeFileSync(groups, lines.slice(1).join('\n'));
    const output = join(folder, 'none.json');
    expect(await cli('calibrate', MODEL, '--data', data, '-o', output, '--groups', groups)).toMatchObject({
      code: 1,
      err: expect.stringMatching(
        /has no value for 1 of 240 images, such as "test_batch\.bin\[0\]".*INVALID_DATA/,
      ),
    });
    expect(existsSync(output)).toBe(false);
  });

  test('a bounded loss is certified by betting', async () => {
    const { promise } = await calibrateJson(
      '--metric',
      'probability',
      '--max-disagreement',
      '0.3',
      '--state',
      state,
    );
    expect(promise).toMatchObject({ metric: 'probability', limit: 0.3 });
    expect(promise.risk).toBeLessThanOrEqual(0.3);
  });

  test('a budget takes the first setting within it, and promises the bound of its risk', async () => {
    const { promise, expected, settings, chosen } = await calibrateJson('--budget', '0.95', '--state', state);
    expect(chosen).toBe(settings.length - 1);
    expect(1 - expected.multiplyAddsSkipped).toBeLessThan(0.97);
    expect(promise.limit).toBe(promise.upperBound);
    expect(promise.limit).toBeGreaterThan(settings[chosen]!.risk);
  });

  test.each([
    [
      ['--budget', '0.0001', ...FEW],
      1,
      /budget: no setting keeps within 0\.0001.*boldest one spends 0\.\d+.*INVALID_ARGUMENT/,
    ],
    [['--budget', '0.5', '--max-disagreement', '0.1'], 2, /INVALID_ARGUMENT/],
    [['--budget', '0.5', '--per-class'], 2, /INVALID_ARGUMENT/],
    [['--seed', ''], 2, /--seed.*Expected a whole number of at least 0/],
    [['--max-disagreement', '1.5'], 2, /between 0 and 1/],
    [['--metric', 'speed'], 2, /disagreement, accuracy, probability/],
    [
      ['--per-class'],
      1,
      /there is too little; of 240 different images.*needs 299.*about \d+ different images/,
    ],
    [
      ['--max-disagreement', '0.05', '--per-class'],
      1,
      /promise to each of 10: .*airplane \d+.*needs \d+ in each/,
    ],
    [['--groups', 'folder', '--max-disagreement', '0.1'], 1, /"test_batch\.bin\[0\]" is in no folder/],
    [['--labels', 'nowhere.csv'], 1, /nowhere\.csv/],
    [['--policy', 'full'], 2, /unknown option '--policy'/],
  ] as const)('%j is refused', async (args, code, message) => {
    const output = join(folder, 'refused.json');
    const result = await cli('calibrate', MODEL, '--data', data, '-o', output, ...args);
    expect(result).toMatchObject({ code, out: '', err: expect.stringMatching(message) });
    expect(existsSync(output)).toBe(false);
  });

  test('labels that the model does not have are refused by name', async () => {
    const labels = join(folder, 'labels.json');
    const names = Array.from({ length: 20 * COPIES }, (_, i) => [
      `test_batch.bin[${i}]`,
      i === 7 ? 'unicorn' : 'cat',
    ]);
    writeFileSync(labels, JSON.stringify(Object.fromEntries(names)));
    const output = join(folder, 'refused.json');
    expect(await cli('calibrate', MODEL, '--data', data, '-o', output, '--labels', labels)).toMatchObject({
      code: 1,
      err: expect.stringMatching(
        /"test_batch\.bin\[7\]" the label "unicorn".*the model's 10; they are "airplane"/,
      ),
    });
    const folders = folderOf({ 'unicorn/a.png': await png(32, 32, [1, 2, 3]) });
    expect(await cli('calibrate', MODEL, '--data', folders, '-o', output, '--labels')).toMatchObject({
      code: 1,
      err: expect.stringMatching(/no label for the class folder "unicorn"/),
    });
  });

  test('images that can not be read are all named', async () => {
    const broken = folderOf({
      'a.png': await png(32, 32, [1, 2, 3]),
      'b.jpg': 'no image',
      'c.png': (await png(32, 32, [9, 9, 9])).subarray(0, 60),
    });
    const output = join(folder, 'refused.json');
    expect(await cli('calibrate', MODEL, '--data', broken, '-o', output)).toMatchObject({
      code: 1,
      err: expect.stringMatching(/2 images can't be used: .*b\.jpg.*c\.png.*take them out/),
    });
  });

  test('a place that can not be written is refused at once', async () => {
    for (const output of [folder, join(folder, 'nowhere', 'p.json')]) {
      expect(await cli('calibrate', MODEL, '--data', data, '-o', output)).toMatchObject({
        code: 1,
        err: expect.stringMatching(/can't be written/),
      });
    }
  });

  test('images of one class only are refused', async () => {
    // 7 x 7 x 7 shades of one colour.
    const shade = (i: number) =>
      [120 + (i % 7), 120 + (Math.floor(i / 7) % 7), 120 + Math.floor(i / 49)] as const;
    const shades = await Promise.all(
      Array.from({ length: 343 }, async (_, i) => [`${i}.png`, await png(32, 32, shade(i))] as const),
    );
    const output = join(folder, 'refused.json');
    const args = ['--data', folderOf(Object.fromEntries(shades)), '-o', output, '--max-disagreement', '0.1'];
    expect(await cli('calibrate', MODEL, ...args)).toMatchObject({
      code: 1,
      err: expect.stringMatching(/gives all \d+ the same answer.*images of all classes/),
    });
  });
});

describeBuilt('a calibration that is killed', () => {
  test('goes on where it was, and comes to the same policy', async () => {
    const read = (name: string): SkipPolicy => JSON.parse(readFileSync(join(folder, name), 'utf8'));
    const start = (name: string) =>
      spawn(process.execPath, [
        ...[join(DIST, 'cli/main.js'), 'calibrate', MODEL, '--data', data, '-o', join(folder, name)],
        ...[
          '--max-disagreement',
          '0.3',
          '--threads',
          '1',
          '--json',
          ...FEW,
          '--report',
          join(folder, `${name}.html`),
        ],
      ]);
    const finish = async (child: ReturnType<typeof start>) => {
      const text = { out: '', err: '' };
      child.stdout.on('data', (chunk) => (text.out += chunk));
      child.stderr.on('data', (chunk) => (text.err += chunk));
      const [status] = await once(child, 'close');
      return { status, ...text };
    };
    const whole = await finish(start('whole.json'));
    expect(whole).toMatchObject({ status: 0, err: '' });
    expect(existsSync(join(folder, 'whole.json.state'))).toBe(false);
    const page = readFileSync(join(folder, 'whole.json.html'), 'utf8');
    expect(page.match(/<img alt="" src="data:image\/jpeg;base64,/g)).toHaveLength(16);

    const state = join(folder, 'killed.json.state');
    const killed = start('killed.json');
    const ended = once(killed, 'close');
    while (!existsSync(state) || readdirSync(state).length < 10) {
      expect(killed.exitCode).toBeNull();
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    killed.kill('SIGKILL');
    await ended;
    expect(existsSync(join(folder, 'killed.json'))).toBe(false);

    const resumed = await finish(start('killed.json'));
    expect(resumed).toMatchObject({ status: 0, err: '' });
    const { taken, computed } = JSON.parse(resumed.out).resumed;
    expect(taken).toBeGreaterThan(0);
    expect(taken + computed).toBe(JSON.parse(whole.out).resumed.computed);
    expect(untimed(read('killed.json'))).toEqual(untimed(read('whole.json')));
    expect(existsSync(state)).toBe(false);
  });
});

describe('a dry run', () => {
  const args = ['calibrate', MODEL, '--data', data, '--max-disagreement', '0.3', ...FEW];

  test('says what would be saved and how many items certify it, and neither writes nor counts', async () => {
    const state = join(folder, 'dry-state');
    const before = process.env.XDG_STATE_HOME;
    process.env.XDG_STATE_HOME = state;
    try {
      const files = readdirSync(folder);
      const { code, out } = await cli(...args, '--dry-run');
      expect({ code, out }).toEqual({
        code: 0,
        out: expect.stringMatching(/^estimate from 240 items, \d+ of them/),
      });
      expect(out).toMatch(/\d % of the multiply-adds would be skipped; [\d.]+ ms instead of [\d.]+ ms\n/);
      // Nine losses of none are needed at this limit, of which six tenths certify; fifty others have to fit.
      expect(out).toMatch(/about 158 different items/);
      expect(readdirSync(folder)).toEqual(files);
      expect(existsSync(state)).toBe(false);
      await cli(...args, '-o', join(folder, 'counted.json'));
      expect(existsSync(state)).toBe(true);
    } finally {
      if (before === undefined) delete process.env.XDG_STATE_HOME;
      else process.env.XDG_STATE_HOME = before;
    }
  });

  test('reads no more items of an endless source than it needs', async () => {
    const examples = await Promise.all(readdirSync(IMAGES).map((name) => decodeImage(join(IMAGES, name))));
    const random = uniform(9);
    let given = 0;
    async function* endless() {
      for (;;) {
        const image = examples[given++ % examples.length]!;
        yield { ...image, data: image.data.map((value) => value * (0.7 + 0.3 * random())) };
      }
    }
    const options = { maxDisagreement: 0.3, penalties: 4, copies: 0, threads: 1, dryRun: true };
    const { policy } = await calibrate(MODEL, endless(), options);
    const { fit, order, certify, uses } = policy.promise!.data;
    expect(fit + order + certify).toBe(300);
    expect(uses).toBeUndefined();
    expect(policy.promise!.confidence).toBe(0.5);
    expect(given).toBeLessThan(330);
  });

  test.each<[string[], RegExp]>([
    [['--dry-run', '-o', 'policy.json'], /--dry-run: nothing is written/],
    [[], /required option '-o, --output <file>' not specified.*--dry-run/],
  ])('with %j is refused', async (more, message) => {
    const { code, err } = await cli(...args, ...more);
    expect({ code, err }).toEqual({ code: 2, err: expect.stringMatching(message) });
  });
});
