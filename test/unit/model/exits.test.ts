import { NativeBackend } from 'lib/backends/native.js';
import { ReferenceBackend } from 'lib/backends/reference.js';
import { InferenceSession, type PolicySource, Tensor } from 'lib/index.js';
import { buildProgram } from 'lib/model/compile.js';
import { Growth } from 'lib/model/program/grow.js';
import type { Program, Step, ValueId } from 'lib/model/program/program.js';
import { attachExits } from 'lib/skip/attach.js';
import { type ExitSpec, MODEL_EXITS, resolveExits } from 'lib/skip/exits.js';
import { IrBuilder } from '../../helpers/ir-builder.js';
import { GraphBuilder, int64s, modelBytes, tensor } from '../../helpers/onnx-builder.js';
import { randomFloats } from '../../helpers/random.js';
import { makeRequest } from '../../helpers/requests.js';
import { denseProgram, runProgram } from '../../helpers/run-program.js';

const CLASSES = 3;
const SIZE = 3 * 6 * 6;
const ITEMS = Array.from({ length: 12 }, (_, i) =>
  randomFloats(SIZE, 50 + i).map((x) => x * 0.5 + i / 4 - 1),
);

/** A stem and three blocks: outputs of all of them, and the answer. */
function network(b: IrBuilder): { maps: ValueId[]; full: ValueId } {
  const maps = [b.act(b.conv(b.input([1, 3, 6, 6]), 4))];
  for (let i = 0; i < 3; i++) maps.push(b.act(b.binary('add', maps[i]!, b.body(maps[i]!))));
  return { maps, full: b.gemm(b.globalPool(maps[3]!), CLASSES) };
}

/** An exit behind the map: its score grows with the brightness, its answer reads what `before` found as well. */
function exit(b: IrBuilder, map: ValueId, before?: ValueId) {
  const hidden = b.act(b.gemm(b.globalPool(map), 4));
  const found = before === undefined ? hidden : b.binary('add', hidden, before);
  return { found, score: b.logits(map), answer: b.gemm(found, CLASSES) };
}

function choose(
  b: IrBuilder,
  { score, answer }: ReturnType<typeof exit>,
  limit: number,
  rest: ValueId,
): ValueId {
  return b.where(b.compare('ge', score, b.constant(Float32Array.of(limit), [1, 1])), answer, rest);
}

/** The network with exits behind its first and second block. */
function withExits(limits: readonly [number, number]): IrBuilder & { output: ValueId } {
  const b = new IrBuilder();
  const { maps, full } = network(b);
  const first = exit(b, maps[1]!);
  const second = exit(b, maps[2]!, first.found);
  return Object.assign(b, { output: choose(b, first, limits[0], choose(b, second, limits[1], full)) });
}

function expectSame(program: Program, other: Program): void {
  for (const item of ITEMS) {
    const [actual, expected] = [runProgram(program, [item]).output, runProgram(other, [item]).output];
    for (const [k, value] of expected.entries()) expect(actual[k]).toBeCloseTo(value, 5);
  }
}

const attach = (program: Program, ...exits: ExitSpec[]) => attachExits(program, exits);
const blocksRun = (program: Program) => ITEMS.map((item) => runProgram(program, [item]).ran.join(''));

describe('exits in a graph', () => {
  const built = withExits([0.1, 0.01]);
  const ir = built.build(built.output);
  const program = buildProgram(ir);
  const [first, second] = program.ownExits!.list;

  test('the program is that of the network without them', () => {
    const b = new IrBuilder();
    const { ownExits: _, ...own } = program;
    expect(own).toEqual(buildProgram(b.build(network(b).full)));
  });

  test('each is behind the block that it reads, with its threshold and what it costs', () => {
    const names = program.blocks.map(({ name }) => name);
    expect([first!.after, second!.after]).toEqual(names.slice(0, 2));
    expect(first!.threshold).toBeCloseTo(0.1);
    expect(second!.threshold).toBeCloseTo(0.01);
    // Pool to hidden, hidden to answer, and the score's two layers.
    expect(first!.cost.multiplyAdds).toBe(4 * 4 + 4 * CLASSES + 4 * 4 + 4);
  });

  test('built in as the model has them, they answer as the graph does, and skip all that remains', () => {
    const grown = attachExits(program, resolveExits(program, MODEL_EXITS));
    expectSame(grown, denseProgram(ir));
    expect(new Set(blocksRun(grown))).toEqual(new Set(['100', '110', '111']));
    expect(grown.exits[0]).toMatchObject({
      ...{ after: first!.after, blocks: 1, threshold: first!.threshold },
      ...{ multiplyAdds: first!.cost.multiplyAdds, beyond: 4 * CLASSES },
    });
  });

  test('one alone brings along what it needs of the one before, and nothing else', () => {
    const grown = attach(program, { after: second!.after, threshold: 0.1 });
    const b = withExits([Number.POSITIVE_INFINITY, 0.1]);
    expectSame(grown, denseProgram(b.build(b.output)));
    expect(new Set(blocksRun(grown))).toEqual(new Set(['110', '111']));
    expect(grown.exits.map(({ blocks, multiplyAdds }) => [blocks, multiplyAdds])).toEqual([
      [2, 4 * 4 + second!.cost.multiplyAdds],
    ]);
  });

  test('a policy has other thresholds for them', () => {
    const grown = attach(program, { after: first!.after, threshold: -1e9 });
    expect(new Set(blocksRun(grown))).toEqual(new Set(['100']));
  });

  test('a policy can not name one that is not there', () => {
    expect(() => attach(program, { after: program.blocks[2]!.name, threshold: 0 })).toThrow(
      /exit '.*' has no head, but the model has no exit of its own behind such a block, and the policy no such front/,
    );
  });
});

