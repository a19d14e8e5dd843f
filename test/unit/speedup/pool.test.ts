/** Times of ladders against a count of what each row spends; and the choice of thresholds by them. */

import { parseOptions } from 'lib/calibrate/options.js';
import { tableWith } from 'lib/calibrate/order/table.js';
import { type Costs, type ExitScores, rankingOf, ThresholdSearch } from 'lib/calibrate/order/thresholds.js';
import type { Task } from 'lib/calibrate/task.js';
import { quantile } from 'lib/numeric/statistics.js';
import { NEVER } from 'lib/skip/scores.js';
import {
  contenders,
  finalists,
  laddersOf as found,
  type Ladder,
  ladderOf,
  provable,
  ranked,
  settingsToTest,
} from 'lib/speedup/choose.js';
import { Pool, predictionOf } from 'lib/speedup/pool.js';
import { wordNothing } from 'lib/speedup/report.js';
import { type ExitTime, TimeCosts } from 'lib/speedup/times.js';
import { partsOf, describe as told } from 'lib/speedup/tried.js';
import { atOnce } from 'lib/util/slices.js';
import { allowedEvents } from '../../helpers/binomial.js';
import { uniform } from '../../helpers/random.js';
import { tableFrom } from '../../helpers/tables.js';

/** Two fronts, the second of which has exits of its own, and a network with two. */
const TIMES: readonly ExitTime[] = [
  { network: 0, reach: 0.11, head: 0 },
  { network: 1, reach: 0.05, head: 0.01 },
  { network: 1, reach: 0.13, head: 0.02 },
  { network: 1, reach: 0.22, head: 0 },
  { network: 2, reach: 0.4, head: 0.03 },
  { network: 2, reach: 0.7, head: 0.01 },
];
const [OWN, WHOLE] = [2, 0.95];

/** Walks from exit to exit: a row spends what brings it to the next one in use, and its head. */
function spentBy(times: readonly ExitTime[], own: number, taken: number, thresholds: readonly number[]) {
  const reached = new Map<number, number>();
  let spent = 0;
  const runTo = (network: number, reach: number) => {
    spent += Math.max(0, reach - (reached.get(network) ?? 0));
    reached.set(network, Math.max(reach, reached.get(network) ?? 0));
  };
  for (const [e, { network, reach, head }] of times.entries()) {
    if (thresholds[e]! >= NEVER) continue;
    runTo(network, reach);
    spent += head;
    if (e === taken) return spent;
  }
  runTo(own, WHOLE);
  return spent;
}

/** Every choice of exits in use. */
const CHOICES = Array.from({ length: 2 ** TIMES.length }, (_, bits) =>
  TIMES.map((__, e) => ((bits >> e) & 1 ? 0.5 : NEVER)),
);
const costs: Costs = new TimeCosts(TIMES, OWN, WHOLE);

test('a row spends the time to each exit in use, until it leaves', () => {
  for (const thresholds of CHOICES) {
    for (let e = 0; e <= TIMES.length; e++) {
      if (e < TIMES.length && thresholds[e]! >= NEVER) continue;
      expect(costs.leaving(thresholds)[e]).toBeCloseTo(spentBy(TIMES, OWN, e, thresholds), 12);
    }
  }
});

test('what an exit costs those that come to it, and what is spent without it, is all that is spent with it', () => {
  for (const without of CHOICES) {
    for (let e = 0; e < TIMES.length; e++) {
      if (without[e]! < NEVER) continue;
      const used = without.with(e, 0.5);
      for (let end = e; end <= TIMES.length; end++) {
        if (end < TIMES.length && used[end]! >= NEVER) continue;
        const sum = costs.leaving(without)[end]! + costs.passing(e, without);
        expect(sum).toBeCloseTo(spentBy(TIMES, OWN, end, used), 12);
      }
    }
  }
});

const laddersOf = (...asked: Parameters<typeof found>) => atOnce(found(...asked));
const ROWS = 60;

/** Scores and risks of the exits; later ones are better. */
function scoresOf(seed: number): ExitScores[] {
  const random = uniform(seed);
  return TIMES.map((_, e) => {
    const scores = Float64Array.from({ length: ROWS }, random);
    return {
      saving: 0,
      scores,
      ranked: rankingOf(scores),
      risks: scores.map((score) => Number(random() > 0.4 + score / 2 + 0.1 * e)),
    };
  });
}

