/** Graphs are cut where lengths depend on elements, and only there. */
import type { CompiledProgram } from 'lib/backends/backend.js';
import { ReferenceBackend } from 'lib/backends/reference.js';
import { InferenceSession, Tensor } from 'lib/index.js';
import { loadModel } from 'lib/model/load.js';
import { GraphBuilder, int64s, modelBytes, tensor } from '../../helpers/onnx-builder.js';

const scalar = (graph: GraphBuilder, value: number) => graph.constant(tensor(Float32Array.of(value), []));

/** x [2, 3] doubled; of that the elements above 1, and how many there are. */
function chosen(): GraphBuilder {
  const graph = new GraphBuilder();
  graph.input('x', [2, 3]);
  const doubled = graph.node('Mul', ['x', scalar(graph, 2)]);
  const marks = graph.node('Greater', [doubled, scalar(graph, 1)]);
  const places = graph.node('Transpose', [graph.node('NonZero', [marks])], { perm: [1, 0] });
  graph.nodes('GatherND', [doubled, places], {}, { outputs: ['above'] });
  graph.nodes('Shape', ['above'], {}, { outputs: ['count'] });
  graph.nodes('Relu', [doubled], {}, { outputs: ['relu'] });
  graph.output('above', ['k']).output('count', [1], 'int64').output('relu', [2, 3]);
  return graph;
}

const given = (values: readonly number[], dims = [2, 3]) => ({
  x: new Tensor('float32', Float32Array.from(values), dims),
});

test('what comes before is the program, what follows is a stage', async () => {
  const { graph, stages, outputs, batching, batchingReason } = await loadModel(modelBytes(chosen()));
  expect(graph.nodes.map(({ op }) => op)).toEqual(['Mul', 'Greater', 'Relu']);
  expect(stages!.map(({ isProgram, graph: { nodes } }) => [isProgram, nodes.map(({ op }) => op)])).toEqual([
    [false, ['NonZero', 'Transpose', 'GatherND', 'Shape']],
  ]);
  expect(outputs.map(({ name, shape }) => [name, shape])).toEqual([
    ['above', ['k']],
    ['count', [1]],
    ['relu', [2, 3]],
  ]);
  expect([batching, batchingReason]).toEqual([
    'whole',
    expect.stringMatching(/\(NonZero\) has a result whose length/),
  ]);
});

test('each run has results of its own lengths, also none, and overlapping ones', async () => {
  await using session = await InferenceSession.create(modelBytes(chosen()), { threads: 1 });
  const runs = [
    [1, 0, 3, 0.4, 2, -1],
    [0, 0, 0, 0, 0, 0],
    [1, 1, 1, 1, 1, 1],
  ].map((values) => session.run(given(values)));
  const found = (await Promise.all(runs)).map(({ above, count }) => [
    [...(above!.data as Float32Array)],
    count!.data[0],
  ]);
  expect(found).toEqual([
    [[2, 6, 4], 3n],
    [[], 0n],
    [[2, 2, 2, 2, 2, 2], 6n],
  ]);
});

test('only requested outputs are returned, and given tensors are filled where they fit', async () => {
  await using session = await InferenceSession.create(modelBytes(chosen()), { threads: 1 });
  const feeds = given([1, 0, 3, 0.4, 2, -1]);
  expect(Object.keys(await session.run(feeds, ['count']))).toEqual(['count']);
  const above = new Tensor('float32', new Float32Array(3), [3]);
  const outputs = await session.run(feeds, { above });
  expect(outputs.above).toBe(above);
  expect([...above.data]).toEqual([2, 6, 4]);
  const wrong = new Tensor('float32', new Float32Array(2), [2]);
  await expect(session.run(feeds, { above: wrong })).rejects.toMatchObject({ code: 'INVALID_SHAPE' });
});

test('constants decide nothing in a run: positions that come from shapes alone, as in BERT of opset 9', async () => {
  const graph = new GraphBuilder();
  graph.input('x', ['n', 't', 4]);
  const lengths = graph.node('Slice', [graph.node('Shape', ['x'])], { axes: [0], starts: [1], ends: [2] });
  const ones = graph.node('ConstantOfShape', [lengths], { value: tensor(BigInt64Array.of(1n), [1]) });
  const positions = graph.node('Squeeze', [graph.node('NonZero', [ones])], { axes: [0] });
  const table = graph.constant(
    tensor(
      Float32Array.from({ length: 32 }, (_, i) => i),
      [8, 4],
    ),
  );
  graph.nodes('Add', ['x', graph.node('Gather', [table, positions])], {}, { outputs: ['y'] });
  graph.output('y', ['n', 't', 4]);
  const model = await loadModel(modelBytes(graph, 9));
  expect([model.stages, model.batching]).toEqual([undefined, 'item']);
  await using session = await InferenceSession.create(modelBytes(graph, 9), { threads: 1 });
  const { y } = await session.run({ x: new Tensor('float32', new Float32Array(24), [2, 3, 4]) });
  const rows = Array.from({ length: 12 }, (_, i) => i);
  expect([...(y!.data as Float32Array)]).toEqual([...rows, ...rows]);
});

