import { buildProgram } from 'lib/model/compile.js';
import { NO_ACTIVATION, NONE, type Program } from 'lib/model/program/program.js';
import { BlockMode } from 'lib/skip/compiled-policy.js';
import { IrBuilder } from '../../helpers/ir-builder.js';
import { GraphBuilder, tensor } from '../../helpers/onnx-builder.js';
import { modelOf, specializeOn } from '../../helpers/onnx-run.js';
import { randomFloats } from '../../helpers/random.js';
import { expectAgreement, runProgram } from '../../helpers/run-program.js';

const SHAPE = [1, 4, 6, 6];
type Make = (b: IrBuilder, x: number) => number;

/** The program of a stem and what `make` builds behind it, checked against its operations. */
function programOf(make: Make): Program {
  const b = new IrBuilder();
  const x = b.act(b.conv(b.input([1, 3, 6, 6]), 4));
  return expectAgreement(b.build(make(b, x)), 2).program;
}

const kinds = (program: Program) => program.blocks.map(({ shortcut }) => shortcut);
const skippable = (program: Program) => program.blocks.map((block) => block.skippable);
const add = (b: IrBuilder, x: number, y: number) => b.binary('add', x, y);
const post = (b: IrBuilder, x: number) => b.act(add(b, x, b.body(x)));
const pre = (b: IrBuilder, x: number) => add(b, b.conv(b.act(b.norm(b.conv(b.act(b.norm(x)), 4))), 4), x);

describe('identity shortcuts', () => {
  test('post-activation blocks', () => {
    const program = programOf((b, x) => post(b, post(b, x)));
    expect(kinds(program)).toEqual(['identity', 'identity']);
    expect(skippable(program)).toEqual([true, true]);
    expect(program.blocks.map(({ first, end }) => [first, end])).toEqual([
      [1, 3],
      [3, 5],
    ]);
  });

  test('pre-activation blocks; the stream is never activated', () => {
    const program = programOf((b, x) => pre(b, pre(b, x)));
    expect(kinds(program)).toEqual(['identity', 'identity']);
    expect(program.blocks.map((block) => block.skipActivation)).toEqual([NO_ACTIVATION, NO_ACTIVATION]);
    const [first, second] = program.blocks;
    expect(second!.input).toBe(first!.output);
  });

  test('bottlenecks and inverted residuals', () => {
    const bottleneck: Make = (b, x) => {
      const narrow = b.act(b.conv(b.act(b.conv(x, 2, { kernel: 1 })), 2));
      return b.act(add(b, x, b.conv(narrow, 4, { kernel: 1 })));
    };
    const inverted: Make = (b, x) => {
      const wide = b.act(
        b.conv(b.act(b.conv(x, 8, { kernel: 1 }), 'clip', 0, 6), 8, { group: 8 }),
        'clip',
        0,
        6,
      );
      return add(b, x, b.conv(wide, 4, { kernel: 1 }));
    };
    expect(kinds(programOf((b, x) => inverted(b, bottleneck(b, x))))).toEqual(['identity', 'identity']);
  });

  test('sums one after another without activation', () => {
    const program = programOf((b, x) => {
      const y = add(b, x, b.conv(x, 4));
      return add(b, y, b.conv(y, 4));
    });
    expect(skippable(program)).toEqual([true, true]);
  });

  test('two bodies side by side: x + F(x) + G(x)', () => {
    const program = programOf((b, x) => add(b, add(b, x, b.body(x)), b.body(x)));
    expect(skippable(program)).toEqual([true, true]);
    expect(program.blocks[1]!.input).toBe(program.blocks[0]!.output);
  });

  test('squeeze-and-excitation in the body', () => {
    const program = programOf((b, x) => {
      const body = b.body(x);
      const scale = b.reshape(
        b.act(b.gemm(b.act(b.gemm(b.globalPool(body), 2)), 4), 'sigmoid'),
        [1, 4, 1, 1],
      );
      return b.act(add(b, x, b.binary('mul', body, scale)));
    });
    expect(kinds(program)).toEqual(['identity']);
    expect(program.blocks[0]!.cost.layers).toBe(4);
    expect(program.blocks[0]!.first).toBe(1);
    expect(program.blocks[0]!.end).toBe(program.steps.length);
  });

  test('the innermost of nested sums', () => {
    const program = programOf((b, x) => b.act(add(b, x, b.conv(post(b, post(b, b.act(b.conv(x, 4)))), 4))));
    expect(program.blocks).toHaveLength(2);
    expect(program.blocks.every(({ end, first }) => end - first === 2)).toBe(true);
  });

  test('what a skipped block still owes', () => {
    const program = programOf((b, x) => {
      const signed = b.conv(x, 4);
      return b.act(add(b, signed, b.body(signed)));
    });
    expect(program.blocks[0]!.skipActivation.kind).toBe('relu');
    expect(programOf(post).blocks[0]!.skipActivation.kind).toBe('none');
  });
});