describe('an exit before the first block', () => {
  const b = new IrBuilder();
  const program = buildProgram(b.build(network(b).full));

  /** Its head reads the input, as a whole small network does: the answers are the means of the channels, the score is the first. */
  function withExit(threshold: number): Program {
    const growth = new Growth(program);
    const [input] = program.inputs;
    const answer = growth.value('means', 'float32', [1, CLASSES]);
    const score = growth.value('first mean', 'float32', [1, 1]);
    const steps: Step[] = [
      { op: 'globalPool', inputs: [input!.value], outputs: [answer], attrs: { kind: 'avg' } },
      { op: 'slice', inputs: [answer], outputs: [score], attrs: { starts: [0, 0], steps: [1, 1] } },
    ];
    const costs = { multiplyAdds: 0, beyond: 0 };
    growth.insertExit(0, steps, { after: 'input', blocks: 0, threshold, score, answers: [answer], ...costs });
    return growth.build();
  }

  test.each([
    ['native', () => new NativeBackend()],
    ['reference', () => new ReferenceBackend()],
  ])('skips every block of the items that take it: %s', (_, create) => {
    const backend = create();
    const batch = Float32Array.from(ITEMS.flatMap((item) => [...item]));
    const run = (threshold: number) => {
      const grown = withExit(threshold);
      const request = makeRequest(grown, [batch], ITEMS.length);
      const compiled = backend.compileSync(grown);
      compiled.runSync(request);
      compiled.release();
      return { ...request, answers: [...(request.outputs[0] as Float32Array)] };
    };
    const rows = (data: ArrayLike<number>, width: number) =>
      ITEMS.map((_item, i) => Array.from(data).slice(i * width, (i + 1) * width));
    const means = rows(batch, SIZE).map(
      (item) => item.slice(0, SIZE / 3).reduce((sum, x) => sum + x) / (SIZE / 3),
    );
    const middle = (means[5]! + means[6]!) / 2;
    const full = run(Number.POSITIVE_INFINITY);
    const { outcomes, scores, answers } = run(middle);
    const blocks = program.blocks.length;
    for (const [i, [taken, score]] of rows(scores, blocks + 1)
      .map((row, item) => [rows(outcomes, blocks + 1)[item]!, row[blocks]!] as const)
      .entries()) {
      expect(score).toBeCloseTo(means[i]!, 4);
      const leaves = means[i]! >= middle;
      expect(taken).toEqual([...program.blocks.map(() => Number(!leaves)), Number(leaves)]);
      const answer = rows(answers, CLASSES)[i]!;
      if (leaves) expect(answer[0]).toBe(score);
      else expect(answer).toEqual(rows(full.answers, CLASSES)[i]);
    }
    expect(means.filter((mean) => mean >= middle).length).toBeGreaterThan(2);
    backend.release();
  });
});

