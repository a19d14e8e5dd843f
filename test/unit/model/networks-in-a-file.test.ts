import { InferenceSession, type PolicySource, Tensor } from 'lib/index.js';
import { GraphBuilder, modelBytes, tensor } from '../../helpers/onnx-builder.js';
import { randomFloats } from '../../helpers/random.js';

const CLASSES = 3;
const ITEMS = Array.from({ length: 12 }, (_, i) => randomFloats(3 * 8 * 8, 70 + i).map((x) => 3 * x));
const [SMALL, MIDDLE, LARGE] = [100, 200, 300];

/** Adds layers with seeded weights to a graph. */
class Layers {
  constructor(
    readonly graph: GraphBuilder,
    private seed: number,
  ) {}

  conv(from: string, channels: [number, number], stride = 1): string {
    const [before, after] = channels;
    const data = randomFloats(after * before * 9, this.seed++).map((x) => x / Math.sqrt(before * 3));
    const weight = this.graph.constant(tensor(data, [after, before, 3, 3]), `weight${this.seed}`);
    const attributes = { pads: [1, 1, 1, 1], strides: [stride, stride], kernel_shape: [3, 3] };
    return this.graph.node('Conv', [from, weight], attributes);
  }

  relu = (from: string) => this.graph.node('Relu', [from]);

  logits(map: string, channels: number): string {
    const weight = tensor(
      randomFloats(channels * CLASSES, this.seed++).map((x) => 4 * x),
      [channels, CLASSES],
    );
    const pooled = this.graph.node('Flatten', [this.graph.node('GlobalAveragePool', [map])]);
    return this.graph.node('Gemm', [pooled, this.graph.constant(weight, `weight${this.seed}`)]);
  }

  /** Convolutions, one after the other. */
  plain(from: string): string {
    return this.logits(this.relu(this.conv(this.relu(this.conv(from, [3, 4], 2)), [4, 4], 2)), 4);
  }

  /** A stem and two blocks. */
  residual(from: string, channels = 8): string {
    let map = this.relu(this.conv(from, [3, channels]));
    for (let i = 0; i < 2; i++) {
      const body = this.conv(this.relu(this.conv(map, [channels, channels])), [channels, channels]);
      map = this.relu(this.graph.node('Add', [map, body]));
    }
    return this.logits(map, channels);
  }
}

const scoreOf = (graph: GraphBuilder, logits: string) =>
  graph.node('ReduceMax', [graph.node('Softmax', [logits], { axis: 1 })], { axes: [1], keepdims: 1 });

const limitOf = (graph: GraphBuilder, limit: number) => graph.constant(tensor(Float32Array.of(limit), []));

const input = (graph: GraphBuilder, batch: number | string = 'N') => graph.input('x', [batch, 3, 8, 8]);
const bytesOf = (graph: GraphBuilder, output: string, batch: number | string = 'N') =>
  modelBytes(graph.output(output, [batch, CLASSES]));

function alone(network: (layers: Layers, from: string) => string, seed: number): Uint8Array {
  const graph = new GraphBuilder();
  return bytesOf(graph, network(new Layers(graph, seed), input(graph)));
}
const small = alone((layers, x) => layers.plain(x), SMALL);
const middle = alone((layers, x) => layers.residual(x, 4), MIDDLE);
const large = alone((layers, x) => layers.residual(x), LARGE);

/** The small network in front of the large one; both may read what `before` makes of the input. */
function withWhere(
  limit: number,
  compare = 'GreaterOrEqual',
  before?: (graph: GraphBuilder, x: string) => string,
) {
  const graph = new GraphBuilder();
  const given = input(graph);
  const x = before?.(graph, given) ?? given;
  const early = new Layers(graph, SMALL).plain(x);
  const late = new Layers(graph, LARGE).residual(x);
  const sure = graph.node(compare, [scoreOf(graph, early), limitOf(graph, limit)]);
  return bytesOf(graph, graph.node('Where', [sure, early, late]));
}

type Batch = 1 | 'N';

