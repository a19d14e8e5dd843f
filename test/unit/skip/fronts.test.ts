/** A front's answer is what the network would say: its classes, and its kind of scores. */

import { Tensor } from 'lib/index.js';
import { removeFolders } from '../../helpers/files.js';
import { foreign } from '../../helpers/foreign-network.js';
import type { Rung } from '../../helpers/ladders.js';
import { best, between, colours, ladder, run, softmaxOf, sureness } from '../../helpers/ladders.js';

afterAll(removeFolders);

const picture = colours(16);
const [NEVER, ALWAYS] = [2, 0];
const ENDS = [undefined, 'LogSoftmax', 'Softmax', 'Sigmoid'] as const;
type End = (typeof ENDS)[number];
const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));

/** What a network of this end makes of logits. */
const FINISH: Record<string, (logits: readonly number[]) => number[]> = {
  undefined: (logits) => [...logits],
  LogSoftmax: (logits) => softmaxOf(logits).map(Math.log),
  Softmax: (logits) => softmaxOf(logits),
  Sigmoid: (logits) => logits.map(sigmoid),
};

function same(rows: readonly number[][], expected: readonly number[][], digits = 4): void {
  expect(rows).toHaveLength(expected.length);
  for (const [i, row] of rows.entries()) {
    expect(row).toHaveLength(expected[i]!.length);
    for (const [c, value] of row.entries()) expect(value).toBeCloseTo(expected[i]![c]!, digits);
  }
}

/** Each row's largest score is that of this class; of scores that round to 1, others may have it, too. */
function answer(rows: readonly number[][], classes: readonly number[]): void {
  expect(rows.map((row, i) => row[classes[i]!])).toEqual(rows.map((row) => Math.max(...row)));
}

describe.each(ENDS.flatMap((front) => ENDS.map((own) => [front, own] as const)))(
  'a front that ends in %s, before a network that ends in %s',
  (front: End, own: End) => {
    const small = foreign({ seed: 50, blocks: 2, channels: 4, ...(front && { end: front }) });
    const model = foreign(own && { end: own });
    const rung: Rung = { name: 'small', bytes: small, threshold: ALWAYS };
    const likely = (rows: readonly number[][]) =>
      front === 'Softmax' || front === 'Sigmoid' ? rows.map((row) => Math.max(...row)) : sureness(rows);

    test('gives the same best class as by itself, as the kind of scores that the network gives', async () => {
      const logits = (await run(foreign({ seed: 50, blocks: 2, channels: 4 }), picture)).rows;
      const { rows: alone } = await run(small, picture);
      const { rows, trace } = await run(ladder(model, [rung]), picture);
      answer(rows, alone.map(best));
      for (const [i, { exits }] of trace.items.entries())
        expect(exits[0]!.score).toBeCloseTo(likely(alone)[i]!, 5);
      for (const row of rows) {
        const sum = row.reduce((a, b) => a + b, 0);
        if (own === 'LogSoftmax') expect(row.reduce((a, b) => a + Math.exp(b), 0)).toBeCloseTo(1, 4);
        if (own === 'Softmax' && front !== 'Sigmoid') expect(sum).toBeCloseTo(1, 4);
        if (own === 'Sigmoid' || own === 'Softmax')
          expect(row.every((value) => value >= 0 && value <= 1)).toBe(true);
        expect(row.every(Number.isFinite)).toBe(true);
      }
      if (front === undefined) same(rows, logits.map(FINISH[`${own}`]!));
      if (front === own) same(rows, alone, 5);
    });

    test('and the network answers as ever where the front does not', async () => {
      const { rows } = await run(ladder(model, [{ ...rung, threshold: NEVER }]), picture);
      expect(rows).toEqual((await run(model, picture)).rows);
    });
  },
);

