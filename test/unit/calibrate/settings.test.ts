import { exitsOf, measure, summarise, type Thresholds } from 'lib/calibrate/order/measure.js';
import { exitScoresOf, settingsOf, settingsToTest, usefulExits } from 'lib/calibrate/order/settings.js';
import { mean } from 'lib/numeric/statistics.js';
import { NEVER } from 'lib/skip/scores.js';
import { tableFrom } from '../../helpers/tables.js';

/** One exit that saves half; the surer it is of an item, the likelier it is right. */
const ROWS = 1000;
const confidences = Array.from({ length: ROWS }, (_, i) => (i + 1) / ROWS);
const wrong = (i: number) => i < ROWS / 2 && i % 3 === 0;
const rows = confidences.map((score, i) => [score, wrong(i)] as const);
const tableOf = (some: typeof rows) => tableFrom([0.5, 0.5], [{ after: 0, rows: some }]);
const table = tableOf(rows);
const settings = Array.from({ length: 40 }, (_, i): Thresholds => {
  return [1 - 0.0022 * (i + 1) * 2];
});

test('scores are what the exits of tables say of items', () => {
  const made = exitScoresOf([tableOf(rows.slice(700)), table], [0.5]);
  expect(made).toHaveLength(1);
  const [{ scores, risks, saving }] = made as [(typeof made)[number]];
  expect(saving).toBe(0.5);
  expect(scores).toHaveLength(1300);
  expect([scores[0], scores[300]]).toEqual([
    table.exits[0]!.confidences[700],
    table.exits[0]!.confidences[0],
  ]);
  // Wrong where it is unsure.
  expect(risks[301]).toBeGreaterThan(0.1);
  expect(risks[299]).toBeLessThan(0.05);
});

test('where right answers are counted, those that are gained set off those that are lost', () => {
  const signed = (sign: (i: number) => number) => {
    const [exit] = table.exits;
    return { ...table, exits: [{ ...exit!, losses: exit!.losses.map((loss, i) => sign(i) * loss) }] };
  };
  const riskOf = (some: typeof table, options?: Parameters<typeof exitScoresOf>[2]) => {
    const [scores] = exitScoresOf([some], [0.5], options);
    return mean(Array.from(scores!.risks));
  };
  const changed = riskOf(table);
  const risks = [() => 1, (i: number) => (i % 2 === 0 ? 1 : -1), () => -1].map((sign) =>
    riskOf(signed(sign), { metric: 'accuracy' }),
  );
  expect(risks[0]).toBeCloseTo(changed, 2);
  expect(Math.abs(risks[1]!)).toBeLessThan(changed / 4);
  expect(risks[2]).toBeLessThan(-changed / 2);
  // Any other metric counts changes alone.
  expect(
    riskOf(
      signed(() => -1),
      { metric: 'disagreement' },
    ),
  ).toBe(changed);
});

test('settings go from careful to bold, each with other thresholds than the one before', () => {
  const made = settingsOf(exitScoresOf([table], [0.5]), 24);
  const thresholds = made.map(([threshold]) => threshold!);
  expect(thresholds.length).toBeGreaterThan(3);
  expect(new Set(thresholds).size).toBe(thresholds.length);
  expect([...thresholds].sort((a, b) => b - a)).toEqual(thresholds);
});

test('an exit that comes into use for many items at once has settings between', () => {
  // Half of the items are as sure as another: no penalty divides them.
  const alike = rows.map(([score, loses], i) => [i < ROWS / 2 ? score : 0.9 + i / 1e7, loses] as const);
  const made = settingsOf(exitScoresOf([tableOf(alike)], [0.5]), 96);
  const leaving = made.map(([threshold]) => alike.filter(([score]) => score >= threshold!).length / ROWS);
  expect(leaving[0]).toBeLessThan(0.1);
  for (const [i, share] of leaving.entries()) expect(share - (leaving[i - 1] ?? 0)).toBeLessThan(0.1);
});

test('exits are useful at which a hundredth of the items leave in the boldest setting that keeps a limit', () => {
  // Item i leaves at exit i % 4 with a threshold of 0.5, but few at the last; every 20th answer of the second changes.
  const sure = (exit: number, i: number) => i % 4 === exit && (exit < 3 || i < 20);
  const four = tableFrom(
    [0.2, 0.2, 0.2, 0.2, 0.2],
    [0, 1, 2, 3].map((after) => ({
      after,
      rows: rows.map((_, i) => [sure(after, i) ? 0.8 : 0.1, after === 1 && i % 20 === 1] as const),
    })),
  );
  const made = [
    [0.5, NEVER, NEVER, NEVER],
    [0.5, NEVER, 0.5, 0.5],
    [0.5, 0.5, 0.5, 0.5],
  ];
  expect(summarise(four, made[2]!).risk).toBe(0.05);
  expect([...usefulExits(made, four, [0.01])]).toEqual(['b0', 'b2']);
  expect([...usefulExits(made, four, [0.01, 0.05])]).toEqual(['b0', 'b2', 'b1']);
  expect([...usefulExits(made.slice(2), four, [0.01])]).toEqual([]);
});

