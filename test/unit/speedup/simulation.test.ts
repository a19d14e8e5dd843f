/**
 * What searches promise and find on made items: chosen on some of them, certified on others. Of 2,000, few promises are broken; and
 * what is predicted holds for other items.
 */
import { certifyEach, rulesOf } from 'lib/calibrate/certify/certify.js';
import { parseOptions } from 'lib/calibrate/options.js';
import { measure } from 'lib/calibrate/order/measure.js';
import type { Table } from 'lib/calibrate/order/table.js';
import type { Task } from 'lib/calibrate/task.js';
import { mean } from 'lib/numeric/statistics.js';
import type { Metric } from 'lib/skip/promise.js';
import { NEVER } from 'lib/skip/scores.js';
import { contenders, type Ladder, laddersOf, provable, ranked, settingsToTest } from 'lib/speedup/choose.js';
import { Pool } from 'lib/speedup/pool.js';
import type { ExitTime } from 'lib/speedup/times.js';
import { atOnce } from 'lib/util/slices.js';
import { uniform } from '../../helpers/random.js';
import { tableFrom } from '../../helpers/tables.js';

const [REPETITIONS, ORDER, CERTIFY] = [2000, 60, 120];
/** Of searches with many fronts and exits. */
const SEARCHES = 8;
/** Of searches against cascades. */
const CASCADES = 16;
/** Two fronts, and an exit in the second; each changes an answer with this probability where its score is 0. */
const TIMES: readonly ExitTime[] = [
  { network: 0, reach: 0.1, head: 0 },
  { network: 1, reach: 0.12, head: 0.01 },
  { network: 1, reach: 0.25, head: 0 },
];
const OWN = 2;
const DOUBTS = [0.6, 0.5, 0.4];
const names = TIMES.map((_, e) => ({ after: `b${e}` }));

type Exits = readonly { readonly after: string }[];

/** Of answers that change, the part that is lost; as many are gained as wrong ones stay wrong. */
const LOST = 0.75;
const CASES = { disagreement: { limit: 0.1, net: 1 }, accuracy: { limit: 0.08, net: LOST - (1 - LOST) / 2 } };

const taskOf = (metric: Metric, limit: number) =>
  ({ options: parseOptions({ metric, maxDisagreement: limit }) }) as Task;

/** Items whose scores are uniform, and where an exit is the likelier wrong, the lower its score. */
function drawn(items: number, random: () => number, metric: Metric): Table {
  const exits = DOUBTS.map((doubt, after) => ({
    after,
    rows: Array.from({ length: items }, () => {
      const score = random();
      return [score, random() < doubt * (1 - score)] as const;
    }),
  }));
  const table = tableFrom([0.25, 0.25, 0.5], exits);
  if (metric === 'disagreement') return table;
  const lossOf = () => {
    const kind = random();
    return kind < LOST ? 1 : kind < LOST + (1 - LOST) / 2 ? -1 : 0;
  };
  return {
    ...table,
    exits: table.exits.map((exit) => ({ ...exit, losses: exit.losses.map((loss) => loss && lossOf()) })),
  };
}

/** The share of all answers that thresholds change: the integral of the doubts over the scores at which items leave. */
function changedBy(exits: Exits, thresholds: readonly number[]): number {
  let [coming, risk] = [1, 0];
  for (const [e, { after }] of exits.entries()) {
    const threshold = Math.min(1, Math.fround(thresholds[e]!));
    risk += (coming * DOUBTS[names.findIndex((name) => name.after === after)]! * (1 - threshold) ** 2) / 2;
    coming *= threshold;
  }
  return risk;
}

