import { dirname, join } from 'node:path';
import { cli, cliJson } from '../../helpers/cli.js';
import { folderOf, png, removeFolders } from '../../helpers/files.js';
import { ladder } from '../../helpers/ladders.js';
import { GraphBuilder, int64s, modelBytes, tensor } from '../../helpers/onnx-builder.js';
import { promising } from '../../helpers/policies.js';

afterAll(removeFolders);

type Dim = number | string;
const IMAGE: readonly Dim[] = ['batch', 3, 'height', 'width'];

/** relu(conv(x) + x), averaged over the image: a network of one block with three classes. */
function oneBlock(shape: readonly Dim[] = IMAGE, classes: Dim = 3): GraphBuilder {
  const graph = new GraphBuilder();
  const x = graph.node('Relu', [graph.input('pixels', shape)]);
  const identity = Float32Array.from({ length: 9 }, (_, i) => (i % 4 === 0 ? 1 : 0));
  const body = graph.node('Conv', [x, graph.constant(tensor(identity, [3, 3, 1, 1]))]);
  const sum = graph.node('Relu', [graph.node('Add', [body, x])]);
  const pooled = graph.node('GlobalAveragePool', [sum]);
  graph.nodes('Flatten', [pooled], {}, { outputs: ['scores'] });
  return graph.output('scores', ['batch', classes]);
}

const fileOf = (graph: GraphBuilder, files: Record<string, string | Uint8Array> = {}) =>
  join(folderOf({ 'net.onnx': modelBytes(graph), ...files }), 'net.onnx');

describe('inspect', () => {
  test('lists all unsupported operators by name and exits with 0', async () => {
    const graph = new GraphBuilder();
    const x = graph.input('pixels', ['batch', 3, 8, 8]);
    const y = graph.node('MaxUnpool', [graph.node('Cosh', [graph.node('Relu', [x])]), x]);
    const model = fileOf(graph.output(y, ['batch', 3]));
    expect(await cliJson('inspect', model)).toMatchObject({
      unsupported: ['Cosh', 'MaxUnpool'].sort(),
      blocks: [],
      multiplyAdds: null,
    });
    const { code, out } = await cli('inspect', model);
    expect(code).toBe(0);
    expect(out).toMatch(/unsupported +.*Cosh/);
    const failure = await cli('run', model, 'cat.png', '--backend', 'reference');
    expect(failure).toMatchObject({ code: 1, out: '' });
    expect(failure.err).toMatch(/Cosh.*MaxUnpool.*\[UNSUPPORTED_MODEL\]/s);
  });

  test('says when a graph mixes the items of a batch', async () => {
    const graph = new GraphBuilder();
    const x = graph.input('pixels', ['batch', 3, 8, 8]);
    const mixed = graph.node('Reshape', [x, graph.constant(int64s(1, -1))]);
    const model = fileOf(graph.output(mixed, [1, 'all']));
    expect((await cli('inspect', model)).out).toMatch(
      /runs as one item, because the graph mixes the batch: .*Reshape/,
    );
    expect(await cliJson('inspect', model)).toHaveProperty('mixesBatch', expect.stringContaining('Reshape'));
    expect(await cliJson('inspect', fileOf(oneBlock()), '--shape', '1x3x8x8')).not.toHaveProperty(
      'mixesBatch',
    );
  });

  test('wants a shape for open dimensions, and scales costs with it', async () => {
    const model = fileOf(oneBlock());
    const { code, err } = await cli('inspect', model);
    expect(code).toBe(1);
    expect(err).toMatch(/'pixels' leaves \[batch, 3, height, width\] open.*--shape pixels=1x3x224x224/);
    expect(await cliJson('inspect', model, '--shape', '1x3x8x8')).toMatchObject({
      multiplyAdds: 9 * 64,
      blocks: [{ shortcut: 'identity', skippable: true, gate: null, share: 1 }],
    });
  });

  test('takes open dimensions from the preprocessing', async () => {
    const model = fileOf(oneBlock(), { 'preprocessor_config.json': '{"size": {"height": 4, "width": 6}}' });
    expect(await cliJson('inspect', model)).toMatchObject({ multiplyAdds: 9 * 24 });
  });

  test('says so when there is no block', async () => {
    const graph = new GraphBuilder();
    const y = graph.node('Relu', [graph.input('x', ['batch', 4])]);
    expect((await cli('inspect', fileOf(graph.output(y, ['batch', 4])))).out).toContain('No residual block');
  });
});