/** The rows of x that are above 0, times 3, by a layer with weights. */
function layerBehind(): GraphBuilder {
  const graph = new GraphBuilder();
  graph.input('x', [6, 128]);
  const best = graph.node('ReduceMax', ['x'], { axes: [1], keepdims: 0 });
  const kept = graph.node('NonZero', [graph.node('Greater', [best, scalar(graph, 0)])]);
  const rows = graph.node('Gather', ['x', graph.node('Reshape', [kept, graph.constant(int64s(-1))])]);
  const weights = Float32Array.from({ length: 128 * 128 }, (_, i) => (i % 129 === 0 ? 3 : 0));
  const product = graph.node('MatMul', [rows, graph.constant(tensor(weights, [128, 128]))]);
  graph.nodes('Relu', [product], {}, { outputs: ['y'] });
  graph.output('y', ['k', 128]);
  return graph;
}

test('layers with weights behind a cut are a program', async () => {
  const graph = layerBehind();
  const { stages } = await loadModel(modelBytes(graph));
  expect(stages!.map(({ isProgram, graph: { nodes } }) => [isProgram, nodes.map(({ op }) => op)])).toEqual([
    [false, ['NonZero', 'Reshape', 'Gather']],
    [true, ['MatMul', 'Relu']],
  ]);
  await using session = await InferenceSession.create(modelBytes(graph), { threads: 1 });
  for (const signs of [
    [1, -1, 1, -1, -1, 1],
    [-1, -1, -1, -1, -1, -1],
  ]) {
    const values = signs.flatMap((sign) => Array<number>(128).fill(sign));
    const { y } = await session.run(given(values, [6, 128]));
    const expected = signs.filter((sign) => sign > 0).flatMap(() => Array<number>(128).fill(3));
    expect([y!.dims, [...(y!.data as Float32Array)]]).toEqual([[expected.length / 128, 128], expected]);
  }
});

test('overlapping runs leave no program behind', async () => {
  const made: CompiledProgram[] = [];
  const released = new Set<CompiledProgram>();
  const { compile } = ReferenceBackend.prototype;
  jest.spyOn(ReferenceBackend.prototype, 'compile').mockImplementation(async function (
    this: ReferenceBackend,
    program,
  ) {
    const compiled = await compile.call(this, program);
    const release = compiled.release.bind(compiled);
    made.push(compiled);
    return Object.assign(compiled, {
      release: () => {
        released.add(compiled);
        release();
      },
    });
  });
  const session = await InferenceSession.create(modelBytes(layerBehind()), { backend: 'reference' });
  const x = given(Array<number>(6 * 128).fill(1), [6, 128]);
  const answers = await Promise.all([1, 2, 3].map(() => session.run(x)));
  for (const { y } of answers) expect(y!.dims).toEqual([6, 128]);
  await session.release();
  jest.restoreAllMocks();
  // The program of the model, and those of the stage.
  expect(made.length).toBeGreaterThan(2);
  expect(made.filter((compiled) => !released.has(compiled))).toEqual([]);
});

test('an operand that must be constant, but is computed, is another cut', async () => {
  const graph = new GraphBuilder();
  graph.input('x', [5]);
  const count = graph.node('Cast', [graph.node('ReduceSum', ['x'], { keepdims: 1 })], { to: 7 });
  graph.nodes('Slice', ['x', graph.constant(int64s(0)), count], {}, { outputs: ['y'] });
  graph.output('y', ['k']);
  await using session = await InferenceSession.create(modelBytes(graph), { threads: 1 });
  const { y } = await session.run(given([1, 0, 1, 0, 0], [5]));
  expect([...(y!.data as Float32Array)]).toEqual([1, 0]);
});

test('a loop without an end is refused in its run', async () => {
  const body = new GraphBuilder('body');
  body.input('i', [], 'int64');
  body.input('go', [], 'bool');
  body.input('before', []);
  body.nodes(
    'Greater',
    ['before', body.constant(tensor(Float32Array.of(-1), []))],
    {},
    { outputs: ['more'] },
  );
  body.nodes('Identity', ['before'], {}, { outputs: ['after'] });
  body.output('more', [], 'bool').output('after', []);
  const graph = new GraphBuilder();
  graph.input('x', []);
  graph.nodes('Loop', ['', '', 'x'], { body }, { outputs: ['y'] });
  graph.output('y', []);
  await using session = await InferenceSession.create(modelBytes(graph), { threads: 1 });
  await expect(session.run(given([1], []))).rejects.toMatchObject({
    code: 'INVALID_SHAPE',
    message: expect.stringMatching(/'Loop0' \(Loop\): it and the nodes before it become more steps/),
  });
});