describe('projections', () => {
  const project = (b: IrBuilder, x: number) => b.norm(b.conv(x, 8, { kernel: 1, stride: 2 }));

  test.each([true, false])('shortcut first: %s', (first) => {
    const program = programOf((b, x) => {
      const [shortcut, body] = [project(b, x), b.body(x, 8, 2)];
      return b.act(first ? add(b, shortcut, body) : add(b, body, shortcut));
    });
    expect(kinds(program)).toEqual(['projection']);
    expect(skippable(program)).toEqual([false]);
    const [block] = program.blocks;
    expect([block!.first, block!.end, block!.cost.layers]).toEqual([1, 4, 3]);
    expect(program.steps[3]!.inputs[3]).not.toBe(NONE);
  });

  test('behind the first activation of a pre-activation block', () => {
    const program = programOf((b, x) => {
      const y = b.act(b.norm(x));
      return add(
        b,
        b.conv(y, 8, { kernel: 1, stride: 2 }),
        b.conv(b.act(b.norm(b.conv(y, 8, { stride: 2 }))), 8),
      );
    });
    expect(kinds(program)).toEqual(['projection']);
  });

  /** Group normalisation: mean and variance of two groups of channels, then a factor and a shift for each channel. */
  const groupNorm = (b: IrBuilder, x: number, divides: boolean) => {
    const shape = b.shape(x);
    const channels = shape[1]!;
    const groups = b.reshape(x, [1, 2, b.shape(x).reduce((p, q) => p * q) / 2]);
    const mean = (y: number) => b.step('reduceMean', [y], { axes: [2] }, [1, 2, 1]);
    const centred = b.binary('sub', groups, mean(groups));
    const variance = b.binary('add', mean(b.binary('mul', centred, centred)), b.constant(1e-5));
    const deviation = b.act(variance, 'sqrt');
    const normal = divides
      ? b.binary('div', centred, deviation)
      : b.binary('mul', b.act(deviation, 'reciprocal'), centred);
    const [scale, shift] = [b.random([channels, 1, 1], 0.2, 1), b.random([channels, 1, 1], 0.2)];
    return add(b, b.binary('mul', b.reshape(normal, shape), scale), shift);
  };

  test.each([true, false])('with a group normalisation, which divides: %s', (divides) => {
    const program = programOf((b, x) => {
      const norm = (y: number) => groupNorm(b, y, divides);
      const shortcut = norm(b.conv(x, 8, { kernel: 1, stride: 2 }));
      const body = norm(b.conv(b.act(norm(b.conv(x, 8, { stride: 2 }))), 8));
      return b.act(add(b, shortcut, body));
    });
    expect(kinds(program)).toEqual(['projection']);
    expect(program.blocks[0]!.cost.layers).toBe(3);
  });

  test('not with an activation on the shortcut', () => {
    const program = programOf((b, x) => {
      const shortcut = b.act(b.conv(x, 8, { kernel: 1, stride: 2 }), 'tanh');
      return add(b, shortcut, b.body(x, 8, 2));
    });
    expect(kinds(program)).toEqual([]);
  });

  test('with pooling in front of the projection (ResNet-D)', () => {
    const program = programOf((b, x) => {
      const pooled = pool(b, x);
      return b.act(add(b, b.conv(pooled, 8, { kernel: 1 }), b.body(x, 8, 2)));
    });
    expect(kinds(program)).toEqual(['projection']);
  });
});

