import { Tensor } from 'lib/index.js';
import { loadModel, unsupportedOperators } from 'lib/model/load.js';
import { float32s, floats, GraphBuilder, int64s, modelBytes, tensor } from '../../helpers/onnx-builder.js';
import { modelOf, runOnnx } from '../../helpers/onnx-run.js';

async function errorOf(graph: GraphBuilder, opset?: number): Promise<{ code: string; message: string }> {
  return modelOf(graph, opset).then(
    () => ({ code: 'none', message: '' }),
    (error) => error,
  );
}

describe('sound graphs', () => {
  test('nodes out of order are sorted, those in order are left alone', async () => {
    const graph = new GraphBuilder();
    graph.input('x', ['n', 2]);
    graph.nodes('Relu', ['b'], {}, { outputs: ['c'], name: 'third' });
    graph.nodes('Neg', ['a'], {}, { outputs: ['b'], name: 'second' });
    graph.nodes('Neg', ['x'], {}, { outputs: ['a'], name: 'first' });
    graph.output('c');
    const model = await modelOf(graph);
    expect(model.graph.nodes.map(({ name }) => name)).toEqual(['first', 'second', 'third']);
  });

  test('what a subgraph reads of the graph around it orders nodes too', async () => {
    const branch = new GraphBuilder('then');
    branch.output(branch.nodes('Neg', ['late'], {}, { outputs: ['t'] })[0]!);
    const other = new GraphBuilder('else');
    other.output(other.nodes('Relu', ['x'], {}, { outputs: ['e'] })[0]!);
    const graph = new GraphBuilder();
    const attributes = { then_branch: branch, else_branch: other };
    graph.nodes('If', [graph.input('c', [], 'bool')], attributes, { outputs: ['y'], name: 'if' });
    graph.nodes('Neg', [graph.input('x', [2])], {}, { outputs: ['late'], name: 'neg' });
    graph.output('y', [2]);
    expect((await modelOf(graph)).graph.nodes.map(({ name }) => name)).toEqual(['neg', 'if']);
    const x = new Tensor('float32', [-1, 2], [2]);
    for (const [flag, expected] of [
      [1, [-1, 2]],
      [0, [0, 2]],
    ] as const) {
      const outputs = await runOnnx(graph, { x, c: new Tensor('bool', Uint8Array.of(flag), []) });
      expect([...outputs.y!.data]).toEqual(expected);
    }
  });

  test('a node without a name gets one of its operator and output', async () => {
    const graph = new GraphBuilder();
    graph.nodes('Relu', [graph.input('x', [2])], {}, { outputs: ['y'] });
    delete graph.proto.node[0]!.name;
    graph.output('y');
    expect((await modelOf(graph)).graph.nodes[0]!.name).toBe('Relu(y)');
  });

  test('an initialiser that stands among the inputs is a constant', async () => {
    const graph = new GraphBuilder();
    graph.input('w', [2]);
    graph.constant(float32s(1, 2), 'w');
    graph.output(graph.node('Add', [graph.input('x', [2]), 'w']), [2]);
    expect((await modelOf(graph)).inputs.map(({ name }) => name)).toEqual(['x']);
  });

  test.each([
    ['value', float32s(1, 2), [1, 2]],
    ['value_float', { float: 2 }, [2]],
    ['value_floats', floats(1, 2.5), [1, 2.5]],
  ])('Constant with %s', async (name, value, expected) => {
    const graph = new GraphBuilder();
    const constant = graph.node('Constant', [], { [name]: value });
    graph.output(graph.node('Add', [graph.input('x', [2]), constant]), [2]);
    const model = await modelOf(graph);
    expect([...model.graph.constants.get(constant)!.data]).toEqual(expected);
    expect(model.graph.nodes.map(({ op }) => op)).toEqual(['Add']);
  });

  test('Constant with value_int and value_ints', async () => {
    const graph = new GraphBuilder();
    const one = graph.node('Constant', [], { value_int: 3 });
    const two = graph.node('Constant', [], { value_ints: [4, -5] });
    graph.output(
      graph.node('Add', [graph.input('x', [2], 'int64'), graph.node('Add', [one, two])]),
      [2],
      'int64',
    );
    const { constants } = (await modelOf(graph)).graph;
    expect(constants.get(one)).toEqual({ dtype: 'int64', shape: [], data: BigInt64Array.of(3n) });
    expect(constants.get(two)).toEqual({ dtype: 'int64', shape: [2], data: BigInt64Array.of(4n, -5n) });
  });
});

