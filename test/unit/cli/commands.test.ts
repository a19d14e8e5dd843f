import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { cli, cliJson } from '../../helpers/cli.js';
import { folderOf, idx, removeFolders } from '../../helpers/files.js';

afterAll(removeFolders);

const root = join(__dirname, '../../..');
const gated = join(root, 'test/models/cifar10-resnet32-gates');
const plain = join(root, 'test/models/cifar10-resnet32');
const images = join(root, 'examples/images');
const example = (name: string) => join(images, `${name}.jpg`);
const BLOCKS = 15;

const fraction = z.number().min(0).max(1);
const inspectSchema = z.strictObject({
  model: z.string(),
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
  opset: z.int(),
  metadata: z.strictObject({
    ...{
      producer: z.literal('pytorch'),
      producerVersion: z.string().regex(/^\d/),
      version: z.int().nonnegative(),
    },
    ...{ domain: z.string(), description: z.string(), graphName: z.string(), graphDescription: z.string() },
    custom: z.record(z.string(), z.string()),
  }),
  inputs: z.array(
    z.strictObject({ name: z.string(), dtype: z.string(), shape: z.array(z.union([z.int(), z.string()])) }),
  ),
  outputs: z.array(
    z.strictObject({ name: z.string(), dtype: z.string(), shape: z.array(z.union([z.int(), z.string()])) }),
  ),
  shapes: z.record(z.string(), z.array(z.int().positive())),
  parameters: z.int(),
  multiplyAdds: z.int().positive(),
  blocks: z.array(
    z.strictObject({
      index: z.int(),
      name: z.string(),
      shortcut: z.enum(['identity', 'projection', 'padded']),
      skippable: z.boolean(),
      gate: z.strictObject({ form: z.string(), compare: z.string(), threshold: z.number() }).nullable(),
      multiplyAdds: z.int().positive(),
      share: fraction,
      input: z.string().min(1),
      output: z.string().min(1),
    }),
  ),
  exits: z.array(
    z.strictObject({ after: z.string(), threshold: z.number(), multiplyAdds: z.int().positive() }),
  ),
  unusableGates: z.array(z.strictObject({ node: z.string(), reason: z.string() })),
  unsupported: z.array(z.string()),
});
const runSchema = z.array(
  z.strictObject({
    input: z.string(),
    policy: z.string(),
    promise: z.null(),
    top: z.array(z.strictObject({ index: z.int(), label: z.string(), probability: fraction })),
    blocks: z.strictObject({
      total: z.int(),
      skippable: z.int(),
      skipped: z.int(),
      pattern: z.string().regex(/^[#1.]+$/),
    }),
    answeredBy: z.string().nullable(),
    milliseconds: z.strictObject({ skip: z.number().positive(), full: z.number().positive() }),
  }),
);
const latencySchema = z.strictObject({
  mean: z.number().positive(),
  p50: z.number().positive(),
  p95: z.number().positive(),
});
const evalSchema = z.strictObject({
  policy: z.strictObject({ source: z.literal('model'), sha256: z.string(), promise: z.null() }),
  items: z.int(),
  full: z.strictObject({ accuracy: fraction.nullable(), latencyMs: latencySchema }),
  skip: z.strictObject({
    accuracy: fraction.nullable(),
    agreement: fraction,
    distance: z.null(),
    loss: z.null(),
    latencyMs: latencySchema,
    blocksSkipped: fraction,
    layersSkipped: fraction,
    multiplyAddsSkipped: fraction,
  }),
  rungs: z.tuple([]),
  latencyReduction: z.number().max(1),
  energy: z.strictObject({
    items: z.int().min(1),
    cpuSeconds: z.strictObject({ full: z.number().positive(), skip: z.number().positive() }),
    joules: z.strictObject({ full: z.number().min(0), skip: z.number().min(0) }).nullable(),
  }),
  accuracyChange: z.strictObject({ points: z.number(), ci95: z.tuple([z.number(), z.number()]) }).nullable(),
});

interface ReferenceItem {
  readonly file: string;
  readonly gated: readonly number[];
  readonly decisions: readonly (0 | 1 | null)[];
  readonly scores: readonly (number | null)[];
}
const reference = JSON.parse(readFileSync(join(gated, 'reference.json'), 'utf8')) as {
  items: ReferenceItem[];
};
/** "test/airplane/0000.jpg" -> examples/images/airplane-0000.jpg */
const exampleOf = ({ file }: ReferenceItem) => join(images, file.split('/').slice(1).join('-'));

describe('inspect', () => {
  test('finds the blocks and gates of the gated network', async () => {
    const report = inspectSchema.parse(await cliJson('inspect', gated));
    expect(report.blocks).toHaveLength(BLOCKS);
    expect(report.blocks.map(({ gate }) => gate !== null)).toEqual(
      reference.items[0]!.decisions.map((d) => d !== null),
    );
    expect(report.blocks.filter(({ shortcut }) => shortcut !== 'identity')).toHaveLength(2);
    expect(report.unsupported).toEqual([]);
    const shares = report.blocks.reduce((sum, { share }) => sum + share, 0);
    expect(shares).toBeGreaterThan(0.9);
    expect(shares).toBeLessThan(1);
    expect(report.inputs).toEqual([{ name: 'input', dtype: 'float32', shape: ['batch', 3, 32, 32] }]);
  });

  test('draws a table', async () => {
    const { code, out } = await cli('inspect', join(plain, 'model.onnx'));
    expect(code).toBe(0);
    expect(out).toMatch(/15 blocks: 13 can be skipped \(\d+\.\d % of the multiply-adds\), 0 by a gate/);
    expect(out.split('\n').filter((line) => / (identity|projection) /.test(line))).toHaveLength(BLOCKS);
    expect(out).not.toContain('\u001b');
  });

  test('takes a shape, and refuses one that does not fit', async () => {
    const shaped = await cliJson('inspect', gated, '--shape', '4x3x32x32');
    expect(shaped).toEqual(await cliJson('inspect', gated, '--shape', 'input=1x3x32x32'));
    expect(await cli('inspect', gated, '--shape', '1x3x33x32')).toMatchObject({
      code: 1,
      err: expect.stringMatching(/'input'.*\[INVALID_SHAPE\]/),
    });
    expect(await cli('inspect', gated, '--shape', 'pixels=1x3x32x32')).toMatchObject({
      code: 1,
      err: expect.stringMatching(/pixels=1x3x32x32: it fits no input.*input/),
    });
    expect(await cli('inspect', gated, '--shape', '1x0x32')).toMatchObject({ code: 2 });
  });
});

describe('run', () => {
  test("follows the network's own decisions on every example image", async () => {
    const results = runSchema.parse(
      await cliJson('run', gated, ...reference.items.map(exampleOf), '--top', '10'),
    );
    expect(results).toHaveLength(reference.items.length);
    for (const [i, item] of reference.items.entries()) {
      const { blocks, top, input } = results[i]!;
      expect(input).toBe(exampleOf(item));
      expect(blocks).toMatchObject({ total: BLOCKS, skippable: 13 });
      expect(blocks.skipped).toBe([...blocks.pattern].filter((sign) => sign === '.').length);
      for (const [b, decision] of item.decisions.entries()) {
        const near = item.scores[b] !== null && Math.abs(item.scores[b]!) < 1e-4;
        if (!near) expect(blocks.pattern[b]).toBe(decision === null ? '#' : decision ? '1' : '.');
      }
      const exponentials = item.gated.map(Math.exp);
      const total = exponentials.reduce((a, b) => a + b, 0);
      for (const { index, probability } of top)
        expect(probability).toBeCloseTo(exponentials[index]! / total, 4);
      expect(top.reduce((sum, { probability }) => sum + probability, 0)).toBeCloseTo(1, 9);
    }
  });

  test('reads a folder, draws each pattern and sums up', async () => {
    const { code, out, err } = await cli('run', gated, images, '--threads', '1');
    expect({ code, err }).toEqual({ code: 0, err: '' });
    const lines = out.split('\n').filter((line) => line.includes('.jpg'));
    expect(lines).toHaveLength(20);
    for (const line of lines) expect(line).toMatch(/ #[█·]{3}# #[█·]{2}.* \d+ of 15 /);
    expect(out).toMatch(/# ran {3}█ ran by its gate {3}· skipped/);
    expect(out).toMatch(/20 images: \d\.\d of 15 blocks skipped on average, .* (of the time saved|slower)/);
    expect(out).not.toContain('\u001b');
  });

  test('--full runs everything, and so does a network without gates', async () => {
    const [full] = runSchema.parse(await cliJson('run', gated, example('dog-0000'), '--full'));
    expect(full!.blocks).toMatchObject({ skipped: 0, pattern: '#'.repeat(BLOCKS) });
    expect(full!.top).toHaveLength(5);
    const [ungated] = runSchema.parse(await cliJson('run', plain, example('dog-0000'), '--top', '2'));
    expect(ungated!.blocks).toMatchObject({ skipped: 0, pattern: '#'.repeat(BLOCKS) });
    expect(ungated!.top).toHaveLength(2);
  });

  test('follows a policy file', async () => {
    const policy = join(
      folderOf({ 'p.json': JSON.stringify({ default: 'run', blocks: { 1: 'skip', 3: 'skip' } }) }),
      'p.json',
    );
    const [result] = runSchema.parse(await cliJson('run', plain, example('cat-0001'), '--policy', policy));
    expect(result!.blocks).toMatchObject({ skipped: 2, pattern: `#.#.${'#'.repeat(BLOCKS - 4)}` });
  });

  test('the reference backend gives the same answer', async () => {
    const args = ['run', gated, example('ship-0000'), '--top', '10'];
    const [native] = runSchema.parse(await cliJson(...args));
    const [scalar] = runSchema.parse(await cliJson(...args, '--isa', 'scalar'));
    const [slow] = runSchema.parse(await cliJson(...args, '--backend', 'reference'));
    expect(scalar!.top).toEqual(native!.top);
    expect(slow!.blocks).toEqual(native!.blocks);
    for (const [i, { probability }] of native!.top.entries()) {
      expect(slow!.top[i]!.probability).toBeCloseTo(probability, 5);
    }
  });
});

describe('eval', () => {
  const pixels = 28 * 28;
  const byClass = () => {
    const files: Record<string, Buffer> = {};
    for (const name of ['airplane', 'cat', 'ship', 'truck']) {
      for (const i of ['0000', '0001']) files[`${name}/${i}.jpg`] = readFileSync(example(`${name}-${i}`));
    }
    return folderOf(files);
  };

  test('compares skipping with the full network', async () => {
    const report = evalSchema.parse(await cliJson('eval', gated, '--data', byClass(), '--threads', '1'));
    expect(report.items).toBe(8);
    const items = reference.items.filter(({ file }) => /airplane|cat|ship|truck/.test(file));
    const skipped = items.flatMap(({ decisions }) => decisions).filter((decision) => decision === 0).length;
    // One score of these is within 1e-4 of its threshold and may fall either way.
    expect(Math.abs(report.skip.blocksSkipped * BLOCKS * 8 - skipped)).toBeLessThan(1.5);
    expect(report.skip.multiplyAddsSkipped).toBeGreaterThan(0);
    expect(report.skip.layersSkipped).toBeGreaterThan(0);
    const { points, ci95 } = report.accuracyChange!;
    expect(points).toBeCloseTo(100 * (report.skip.accuracy! - report.full.accuracy!), 9);
    expect(ci95[0]).toBeLessThanOrEqual(points);
    expect(ci95[1]).toBeGreaterThanOrEqual(points);
    expect(report.latencyReduction).toBeCloseTo(
      1 - report.skip.latencyMs.p50 / report.full.latencyMs.p50,
      12,
    );
  });

  test('a network without gates agrees with itself', async () => {
    const report = evalSchema.parse(await cliJson('eval', plain, '--data', byClass(), '--limit', '3'));
    expect(report).toMatchObject({
      items: 3,
      skip: { agreement: 1, blocksSkipped: 0, layersSkipped: 0, multiplyAddsSkipped: 0 },
      accuracyChange: { points: 0 },
    });
    expect(report.skip.accuracy).toBe(report.full.accuracy);
  });

  test('labels are not needed, and may be left aside or given in a file', async () => {
    const unlabelled = evalSchema.parse(await cliJson('eval', gated, '--data', images, '--limit', '3'));
    expect(unlabelled).toMatchObject({ items: 3, accuracyChange: null, full: { accuracy: null } });
    const folder = folderOf({
      'one/cat.jpg': readFileSync(example('cat-0000')),
      'two/ship.jpg': readFileSync(example('ship-0000')),
      'labels.csv': 'one/cat.jpg,cat\ntwo/ship.jpg,8\n',
    });
    const of = ['eval', gated, '--data', folder];
    expect(await cli(...of)).toMatchObject({ code: 1, err: expect.stringMatching(/no label.*--no-labels/) });
    expect(await cliJson(...of, '--no-labels')).toMatchObject({ items: 2, accuracyChange: null });
    const labelled = await cliJson(...of, '--labels', join(folder, 'labels.csv'));
    expect(labelled).toMatchObject({ items: 2, full: { accuracy: 1 } });
    const { out } = await cli(...of, '--no-labels');
    expect(out).toContain('agreement');
    expect(out).not.toContain('accuracy');
  });

  test('record, replay and audit take the same folders', async () => {
    const log = join(folderOf({}), 'trace.ndjson');
    expect(await cliJson('record', gated, '--data', images, '-o', log, '--limit', '4')).toMatchObject({
      written: 4,
      lost: 0,
    });
    expect(await cliJson('replay', log, '--data', images)).toMatchObject({ recorded: 4, identical: 4 });
  });

  describe('a log of which everything that is left repeats', () => {
    const log = join(folderOf({}), 'trace.ndjson');
    let lines: string[];
    beforeAll(async () => {
      await cliJson('record', gated, '--data', images, '-o', log, '--limit', '4');
      lines = readFileSync(log, 'utf8').trimEnd().split('\n');
      expect(JSON.parse(lines.at(-1)!)).toMatchObject({ type: 'end' });
    });
    const items = () => lines.flatMap((line, i) => (JSON.parse(line).type === 'item' ? [i] : []));
    const run = async (some: readonly string[]) => {
      const path = join(folderOf({ 'log.ndjson': `${some.join('\n')}\n` }), 'log.ndjson');
      const replayed = await cli('replay', path, '--data', images, '--json');
      const report = JSON.parse(replayed.out);
      expect(report.identical).toBe(report.recorded);
      const audited = await cli('audit', path, '--json');
      return { replayed, audited, answer: JSON.parse(audited.out) };
    };

    test.each<[string, (at: readonly number[]) => readonly string[]]>([
      ['cut out', ([, at]) => lines.toSpliced(at!, 1)],
      ['repeated', ([, at]) => lines.toSpliced(at!, 0, lines[at!]!)],
      ['swapped', ([, one, other]) => lines.with(one!, lines[other!]!).with(other!, lines[one!]!)],
      ['added', ([, at]) => lines.toSpliced(at!, 0, '{}')],
    ])('is a failure where lines were %s, by its place', async (_, tamper) => {
      const { replayed, audited, answer } = await run(tamper(items()));
      for (const { code, err } of [replayed, audited]) {
        expect(code).toBe(1);
        const { error } = JSON.parse(err.trimEnd().split('\n').at(-1)!);
        expect(error.code).toBe('INVALID_DATA');
        expect(error.message).toMatch(/is not as it was written \(log\.ndjson: line \d+ /);
      }
      expect(answer.tampered.length).toBeGreaterThan(0);
      expect(answer.tampered[0]).toMatchObject({ file: 'log.ndjson', line: expect.any(Number) });
    });

    test('is none where a process was killed, or where nothing was done to it', async () => {
      const { replayed, audited, answer } = await run(lines.slice(0, items()[3]!));
      expect([replayed.code, audited.code]).toEqual([0, 0]);
      expect(replayed.err).toMatch(/^note: .*was not closed/);
      expect(answer).toMatchObject({ items: 3, tampered: [], gaps: [{ kind: 'unfinished' }] });
      expect((await run(lines)).replayed).toMatchObject({ code: 0, err: '' });
    });
  });

  test('reads IDX files, resizing and spreading grey over the channels', async () => {
    const data = folderOf({
      'test-images-idx3-ubyte': idx(
        [2, 28, 28],
        Array.from({ length: 2 * pixels }, (_, i) => i % 256),
      ),
      'test-labels-idx1-ubyte': idx([2], [3, 9]),
    });
    const { code, out } = await cli('eval', gated, '--data', data);
    expect(code).toBe(0);
    expect(out).toMatch(/2 images/);
    for (const name of ['accuracy', 'agreement', 'median', 'blocks skipped']) expect(out).toContain(name);
  });
});

describe('what goes wrong', () => {
  const empty = folderOf({ 'notes.txt': '' });
  const torn = join(folderOf({ 'torn.jpg': readFileSync(example('cat-0000')).subarray(0, 600) }), 'torn.jpg');
  const noModel = join(folderOf({ 'model.onnx': 'these are no ONNX bytes' }), 'model.onnx');
  const policyOf = (content: object) => join(folderOf({ 'p.json': JSON.stringify(content) }), 'p.json');

  test.each<[string, string[], string, RegExp]>([
    ['no image but a torn one', ['run', gated, torn], 'INVALID_DATA', /1 image can't be used.*torn\.jpg/],
    ['an image that is not there', ['run', gated, 'nowhere.jpg'], 'INVALID_DATA', /nowhere\.jpg/],
    ['a folder without images', ['run', gated, empty], 'INVALID_DATA', /holds no image/],
    [
      'no data',
      ['eval', gated, '--data', empty],
      'INVALID_DATA',
      /it has no images; expected a folder of images per class/,
    ],
    ['no model', ['inspect', 'nowhere.onnx'], 'MODEL_NOT_FOUND', /nowhere\.onnx/],
    ['a folder without model', ['run', empty, example('cat-0000')], 'MODEL_NOT_FOUND', /no \.onnx file/],
    ['a URL for a model', ['inspect', 'https://host/a.onnx'], 'MODEL_NOT_FOUND', /it is a URL.*curl -LO/],
    [
      'a name on the hub for a model',
      ['inspect', 'microsoft/resnet-50'],
      'MODEL_NOT_FOUND',
      /hub.*hf download microsoft\/resnet-50 --local-dir/,
    ],
    ['bytes that are no model', ['inspect', noModel], 'MODEL_CORRUPT', /./],
    [
      'a policy for a block that is not there',
      ['run', gated, images, '--policy', policyOf({ blocks: { 99: 'skip' } })],
      'INVALID_POLICY',
      /'99'/,
    ],
    [
      'a policy for another model',
      [
        'eval',
        gated,
        '--data',
        empty,
        '--policy',
        policyOf({ model: { sha256: '0'.repeat(64) }, blocks: {} }),
      ],
      'POLICY_MISMATCH',
      /SHA-256/,
    ],
    [
      'a policy file that is not there',
      ['run', gated, images, '--policy', 'nowhere.json'],
      'INVALID_POLICY',
      /nowhere\.json/,
    ],
  ])('%s exits with 1, writes nothing, and tells code and thing', async (_, args, errorCode, message) => {
    const text = await cli(...args);
    expect(text).toMatchObject({ code: 1, out: '' });
    expect(text.err).toMatch(message);
    expect(text.err).toContain(`[${errorCode}]`);
    const json = await cli(...args, '--json');
    expect(json).toMatchObject({ code: 1, out: '' });
    const { error } = JSON.parse(json.err) as { error: { code: string; message: string } };
    expect(error.code).toBe(errorCode);
    expect(error.message).toMatch(message);
  });

  describe('images that can not be used are named, the others are taken, and the exit code says so', () => {
    const cat = readFileSync(example('cat-0000'));
    const data = folderOf({
      'cat/0.jpg': cat,
      'cat/1.jpg': cat.subarray(0, 600),
      'cat/2.jpg': cat,
      'dog/0.jpg': 'no image',
      'dog/1.jpg': readFileSync(example('dog-0000')),
    });
    const log = join(folderOf({}), 'trace.ndjson');
    const problem = /2 images can't be used: .*(1\.jpg.*dog.0\.jpg|dog.0\.jpg.*1\.jpg)/s;

    test.each<[string, string[], (answer: never) => number]>([
      ['run', [data], (answer: unknown[]) => answer.length],
      ['eval', ['--data', data], ({ items }: { items: number }) => items],
      ['record', ['--data', data, '-o', log], ({ written }: { written: number }) => written],
    ])('by %s', async (command, args, count) => {
      const json = await cli(command, gated, ...args, '--json');
      expect(json.code).toBe(1);
      expect(count(JSON.parse(json.out) as never)).toBe(3);
      const { error } = JSON.parse(json.err) as { error: { code: string; message: string } };
      expect(error.code).toBe('INVALID_DATA');
      expect(error.message).toMatch(problem);
    });

    test('by replay', async () => {
      const { code, out, err } = await cli('replay', log, '--data', data, '--model', gated);
      expect(out).toContain('3 identical bit for bit');
      // It reads no further than to the last one that it looks for.
      expect(code === 1).toBe(/can't be used/.test(err));
    });
  });

  test('an image above the limit of pixels is refused before it is decoded', async () => {
    const { code, err } = await cli('run', gated, example('cat-0000'), '--max-pixels', '1000');
    expect(code).toBe(1);
    expect(err).toMatch(/cat-0000\.jpg.*more than 1000 pixels.*--max-pixels/);
    expect(await cli('run', gated, example('cat-0000'), '--max-pixels', '1024')).toMatchObject({ code: 0 });
  });

  test('a data file above the limit of bytes is refused', async () => {
    const data = folderOf({
      'test-images-idx3-ubyte': idx([2, 2, 2], []),
      'test-labels-idx1-ubyte': idx([2], [0, 0]),
    });
    const { code, err } = await cli('eval', gated, '--data', data, '--max-bytes', '7');
    expect({ code, err }).toEqual({ code: 1, err: expect.stringMatching(/limit of 7 bytes.*--max-bytes/) });
  });

  test('record refuses a path that is a folder, before it runs anything', async () => {
    const { code, out, err } = await cli('record', gated, '--data', images, '-o', empty);
    expect({ code, out }).toEqual({ code: 1, out: '' });
    expect(err).toMatch(/can't be written: it is a folder/);
  });

  test('names with escape codes are written out', async () => {
    const name = `evil\u001b[2J\u009b31m\u202e.jpg`;
    const folder = folderOf({ [name]: readFileSync(example('cat-0000')), [`torn-${name}`]: 'no image' });
    const { code, out, err } = await cli('run', gated, folder);
    expect(code).toBe(1);
    expect(out).toContain('evil\\u001b[2J\\u009b31m\\u202e.jpg');
    const json = await cli('run', gated, folder, '--json');
    const printed = out + err + json.out + json.err;
    for (const control of ['\u001b', '\u009b', '\u202e']) expect(printed).not.toContain(control);
    expect(JSON.parse(json.out)).toMatchObject([{ input: join(folder, name) }]);
  });

  test.each<[string, string[], RegExp]>([
    [
      'a misspelt option of calibrate',
      ['calibrate', gated, '--data', images, '-o', 'p.json', '--max-disagrement', '0.1'],
      /Did you mean --max-disagreement/,
    ],
    ['a misspelt option', ['run', gated, images, '--polcy', 'full'], /--polcy.*--policy/],
    ['a misspelt command', ['inspct', gated], /inspct.*inspect/],
    ['an unknown backend', ['run', gated, images, '--backend', 'gpu'], /gpu.*native, reference/],
    ['an unknown instruction set', ['run', gated, images, '--isa', 'sse2'], /sse2.*avx2/],
    ['threads that are none', ['run', gated, images, '--threads', '0'], /threads.*above 0/],
    ['a limit that is no number', ['eval', gated, '--data', images, '--limit', 'many'], /limit.*above 0/],
    ['eval without data', ['eval', gated], /--data/],
    ['run without images', ['run', gated], /images/],
    ['--full beside --policy', ['run', gated, images, '--full', '--policy', 'model'], /--full.*--policy/],
    ['too many arguments', ['inspect', gated, gated], /argument/],
  ])('%s is a usage error: exit code 2', async (_, args, message) => {
    const text = await cli(...args);
    expect(text).toMatchObject({ code: 2, out: '' });
    expect(text.err).toMatch(message);
    const json = await cli(...args, '--json');
    expect(json.code).toBe(2);
    expect(JSON.parse(json.err)).toMatchObject({ error: { code: 'INVALID_ARGUMENT' } });
  });

  test('a peer that has moved out of the command is answered with where it is', async () => {
    expect(await cli('bench', plain, '--peers', 'onnxruntime-node,tfjs-wasm')).toMatchObject({
      code: 2,
      err: expect.stringContaining('tfjs-wasm has moved: node bench/tfjs.mjs MODEL'),
    });
    expect(await cli('bench', plain, '--peers', 'none')).toMatchObject({
      code: 2,
      err: expect.stringContaining(
        'There is no peer none; expected reference, onnxruntime-node, onnxruntime-web.',
      ),
    });
  });

  test('an option that has another name is answered with that name', async () => {
    expect(await cli('enqueue', 'x.png', '--queue', 'q', '--most-waiting', '9')).toMatchObject({
      code: 2,
      err: expect.stringContaining('Did you mean --max-waiting?'),
    });
    expect(await cli('serve', gated, '--queue', '9')).toMatchObject({
      code: 2,
      err: expect.stringContaining('It is called --max-waiting now'),
    });
    expect(await cli('calibrate', gated, '--data', images, '-o', 'p.json', '--budget-ms', '9')).toMatchObject(
      {
        code: 2,
        err: expect.stringContaining('Did you mean --budget?'),
      },
    );
    for (const old of [['--reference', 'float.onnx'], ['--reference=float.onnx']]) {
      expect(await cli('run', gated, images, ...old)).toMatchObject({
        code: 2,
        err: expect.stringContaining('It is called --original now'),
      });
    }
  });

  test('help and version go to the output, and nothing at all shows the help', async () => {
    const version = (JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string })
      .version;
    expect(await cli('--version')).toEqual({ code: 0, out: `${version}\n`, err: '' });
    expect(await cli('run', '--help')).toMatchObject({
      code: 0,
      out: expect.stringContaining('--policy'),
      err: '',
    });
    expect(await cli()).toMatchObject({ code: 2, out: '', err: expect.stringContaining('inspect') });
  });
});

test('run says that a promise is about an original, unless it is given', async () => {
  const folder = join(root, 'models/cifar10-resnet14-exits');
  const at = (file: string) => join(folder, file);
  const args = ['run', at('model.int8.onnx'), example('cat-0000'), '--policy', at('policy.int8.json')];
  const alone = await cli(...args);
  expect(alone.err).toMatch(/^note: the promise is about the answers of the network with SHA-256 /);
  const beside = await cli(...args, '--original', at('model.onnx'));
  expect(beside).toMatchObject({ code: 0, err: '' });
  // In full, the time of the 8-bit network isn't that of its original.
  const { out } = await cli(
    'run',
    at('model.int8.onnx'),
    example('cat-0000'),
    '--original',
    at('model.onnx'),
    '--full',
  );
  expect(out).toMatch(/ms full +ms skip/);
  expect(out).toMatch(/1 image: 0 of \d+ blocks skipped, [\d.]+ ms instead of [\d.]+ ms: /);
});

test('a log of several precisions is replayed in each', async () => {
  const log = join(folderOf({}), 'log.jsonl');
  const recorded = ['--data', images, '--limit', '2', '--policy', 'full'];
  for (const precision of ['bfloat16', 'float32'])
    expect(await cli('record', plain, ...recorded, '-o', log, '--precision', precision)).toMatchObject({
      code: 0,
    });
  const replay = ['replay', log, '--data', images, '--json'];
  for (const [precision, other] of [
    [[], 'bfloat16'],
    [['--precision', 'bfloat16'], 'float32'],
  ] as const) {
    const { code, out, err } = await cli(...replay, ...precision);
    expect(err).toContain(
      `2 items in other precisions (${other}) are left out; replay them with --precision`,
    );
    expect({ code, ...JSON.parse(out) }).toMatchObject({ code: 0, recorded: 2, replayed: 2, identical: 2 });
  }
});
