import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { auditLog, readAudit, Tensor } from 'lib/index.js';
import { compileModel } from 'lib/model/compile.js';
import { loadModel } from 'lib/model/load.js';
import type { Program } from 'lib/model/program/program.js';
import { argMax } from 'lib/numeric/softmax.js';
import { classScoresOf, type Meaning, probabilities, topClasses } from 'lib/skip/scores.js';
import { GraphBuilder, modelBytes, tensor } from '../../helpers/onnx-builder.js';
import { randomFloats } from '../../helpers/random.js';
import { withSession } from '../../helpers/sessions.js';

/** A layer of [N, 4], a residual block, and what `end` makes of its logits [N, classes]. */
function classifier(
  end: (graph: GraphBuilder, logits: string) => string,
  { classes = 3, shape = ['N', classes] as (number | string)[], opset = 17 } = {},
): Uint8Array {
  const graph = new GraphBuilder();
  const x = graph.input('x', ['N', 4]);
  const square = graph.constant(tensor(randomFloats(16, 3), [4, 4]));
  const stream = graph.node('Add', [x, graph.node('Relu', [graph.node('MatMul', [x, square])])]);
  const weight = graph.constant(tensor(randomFloats(4 * classes, 5), [4, classes]));
  const y = end(graph, graph.node('MatMul', [stream, weight]));
  graph.node('Identity', [y]);
  graph.proto.node.at(-1)!.output = ['y'];
  graph.output('y', shape);
  return modelBytes(graph, opset);
}

const softmax = (axis: number) => (graph: GraphBuilder, logits: string) =>
  graph.node('Softmax', [logits], { axis });
const BATCH = ['N', 3];
const ENDS: [string, Uint8Array, Meaning | undefined][] = [
  ['logits', classifier((_, logits) => logits), 'logits'],
  ['a softmax', classifier(softmax(1)), 'probabilities'],
  ['a softmax of opset 11', classifier(softmax(1), { opset: 11 }), 'probabilities'],
  ['a log-softmax', classifier((graph, logits) => graph.node('LogSoftmax', [logits], { axis: 1 })), 'logits'],
  ['a sigmoid', classifier((graph, logits) => graph.node('Sigmoid', [logits])), 'probabilities'],
  [
    'a softmax that is unfolded into a map of one pixel',
    classifier(
      (graph, logits) =>
        graph.node('Unsqueeze', [
          softmax(1)(graph, logits),
          graph.constant(tensor(BigInt64Array.of(2n, 3n))),
        ]),
      {
        shape: [...BATCH, 1, 1],
      },
    ),
    'probabilities',
  ],
  [
    'a softmax inside the network',
    classifier((graph, logits) => graph.node('Mul', [softmax(1)(graph, logits), logits])),
    'logits',
  ],
  ['one number', classifier((_, logits) => logits, { classes: 1 }), undefined],
  ['integers', integers(), undefined],
];

function integers(): Uint8Array {
  const graph = new GraphBuilder();
  const x = graph.input('x', ['N', 4]);
  graph.node('ArgMax', [graph.node('Relu', [x])], { axis: 1, keepdims: 1 });
  graph.proto.node.at(-1)!.output = ['y'];
  graph.output('y', ['N', 1], 'int64');
  return modelBytes(graph);
}

async function programOf(bytes: Uint8Array): Promise<Program> {
  return compileModel(await loadModel(bytes), new Map([['x', { shape: [1, 4] }]]));
}

test.each(ENDS)('what a network means that ends in %s', async (_, bytes, meaning) => {
  expect(classScoresOf(await programOf(bytes))?.meaning).toBe(meaning);
});

describe('an audit log', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'scores-'));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  test.each(
    ENDS.flatMap(([end, bytes, meaning]) =>
      (['native', 'reference'] as const).map((backend) => ({ end, bytes, meaning, backend })),
    ),
  )(
    'records the probabilities of a network that ends in $end, on $backend',
    async ({ bytes, meaning, backend }) => {
      const path = join(folder, 'trace.ndjson');
      const x = new Tensor('float32', randomFloats(8, 9), [2, 4]);
      const y = await withSession(bytes, { backend, observers: [auditLog({ path })] }, async (session) => {
        return (await session.run({ x })).y!;
      });
      const { entries } = await readAudit(path);
      const width = y.size / 2;
      for (const [item, { record }] of entries.entries()) {
        if (!meaning) {
          expect(record.top).toEqual([]);
          continue;
        }
        const row = (y.data as Float32Array).slice(item * width, (item + 1) * width);
        const likely = probabilities(row, meaning);
        expect(record.top.map(([index]) => index)).toEqual(
          topClasses(row, meaning, 3).map(([index]) => index),
        );
        for (const [index, probability] of record.top) expect(probability).toBeCloseTo(likely[index]!, 6);
      }
      expect(entries).toHaveLength(2);
    },
  );
});

test('probabilities are a softmax that does not overflow', () => {
  const values = probabilities([1000, 1000 + Math.log(3), -1000], 'logits');
  expect(values[0]).toBeCloseTo(0.25, 12);
  expect(values[1]).toBeCloseTo(0.75, 12);
  expect(values[2]).toBe(0);
});

test('numbers do not decide what they mean', () => {
  expect([...probabilities([0.5, 0.25, 0.25], 'probabilities')]).toEqual([0.5, 0.25, 0.25]);
  expect(probabilities([0.5, 0.25, 0.25], 'logits')[0]).toBeCloseTo(0.391, 3);
});

test('the best classes, best first, with their probability among all', () => {
  for (let seed = 0; seed < 50; seed++) {
    const logits = randomFloats(1 + (seed % 20), seed);
    const sum = logits.reduce((total, logit) => total + Math.exp(logit), 0);
    const sorted = [...logits.entries()].sort((a, b) => b[1] - a[1]);
    for (const k of [1, 3, 100]) {
      const best = topClasses(logits, 'logits', k);
      expect(best.map(([index]) => index)).toEqual(sorted.slice(0, k).map(([index]) => index));
      for (const [index, probability] of best) {
        expect(probability).toBeCloseTo(Math.exp(logits[index]!) / sum, 6);
      }
    }
  }
});

test('of equal classes the first comes first', () => {
  expect(topClasses(Float32Array.of(1, 1000, 1000, -1000), 'logits', 3)).toEqual([
    [1, 0.5],
    [2, 0.5],
    [0, 0],
  ]);
  expect(argMax([1, 3, 3])).toBe(1);
});