describe('graphs that contradict themselves', () => {
  test.each<[string, (graph: GraphBuilder) => void, RegExp]>([
    [
      'a node whose input is missing',
      (graph) => graph.nodes('Add', ['x', 'nothing'], {}, { outputs: ['y'], name: 'sum' }),
      /node 'sum' \(Add\).*'nothing'.*not defined/,
    ],
    [
      'a cycle',
      (graph) => {
        graph.nodes('Add', ['x', 'b'], {}, { outputs: ['a'], name: 'one' });
        graph.nodes('Relu', ['a'], {}, { outputs: ['b'], name: 'two' });
        graph.nodes('Relu', ['b'], {}, { outputs: ['y'], name: 'three' });
      },
      /node 'one' \(Add\).*cycle/,
    ],
    [
      'a node that reads itself',
      (graph) => graph.nodes('Add', ['x', 'y'], {}, { outputs: ['y'], name: 'self' }),
      /node 'self'.*cycle/,
    ],
    [
      'two nodes with one output',
      (graph) => {
        graph.nodes('Relu', ['x'], {}, { outputs: ['y'], name: 'one' });
        graph.nodes('Neg', ['x'], {}, { outputs: ['y'], name: 'two' });
      },
      /node 'two' \(Neg\).*'y'.*twice/,
    ],
    [
      'a node that overwrites an input',
      (graph) => {
        graph.nodes('Relu', ['x'], {}, { outputs: ['x'], name: 'over' });
        graph.nodes('Relu', ['x'], {}, { outputs: ['y'] });
      },
      /node 'over'.*'x'.*twice/,
    ],
    ['an output that nothing makes', () => {}, /graph 'graph'.*output 'y'/],
    [
      'an initialiser that is there twice',
      (graph) => {
        graph.constant(float32s(1), 'w');
        graph.constant(float32s(2), 'w');
        graph.nodes('Add', ['x', 'w'], {}, { outputs: ['y'] });
      },
      /'w'.*twice/,
    ],
    [
      'two inputs of one name',
      (graph) => {
        graph.input('x', [3]);
        graph.nodes('Relu', ['x'], {}, { outputs: ['y'] });
      },
      /two of its inputs/,
    ],
    [
      'two outputs of one name',
      (graph) => {
        graph.output('y');
        graph.nodes('Relu', ['x'], {}, { outputs: ['y'] });
      },
      /two of its outputs.*'y'/,
    ],
    [
      'a subgraph that reads what is not there',
      (graph) => {
        const branch = new GraphBuilder('inner');
        branch.output(branch.nodes('Relu', ['gone'], {}, { outputs: ['z'], name: 'deep' })[0]!);
        const attributes = { then_branch: branch, else_branch: branch };
        graph.nodes('If', [graph.constant(tensor(Uint8Array.of(1), [], 'bool'))], attributes, {
          outputs: ['y'],
        });
      },
      /node 'deep'.*'gone'/,
    ],
    [
      'shapes that do not fit',
      (graph) =>
        graph.nodes('Add', ['x', graph.constant(float32s(1, 2))], {}, { outputs: ['y'], name: 'sum' }),
      /node 'sum' \(Add\).*\[3\].*\[2\]/,
    ],
    [
      'types that do not fit',
      (graph) => graph.nodes('Add', ['x', graph.constant(int64s(1))], {}, { outputs: ['y'], name: 'sum' }),
      /node 'sum' \(Add\).*float32, int64/,
    ],
    [
      'a node without its inputs',
      (graph) => graph.nodes('Conv', ['x'], {}, { outputs: ['y'], name: 'conv' }),
      /node 'conv' \(Conv\).*input 1 is missing/,
    ],
    [
      'an attribute of another type',
      (graph) => graph.nodes('Softmax', ['x'], { axis: 'last' }, { outputs: ['y'], name: 'soft' }),
      /node 'soft' \(Softmax\).*'axis'/,
    ],
    [
      'an axis that is not there',
      (graph) => graph.nodes('Softmax', ['x'], { axis: 4 }, { outputs: ['y'], name: 'soft' }),
      /node 'soft' \(Softmax\).*axis 4/,
    ],
    [
      'more outputs than the operator has',
      (graph) => {
        graph.nodes('Relu', ['x'], {}, { outputs: ['y', 'z'], name: 'relu' });
        graph.output('z');
      },
      /node 'relu' \(Relu\).*no output 1/,
    ],
  ])('%s', async (_, build, message) => {
    const graph = new GraphBuilder();
    graph.input('x', [3]);
    graph.output('y');
    build(graph);
    const error = await errorOf(graph);
    expect([error.code, error.message]).toEqual(['MODEL_INVALID', expect.stringMatching(message)]);
  });
});

test('what no output needs may be anything', async () => {
  const graph = new GraphBuilder();
  graph.input('x', ['n', 1]);
  graph.constant({ ...float32s(), dataType: 8 }, 'text');
  graph.nodes('Unheard', ['x'], {}, { outputs: ['unused'] });
  const [y] = graph.nodes(
    'MaxPool',
    [graph.input('image', ['n', 1, 2, 2])],
    { kernel_shape: [2, 2] },
    { outputs: ['y', 'unread'] },
  );
  graph.output(y!);
  const model = await loadModel(modelBytes(graph));
  expect(unsupportedOperators(model)).toEqual([]);
  expect(model.graph.nodes.map(({ op, outputs }) => [op, outputs])).toEqual([['MaxPool', ['y', '']]]);
  expect(model.batching).toBe('item');
});