describe('of the settings', () => {
  test('those are tested that save half a percent more than the one before', () => {
    const worth = settingsToTest(settings, table, 0.02);
    const saved = worth.map((thresholds) => summarise(table, thresholds).multiplyAddsSkipped);
    expect(worth.length).toBeGreaterThan(10);
    for (const [i, own] of saved.entries()) expect(own - (saved[i - 1] ?? 0)).toBeGreaterThanOrEqual(0.005);
  });

  test('none is tested from the first on that breaks the limit', () => {
    const bold: Thresholds = [0];
    expect(summarise(table, [0]).risk).toBeGreaterThan(0.1);
    expect(settingsToTest([settings[9]!, bold, settings[30]!], table, 0.02)).toEqual([settings[9]]);
  });

  test('the first within a budget is the last, chosen by what the heads saved on items they never saw', () => {
    const budget = 0.97;
    const worth = settingsToTest(settings, table, 1, budget);
    expect(summarise(table, worth.at(-1)!).multiplyAddsSkipped).toBeGreaterThanOrEqual(0.03);
    expect(summarise(table, worth.at(-2)!).multiplyAddsSkipped).toBeLessThan(0.03);
    expect(() => settingsToTest(settings.slice(0, 2), table, 1, budget)).toThrow(
      /^budget: no setting keeps within 0\.97 of the multiply-adds; the boldest one spends 0\.99/,
    );
  });
});

describe('what thresholds do with the items of a table', () => {
  // Four blocks of a quarter each; exits behind the first and the third, whose heads cost a hundredth.
  const two = tableFrom(
    [0.25, 0.25, 0.25, 0.25],
    [
      {
        after: 0,
        cost: 0.01,
        rows: [
          [0.9, false],
          [0.5, true],
          [0.2, false],
          [0.2, false],
        ],
      },
      {
        after: 2,
        cost: 0.01,
        rows: [
          [0.9, false],
          [0.9, false],
          [0.8, true],
          [0.1, false],
        ],
      },
    ],
  );

  const specs = two.exits.map(({ exit }) => exit);

  test('each leaves at the first exit that is sure enough', () => {
    const { byItem, risk, multiplyAddsSkipped, exits, reached } = measure(two, [0.9, 0.8]);
    expect(byItem.ran).toEqual(['1000', '1110', '1110', '1111']);
    expect(byItem.losses).toEqual([0, 0, 1, 0]);
    expect(risk).toBe(0.25);
    const saved = [0.75 - 0.01, 0.25 - 0.02, 0.25 - 0.02, -0.02];
    for (const [i, share] of saved.entries()) expect(byItem.saved[i]).toBeCloseTo(share, 12);
    expect(multiplyAddsSkipped).toBeCloseTo(saved.reduce((a, b) => a + b) / 4, 12);
    expect(exits).toEqual({ b0: 0.25, b2: 0.5 });
    expect(reached).toEqual({ b0: 1, b2: 0.75 });
    expect(summarise(two, [0.9, 0.8])).toEqual({ risk, multiplyAddsSkipped });
  });

  test('a threshold is compared as the float32 that the engine has', () => {
    expect(measure(two, [Math.fround(0.9), NEVER]).exits).toEqual({ b0: 0.25 });
    expect(measure(two, [0.9 + 1e-9, NEVER]).exits).toEqual({ b0: 0.25 });
    expect(measure(two, [0.9 + 1e-6, NEVER]).exits).toEqual({ b0: 0 });
  });

  test('a policy has the exits up to the last that is taken, since each reads the one before', () => {
    expect(exitsOf(specs, [NEVER, 0.8]).map(({ after, threshold }) => [after, threshold])).toEqual([
      ['b0', NEVER],
      ['b2', 0.8],
    ]);
    expect(exitsOf(specs, [0.9, NEVER]).map(({ after }) => after)).toEqual(['b0']);
    // An exit that the policy hasn't costs nothing.
    expect(measure(two, [0.9, NEVER]).byItem.saved[3]).toBeCloseTo(-0.01, 12);
  });

  test('a guarded answer costs the run in full, and loses nothing', () => {
    const guarded = tableFrom(
      [0.5, 0.5],
      [
        {
          after: 0,
          rows: [
            [0.9, true],
            [0.9, true],
          ],
          guarded: [1, 0],
        },
      ],
    );
    const { byItem, exits, blocksSkipped } = measure(guarded, [0.8]);
    expect(byItem.losses).toEqual([0, 1]);
    expect(byItem.saved).toEqual([-0.5, 0.5]);
    expect(byItem.ran).toEqual(['11', '10']);
    expect(exits).toEqual({ b0: 0.5 });
    expect(blocksSkipped).toBe(0.25);
  });
});