/** What the items of `table` certify of the ladders of `pool` that `speedup` would certify, of which the fastest that passes is taken. */
function certified(pool: Pool, table: Table) {
  const items = table.items.length;
  const ladders = paying(pool, items);
  const timed = ladders.map((ladder) => ({
    ladder,
    mean: ladder.predicted.mean,
    time: ladder.predicted.mean,
  }));
  const chosen = contenders(timed, (_, share) => provable(pool, items, share));
  const rules = rulesOf({ ...pool.task.options, choice: { ladders: Math.max(1, chosen.length) } });
  const limits = rules.map((rule) => ({ rule, grouping: { tested: [], tooSmall: [] } }));
  const tested = chosen.map(({ ladder }) => {
    const settings = settingsToTest(ladder);
    const { exits } = ladder.pool;
    const own = {
      ...table,
      exits: exits.map(({ after }) => table.exits.find(({ exit }) => exit.after === after)!),
    };
    const losses = settings.map((setting) => measure(own, setting).byItem.losses);
    const passed = certifyEach(losses, limits)[0].chosen;
    const { name, task, times, own: networks } = ladder.pool;
    const fresh = new Pool(name, task, exits, [own], times, networks, 1);
    const time = passed < 0 ? 1 : fresh.predict(settings[passed]!).mean;
    return { exits, settings, passed, time };
  });
  const passing = tested.filter(({ passed }) => passed >= 0).sort((a, b) => a.time - b.time);
  return { tested, passing };
}

/** Ladders that pay, the fastest first. */
function paying(pool: Pool, items: number): Ladder[] {
  const ladders = atOnce(laddersOf(pool, provable(pool, items)));
  return ranked(
    ladders.filter(({ state }) => state === 'pays'),
    'mean',
  );
}

test.each(['disagreement', 'accuracy'] as const)(
  'a limit of %s is broken in at most 5 % of them, though two ladders, and their settings, are chosen',
  (metric) => {
    const random = uniform(17);
    const { limit, net } = CASES[metric];
    const riskOf = (exits: Exits, thresholds: readonly number[]) => net * changedBy(exits, thresholds);
    let [broken, promised, tooBold, two] = [0, 0, 0, 0];
    for (let repetition = 0; repetition < REPETITIONS; repetition++) {
      const task = taskOf(metric, limit);
      const pool = new Pool('model', task, names, [drawn(ORDER, random, metric)], TIMES, OWN, 1);
      const { tested, passing } = certified(pool, drawn(CERTIFY, random, metric));
      if (tested.length > 1) two++;
      // Some of what is tested breaks the limit.
      if (tested.some(({ exits, settings }) => riskOf(exits, settings.at(-1)!) > limit)) tooBold++;
      if (passing.length > 0) promised++;
      // Whichever is taken: it counts when any of them does.
      if (passing.some(({ exits, settings, passed }) => riskOf(exits, settings[passed]!) > limit)) broken++;
    }
    const error = 3 * Math.sqrt((0.05 * 0.95) / REPETITIONS);
    expect(broken / REPETITIONS).toBeLessThanOrEqual(0.05 + error);
    // Not by being idle.
    expect(broken).toBeGreaterThan(0);
    expect(promised / REPETITIONS).toBeGreaterThan(0.5);
    expect(tooBold / REPETITIONS).toBeGreaterThan(0.5);
    expect(two / REPETITIONS).toBeGreaterThan(0.1);
  },
);

test('of two ladders that both break the limit, on items of their own, any passes in at most 5 % of the draws', () => {
  const random = uniform(23);
  const { options } = taskOf('disagreement', 0.1);
  const [rule] = rulesOf({ ...options, choice: { ladders: 2 } });
  const losses = () => [Array.from({ length: 400 }, () => Number(random() < 0.1001))];
  let [either, first] = [0, 0];
  for (let repetition = 0; repetition < REPETITIONS; repetition++) {
    const passes = [losses(), losses()].map(
      (own) => certifyEach(own, [{ rule, grouping: { tested: [], tooSmall: [] } }])[0].chosen >= 0,
    );
    if (passes.includes(true)) either++;
    if (passes[0]) first++;
  }
  expect(either / REPETITIONS).toBeLessThanOrEqual(0.05 + 3 * Math.sqrt((0.05 * 0.95) / REPETITIONS));
  expect(first).toBeGreaterThan(0);
});