describe('padded shortcuts', () => {
  const halved = (b: IrBuilder, x: number) => b.slice(x, [0, 0, 0, 0], [1, 4, 3, 3], [1, 1, 2, 2]);
  const shortcuts: [string, Make][] = [
    ['slice and Pad', (b, x) => pad(b, halved(b, x))],
    ['pool and Pad', (b, x) => pad(b, pool(b, x))],
    [
      'pool and Concat with zeros',
      (b, x) => concat(b, [pool(b, x), b.constant(new Float32Array(36), [1, 4, 3, 3])]),
    ],
    [
      'Concat with itself times zero',
      (b, x) => {
        const y = pool(b, x);
        return concat(b, [y, b.binary('mul', y, b.constant(0))]);
      },
    ],
  ];
  const pad: Make = (b, x) => {
    const attrs = { pads: [0, 2, 0, 0, 0, 2, 0, 0], mode: 'constant' } as const;
    return b.step('pad', [x, NONE], attrs, [1, 8, 3, 3]);
  };
  const concat = (b: IrBuilder, xs: number[]) => b.step('concat', xs, { axis: 1 }, [1, 8, 3, 3]);

  test.each(shortcuts)('%s', (_, shortcut) => {
    const program = programOf((b, x) => b.act(add(b, shortcut(b, x), b.body(x, 8, 2))));
    expect(kinds(program)).toEqual(['padded']);
    expect(skippable(program)).toEqual([false]);
  });

  test('subsampling alone', () => {
    expect(kinds(programOf((b, x) => add(b, halved(b, x), b.body(x, 4, 2))))).toEqual(['padded']);
  });

  test('a part of the channels is no shortcut (Res2Net)', () => {
    const program = programOf((b, x) => {
      const half = (from: number) => b.slice(x, [0, from, 0, 0], [1, 2, 6, 6]);
      const left = b.act(b.conv(half(0), 2));
      const right = b.act(b.conv(add(b, left, half(2)), 2));
      const joined = b.step('concat', [left, right], { axis: 1 }, SHAPE);
      return b.act(add(b, x, b.conv(joined, 4, { kernel: 1 })));
    });
    expect(kinds(program)).toEqual(['identity']);
  });
});

describe('sums that are no blocks', () => {
  test('of a constant, of broadcast values, of pointwise functions', () => {
    const program = programOf((b, x) => {
      let y = add(b, x, b.random(SHAPE));
      y = add(b, y, b.reshape(b.gemm(b.globalPool(y), 4), [1, 4, 1, 1]));
      return add(b, y, b.act(y, 'tanh'));
    });
    expect(program.blocks).toEqual([]);
  });

  test('of two linear layers of the same input', () => {
    const program = programOf((b, x) => b.act(add(b, b.conv(x, 4), b.conv(x, 4, { kernel: 1 }))));
    expect(program.blocks).toEqual([]);
  });

  test('of two branches that are both bodies', () => {
    const program = programOf((b, x) => add(b, b.act(b.body(x)), b.act(b.body(x))));
    expect(program.blocks).toEqual([]);
  });
});

test('a block whose body something else reads is not skippable', () => {
  const program = programOf((b, x) => {
    const inner = b.act(b.conv(x, 4));
    const y = b.act(add(b, x, b.conv(inner, 4)));
    return b.step('concat', [y, inner], { axis: 1 }, [1, 8, 6, 6]);
  });
  expect(kinds(program)).toEqual(['identity']);
  expect(skippable(program)).toEqual([false]);
});

test('a block whose body is an output is not skippable', () => {
  const b = new IrBuilder();
  const x = b.act(b.input(SHAPE));
  const inner = b.act(b.conv(x, 4));
  const { program } = expectAgreement(b.build(b.act(add(b, x, b.conv(inner, 4))), inner), 2);
  expect(skippable(program)).toEqual([false]);
});

describe('names', () => {
  const named = (scopes: string[]) => {
    const b = new IrBuilder();
    let x = b.act(b.input(SHAPE));
    for (const scope of scopes) {
      b.scope = scope;
      x = post(b, x);
    }
    return expectAgreement(b.build(x), 1).program.blocks.map(({ name }) => name);
  };

  test('are the paths of modules', () => {
    expect(named(['/layer1/layer1.0/', '/layer1/layer1.1/', '/layer2/layer2.0/'])).toEqual([
      'layer1.0',
      'layer1.1',
      'layer2.0',
    ]);
    expect(named(['net/stage1/unit1/', 'net/stage1/unit2/'])).toEqual([
      'net/stage1/unit1',
      'net/stage1/unit2',
    ]);
  });

  test('are numbers without such paths, or where two blocks share one', () => {
    expect(named(['', ''])).toEqual(['block0', 'block1']);
    expect(named(['/net/', '/net/', '/net/tail/'])).toEqual(['block0', 'block1', 'net/tail']);
  });

  test('are unique', () => {
    expect(new Set(named(['/block1/', '', '/a/'])).size).toBe(3);
  });
});