describe('exits that read a layer outside the blocks', () => {
  /** A block, a convolution, a block, two convolutions, and the answer; exits read the first and the second convolution. */
  function built(withExits: boolean) {
    const b = new IrBuilder();
    const block = (from: ValueId) => b.act(b.binary('add', from, b.body(from)));
    const between = b.act(b.conv(block(b.act(b.conv(b.input([1, 3, 6, 6]), 4))), 4));
    const behind = b.act(b.conv(block(between), 4));
    const full = b.gemm(b.globalPool(b.act(b.conv(behind, 4))), CLASSES);
    const exits = [exit(b, between), exit(b, behind)] as const;
    return b.build(withExits ? choose(b, exits[0], -0.245, choose(b, exits[1], -0.2955, full)) : full);
  }
  const ir = built(true);
  const program = buildProgram(ir);
  const { ownExits: exits, ...network } = program;
  const convolution = 6 * 6 * 9 * 4 * 4;

  test('the program is that of the network without them', () => {
    expect(network).toEqual(buildProgram(built(false)));
  });

  test('each is behind that layer, and counts as behind the block in front of it', () => {
    expect(exits!.list.map(({ after }) => after)).toEqual(program.blocks.map(({ name }) => name));
    expect(exits!.list.map(({ at }) => at)).toEqual(program.blocks.map(({ end }) => end + 1));
  });

  test('they answer as the graph does, and skip what is behind the layer alone', () => {
    const grown = attachExits(program, resolveExits(program, MODEL_EXITS));
    expectSame(grown, denseProgram(ir));
    expect(new Set(blocksRun(grown))).toEqual(new Set(['10', '11']));
    const beyond = grown.exits.map((exit) => exit.beyond);
    // Behind the first one, all convolutions but one that belong to no block; the layer that answers behind both.
    expect(beyond).toEqual([2 * convolution + 4 * CLASSES, convolution + 4 * CLASSES]);
  });

  test('not where the network has branches: the layer may lie in one that is not taken', () => {
    const b = new IrBuilder();
    const stem = b.act(b.conv(b.input([1, 3, 6, 6]), 4));
    const taken = b.compare('gt', b.logits(stem), b.constant(Float32Array.of(0), [1, 1]));
    const conv = (branch: IrBuilder) => branch.conv(stem, 4);
    const chosen = b.branches(taken, b.shape(stem), conv, conv);
    const first = b.act(b.binary('add', chosen, b.body(chosen)));
    const layer = b.act(b.conv(first, 4));
    const last = b.act(b.binary('add', layer, b.body(layer)));
    const withBranches = b.build(choose(b, exit(b, layer), 0.2, b.gemm(b.globalPool(last), CLASSES)));
    expect(buildProgram(withBranches).ownExits).toBeUndefined();
    expectSame(buildProgram(withBranches), denseProgram(withBranches));
  });
});

type Change = (b: IrBuilder, maps: ValueId[], full: ValueId) => ValueId;

describe('choices that are no exits', () => {
  test.each<[string, Change]>([
    [
      'of what lies inside a block',
      (b, maps) => {
        const inside = b.act(b.conv(maps[3]!, 4));
        const last = b.act(b.binary('add', maps[3]!, b.conv(inside, 4)));
        return choose(b, exit(b, inside), 0.3, b.gemm(b.globalPool(last), CLASSES));
      },
    ],
    [
      'for low scores',
      (b, maps, full) => {
        const { score, answer } = exit(b, maps[1]!);
        return b.where(b.compare('le', score, b.constant(Float32Array.of(0.3), [1, 1])), answer, full);
      },
    ],
    [
      'of what is computed from the other answer',
      (b, maps, full) => {
        const sure = b.compare('ge', b.logits(maps[3]!), b.constant(Float32Array.of(0.3), [1, 1]));
        return b.where(sure, b.gemm(b.act(full), CLASSES), full);
      },
    ],
    [
      'of a branch that is computed from the other answer',
      (b, maps, full) => {
        const sure = b.compare('ge', b.logits(maps[3]!), b.constant(Float32Array.of(0.3), [1, 1]));
        return b.branches(
          sure,
          [1, CLASSES],
          (inner) => inner.gemm(inner.act(full), CLASSES),
          () => full,
        );
      },
    ],
    [
      'whose score is the other answer',
      (b, maps) => {
        const score = b.logits(maps[3]!);
        const sure = b.compare('ge', score, b.constant(Float32Array.of(0.3), [1, 1]));
        return b.branches(
          sure,
          [1, 1],
          (inner) => inner.gemm(inner.globalPool(maps[1]!), 1),
          () => score,
        );
      },
    ],
    [
      'two behind one block',
      (b, maps, full) => choose(b, exit(b, maps[1]!), 0.6, choose(b, exit(b, maps[1]!), 0.3, full)),
    ],
    [
      'class by class',
      (b, maps, full) => {
        const answer = b.gemm(b.globalPool(maps[1]!), CLASSES);
        return b.where(b.compare('ge', b.logits(maps[1]!, CLASSES), b.constant(0.3)), answer, full);
      },
    ],
  ])('%s: the graph stays as it is', (_, make) => {
    const b = new IrBuilder();
    const { maps, full } = network(b);
    const ir = b.build(make(b, maps, full));
    const program = buildProgram(ir);
    expect(program.ownExits).toBeUndefined();
    expectSame(program, denseProgram(ir));
  });
});