/** Two fronts with two exits each, and a network with three: the later an exit, the harder are the items that it gets right. */
const MANY: readonly (ExitTime & { readonly skill: number })[] = [
  { network: 0, reach: 0.08, head: 0.008, skill: 1.3 },
  { network: 0, reach: 0.16, head: 0.008, skill: 1.7 },
  { network: 0, reach: 0.3, head: 0, skill: 2.2 },
  { network: 1, reach: 0.08, head: 0.008, skill: 1.3 },
  { network: 1, reach: 0.25, head: 0.008, skill: 1.9 },
  { network: 1, reach: 0.5, head: 0, skill: 2.4 },
  { network: 2, reach: 0.2, head: 0.008, skill: 1.6 },
  { network: 2, reach: 0.4, head: 0.008, skill: 2 },
  { network: 2, reach: 0.7, head: 0.008, skill: 2.3 },
];
const FULL_SKILL = 2.5;

/** Right answers gained and lost; exits are surer of items that are far from what they can. */
function graded(items: number, random: () => number): Table {
  const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  const difficulty = Array.from({ length: items }, () => -Math.log(1 - random()));
  const rightInFull = difficulty.map((hard) => hard + 0.4 * normal() < FULL_SKILL);
  const columns = MANY.map(({ skill }, after) => ({
    after,
    rows: difficulty.map((hard, i) => {
      const far = skill - hard + 0.4 * normal();
      const right = far > 0;
      return [1 / (1 + Math.exp(-2 * Math.abs(far + 0.3 * normal()) - 1)), right !== rightInFull[i]] as const;
    }),
  }));
  const table = tableFrom(
    MANY.map(() => 1 / MANY.length),
    columns,
  );
  return {
    ...table,
    exits: table.exits.map((exit) => ({
      ...exit,
      losses: exit.losses.map((loss, i) => (rightInFull[i] ? loss : -loss)),
    })),
  };
}

const ofMany = MANY.map((_, e) => ({ after: `b${e}` }));
const poolOf = (table: Table) => new Pool('model', taskOf('accuracy', 0.005), ofMany, [table], MANY, OWN, 1);

/** Thresholds of some exits, for all of them. */
function amongMany(exits: Exits, thresholds: readonly number[]): number[] {
  return ofMany.map(({ after }) => {
    const e = exits.findIndex((exit) => exit.after === after);
    return e < 0 ? NEVER : thresholds[e]!;
  });
}

test('with exits to choose from, what is certified is no slower than the cascade that is certified without them', () => {
  const random = uniform(31);
  const population = poolOf(graded(20_000, random));
  const more = Array.from({ length: CASCADES }, () => {
    const [order, certify] = [graded(1000, random), graded(4000, random)];
    const timeOf = (pool: Pool) => {
      const [best] = certified(pool, certify).passing;
      return best ? population.predict(amongMany(best.exits, best.settings[best.passed]!)).mean : 1;
    };
    const pool = poolOf(order);
    return timeOf(pool) - timeOf(pool.only([0, 1], false, false));
  });
  const error = Math.sqrt(mean(more.map((one) => (one - mean(more)) ** 2)) / CASCADES);
  expect(mean(more)).toBeLessThanOrEqual(2 * error);
});

test('of many fronts and exits, a setting is predicted that other items certify', () => {
  const random = uniform(5);
  const population = poolOf(graded(20_000, random));
  const predicted = Array.from({ length: SEARCHES }, () => {
    const whole = poolOf(graded(3000, random));
    const { pool, settings, boldest } = paying(whole, 3600)[0]!;
    return population.predict(amongMany(pool.exits, settings[boldest]!));
  });
  const [risk, changed] = (['risk', 'changed'] as const).map((of) => mean(predicted.map((one) => one[of])));
  expect(provable(population, 3600)({ risk: risk!, changed: changed! })).toBe(true);
  // Not by being idle.
  expect(mean(predicted.map((one) => one.mean))).toBeLessThan(0.7);
});
