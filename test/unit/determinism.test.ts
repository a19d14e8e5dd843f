import { createHash } from 'node:crypto';
import { type InferenceSession, type SkipTrace, Tensor } from 'lib/index.js';
import { itemOf, Network } from '../helpers/networks.js';
import { GraphBuilder, modelBytes, tensor } from '../helpers/onnx-builder.js';
import { randomFloats } from '../helpers/random.js';
import { availableIsas, withSession } from '../helpers/sessions.js';

const NETWORK = new Network('cifar10-resnet32-gates');

/** The bits of one item's logits and all of its trace. */
function hashItem(logits: Tensor, { items }: SkipTrace, index: number): string {
  const size = logits.size / logits.dims[0]!;
  const row = (logits.data as Float32Array).slice(index * size, (index + 1) * size);
  const scores = Float32Array.from(items[index]!.blocks, ({ score }) => score ?? Number.NaN);
  return createHash('sha256')
    .update(new Uint8Array(row.buffer))
    .update(new Uint8Array(scores.buffer))
    .update(JSON.stringify(items[index]!.blocks))
    .digest('hex');
}

async function hashes(session: InferenceSession, input: Tensor): Promise<string[]> {
  const { outputs, trace } = await session.runTraced({ input });
  return trace.items.map((_, index) => hashItem(outputs.logits!, trace, index));
}

describe('logits and traces have the same bits', () => {
  let batch: Tensor<'float32'>;
  let expected: string[];
  beforeAll(async () => {
    batch = await NETWORK.images(10);
    expected = await withSession(NETWORK.model, { isa: 'scalar', threads: 1 }, (session) =>
      hashes(session, batch),
    );
  });

  it('and differ between images', () => {
    expect(new Set(expected).size).toBe(batch.dims[0]);
  });

  it('on every instruction set with one and two threads', async () => {
    const isas = await availableIsas(NETWORK.model);
    expect(isas).toContain('scalar');
    for (const isa of isas) {
      for (const threads of [1, 2]) {
        const got = await withSession(NETWORK.model, { isa, threads }, (session) => hashes(session, batch));
        expect({ isa, threads, got }).toEqual({ isa, threads, got: expected });
      }
    }
  });

  it('for an item alone, on one thread or split over two', async () => {
    for (const threads of [1, 2]) {
      await withSession(NETWORK.model, { threads }, async (session) => {
        for (const [index, hash] of expected.entries()) {
          expect(await hashes(session, itemOf(batch, index))).toEqual([hash]);
        }
      });
    }
  });

  it('in overlapping runs', async () => {
    await withSession(NETWORK.model, { threads: 2 }, async (session) => {
      const runs = expected.map((_, index) => hashes(session, itemOf(batch, index)));
      expect((await Promise.all(runs)).flat()).toEqual(expected);
    });
  });

  it('in runSync', async () => {
    await withSession(NETWORK.model, { threads: 1 }, async (session) => {
      const { outputs, trace } = session.runTracedSync({ input: batch });
      expect(expected.map((_, index) => hashItem(outputs.logits!, trace, index))).toEqual(expected);
    });
  });
});

/** Residual blocks of products so large that the items of a batch multiply together. */
function wideNetwork(width = 300, blocks = 2): Uint8Array {
  const graph = new GraphBuilder();
  const product = (x: string, seed: number) =>
    graph.node('MatMul', [
      x,
      graph.constant(
        tensor(
          randomFloats(width * width, seed).map((weight) => weight * 0.1),
          [width, width],
        ),
      ),
    ]);
  let stream = graph.input('input', ['batch', width]);
  for (let block = 0; block < blocks; block++) {
    const hidden = graph.node('Relu', [product(stream, 2 * block + 1)]);
    stream = graph.node('Add', [stream, product(hidden, 2 * block + 2)]);
  }
  graph.nodes('Tanh', [stream], {}, { outputs: ['logits'] });
  return modelBytes(graph.output('logits', ['batch', width]));
}

test('items that multiply together have the bits of items alone', async () => {
  const model = wideNetwork();
  const batch = new Tensor('float32', randomFloats(9 * 300, 50), [9, 300]);
  const alone = await withSession(model, { isa: 'scalar', threads: 1 }, async (session) => {
    const each = Array.from({ length: 9 }, (_, index) => hashes(session, itemOf(batch, index)));
    return (await Promise.all(each)).flat();
  });
  expect(new Set(alone).size).toBe(9);
  for (const isa of await availableIsas(model)) {
    for (const threads of [1, 2]) {
      const together = await withSession(model, { isa, threads }, (session) => hashes(session, batch));
      expect({ isa, threads, together }).toEqual({ isa, threads, together: alone });
    }
  }
});
