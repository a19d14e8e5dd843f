/** Model-local functions are written out before a model is decoded. */

import { InferenceSession } from 'lib/index.js';
import { loadModel } from 'lib/model/load.js';
import {
  decodeModelProto,
  encodeModelProto,
  type FunctionProto,
  type NodeProto,
} from 'lib/model/read/proto.js';
import { float32s, GraphBuilder, int64s, modelBytes, tensor } from '../../helpers/onnx-builder.js';
import { countingTensor, runOnnx } from '../../helpers/onnx-run.js';
import { randomFloats } from '../../helpers/random.js';

const DOMAIN = 'test.functions';

function withFunctions(graph: GraphBuilder, functions: FunctionProto[]): Uint8Array {
  return encodeModelProto({ ...decodeModelProto(modelBytes(graph, 18)), functions });
}

function functionOf(name: string, node: NodeProto[], more: Partial<FunctionProto> = {}): FunctionProto {
  const opsetImport = [{ domain: '', version: 18 }];
  return { name, domain: DOMAIN, input: ['a'], output: ['b'], node, opsetImport, ...more };
}

async function run(bytes: Uint8Array, size: number): Promise<number[]> {
  const session = await InferenceSession.create(bytes, { backend: 'reference' });
  const { y } = await session.run({ x: countingTensor([1, size]) });
  await session.release();
  return Array.from(y!.data as Float32Array);
}

/** y = f(f(x)) */
function twice(attributes = {}, size = 3, name = 'graph'): GraphBuilder {
  const graph = new GraphBuilder(name);
  graph.input('x', ['n', size]);
  const [h] = graph.nodes('Scale', ['x'], attributes, { domain: DOMAIN, name: 'first' });
  graph.nodes('Scale', [h!], {}, { domain: DOMAIN, name: 'second', outputs: ['y'] });
  return graph.output('y');
}

/** b = LeakyRelu(-a) with the slope that the call gives, or 0.5. */
const scale = functionOf(
  'Scale',
  [
    { opType: 'Neg', input: ['a'], output: ['inner'] },
    {
      opType: 'LeakyRelu',
      input: ['inner'],
      output: ['b'],
      attribute: [{ name: 'alpha', refAttrName: 'slope', type: 1 }],
    },
  ],
  { attributeProto: [{ name: 'slope', type: 1, f: 0.5 }] },
);

test('each call has names of its own, and its attributes or their defaults', async () => {
  // x -> -x * 0.25 -> 0.25x where positive
  expect(await run(withFunctions(twice({ slope: 0.25 }), [scale]), 3)).toEqual([0, 0.25, 0.5]);
  expect(await run(withFunctions(twice(), [scale]), 3)).toEqual([0, 0.5, 1]);
});

test('a function may call another, and pass an input on', async () => {
  const outer = functionOf('Outer', [{ opType: 'Scale', domain: DOMAIN, input: ['a'], output: ['c'] }], {
    output: ['a', 'c'],
  });
  const graph = new GraphBuilder();
  graph.input('x', ['n', 3]);
  const [same, scaled] = graph.nodes('Outer', ['x'], {}, { domain: DOMAIN, outputs: ['same', 'scaled'] });
  graph.nodes('Sub', [same!, scaled!], {}, { outputs: ['y'] });
  graph.output('y');
  expect(await run(withFunctions(graph, [scale, outer]), 3)).toEqual([0, 1.5, 3]);
});

test.each<[string, NodeProto[]]>([
  ['itself', [{ opType: 'Scale', domain: DOMAIN, input: ['a'], output: ['b'] }]],
  [
    'more than any network has',
    Array.from({ length: 2 }, (_, i) => ({
      opType: 'Scale',
      domain: DOMAIN,
      input: ['a'],
      output: [i ? 'b' : 'c'],
    })),
  ],
])('a function that contains %s is refused', async (_, node) => {
  await expect(loadModel(withFunctions(twice(), [functionOf('Scale', node)]))).rejects.toMatchObject({
    code: 'MODEL_INVALID',
    message: expect.stringMatching(/function 'Scale' is nested beyond a depth of 100/),
  });
});

test('the calls of a function share its weights, wherever these lie in the file', async () => {
  const weights = randomFloats(2048, 1);
  const constant = { name: 'value', type: 4, t: tensor(weights, [1, 2048]) };
  const nodes = [
    { opType: 'Constant', output: ['w'], attribute: [constant] },
    { opType: 'Mul', input: ['a', 'w'], output: ['b'] },
  ];
  const alignments = new Set<number>();
  for (const name of ['g', 'gg', 'ggg', 'gggg', 'ggggg', 'gggggg']) {
    const bytes = withFunctions(twice({}, 2048, name), [functionOf('Scale', nodes)]);
    alignments.add(Buffer.from(bytes).indexOf(new Uint8Array(weights.buffer)) % 4);
    const { constants } = (await loadModel(bytes)).graph;
    const [first, second] = [...constants.values()].map(({ data }) => data);
    expect(first).toEqual(weights);
    expect(second).toBe(first);
  }
  expect([...alignments].sort()).toEqual([0, 1, 2, 3]);
});

test('sequences are split, measured, read and joined', async () => {
  const graph = new GraphBuilder();
  graph.input('x', [1, 6]);
  const parts = graph.node('SplitToSequence', ['x', graph.constant(int64s(1, 2, 3))], { axis: 1 });
  const last = graph.node('SequenceAt', [parts, graph.constant(int64s(-1))]);
  const joined = graph.node('ConcatFromSequence', [graph.nodes('SequenceConstruct', [last, last])[0]!], {
    axis: 0,
  });
  const count = graph.node('Cast', [graph.node('SequenceLength', [parts])], { to: 1 });
  graph.nodes(
    'Mul',
    [graph.node('Mul', [joined, count]), graph.constant(float32s(1))],
    {},
    { outputs: ['y'] },
  );
  graph.output('y');
  const { y } = await runOnnx(graph, { x: countingTensor([1, 6]) }, 18);
  expect([y!.dims, [...(y!.data as Float32Array)]]).toEqual([
    [2, 3],
    [9, 12, 15, 9, 12, 15],
  ]);
});