/** Time and risk of all rows. */
function outcome(exits: readonly ExitScores[], thresholds: readonly number[]) {
  let [spent, lost] = [0, 0];
  for (let row = 0; row < ROWS; row++) {
    const taken = exits.findIndex(({ scores }, e) => scores[row]! >= thresholds[e]!);
    spent += spentBy(TIMES, OWN, taken, thresholds);
    lost += exits[taken]?.risks[row] ?? 0;
  }
  return { spent, lost };
}

test.each([1, 2, 3, 4, 5])(
  'no single threshold can be bettered in time, and none is worse than no exit, example %d',
  (seed) => {
    const exits = scoresOf(seed);
    const search = new ThresholdSearch(exits, costs);
    const none = TIMES.map(() => NEVER);
    let used = 0;
    for (const penalty of [10, 2, 0.5, 0.1]) {
      const thresholds = search.at(penalty);
      const cost = (some: readonly number[]) => {
        const { spent, lost } = outcome(exits, some);
        return spent + penalty * lost;
      };
      const best = cost(thresholds);
      used += thresholds.filter((threshold) => threshold < NEVER).length;
      expect(best).toBeLessThanOrEqual(cost(none) + 1e-9);
      expect(outcome(exits, thresholds).spent).toBeLessThanOrEqual(ROWS * WHOLE + 1e-9);
      for (const [e, { scores }] of exits.entries())
        for (const threshold of [...Array.from(scores), NEVER])
          expect(best).toBeLessThanOrEqual(cost(thresholds.with(e, threshold)) + 1e-9);
    }
    expect(used).toBeGreaterThan(0);
  },
);

const LIMIT = 0.1;
const task = {
  options: parseOptions({ maxDisagreement: LIMIT }),
  rules: [{ metric: 'disagreement', limit: LIMIT, groupLimit: LIMIT, delta: 0.05 }],
} as unknown as Task;

/**
 * The surer an exit is of an item, the likelier it is right.
 * @param sureOfFew an exit that is sure of four items, and wrong about the others
 */
function poolOf(items = 500, times = TIMES, sureOfFew?: number): Pool {
  const random = uniform(8);
  const exits = TIMES.map((_, e) => ({
    after: e,
    rows: Array.from({ length: items }, (__, i) => {
      const score = random();
      if (e === sureOfFew) return [Number(i < 4), i >= 4] as const;
      return [score, random() > 0.5 + score / 2 + 0.05 * e] as const;
    }),
  }));
  const table = tableFrom(
    TIMES.map(() => 1 / TIMES.length),
    exits,
  );
  const names = TIMES.map((_, e) => ({ after: `b${e}` }));
  return new Pool('model', task, names, [table], times, OWN, WHOLE);
}

/** Risk, mean and 95th percentile, counted in the plainest way. */
function counted(
  { tables, times, own, exits }: Pick<Pool, 'tables' | 'times' | 'own' | 'exits'>,
  thresholds: readonly number[],
) {
  const rounded = thresholds.map(Math.fround);
  const each = tables.flatMap(({ items, exits: columns }) =>
    items.map((_, i) => {
      const taken = exits.findIndex((__, e) => columns[e]!.confidences[i]! >= rounded[e]!);
      const time = spentBy(times, own, taken, rounded);
      return { time, loss: columns[taken]?.losses[i] ?? 0 };
    }),
  );
  const sum = (list: readonly number[]) => list.reduce((a, b) => a + b, 0);
  const spent = each.map(({ time }) => time);
  return {
    risk: sum(each.map(({ loss }) => loss)) / each.length,
    mean: sum(spent) / each.length,
    p95: quantile(spent, 0.95),
  };
}

