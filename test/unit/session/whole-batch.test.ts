/** Networks that mix the items of a batch, which then runs as one item: it has a row of scores for each of what it holds. */
import { join } from 'node:path';
import { auditLog } from 'lib/audit/log.js';
import { readAudit } from 'lib/audit/read.js';
import { Tensor } from 'lib/index.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { best, rowsOf } from '../../helpers/ladders.js';
import { GraphBuilder, modelBytes, tensor } from '../../helpers/onnx-builder.js';
import { randomFloats } from '../../helpers/random.js';
import { withSession } from '../../helpers/sessions.js';

const [ROWS, WIDTH, CLASSES] = [5, 8, 4] as const;
afterAll(removeFolders);

/** A block on what is left without the mean of the batch, then classes. */
function mixing(): Uint8Array {
  const graph = new GraphBuilder();
  const matrix = (seed: number, columns: number) =>
    graph.constant(tensor(randomFloats(WIDTH * columns, seed), [WIDTH, columns]));
  const x = graph.input('x', ['n', WIDTH]);
  const stream = graph.node('Sub', [x, graph.node('ReduceMean', [x], { axes: [0], keepdims: 1 })]);
  const inner = graph.node('MatMul', [graph.node('Relu', [stream]), matrix(1, WIDTH)]);
  const added = graph.node('Add', [stream, inner]);
  return modelBytes(graph.output(graph.node('MatMul', [added, matrix(2, CLASSES)]), ['n', CLASSES]));
}

const MODEL = mixing();
const feeds = { x: new Tensor('float32', randomFloats(ROWS * WIDTH, 3), [ROWS, WIDTH]) };
const run = (options: object) =>
  withSession(MODEL, options, async (session) => {
    const { outputs, trace } = await session.runTraced(feeds);
    return { rows: rowsOf(outputs[session.outputNames[0]!]!), items: trace.items };
  });

test.each(['native', 'reference'] as const)('a guard looks at every row (%s)', async (backend) => {
  const [full, skipping] = [
    await run({ backend, policy: 'full' }),
    await run({ backend, policy: { default: 'skip' } }),
  ];
  expect(skipping.items).toHaveLength(1);
  expect(skipping.items[0]!.blocks.some(({ ran }) => !ran)).toBe(true);
  expect(skipping.rows).not.toEqual(full.rows);
  const answers = new Set(skipping.rows.map(best));
  expect(answers.size).toBeGreaterThan(1);
  for (let guarded = 0; guarded < CLASSES; guarded++) {
    const policy = { default: 'skip', guards: [{ labels: [guarded] }] };
    const { rows, items } = await run({ backend, policy });
    expect({ guarded, rows }).toEqual({ guarded, rows: answers.has(guarded) ? full.rows : skipping.rows });
    expect(items[0]!.inFull).toBe(answers.has(guarded) ? 'guard' : undefined);
  }
});

test('a log names no class for several rows, and that of a single one', async () => {
  for (const backend of ['native', 'reference'] as const) {
    const path = join(folderOf({}), 'trace.ndjson');
    await withSession(MODEL, { backend, observers: [auditLog({ path, top: 1 })] }, async (session) => {
      await session.run(feeds);
      await session.run({ x: new Tensor('float32', feeds.x.data.slice(0, WIDTH), [1, WIDTH]) });
    });
    const { entries, problems } = await readAudit(path);
    expect(problems).toEqual([]);
    expect(entries.map(({ record: { top } }) => top.length)).toEqual([0, 1]);
  }
});