function branch(name: string, batch: Batch, make: (graph: GraphBuilder) => string): GraphBuilder {
  const graph = new GraphBuilder(name, `${name}/`);
  const [end] = graph.nodes('Identity', [make(graph)], {}, { name: `${name}_end` });
  return graph.output(end!, [batch, CLASSES]);
}

/** The first of the networks, or what the others answer. */
function choose(
  graph: GraphBuilder,
  x: string,
  networks: readonly Network[],
  limits: readonly number[],
  batch: Batch,
): string {
  const [network, ...others] = networks;
  const answer = network!(graph, x);
  if (others.length === 0) return answer;
  const sure = graph.node('GreaterOrEqual', [scoreOf(graph, answer), limitOf(graph, limits[0]!)]);
  const rest = branch(`late${others.length}`, batch, (inner) =>
    choose(inner, x, others, limits.slice(1), batch),
  );
  const early = branch(`early${others.length}`, batch, () => answer);
  return graph.node('If', [graph.node('Squeeze', [sure])], { then_branch: early, else_branch: rest });
}

type Network = (graph: GraphBuilder, x: string) => string;
const NETWORKS: readonly [Network, Network, Network] = [
  (graph, x) => new Layers(graph, SMALL).plain(x),
  (graph, x) => new Layers(graph, MIDDLE).residual(x, 4),
  (graph, x) => new Layers(graph, LARGE).residual(x),
];

/** @param batch of the file: of any batch, each item has a condition of its own */
function withIfs(networks: readonly Network[], limits: readonly number[], batch: Batch = 'N'): Uint8Array {
  const graph = new GraphBuilder();
  return bytesOf(graph, choose(graph, input(graph, batch), networks, limits, batch), batch);
}

const withIf = (limit: number, batch: Batch = 'N') => withIfs([NETWORKS[0], NETWORKS[2]], [limit], batch);

/** The small network, then the middle one, then the large one. */
function ofThree(limits: readonly [number, number]): Uint8Array {
  const graph = new GraphBuilder();
  const x = input(graph);
  const [first, second, last] = NETWORKS.map((network) => network(graph, x)) as [string, string, string];
  const output = [first, second].reduceRight((rest, answer, i) => {
    const sure = graph.node('GreaterOrEqual', [scoreOf(graph, answer), limitOf(graph, limits[i]!)]);
    return graph.node('Where', [sure, answer, rest]);
  }, last);
  return bytesOf(graph, output);
}

/** All items together. */
async function run(model: Uint8Array, policy?: PolicySource, backend: 'native' | 'reference' = 'native') {
  await using session = await InferenceSession.create(model, { backend });
  const data = Float32Array.from(ITEMS.flatMap((item) => [...item]));
  const x = new Tensor('float32', data, [ITEMS.length, 3, 8, 8]);
  const { outputs, trace } = await session.runTraced({ x }, { policy });
  const scores = Object.values(outputs)[0]!.data as Float32Array;
  const answers = ITEMS.map((_, i) => [...scores.slice(i * CLASSES, (i + 1) * CLASSES)]);
  const { items, multiplyAdds } = trace;
  return { answers, items, blocks: session.blocks.map(({ name }) => name), multiplyAdds };
}

const sureness = (logits: readonly number[]) => {
  const powers = logits.map((x) => Math.exp(x - Math.max(...logits)));
  return 1 / powers.reduce((a, b) => a + b);
};

/** A threshold between the surenesses of the items, so that about half of them leave. */
async function between(model: Uint8Array): Promise<number> {
  const sorted = (await run(model)).answers.map(sureness).sort((a, b) => a - b);
  return (sorted[5]! + sorted[6]!) / 2;
}

const close = (rows: readonly (readonly number[])[]) =>
  rows.map((row) => row.map((x) => expect.closeTo(x, 4)));