test('what a pool predicts is the count over its items, also with some of its fronts', () => {
  const pool = poolOf();
  const random = uniform(4);
  for (const some of [
    pool,
    pool.only([0], true),
    pool.only([1, 0], false),
    pool.only([], true),
    pool.only([1], true),
  ]) {
    for (let trial = 0; trial < 5; trial++) {
      const thresholds = some.exits.map(() => (random() < 0.4 ? NEVER : 0.5 + random() / 2));
      const { risk, mean, p95 } = some.predict(thresholds);
      const expected = counted(some, thresholds);
      expect(risk).toBeCloseTo(expected.risk, 12);
      expect(mean).toBeCloseTo(expected.mean, 12);
      expect(p95).toBeCloseTo(expected.p95, 12);
    }
  }
  expect(pool.only([1, 0], false).exits.map(({ after }) => after)).toEqual(['b1', 'b2', 'b3', 'b0']);
});

test('each half of a pool has every other item, also of some of its fronts', () => {
  const pool = poolOf(101);
  const [table] = pool.tables as [Pool['tables'][number]];
  for (const some of [pool, pool.only([1], true), pool.only([0, 1], false)]) {
    const thresholds = some.exits.map((_, e) => 0.5 + 0.05 * e);
    for (const odd of [0, 1] as const) {
      const rows = [...table.items.keys()].filter((row) => row % 2 === odd);
      const { times, own, exits } = some;
      const tables = some.tables.map((whole) => tableWith(whole, rows));
      const half = counted({ tables, times, own, exits }, thresholds);
      const { risk, mean, p95 } = some.half(odd).predict(thresholds);
      expect([risk, mean, p95].map((value) => value.toFixed(12))).toEqual(
        [half.risk, half.mean, half.p95].map((value) => value.toFixed(12)),
      );
      const { scores } = some.half(odd).scores()[0]!;
      expect([...(scores as Float64Array)]).toEqual(
        rows.map((row) => some.tables[0]!.exits[0]!.confidences[row]),
      );
    }
  }
});

test('predictions of two halves together are those of all items', () => {
  const pool = poolOf(101);
  const thresholds = TIMES.map((_, e) => 0.5 + 0.05 * e);
  const together = predictionOf([pool.half(0).tally(thresholds), pool.half(1).tally(thresholds)]);
  const { risk, changed, mean, p95 } = pool.predict(thresholds);
  expect(together.changed).toBe(changed);
  expect(together.risk).toBeCloseTo(risk, 12);
  expect(together.mean).toBeCloseTo(mean, 12);
  expect(together.p95).toBeCloseTo(p95, 12);
});

test('ladders keep the risk that can be certified, and each is faster than the network', () => {
  const pool = poolOf();
  const items = 900;
  const allowed = allowedEvents(items, LIMIT, 0.05);
  const proves = provable(pool, items);
  const proved = (events: number, of: number, by = 0) =>
    provable(pool, of)({ risk: events / of, changed: events / of }, by);
  expect([allowed, allowed + 1].map((events) => proved(events, items))).toEqual([true, false]);
  expect(proved(0, 20)).toBe(false);
  // 500 items order: what is predicted of a tenth may be off by 0.012.
  expect([allowed - 10, allowed - 12].map((events) => proved(events, items, 1))).toEqual([false, true]);
  const ladders = laddersOf(pool, proves).filter(({ state }) => state === 'pays');
  expect(ladders.length).toBeGreaterThan(3);
  for (const ladder of ladders) {
    const { settings, points, boldest, predicted, sure } = ladder;
    expect(predicted).toBe(points[boldest]);
    expect(points).toHaveLength(settings.length);
    expect(proves(predicted, sure ? 1 : 0)).toBe(true);
    expect(points.slice(boldest + 1).some((point) => proves(point, sure ? 1 : 0))).toBe(false);
    expect(predicted.mean).toBeLessThan(1);
    const means = points.map(({ mean }) => mean);
    expect(means).toEqual([...means].sort((a, b) => b - a));
    const tested = settingsToTest(ladder);
    expect(tested.filter((setting) => !settings.includes(setting))).toEqual([]);
    expect(tested).toContain(settings[boldest]);
  }
  const [byMean, byP95] = [ranked(ladders, 'mean'), ranked(ladders, 'p95')];
  expect(byMean[0]!.predicted.mean).toBe(Math.min(...ladders.map(({ predicted }) => predicted.mean)));
  expect(byP95[0]!.predicted.p95).toBe(Math.min(...ladders.map(({ predicted }) => predicted.p95)));
  for (const { state } of laddersOf(pool, () => false)) expect(state).toBe('unsafe');
});