describe('what is not implemented', () => {
  function graphWithMuch(): GraphBuilder {
    const graph = new GraphBuilder();
    const x = graph.input('x', ['n', 2]);
    const a = graph.nodes('Det', [x], {}, { outputs: ['a'], name: 'det1' })[0]!;
    const b = graph.nodes('Det', [a], {}, { outputs: ['b'], name: 'det2' })[0]!;
    const c = graph.nodes('Gelu', [b], {}, { outputs: ['c'], name: 'gelu', domain: 'com.example' })[0]!;
    const branch = new GraphBuilder('inner');
    branch.output(branch.nodes('Hardmax', [c], {}, { outputs: ['s'], name: 'hardmax' })[0]!);
    const attributes = { then_branch: branch, else_branch: branch };
    graph.nodes('If', [graph.input('flag', [], 'bool')], attributes, { outputs: ['d'], name: 'if' });
    graph.nodes('Cast', ['d'], { to: 8 }, { outputs: ['e'], name: 'cast' });
    return graph.output('e', ['n', 2], 'string');
  }

  test('all of it is named at once', async () => {
    const error = await errorOf(graphWithMuch(), 25);
    expect(error.code).toBe('UNSUPPORTED_MODEL');
    for (const part of [
      'opset 25',
      "Det ('det1', 'det2')",
      "com.example.Gelu ('gelu')",
      'Hardmax',
      'string',
    ]) {
      expect(error.message).toContain(part);
    }
  });

  test.each([
    ['ReorderInput', 'com.microsoft.nchwc'],
    ['Conv', 'com.microsoft.nchwc'],
    ['NhwcMaxPool', 'com.microsoft'],
  ])("%s of onnxruntime's level 'all' is said to be that", async (op, domain) => {
    const graph = new GraphBuilder();
    const made = graph.nodes(op, [graph.input('x', ['n', 8, 4, 4])], {}, { outputs: ['y'], domain });
    const error = await errorOf(graph.output(made[0]!, ['n', 8, 4, 4]));
    expect(error).toMatchObject({
      code: 'UNSUPPORTED_MODEL',
      message: expect.stringMatching(
        /^model: onnxruntime saved it at the optimisation level 'all'.* give the original file, or save it at the level 'extended' or 'basic'$/,
      ),
    });
    expect(error.message).toContain(`${domain}.${op}`);
  });

  test('it can be looked at all the same', async () => {
    const model = await loadModel(modelBytes(graphWithMuch()), { allowUnsupported: true });
    expect(unsupportedOperators(model)).toEqual([
      { op: 'output of string', nodes: ['e'] },
      { op: 'Det', nodes: ['det1', 'det2'] },
      { op: 'com.example.Gelu', nodes: ['gelu'] },
      { op: 'Hardmax', nodes: ['hardmax', 'hardmax'] },
      { op: 'Cast to string', nodes: ['cast'] },
    ]);
    expect(model.inputs.map(({ name }) => name)).toEqual(['x', 'flag']);
    expect(model.batching).toBe('whole');
  });

  test.each<[string, (graph: GraphBuilder) => void, RegExp]>([
    ['strings', (graph) => graph.input('s', [1], 'string'), /input of string \('s'\)/],
    [
      'complex numbers',
      (graph) => graph.output(graph.constant({ ...float32s(), dataType: 14 }, 'w')),
      /tensor of complex64 \('w'\)/,
    ],
    [
      'sparse initialisers',
      (graph) => {
        graph.proto.sparseInitializer = [{ values: { ...float32s(1), name: 'w' } }];
        graph.output('w');
      },
      /sparse initialiser \('w'\)/,
    ],
    [
      'strings in a Constant',
      (graph) => graph.nodes('Constant', [], { value_string: 'a' }, { name: 'text' }),
      /Constant with value_string \('text'\)/,
    ],
    [
      'BatchNormalization in training',
      (graph) => {
        const ones = graph.constant(float32s(1));
        const inputs = ['x', ones, ones, ones, ones];
        graph.output(graph.nodes('BatchNormalization', inputs, { training_mode: 1 }, { name: 'bn' })[0]!);
      },
      /BatchNormalization in training mode \('bn'\)/,
    ],
  ])('%s', async (_, build, message) => {
    const graph = new GraphBuilder();
    graph.input('x', ['n', 1]);
    build(graph);
    graph.nodes('Relu', ['x'], {}, { outputs: ['y'] });
    graph.output('y');
    const error = await errorOf(graph);
    expect([error.code, error.message]).toEqual(['UNSUPPORTED_MODEL', expect.stringMatching(message)]);
  });
});