test('bench refuses a batch of a graph that runs it as one item', async () => {
  const graph = new GraphBuilder();
  const rows = graph.node('Reshape', [graph.input('x', ['n', 4]), graph.constant(int64s(1, -1))]);
  const model = fileOf(graph.output(rows, [1, 'all']));
  const { code, out, err } = await cli('bench', model, '--batch', '8');
  expect({ code, out }).toEqual({ code: 1, out: '' });
  expect(err).toMatch(
    /batch: net\.onnx runs a batch as one item \(.*Reshape.*\); give the whole shape with --shape/,
  );
});

describe('run', () => {
  const image = async () => join(folderOf({ 'red.png': await png(5, 3, [255, 51, 0]) }), 'red.png');
  const reference = ['--backend', 'reference'];

  test('does without configuration, and says what it assumes', async () => {
    const { code, out, err } = await cli('run', fileOf(oneBlock()), await image(), '--json', ...reference);
    expect(code).toBe(0);
    expect(err).toMatch(/no preprocessor_config\.json beside .*net\.onnx; pixels are scaled to 0\.\.1/);
    const [{ top }] = JSON.parse(out) as [{ top: { index: number; label: string; probability: number }[] }];
    // The network doubles the mean of each channel: 2, 0.4 and 0.
    const total = Math.exp(2) + Math.exp(0.4) + 1;
    expect(top.map(({ index, label }) => [index, label])).toEqual([
      [0, '0'],
      [1, '1'],
      [2, '2'],
    ]);
    expect(top[0]!.probability).toBeCloseTo(Math.exp(2) / total, 6);
  });

  test('shows numbers where the model declares no number of classes', async () => {
    const { code, out } = await cli(
      'run',
      fileOf(oneBlock(IMAGE, 'classes')),
      await image(),
      ...reference,
      '--json',
    );
    expect({ code, result: JSON.parse(out) }).toMatchObject({
      code: 0,
      result: [{ top: [], cosineDistance: 0 }],
    });
  });

  test.each([
    ['absolute@0.1', /^image +numbers +blocks/m, '2.000, 0.4000, 0.000', [2, 0.4, 0]],
    ['cosine', /^image +cosine distance +blocks/m, '0.00', undefined],
  ] as const)('shows no classes where the policy promises %s', async (metric, heading, shown, numbers) => {
    const { promise, ...rest } = promising(0.05, { default: 'run', blocks: {} });
    const policy = JSON.stringify({ ...rest, promise: { ...promise, metric } });
    const model = fileOf(oneBlock(), { 'policy.json': policy });
    const args = ['run', model, await image(), ...reference, '--policy', join(dirname(model), 'policy.json')];
    const { out, err } = await cli(...args);
    expect(out).toMatch(heading);
    expect(out).toContain(shown);
    expect(err).not.toMatch(/shown as classes/);
    const [result] = JSON.parse((await cli(...args, '--json')).out);
    expect(result).toMatchObject({ top: [], cosineDistance: expect.closeTo(0, 6) });
    expect(result.numbers?.map((x: number) => Number(x.toFixed(5)))).toEqual(numbers);
  });

  test('says where what it shows as classes may be none', async () => {
    const of = async (config: object) =>
      (
        await cli(
          'run',
          fileOf(oneBlock(), { 'config.json': JSON.stringify(config) }),
          await image(),
          ...reference,
        )
      ).err;
    expect(await of({ problem_type: 'regression' })).toMatch(
      /note: what is shown as classes may be something else: config\.json .* says problem_type regression/,
    );
    expect(await of({})).toMatch(
      /may be something else: nothing says that output 'scores' .* holds class scores/,
    );
    expect(await of({ id2label: { 0: 'a', 1: 'b', 2: 'c' } })).not.toContain('as classes');
  });

  test('a policy that skips shows in pattern and answer', async () => {
    const policy = join(folderOf({ 'p.json': '{"blocks": {"0": "skip"}}' }), 'p.json');
    const args = ['run', fileOf(oneBlock()), await image(), '--policy', policy, '--json', ...reference];
    const [{ top, blocks }] = JSON.parse((await cli(...args)).out) as [
      { top: { probability: number }[]; blocks: object },
    ];
    expect(blocks).toEqual({ total: 1, skippable: 1, skipped: 1, pattern: '.' });
    expect(top[0]!.probability).toBeCloseTo(Math.exp(1) / (Math.exp(1) + Math.exp(0.2) + 1), 6);
  });

  test('of a ladder, the front that answers is named', async () => {
    const network = modelBytes(oneBlock([1, 3, 8, 8]));
    const of = async (threshold: number) => {
      const args = ['run', ladder(network, [{ name: 'small', threshold, size: [4, 4] }]), await image()];
      const [result] = JSON.parse((await cli(...args, '--json', ...reference)).out);
      return [result.answeredBy, (await cli(...args, ...reference)).out];
    };
    expect(await of(0)).toEqual([
      'small',
      expect.stringMatching(/blocks +answered by +skipped.*\n.* +small +1 of 1/),
    ]);
    expect(await of(2)).toEqual([null, expect.not.stringContaining('answered by')]);
  });

  test('calibrate is named where nothing can skip, and not where an item came to an exit and stayed', async () => {
    const hint = 'residual-skip calibrate makes a policy that skips';
    expect((await cli('run', fileOf(oneBlock()), await image(), ...reference)).out).toContain(hint);
    const { code, out } = await cli('run', fileOf(neverLeaving()), await image(), ...reference);
    expect(code).toBe(0);
    expect(out).toContain('0 of 1');
    expect(out).not.toContain(hint);
  });

  test.each<[string, GraphBuilder, Record<string, string>, string, RegExp]>([
    ['takes no image', twoInputs(), {}, 'INVALID_ARGUMENT', /images need one input of floats/],
    ['takes four channels', oneChannelCount(4), {}, 'INVALID_DATA', /input has 4 channels/],
    [
      'has another number of labels',
      oneBlock(),
      { 'config.json': '{"id2label": {"0": "a"}}' },
      'INVALID_DATA',
      /1 labels.*3 classes/,
    ],
    [
      'takes another size than its preprocessing makes',
      oneBlock(['batch', 3, 8, 8]),
      { 'preprocessor_config.json': '{"size": {"height": 4, "width": 6}}' },
      'INVALID_SHAPE',
      /red\.png: it becomes 4x6.*takes 8x8/,
    ],
  ])('a model that %s is refused', async (_, graph, files, code, message) => {
    const result = await cli('run', fileOf(graph, files), await image(), ...reference);
    expect(result).toMatchObject({ code: 1, out: '' });
    expect(result.err).toContain(`[${code}]`);
    expect(result.err).toMatch(message);
  });
});