test('beside the fastest ladder, the fastest without exits is certified, at half of the error each', () => {
  const pool = poolOf();
  const ladders = ranked(laddersOf(pool, provable(pool, 900)), 'mean').filter(
    ({ state }) => state === 'pays',
  );
  const isPlain = ({ pool: { exits } }: Ladder) => exits.every(({ after }) => ['b0', 'b3'].includes(after));
  const timed = (list: readonly Ladder[], step: number) =>
    list.map((ladder, i) => ({ ladder, mean: 0.5 + step * i, time: 0.5 + step * i }));
  const [withExits, plain] = [ladders.find((one) => !isPlain(one))!, ladders.find(isPlain)!];
  const asked: number[] = [];
  const proving = (proves: boolean) => (_: Ladder, share: number) => {
    asked.push(share);
    return () => proves;
  };
  const chosen = (list: readonly Ladder[], step: number, proves = true) =>
    contenders(timed(list, step), proving(proves)).map(({ ladder }) => ladder);
  expect(chosen([withExits, plain], 0.1)).toEqual([withExits, plain]);
  expect(new Set(asked)).toEqual(new Set([2]));
  // It can't win; it is the fastest itself; there are too few items for both.
  expect(chosen([withExits, plain], 0.2)).toEqual([withExits]);
  expect(chosen([plain, withExits], 0.1)).toEqual([plain]);
  expect(chosen([withExits, plain], 0.1, false)).toEqual([withExits]);
  expect(chosen([], 0.1)).toEqual([]);
  // The items that certify may refuse a network in 8 bits in every setting: a slow ladder is better than none.
  const [unsure, alone] = [withExits, { ...plain, settings: [], boldest: -1 }].map((ladder) => ({
    ...ladder,
    sureEnd: false,
  })) as [Ladder, Ladder];
  expect(chosen([alone, unsure, withExits, plain], 0.1)).toEqual([alone, withExits]);
  expect(chosen([unsure, alone, plain], 0.2)).toEqual([unsure, plain]);
  expect(chosen([unsure, alone], 0.1)).toEqual([unsure]);
  expect(chosen([withExits, alone, plain], 0.02)).toEqual([withExits, plain]);
  const [whole, half] = [1, 2].map((share) => provable(pool, 900, share));
  const rate = {
    risk: allowedEvents(900, LIMIT, 0.05) / 900,
    changed: allowedEvents(900, LIMIT, 0.05) / 900,
  };
  expect([whole!(rate), half!(rate)]).toEqual([true, false]);
  const less = allowedEvents(900, LIMIT, 0.025) / 900;
  expect(half!({ risk: less, changed: less })).toBe(true);
});

test('a network in 8 bits is a sure end if it changes few enough answers by itself, and the fastest ladder with a sure end is timed', () => {
  const proves = (pool: Pool) => provable(pool, 900);
  const laddersWith = (changed: number) => {
    const float = poolOf();
    const tables = float.tables.map((table) => ({
      ...table,
      end: { ...table.end, losses: table.end.losses.map((_, i) => Number(i < changed)) },
    }));
    const { name, exits, times, own } = float;
    const task = { ...float.task, original: {} } as typeof float.task;
    const pool = new Pool(name, task, exits, tables, times, own, 0.5);
    return laddersOf(pool, proves(pool)).filter(({ state }) => state === 'pays');
  };
  // A tenth may change; 500 items order, whose share of 0.07 is off by 0.011.
  const [few, many] = [15, 35].map(laddersWith) as [Ladder[], Ladder[]];
  expect([few, many].map((ladders) => ladders.length > 0)).toEqual([true, true]);
  expect(few.every(({ sureEnd }) => sureEnd)).toBe(true);
  expect(many.some(({ sureEnd }) => sureEnd)).toBe(false);
  const float = poolOf();
  const inFloat = laddersOf(float, proves(float)).filter(({ state }) => state === 'pays');
  expect(inFloat.every(({ sureEnd }) => sureEnd)).toBe(true);
  const slowest = [...ranked(many, 'mean'), ...ranked(inFloat, 'mean')];
  expect(finalists(slowest)).toContain(ranked(inFloat, 'mean')[0]);
});

