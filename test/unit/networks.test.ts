import type { SessionOptions, SkipTrace, Tensor } from 'lib/index.js';
import { Network, type ReferenceItem } from '../helpers/networks.js';
import { availableIsas, withSession } from '../helpers/sessions.js';

/** How far logits and scores may be from PyTorch's. */
const TOLERANCE = 1e-4;
const THRESHOLD = 0;

/** For a score this near to the threshold, rounding decides, not the network. */
function isClose(score: number): boolean {
  return Math.abs(score - THRESHOLD) < TOLERANCE;
}

function expectLogits(
  logits: Tensor,
  expected: readonly (readonly number[])[],
  skipped: ReadonlySet<number>,
): void {
  const data = logits.data as Float32Array;
  for (const [item, row] of expected.entries()) {
    if (skipped.has(item)) continue;
    const worst = Math.max(...row.map((value, k) => Math.abs(value - data[item * row.length + k]!)));
    expect({ item, worst }).toEqual({ item, worst: expect.closeTo(0, 4) });
    expect(worst).toBeLessThan(TOLERANCE);
  }
}

/** Compares decisions and scores; returns the items where a score was too close to call and fell otherwise. */
function expectDecisions({ items }: SkipTrace, expected: readonly ReferenceItem[]): Set<number> {
  const excused = new Set<number>();
  for (const [index, { decisions, scores }] of expected.entries()) {
    for (const { ran, score, index: block } of items[index]!.blocks) {
      const reference = scores![block]!;
      if (decisions![block] !== null && Number(ran) !== decisions![block] && isClose(reference)) {
        excused.add(index);
        break;
      }
      expect({ index, block, ran: Number(ran) }).toEqual({ index, block, ran: decisions![block] ?? 1 });
      if (reference === null) expect(score).toBeNull();
      else expect(Math.abs(score! - reference)).toBeLessThan(TOLERANCE);
    }
  }
  return excused;
}

const PLAIN = new Network('cifar10-resnet32');
const GATED = new Network('cifar10-resnet32-gates');

/** Sessions to try, and how many images each answers: the best instruction set all of them, slower code some. */
async function configurations(): Promise<(readonly [SessionOptions, number])[]> {
  const isas = await availableIsas(GATED.model);
  expect(isas).toContain('scalar');
  const best = isas.at(-1);
  return [
    [{ backend: 'reference' }, 8],
    ...isas.map((isa) => [{ isa }, isa === best ? GATED.items.length : 8] as const),
  ];
}

describe('trained networks agree with PyTorch', () => {
  it('on every backend and instruction set, with every block run', async () => {
    for (const network of [PLAIN, GATED]) {
      for (const [options, count] of await configurations()) {
        const input = await network.images(count);
        const full = network.items.slice(0, count).map((item) => item.full);
        await withSession(network.model, { ...options, policy: 'full' }, async (session) => {
          expectLogits((await session.run({ input })).logits!, full, new Set());
        });
      }
    }
  });

  it('on every backend and instruction set, gates asked', async () => {
    for (const [options, count] of await configurations()) {
      const input = await GATED.images(count);
      const items = GATED.items.slice(0, count);
      const gated = items.map((item) => item.gated!);
      await withSession(GATED.model, options, async (session) => {
        const { outputs, trace } = await session.runTraced({ input });
        const excused = expectDecisions(trace, items);
        expect(excused.size).toBeLessThanOrEqual(1);
        expectLogits(outputs.logits!, gated, excused);
      });
    }
  });
});

describe('the blocks of trained networks', () => {
  it.each([
    [PLAIN, 0],
    [GATED, 9],
  ])('are found (%#)', async (network, gates) => {
    const { blocks, model } = await withSession(network.model, { backend: 'reference' }, async (session) => ({
      blocks: session.blocks,
      model: session.model,
    }));
    expect(blocks).toHaveLength(15);
    expect(blocks.filter(({ skippable }) => skippable)).toHaveLength(13);
    expect(blocks.filter(({ gate }) => gate)).toHaveLength(gates);
    expect(blocks.map(({ layers, shortcut }) => (shortcut === 'projection' ? layers - 1 : layers))).toEqual(
      Array(15).fill(2),
    );
    expect(blocks.reduce((sum, { share }) => sum + share, 0)).toBeLessThan(1);
    expect(model.batching).toBe('item');
  });
});