describe('a map of classes', () => {
  const permuted = [3, 0, 4, 1, 2];

  test.each(ENDS)('says which of the network each of the front is: both end in %s', async (end) => {
    const form = end && { end };
    const small = foreign({ seed: 50, blocks: 2, channels: 4, ...form });
    const { rows: alone } = await run(small, picture);
    const rung = { name: 'small', bytes: small, threshold: ALWAYS, classes: permuted };
    const { rows } = await run(ladder(foreign(form), [rung]), picture);
    same(
      rows,
      alone.map((row) => [0, 1, 2, 3, 4].map((own) => row[permuted.indexOf(own)]!)),
    );
    answer(
      rows,
      alone.map((row) => permuted[best(row)]!),
    );
  });

  test.each(ENDS)('may have fewer classes than the network: both end in %s', async (end) => {
    const form = end && { end };
    const small = foreign({ seed: 50, blocks: 2, channels: 4, classes: 3, ...form });
    const { rows: alone } = await run(small, picture);
    const rung = { name: 'small', bytes: small, threshold: ALWAYS, classes: [4, 1, 0] };
    const { rows } = await run(ladder(foreign(form), [rung]), picture);
    answer(
      rows,
      alone.map((row) => [4, 1, 0][best(row)]!),
    );
    for (const [i, row] of rows.entries()) {
      for (const [own, to] of [4, 1, 0].entries()) expect(row[to]).toBeCloseTo(alone[i]![own]!, 3);
      for (const other of [2, 3]) {
        if (end === 'Softmax' || end === 'Sigmoid') expect(row[other]).toBe(0);
        else expect(row[other]).toBeLessThan(-1000);
      }
    }
  });

  test.each(
    ENDS.flatMap((end) => [undefined, 'margin' as const].map((confidence) => [end, confidence] as const)),
  )(
    'of a front with more classes: it is never sure of one that the network lacks, %s, %s',
    async (end, confidence) => {
      const form = end && { end };
      const small = foreign({ seed: 50, blocks: 2, channels: 4, classes: 8, ...form });
      const classes = [null, 2, null, 0, 1, 4, null, 3];
      const { rows: alone } = await run(small, picture);
      const probabilities =
        end === 'Softmax' || end === 'Sigmoid' ? alone : alone.map((row) => softmaxOf(row));
      const scores = probabilities.map((row) => {
        const shared = Math.max(...row.filter((_, own) => classes[own] !== null));
        const [first, second] = row.toSorted((a, b) => b - a);
        return confidence ? shared / (first! + second!) : shared;
      });
      const threshold = between(scores);
      const model = foreign(form);
      const full = await run(model, picture);
      const { rows, trace } = await run(
        ladder(model, [{ name: 'small', bytes: small, threshold, classes, confidence }]),
        picture,
      );
      // Of some items its best class is none of the network's.
      expect(alone.some((row) => classes[best(row)] === null)).toBe(true);
      for (const [i, { exits }] of trace.items.entries()) {
        expect(exits[0]!.score).toBeCloseTo(scores[i]!, 5);
        expect(exits[0]!.taken).toBe(scores[i]! >= threshold);
        const shared = alone[i]!.map((value, own) =>
          classes[own] === null ? Number.NEGATIVE_INFINITY : value,
        );
        expect(best(rows[i]!)).toBe(exits[0]!.taken ? classes[best(shared)] : best(full.rows[i]!));
      }
    },
  );
});

describe('the margin', () => {
  const small = foreign({ seed: 50, blocks: 2, channels: 4 });
  const folder = (some: Uint8Array) =>
    ladder(foreign(), [{ name: 'small', bytes: some, threshold: 0.5, confidence: 'margin' }]);

  test('is the share of the likeliest class in the two likeliest, with the same bits on every instruction set', async () => {
    const { rows: alone } = await run(small, picture);
    const { trace } = await run(folder(small), picture);
    for (const [i, { exits }] of trace.items.entries()) {
      const [first, second] = alone[i]!.toSorted((a, b) => b - a);
      expect(exits[0]!.score).toBeCloseTo(sigmoid(first! - second!), 5);
      expect(exits[0]!.taken).toBe(true);
    }
    const scoresOf = ({ items }: typeof trace) => items.map(({ exits }) => exits[0]!.score);
    for (const options of [{ isa: 'scalar' }, { threads: 2 }] as const) {
      const other = await run(folder(small), picture, options);
      expect(scoresOf(other.trace)).toEqual(scoresOf(trace));
    }
    const oracle = await run(folder(small), picture, { backend: 'reference' });
    for (const [i, score] of scoresOf(oracle.trace).entries())
      expect(score).toBeCloseTo(trace.items[i]!.exits[0]!.score, 5);
  });

  test('of NaN reaches no threshold', async () => {
    const broken = new Tensor(
      'float32',
      picture.data.map(() => Number.NaN),
      picture.dims,
    );
    const { trace } = await run(folder(small), broken);
    for (const { exits } of trace.items) expect(exits.some(({ taken }) => taken)).toBe(false);
  });
});