test('a ladder that saves mean time alone is slow where another time is to be short', () => {
  const pool = poolOf();
  const [ladder] = ranked(laddersOf(pool, provable(pool, 900)), 'p95');
  const outcome = (mean: number, time: number) =>
    told([ladder!], [{ ladder: ladder!, mean, time }], new Map())[0]!.outcome;
  expect([outcome(0.6, 0.9), outcome(0.6, 1.4), outcome(1.1, 0.9)]).toEqual(['beaten', 'slow', 'slow']);
});

test('of many fronts, few sets are searched, and none is faster than those that are found', () => {
  const times: ExitTime[] = Array.from({ length: 6 }, (_, network) => ({
    ...{ network, reach: 0.05 + 0.07 * network, head: 0 },
  }));
  const random = uniform(3);
  const table = tableFrom(
    times.map(() => 1 / times.length),
    times.map((_, after) => ({
      after,
      rows: Array.from({ length: 400 }, () => {
        const score = random();
        return [score, random() > 0.6 + score / 2 + 0.03 * after] as const;
      }),
    })),
  );
  const names = times.map((_, e) => ({ after: `b${e}` }));
  const pool = new Pool('model', task, names, [table], times, times.length, 1);
  const proves = provable(pool, 900);
  let all = Number.POSITIVE_INFINITY;
  for (let bits = 1; bits < 2 ** times.length; bits++) {
    const set = [...times.keys()].filter((front) => (bits >> front) & 1);
    if (set.length > 3) continue;
    const { state, predicted } = ladderOf(pool.only(set, false), proves);
    if (state === 'pays') all = Math.min(all, predicted.mean);
  }
  const steps = (late: boolean) => {
    const work = found(pool, proves, 'mean', () => late);
    for (let count = 0; ; count++) {
      const { done, value } = work.next();
      if (done)
        return {
          count,
          best: ranked(
            value.filter(({ state }) => state === 'pays'),
            'mean',
          )[0]!,
        };
    }
  };
  const { count, best } = steps(false);
  // 1 + 6 + 15 + 20 sets of up to three fronts.
  expect(count).toBeLessThan(42);
  expect(best.predicted.mean).toBeCloseTo(all, 12);
  // With no time left, each front alone.
  expect(steps(true).count).toBe(6);
  expect(steps(true).best.pool.own).toBe(1);
});

test('the network in 8 bits pays behind a front that is as sure and changes more answers', () => {
  const strict = { options: parseOptions({ maxDisagreement: 0.01 }) } as Task;
  const random = uniform(5);
  const hard = Array.from({ length: 1000 }, () => random() ** 4);
  const rowsOf = (doubt: number) =>
    hard.map((difficulty) => [1 - difficulty / 2, random() < doubt * difficulty] as const);
  const table = tableFrom(
    [0.25, 0.75],
    [0.4, 0.015].map((doubt, after) => ({ after, rows: rowsOf(doubt) })),
  );
  const times: ExitTime[] = [0.23, 0.63].map((reach, network) => ({ network, reach, head: 0 }));
  const pool = new Pool(
    'model',
    strict,
    [{ after: 'b0' }, { after: 'b1' }],
    [table],
    times,
    2,
    1,
    new Set(['b1']),
  );
  const proves = provable(pool, 4000);
  const [first, second, both] = [[0], [1], [0, 1]].map((set) => ladderOf(pool.only(set, false), proves));
  expect(both!.settings[both!.boldest]!.every((threshold) => threshold < NEVER)).toBe(true);
  const least = Math.min(first!.predicted.mean, second!.predicted.mean);
  expect(both!.predicted.mean).toBeLessThan(0.95 * least);
});

