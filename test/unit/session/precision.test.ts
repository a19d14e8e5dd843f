import { createHash } from 'node:crypto';
import { type InferenceSession, type SessionOptions, Tensor } from 'lib/index.js';
import type { SkipPolicy } from 'lib/skip/policy.js';
import { itemOf, Network } from '../../helpers/networks.js';
import { GraphBuilder, modelBytes, tensor } from '../../helpers/onnx-builder.js';
import { promising } from '../../helpers/policies.js';
import { randomFloats } from '../../helpers/random.js';
import { availableIsas, withSession } from '../../helpers/sessions.js';

/** logits = x · weights, of so many features. */
function linear(weights: readonly number[], features: number): Uint8Array {
  const graph = new GraphBuilder();
  const classes = weights.length / features;
  const x = graph.input('x', ['batch', features]);
  const constant = graph.constant(tensor(Float32Array.from(weights), [features, classes]));
  graph.nodes('Gemm', [x, constant], {}, { outputs: ['logits'] });
  return modelBytes(graph.output('logits', ['batch', classes]));
}

const [FEATURES, CLASSES, ITEMS] = [40, 4, 16] as const;
const MODEL = linear([...randomFloats(FEATURES * CLASSES, 1)], FEATURES);
const SHA256 = createHash('sha256').update(MODEL).digest('hex');
const FEEDS = { x: new Tensor('float32', randomFloats(ITEMS * FEATURES, 3), [ITEMS, FEATURES]) };

const BFLOAT16 = ['bfloat16', 'bfloat16-amx'] as const;

const logitsOf = (source: Uint8Array, options: SessionOptions, feeds = FEEDS) =>
  withSession(source, options, async (session) => [
    ...((await session.run(feeds)).logits!.data as Float32Array),
  ]);

test('in bfloat16, factors are rounded and sums are not', async () => {
  // 1 + 2^-9 is halfway to 1 + 2^-8, which has one bit too many, too.
  const model = linear([1, 2 ** -8, 0, 1 + 2 ** -9], 2);
  const feeds = { x: new Tensor('float32', Float32Array.of(256, 1 + 2 ** -9), [1, 2]) };
  const inFloat = [256, 1 + (1 + 2 ** -9) ** 2];
  expect(await logitsOf(model, {}, feeds)).toEqual(inFloat.map(Math.fround));
  expect(await logitsOf(model, { precision: 'float32' }, feeds)).toEqual(inFloat.map(Math.fround));
  for (const precision of BFLOAT16) expect(await logitsOf(model, { precision }, feeds)).toEqual([256, 2]);
});

describe.each(BFLOAT16)('answers and traces in %s', (precision) => {
  const network = new Network('cifar10-resnet32-gates');
  let batch: Tensor<'float32'>;
  let expected: unknown;
  const answers = async (session: InferenceSession, input: Tensor) => {
    const { outputs, trace } = await session.runTraced({ input });
    return { logits: [...(outputs.logits!.data as Float32Array)], items: trace.items };
  };
  beforeAll(async () => {
    batch = await network.images(3);
    expected = await withSession(network.model, { precision, isa: 'scalar', threads: 1 }, (session) =>
      answers(session, batch),
    );
  });

  it('have the same bits on every instruction set, with one and two threads', async () => {
    for (const isa of await availableIsas(network.model)) {
      for (const threads of [1, 2]) {
        const options = { precision, isa, threads };
        const got = await withSession(network.model, options, (session) => answers(session, batch));
        expect({ isa, threads, got }).toEqual({ isa, threads, got: expected });
      }
    }
  });

  it('are those of each item alone, and near those in float', async () => {
    const { logits } = expected as { logits: number[] };
    const classes = logits.length / batch.dims[0]!;
    const alone = await withSession(network.model, { precision }, (session) =>
      answers(session, itemOf(batch, 1)),
    );
    expect(alone.logits).toEqual(logits.slice(classes, 2 * classes));
    const inFloat = await withSession(network.model, {}, (session) => answers(session, batch));
    expect(inFloat.logits).not.toEqual(logits);
    const largest = Math.max(...inFloat.logits.map(Math.abs));
    for (const [i, logit] of logits.entries())
      expect(Math.abs(logit - inFloat.logits[i]!)).toBeLessThan(0.05 * largest);
  });
});

describe('a policy', () => {
  const policy: SkipPolicy = { precision: 'bfloat16', model: { sha256: SHA256 } };

  it('says the precision of its session, which observers are told', async () => {
    await withSession(MODEL, { policy }, async (session) => {
      expect([session.precision, session.context.precision]).toEqual(['bfloat16', 'bfloat16']);
    });
    expect(await logitsOf(MODEL, { policy })).toEqual(await logitsOf(MODEL, { precision: 'bfloat16' }));
    await withSession(MODEL, {}, async (session) => expect(session.context.precision).toBe('float32'));
  });

  it('for one precision is refused in another', async () => {
    const creating = (options: SessionOptions) => withSession(MODEL, options, async () => {});
    await expect(creating({ policy, precision: 'float32' })).rejects.toMatchObject({
      code: 'POLICY_MISMATCH',
      message: expect.stringMatching(/^policy: it was made for the precision bfloat16, .* float32; create/),
    });
    const { precision: _, ...inFloat } = policy;
    await creating({ policy: inFloat, precision: 'bfloat16' });
    const running = withSession(MODEL, { precision: 'bfloat16' }, async (session) => {
      await session.run(FEEDS, { policy: promising(0.01, inFloat) });
    });
    await expect(running).rejects.toMatchObject({ code: 'POLICY_MISMATCH' });
  });

  it('with guards verifies with the network in float', async () => {
    const labels = Array.from({ length: CLASSES }, (_, label) => label);
    const guarded = { ...policy, reference: { sha256: SHA256 }, guards: [{ labels }] };
    const inFloat = await logitsOf(MODEL, {});
    expect(await logitsOf(MODEL, { precision: 'bfloat16' })).not.toEqual(inFloat);
    expect(await logitsOf(MODEL, { policy: guarded, original: MODEL })).toEqual(inFloat);
    await expect(logitsOf(MODEL, { policy: guarded })).rejects.toMatchObject({ code: 'INVALID_POLICY' });
  });
});

test('the reference backend has no bfloat16', async () => {
  await expect(logitsOf(MODEL, { backend: 'reference', precision: 'bfloat16' })).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
    message: expect.stringMatching(/^precision: the reference backend computes in float32 alone; /),
  });
});