describe('a small network in front of a large one, in one file', () => {
  test.each([
    ['Where', 'native', (limit: number) => withWhere(limit)],
    ['Where', 'reference', (limit: number) => withWhere(limit)],
    ['Where with Greater', 'native', (limit: number) => withWhere(limit, 'Greater')],
    ['If', 'native', (limit: number) => withIf(limit)],
    ['If', 'reference', (limit: number) => withIf(limit)],
    ['If in a file for one item', 'native', (limit: number) => withIf(limit, 1)],
  ] as const)(
    'answers where it is sure, and the large one does not run: %s, %s',
    async (_, backend, make) => {
      const limit = await between(small);
      const [early, late] = [await run(small), await run(large)];
      const leaves = early.answers.map((answer) => sureness(answer) >= limit);
      const { answers, items, blocks, multiplyAdds } = await run(make(limit), undefined, backend);
      expect(answers).toEqual(close(leaves.map((sure, i) => (sure ? early : late).answers[i]!)));
      expect(blocks).toHaveLength(2);
      expect(multiplyAdds).toBe(late.multiplyAdds);
      for (const [i, item] of items.entries()) {
        expect(item.exits).toMatchObject([{ after: '/input', taken: leaves[i] }]);
        expect(item.exits[0]!.score).toBeCloseTo(sureness(early.answers[i]!), 4);
        expect(item.blocks.map(({ ran }) => ran)).toEqual([!leaves[i], !leaves[i]]);
        const saved = (leaves[i] ? multiplyAdds : 0) - early.multiplyAdds;
        expect(item.multiplyAddsSkipped).toBe(saved);
      }
    },
  );

  test.each([
    ['Where', withWhere],
    ['If', (limit: number) => withIf(limit)],
  ] as const)('in full, only the large one runs: %s', async (_, make) => {
    const [full, late] = [await run(make(0), 'full'), await run(large)];
    expect(full.answers).toEqual(late.answers);
    expect(full.items.map(({ exits }) => exits)).toEqual(ITEMS.map(() => []));
    expect(full.items.map((item) => item.multiplyAddsSkipped)).toEqual(ITEMS.map(() => 0));
  });

  test('a policy sets its threshold', async () => {
    const at = (threshold: number) =>
      run(withIf(0.5), { heads: { exits: [{ after: '/input', threshold }] } });
    expect((await at(0)).answers).toEqual((await run(small)).answers);
    expect((await at(1.5)).answers).toEqual((await run(large)).answers);
  });

  test('both may read what the file makes of the input first', async () => {
    const normalised = (graph: GraphBuilder, x: string) => {
      const channels = (...values: number[]) =>
        graph.constant(tensor(Float32Array.from(values), [1, 3, 1, 1]), `channels${values[0]}`);
      const shifted = graph.node('Sub', [x, channels(0.4, 0.5, 0.6)]);
      return graph.node('Div', [shifted, channels(0.25, 0.2, 0.3)]);
    };
    const { items } = await run(withWhere(0.5, 'GreaterOrEqual', normalised));
    expect(items.map(({ exits }) => exits.map(({ after }) => after))).toEqual(ITEMS.map(() => ['/input']));
  });
});

describe('three networks in one file', () => {
  test.each<[string, (limits: readonly [number, number]) => Uint8Array]>([
    ['Where', ofThree],
    ['If in If', (limits) => withIfs(NETWORKS, limits)],
  ])('each answers the items that it is sure of: %s', async (_, make) => {
    const limits = [await between(small), await between(middle)] as const;
    const networks = [await run(small), await run(middle), await run(large)];
    const rungs = ITEMS.map((_, i) => {
      const rung = limits.findIndex((limit, k) => sureness(networks[k]!.answers[i]!) >= limit);
      return rung < 0 ? 2 : rung;
    });
    expect(new Set(rungs).size).toBe(3);
    const { answers, items } = await run(make(limits));
    expect(answers).toEqual(close(rungs.map((rung, i) => networks[rung]!.answers[i]!)));
    expect(items.map(({ exits }) => exits.map(({ after }) => after))).toEqual(
      rungs.map((rung) => ['/input', '/input2'].slice(0, rung + 1)),
    );
  });

  test('a policy may take the second alone, and name them in any order', async () => {
    const model = ofThree([0.5, 0.5]);
    const [one, two] = ['/input', '/input2'].map((after) => ({ after, threshold: 0 }));
    const second = await run(model, { heads: { exits: [two!] } });
    expect(second.answers).toEqual((await run(middle)).answers);
    const turned = await run(model, { heads: { exits: [two!, one!] } });
    expect(turned.answers).toEqual((await run(small)).answers);
  });
});
