import { type ExitScores, penalties, rankingOf, ThresholdSearch } from 'lib/calibrate/order/thresholds.js';
import { NEVER } from 'lib/skip/scores.js';
import { uniform } from '../../helpers/random.js';

function exitOf(saving: number, rows: readonly [score: number, risk: number][]): ExitScores {
  const scores = Float64Array.from(rows, ([score]) => score);
  const risks = Float64Array.from(rows, ([, risk]) => risk);
  return { saving, scores, risks, ranked: rankingOf(scores) };
}

/** Saving and risks over the rows under some thresholds, counted in the plainest way. */
function outcome(
  exits: readonly ExitScores[],
  thresholds: readonly number[],
): { saved: number; lost: number } {
  let [saved, lost] = [0, 0];
  for (const row of Array.from(exits[0]!.scores).keys()) {
    const taken = exits.find(({ scores }, e) => scores[row]! >= thresholds[e]!);
    saved += taken?.saving ?? 0;
    lost += taken?.risks[row] ?? 0;
  }
  return { saved, lost };
}

/** Exits whose answers are the likelier wrong, the lower the score. */
function someExits(seed: number, savings: readonly number[]): ExitScores[] {
  const random = uniform(seed);
  return savings.map((saving, e) =>
    exitOf(
      saving,
      Array.from({ length: 40 }, () => {
        const score = random();
        return [score, Number(random() > 0.5 + score / 2 + 0.2 * e)];
      }),
    ),
  );
}

test.each([1, 2, 3, 4])('no single threshold can be bettered, example %d', (seed) => {
  const exits = someExits(seed, [0.6, 0.4, 0.2]);
  const search = new ThresholdSearch(exits);
  for (const penalty of [20, 5, 1]) {
    const thresholds = search.at(penalty);
    const worth = (some: readonly number[]) => {
      const { saved, lost } = outcome(exits, some);
      return saved - penalty * lost;
    };
    const best = worth(thresholds);
    for (const [e, { scores }] of exits.entries()) {
      for (const threshold of [...Array.from(scores), NEVER]) {
        const other = worth(thresholds.map((own, i) => (i === e ? threshold : own)));
        // An exit is charged 0.4 % of the work of every row that comes to it.
        expect(other).toBeLessThanOrEqual(best + 0.004 * scores.length + 1e-9);
      }
    }
  }
});

test('a cheaper penalty never saves less nor changes fewer answers', () => {
  const exits = someExits(9, [0.7, 0.5, 0.3, 0.1]);
  const search = new ThresholdSearch(exits);
  let before = { saved: 0, lost: 0 };
  for (const penalty of [100, 30, 10, 3, 1, 0.1]) {
    const now = outcome(exits, search.at(penalty));
    expect(now.saved).toBeGreaterThanOrEqual(before.saved);
    expect(now.lost).toBeGreaterThanOrEqual(before.lost);
    before = now;
  }
});

test('rows with the same score are pulled together, or not at all', () => {
  const exit = exitOf(0.5, [
    [0.7, 0],
    [0.5, 0],
    [0.5, 1],
    [0.5, 1],
  ]);
  expect(new ThresholdSearch([exit]).at(0.9)).toEqual([0.7]);
});

test('penalties fall', () => {
  const list = penalties(5);
  expect(list).toHaveLength(5);
  expect([...list].sort((a, b) => b - a)).toEqual(list);
});

test('an exit that hardly anything takes is not worth asking', () => {
  const rows = Array.from({ length: 200 }, (_, i) => [i / 200, Number(i < 199)] as [number, number]);
  expect(new ThresholdSearch([exitOf(0.5, rows)]).at(1)).toEqual([NEVER]);
  const more = rows.map(([score], i) => [score, Number(i < 190)] as [number, number]);
  expect(new ThresholdSearch([exitOf(0.5, more)]).at(1)[0]).toBeLessThan(1);
});
