/** The promise of a ladder, in 2,000 searches on made items: chosen on some of them, certified on others. */
import { certifyEach, rulesOf } from 'lib/calibrate/certify/certify.js';
import { parseOptions } from 'lib/calibrate/options.js';
import { measure } from 'lib/calibrate/order/measure.js';
import type { Table } from 'lib/calibrate/order/table.js';
import type { Task } from 'lib/calibrate/task.js';
import { certifiable, laddersOf, ranked, settingsToTest } from 'lib/speedup/choose.js';
import { type ExitTime, Pool } from 'lib/speedup/pool.js';
import { uniform } from '../../helpers/random.js';
import { tableFrom } from '../../helpers/tables.js';

const [REPETITIONS, ORDER, CERTIFY, LIMIT] = [2000, 60, 120, 0.1];
/** Two fronts; each changes an answer with this probability where its score is 0. */
const TIMES: readonly ExitTime[] = [
  { network: 0, reach: 0.1, head: 0 },
  { network: 1, reach: 0.25, head: 0 },
];
const DOUBTS = [0.6, 0.4];
const names = TIMES.map((_, e) => ({ after: `b${e}` }));
const task = { options: parseOptions({ maxDisagreement: LIMIT }) } as Task;

/** Items whose scores are uniform, and where an exit is the likelier wrong, the lower its score. */
function drawn(items: number, random: () => number): Table {
  const exits = DOUBTS.map((doubt, after) => ({
    after,
    rows: Array.from({ length: items }, () => {
      const score = random();
      return [score, random() < doubt * (1 - score)] as const;
    }),
  }));
  return tableFrom([0.25, 0.75], exits);
}

/** The share of all answers that thresholds change: the integral of the doubts over the scores at which items leave. */
function riskOf(exits: readonly { readonly after: string }[], thresholds: readonly number[]): number {
  let [coming, risk] = [1, 0];
  for (const [e, { after }] of exits.entries()) {
    const threshold = Math.min(1, Math.fround(thresholds[e]!));
    risk += (coming * DOUBTS[names.findIndex((name) => name.after === after)]! * (1 - threshold) ** 2) / 2;
    coming *= threshold;
  }
  return risk;
}

test('is broken in at most 5 % of them, though the ladder and its settings are chosen', () => {
  const random = uniform(17);
  const rules = rulesOf(task.options);
  const limits = rules.map((rule) => ({ rule, grouping: { tested: [], tooSmall: [] } }));
  let [broken, promised, overChosen] = [0, 0, 0];
  for (let repetition = 0; repetition < REPETITIONS; repetition++) {
    const pool = new Pool('model', task, names, [drawn(ORDER, random)], TIMES, 2, 1);
    const ladders = laddersOf(pool, certifiable(pool, CERTIFY)).filter(({ state }) => state === 'pays');
    const [best] = ranked(ladders, 'mean');
    if (!best) continue;
    const settings = settingsToTest(best);
    const { exits } = best.pool;
    const items = drawn(CERTIFY, random);
    const own = {
      ...items,
      exits: exits.map(({ after }) => items.exits.find(({ exit }) => exit.after === after)!),
    };
    const losses = settings.map((setting) => measure(own, setting).byItem.losses);
    const [{ chosen }] = certifyEach(losses, limits);
    // What was chosen on the ordering part alone would often break the limit.
    if (riskOf(exits, best.settings[best.boldest]!) > LIMIT) overChosen++;
    if (chosen < 0) continue;
    promised++;
    if (riskOf(exits, settings[chosen]!) > LIMIT) broken++;
  }
  const error = 3 * Math.sqrt((0.05 * 0.95) / REPETITIONS);
  expect(broken / REPETITIONS).toBeLessThanOrEqual(0.05 + error);
  // Not by being idle.
  expect(broken).toBeGreaterThan(0);
  expect(promised / REPETITIONS).toBeGreaterThan(0.5);
  expect(overChosen).toBeGreaterThan(broken);
});