test('a front that answers nothing makes no ladder', () => {
  const [front, ...others] = TIMES;
  const pool = poolOf(500, [{ ...front!, reach: 0.9 }, ...others]);
  const ladders = laddersOf(pool, provable(pool, 900)).filter(({ boldest }) => boldest >= 0);
  const used = ladders.map(({ pool: own, settings, boldest }) => {
    const { counts, items } = own.tally(settings[boldest]!);
    return own.exits.flatMap(({ after }, e) => (counts[e]! >= 0.01 * items ? [after] : []));
  });
  expect(ladders.filter(({ state }) => state === 'pays').length).toBeGreaterThan(1);
  expect(new Set(used.map((names) => names.join())).size).toBe(used.length);
  for (const [i, names] of used.entries()) {
    for (const network of new Set(ladders[i]!.pool.times.map((time) => time.network))) {
      const own = ladders[i]!.pool.exits.filter((_, e) => ladders[i]!.pool.times[e]!.network === network);
      expect(own.some(({ after }) => names.includes(after))).toBe(true);
    }
  }
});

test('an exit at which hardly any item leaves makes no ladder', () => {
  const [front, ...others] = TIMES;
  const pool = poolOf(500, [{ ...front!, reach: 0.001 }, ...others], 0);
  const alone = ladderOf(pool.only([0], false), provable(pool, 900));
  expect(alone).toMatchObject({ state: 'pays', boldest: expect.any(Number) });
  expect(Array.from(alone.pool.tally(alone.settings[alone.boldest]!).counts)).toEqual([4, 496]);
  const paying = laddersOf(pool, provable(pool, 900)).filter(({ state }) => state === 'pays');
  expect(paying.length).toBeGreaterThan(1);
  for (const { pool: own } of paying) expect(own.exits.map(({ after }) => after)).not.toContain('b0');
});

test('what is told of ladders says why each was chosen, or not', () => {
  const pool = poolOf();
  const ladders = laddersOf(pool, provable(pool, 900));
  const paying = ladders.filter(({ state }) => state === 'pays');
  const [fastest, slow] = paying;
  const times = [
    { ladder: slow!, mean: 1.01, time: 1.01 },
    { ladder: fastest!, mean: 0.5, time: 0.5 },
  ];
  const outcomes = (of: 'chosen' | 'refuted') => {
    const all = told(ladders, times, new Map([[fastest!, of]]));
    expect(all).toHaveLength(ladders.length);
    // Those that don't pay come last.
    const paid = all.map(
      ({ outcome }) => outcome === 'beaten' || outcome === 'chosen' || outcome === 'refuted',
    );
    expect(paid.indexOf(false)).toBeGreaterThanOrEqual(paying.length - 1);
    return all.filter(({ measured }) => measured !== undefined).map(({ outcome }) => outcome);
  };
  expect(outcomes('chosen').sort()).toEqual(['chosen', 'slow']);
  expect(outcomes('refuted').sort()).toEqual(['refuted', 'slow']);
  // A ladder that the items that certify refuse is faster all the same.
  const without = (of: 'slow' | 'refuted') =>
    wordNothing({ tried: told(ladders, times, new Map([[fastest!, of]])) });
  expect(without('refuted')).toContain('no ladder is certified');
  expect(without('slow')).toContain('no ladder is faster');
  for (const { outcome } of told(
    laddersOf(pool, () => false),
    [],
    new Map(),
  ))
    expect(outcome).toBe('unsafe');
});

test('a part by itself answers as many of the surest items as the risk allows', () => {
  const pool = poolOf();
  const [{ items, exits }] = pool.tables as [Pool['tables'][number]];
  const risk = 0.05;
  const parts = partsOf(pool, (predicted) => predicted.risk <= risk);
  expect(parts.map(({ name }) => name)).toEqual(pool.exits.map(({ after }) => after));
  for (const [e, part] of parts.entries()) {
    const { confidences, losses } = exits[e]!;
    const order = [...confidences.keys()].sort((a, b) => confidences[b]! - confidences[a]!);
    let [lost, most] = [0, 0];
    for (const [rank, i] of order.entries()) {
      lost += losses[i]!;
      if (lost <= risk * items.length) most = rank + 1;
    }
    expect(part.answers).toBe(most / items.length);
    expect(part.risk).toBeCloseTo([...losses].reduce((a, b) => a + b, 0) / items.length, 12);
    const { reach, head } = TIMES[e]!;
    expect(part.time).toBeCloseTo(reach + head, 12);
  }
});