describe('a session', () => {
  /** Behind its only block it leaves where the mean of the input is at least a half, with the answer 1, 0 for 0, 1. */
  function model(): Uint8Array {
    const graph = new GraphBuilder();
    const x = graph.input('x', ['N', 1, 4, 4]);
    const ones = (...shape: number[]) =>
      graph.constant(tensor(new Float32Array(shape.reduce((a, b) => a * b)).fill(1), shape));
    const block = (from: string) => graph.node('Add', [from, graph.node('Conv', [from, ones(1, 1, 1, 1)])]);
    const [one, two] = [block(x), ''];
    const mean = graph.node('Flatten', [graph.node('GlobalAveragePool', [one])]);
    const last = graph.node('Flatten', [graph.node('GlobalAveragePool', [block(one) + two])]);
    const answer = (from: string, ...weights: number[]) =>
      graph.node('Gemm', [from, graph.constant(tensor(Float32Array.from(weights), [1, 2]))]);
    const limit = graph.constant(tensor(Float32Array.of(1), [1, 1]));
    const sure = graph.node('GreaterOrEqual', [mean, limit]);
    const chosen = graph.node('Where', [sure, answer(mean, 1, 0), answer(last, 0, 1)]);
    graph.output(chosen, ['N', 2]);
    return modelBytes(graph);
  }
  const input = () => {
    const data = new Float32Array(32).fill(0.25, 0, 16).fill(0.75, 16);
    return { x: new Tensor('float32', data, [2, 1, 4, 4]) };
  };

  test.each(['native', 'reference'] as const)('leaves as the model or a policy says: %s', async (backend) => {
    const session = await InferenceSession.create(model(), { backend });
    try {
      const run = async (policy?: PolicySource) => {
        const { outputs, trace } = await session.runTraced(input(), { policy });
        return {
          answer: [...Object.values(outputs)[0]!.data],
          taken: trace.items.map(({ exits }) => exits.map(({ taken }) => taken)),
          saved: trace.items.map(({ multiplyAddsSkipped }) => multiplyAddsSkipped),
        };
      };
      const [after] = session.blocks.map(({ name }) => name);
      // The second block and the last layer are left out, the exit's layer is spent.
      expect(await run()).toEqual({
        answer: [0, 1, 1.5, 0],
        taken: [[false], [true]],
        saved: [-2, 16 + 2 - 2],
      });
      expect(await run('full')).toEqual({ answer: [0, 1, 0, 3], taken: [[], []], saved: [0, 0] });
      expect(await run({ heads: { exits: [] } })).toEqual(await run('full'));
      const bold = await run({ heads: { exits: [{ after: after!, threshold: 0 }] } });
      expect(bold.taken).toEqual([[true], [true]]);
    } finally {
      await session.release();
    }
  });

  /** Tokens of two numbers; its answer is their sum over the tokens that `attention_mask` marks, doubled by each of two blocks. */
  function tokens(): Uint8Array {
    const graph = new GraphBuilder();
    const x = graph.input('x', ['N', 3, 2]);
    const mask = graph.input('attention_mask', ['N', 3], 'int64');
    const axis = (at: number) => graph.constant(int64s(at));
    const marks = graph.node('Cast', [graph.node('Unsqueeze', [mask, axis(2)])], { to: 1 });
    const same = graph.constant(tensor(Float32Array.of(1, 0, 0, 1), [2, 2]));
    const block = (from: string) => graph.node('Add', [from, graph.node('MatMul', [from, same])]);
    const marked = (from: string) =>
      graph.node('ReduceSum', [graph.node('Mul', [from, marks]), axis(1)], { keepdims: 0 });
    const one = block(x);
    const first = graph.constant(tensor(Float32Array.of(1, 0), [2, 1]));
    const limit = graph.constant(tensor(Float32Array.of(5), [1, 1]));
    const sure = graph.node('GreaterOrEqual', [graph.node('MatMul', [marked(one), first]), limit]);
    graph.output(graph.node('Where', [sure, marked(one), marked(block(one))]), ['N', 2]);
    return modelBytes(graph);
  }

  test.each(['native', 'reference'] as const)(
    'an exit reads the tokens that a mask marks: %s',
    async (backend) => {
      const session = await InferenceSession.create(tokens(), { backend });
      try {
        const x = new Tensor('float32', new Float32Array(12).fill(1), [2, 3, 2]);
        const mask = new Tensor('int64', BigInt64Array.of(1n, 1n, 1n, 1n, 1n, 0n), [2, 3]);
        const { outputs, trace } = await session.runTraced({ x, attention_mask: mask });
        expect([...Object.values(outputs)[0]!.data]).toEqual([6, 6, 8, 8]);
        expect(trace.items.map(({ exits }) => exits.map(({ score, taken }) => [score, taken]))).toEqual([
          [[6, true]],
          [[4, false]],
        ]);
        expect(trace.items.map(({ blocks }) => blocks.map(({ ran }) => ran))).toEqual([
          [true, false],
          [true, true],
        ]);
      } finally {
        await session.release();
      }
    },
  );
});