function pool(b: IrBuilder, x: number): number {
  const window = { strides: [2, 2], pads: [0, 0, 0, 0], dilations: [1, 1], kernel: [2, 2] };
  const attrs = { ...window, kind: 'avg', countIncludePad: false, columnMajorIndices: false } as const;
  const [n, c, h, w] = b.shape(x) as [number, number, number, number];
  return b.step('pool', [x], attrs, [n, c, h / 2, w / 2]);
}

describe('layers of transformers', () => {
  const TOKENS = [1, 5, 4];
  const layer = (b: IrBuilder, x: number) => b.reshape(b.gemm(b.reshape(x, [5, 4]), 4), TOKENS);
  const mlp = (b: IrBuilder, x: number) => layer(b, b.act(layer(b, x), 'gelu'));
  const attention = (b: IrBuilder, x: number) => {
    const turned = b.step('transpose', [layer(b, x)], { perm: [0, 2, 1] }, [1, 4, 5]);
    const scores = b.step('matmul', [layer(b, x), turned], {}, [1, 5, 5]);
    const weights = b.step('softmax', [scores], { axis: 2, log: false }, [1, 5, 5]);
    return layer(b, b.step('matmul', [weights, layer(b, x)], {}, TOKENS));
  };
  const norm = (b: IrBuilder, x: number) => {
    const mean = (y: number) => b.step('reduceMean', [y], { axes: [2] }, [1, 5, 1]);
    const centred = b.binary('sub', x, mean(x));
    const variance = b.binary('add', mean(b.binary('mul', centred, centred)), b.constant(1e-5));
    const normal = b.binary('div', centred, b.act(variance, 'sqrt'));
    return add(b, b.binary('mul', normal, b.random([4], 0.2, 1)), b.random([4], 0.2));
  };
  const after = (b: IrBuilder, x: number) => {
    const y = norm(b, add(b, x, attention(b, x)));
    return norm(b, add(b, y, mlp(b, y)));
  };
  const before = (b: IrBuilder, x: number) => {
    const y = add(b, x, attention(b, norm(b, x)));
    return add(b, y, mlp(b, norm(b, y)));
  };
  const network = (make: (b: IrBuilder, x: number) => number, layers: number) => {
    const b = new IrBuilder();
    let x = b.input(TOKENS);
    for (let i = 0; i < layers; i++) x = make(b, x);
    return expectAgreement(b.build(x), 2).program;
  };

  test('attention and MLP are a block each with normalisations before them', () => {
    expect(skippable(network(before, 2))).toEqual([true, true, true, true]);
  });

  test('a layer is one block with normalisations behind its sums; what is skipped passes its input on', () => {
    const program = network(after, 2);
    expect(skippable(program)).toEqual([true, true]);
    const [first, second] = program.blocks;
    expect(second!.input).toBe(first!.output);
    const item = [randomFloats(20, 1)];
    const one = runProgram(network(after, 1), item).output;
    expect(runProgram(program, item, [BlockMode.run, BlockMode.skip]).output).toEqual(one);
    expect(runProgram(program, item, [BlockMode.skip, BlockMode.skip]).output).toEqual(item[0]);
  });
});

test.each([
  ['LSTM', 4, 1],
  ['GRU', 3, 1],
  ['RNN', 1, 1],
  ['LSTM', 4, 2],
  ['RNN', 1, 2],
] as const)('the sums of %s for each token are no blocks (%i gates, %i texts)', async (op, gates, texts) => {
  const graph = new GraphBuilder();
  const floats = (shape: number[], seed: number) =>
    graph.constant(
      tensor(
        Float32Array.from(
          randomFloats(
            shape.reduce((a, b) => a * b),
            seed,
          ),
        ),
        shape,
      ),
    );
  const x = graph.node('MatMul', [graph.input('x', [3, texts, 4]), floats([4, 4], 1)]);
  const weights = [floats([1, gates * 4, 4], 2), floats([1, gates * 4, 4], 3), floats([1, gates * 8], 4)];
  const states = graph.node(op, [x, ...weights], { hidden_size: 4 });
  graph.output(graph.node('MatMul', [states, floats([4, 2], 5)]));
  const { steps, blocks } = buildProgram(specializeOn(await modelOf(graph)));
  expect(steps.length).toBeGreaterThan(3);
  expect(blocks).toEqual([]);
});
