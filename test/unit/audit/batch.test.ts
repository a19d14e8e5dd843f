import fc from 'fast-check';
import { type Before, ItemBatch } from 'lib/audit/batch.js';
import { headerOf, type Recorded } from 'lib/audit/items.js';
import { decodeLine, FIRST_LINK, linkAtEnd } from 'lib/audit/record.js';
import * as native from 'lib/backends/addon.js';
import type { RunContext } from 'lib/skip/observer.js';
import { SKIP_REASONS } from 'lib/skip/trace.js';
import { runContext, runEvent, withDecisions } from '../../helpers/run-event.js';

jest.mock('lib/backends/addon.js', () => ({
  ...jest.requireActual<typeof native>('lib/backends/addon.js'),
  nativeAuditLines: jest.fn(),
}));
const encoder = jest.requireActual<typeof native>('lib/backends/addon.js').nativeAuditLines();
const nativeAuditLines = jest.mocked(native.nativeAuditLines);
const testNative = encoder ? test : test.skip;

const reason = fc.constantFrom(...SKIP_REASONS);
const float = fc.float({ noNaN: false });
const block = fc.record({ ran: fc.boolean(), score: fc.option(float), reason });
const exit = fc.record({
  after: fc.string({ unit: 'grapheme' }),
  score: fc.float({ min: 0, max: 1, noNaN: true }),
});
const item = fc.record({
  blocks: fc.array(block, { minLength: 3, maxLength: 3 }),
  exits: fc.array(exit, { maxLength: 2 }),
  leaves: fc.boolean(),
  inFull: fc.option(fc.constantFrom('guard', 'tripped'), { nil: undefined }),
  logits: fc.array(fc.float({ min: -20, max: 20, noNaN: true }), { minLength: 4, maxLength: 4 }),
  input: fc.option(fc.uint8Array({ maxLength: 200 })),
  time: fc.integer({ min: 0, max: 2 ** 41 }),
  run: fc.integer({ min: 0, max: 2 ** 40 }),
  milliseconds: fc.double({ min: 0, max: 1e6, noNaN: true }),
  saved: fc.integer({ min: -(2 ** 40), max: 2 ** 40 }),
  request: fc.option(
    fc.record({
      caller: fc.string(),
      id: fc.string({ maxLength: 200 }),
      clientId: fc.string({ unit: 'grapheme' }),
    }),
    { nil: undefined },
  ),
});
type Item = typeof item extends fc.Arbitrary<infer T> ? T : never;

const contexts = (['logits', 'probabilities'] as const).map((meaning) => ({
  ...runContext(3),
  classScores: { name: 'logits', meaning, end: null },
}));
const context = contexts[0]!;

function recorded(
  { blocks, exits, leaves, inFull, logits, input, time, run, milliseconds, saved, request }: Item,
  context: RunContext,
): Recorded {
  const base = runEvent(context, [[0, 0, 0]]);
  const event = withDecisions({
    ...base,
    requests: request && [request],
    milliseconds,
    trace: {
      ...base.trace,
      items: [
        {
          blocks: blocks.map((decision, index) => ({
            block: `block${index}`,
            index,
            threshold: 0,
            ...decision,
          })),
          exits: exits.map((reached, e) => ({
            ...reached,
            taken: leaves && e === exits.length - 1,
            threshold: 2,
          })),
          ...(inFull && { inFull }),
          multiplyAddsSkipped: saved,
          layersSkipped: 0,
        },
      ],
    },
  });
  return { time, run, item: 0, input: input && [input], output: [Float32Array.from(logits)], event };
}

function encoded(items: readonly Recorded[], before: Before, implementation: typeof encoder): string {
  nativeAuditLines.mockReturnValue(implementation);
  const batch = new ItemBatch(items[0]!.event.context, items[0]!, 2 ** 26);
  for (const next of items.slice(1)) batch.add(next);
  return Buffer.from(batch.encodeSync(before)).toString('utf8');
}

testNative('the native encoder writes the same bytes as the one in TypeScript', () => {
  fc.assert(
    fc.property(
      fc.array(item, { minLength: 1, maxLength: 8 }),
      fc.boolean(),
      fc.integer({ min: 1, max: 6 }),
      fc.constantFrom(...contexts),
      (drawn, begins, top, context) => {
        const items = drawn.map((item) => recorded(item, context));
        const options = { inputs: 'hash', sample: 1, labels: ['ü', '"'], continues: FIRST_LINK } as const;
        const header = begins ? headerOf(items[0]!, options) : undefined;
        const before = { header, link: '0123456789abcdef'.repeat(4), top };
        expect(encoded(items, before, encoder)).toBe(encoded(items, before, null));
      },
    ),
    { numRuns: 500 },
  );
});

testNative('every float32 is written alike', () => {
  const bits = new Uint32Array(3);
  const values = new Float32Array(bits.buffer);
  for (let i = 0; i < 3000; i++) {
    for (let j = 0; j < 3; j++) bits[j] = Math.imul(3 * i + j + 1, 0x9e3779b1);
    const blocks = [...values].map((score) => ({ ran: true, score, reason: 'gate' as const }));
    const one = recorded(
      {
        blocks,
        exits: [],
        leaves: false,
        inFull: undefined,
        logits: [0, 0, 0, 0],
        input: null,
        time: 0,
        run: 0,
        milliseconds: 0,
        saved: 0,
        request: undefined,
      },
      context,
    );
    const before = { header: undefined, link: FIRST_LINK, top: 1 };
    expect(encoded([one], before, encoder)).toBe(encoded([one], before, null));
  }
});

test('an item that does not fit the others is encoded with them, and links go on from batch to batch', () => {
  const drawn = fc.sample(item, { numRuns: 3, seed: 7 }).map((one) => recorded(one, context));
  const items = [drawn[0]!, { ...drawn[1]!, output: [Int32Array.of(1, 2)] }, drawn[2]!];
  const first = encoded(items.slice(0, 2), { header: undefined, link: FIRST_LINK, top: 3 }, encoder);
  const link = linkAtEnd(Buffer.from(first));
  const second = encoded(items.slice(2), { header: undefined, link, top: 3 }, encoder);
  const lines = (first + second).trimEnd().split('\n');
  expect(lines).toHaveLength(3);
  let previous = FIRST_LINK;
  for (const line of lines) {
    const decoded = decodeLine(line, previous);
    expect(decoded).toMatchObject({ follows: true });
    previous = (decoded as { link: string }).link;
  }
});