/** A block, and an exit behind it whose score is never high enough. */
function neverLeaving(): GraphBuilder {
  const graph = new GraphBuilder();
  const constant = (length: number, value: number, ...shape: number[]) =>
    graph.constant(tensor(new Float32Array(length).fill(value), shape));
  const x = graph.input('pixels', ['batch', 3, 4, 4]);
  const block = graph.node('Add', [x, graph.node('Conv', [x, constant(9, 1, 3, 3, 1, 1)])]);
  const mean = graph.node('Flatten', [graph.node('GlobalAveragePool', [block])]);
  const score = graph.node('Gemm', [mean, constant(3, 1, 3, 1)]);
  const sure = graph.node('GreaterOrEqual', [score, constant(1, 1e9, 1, 1)]);
  const [early, late] = [1, 2].map((value) => graph.node('Gemm', [mean, constant(6, value, 3, 2)]));
  return graph.output(graph.node('Where', [sure, early!, late!]), ['batch', 2]);
}

function twoInputs(): GraphBuilder {
  const graph = new GraphBuilder();
  const y = graph.node('Add', [graph.input('a', ['batch', 3]), graph.input('b', ['batch', 3])]);
  return graph.output(y, ['batch', 3]);
}

function oneChannelCount(channels: number): GraphBuilder {
  const graph = new GraphBuilder();
  const pooled = graph.node('GlobalAveragePool', [graph.input('x', ['batch', channels, 8, 8])]);
  const y = graph.node('Flatten', [pooled]);
  return graph.output(y, ['batch', channels]);
}
