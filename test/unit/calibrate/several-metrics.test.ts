/** Limits by several metrics in one policy: misses and false alarms. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { calibrate } from 'lib/calibrate/calibrate.js';
import { certifyEach, type Further, furtherRules, rulesOf } from 'lib/calibrate/certify/certify.js';
import { type CalibrateOptions, parseOptions } from 'lib/calibrate/options.js';
import { figuresOf } from 'lib/calibrate/report/report.js';
import { wordPromise } from 'lib/calibrate/report/wording.js';
import { type Feeds, InferenceSession, type SkipPolicy, watch } from 'lib/index.js';
import { evaluate } from 'lib/measure/evaluate.js';
import { sealed } from 'lib/skip/load-policy.js';
import { policySchema } from 'lib/skip/policy.js';
import '../../helpers/few-timed.js';
import { stacked, zip } from '../../helpers/arrays.js';
import { allowedEvents } from '../../helpers/binomial.js';
import { cli } from '../../helpers/cli.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { expectSealed } from '../../helpers/policies.js';
import { uniform } from '../../helpers/random.js';
import { type FormName, taskItems, taskNetwork } from '../../helpers/task-networks.js';

afterAll(removeFolders);

const pathOf = (form: FormName) => join(folderOf({ 'net.onnx': taskNetwork(form, 1) }), 'net.onnx');
const QUICK = { threads: 1, onNote: () => {} } as const;
const LIMITS = { missed: 0.03, added: 0.1 } as const;

describe('misses and false alarms of a network of six labels', () => {
  const path = pathOf('labels');
  let policy: SkipPolicy;
  let figures: ReturnType<typeof figuresOf>;
  beforeAll(async () => {
    const result = await calibrate(path, taskItems('labels', 1200, 3), { ...QUICK, limits: LIMITS });
    expectSealed(result.policy);
    policy = policySchema().parse(JSON.parse(JSON.stringify(result.policy)));
    const chosen = result.settings[result.chosen]!;
    expect(chosen.also).toHaveLength(1);
    figures = figuresOf(result);
    expect(chosen.worstPValue).toBe(Math.max(chosen.pValue, chosen.also![0]!.pValue));
  });

  test('one policy promises both, each counted by itself', () => {
    const { promise } = policy;
    const [added] = promise!.also!;
    expect(promise).toMatchObject({ metric: 'missed@0.5', limit: 0.03, confidence: 0.95 });
    expect(added).toMatchObject({ metric: 'added@0.5', limit: 0.1, items: promise!.items });
    expect(promise!.events).toBeLessThanOrEqual(allowedEvents(promise!.items, 0.03, 0.05));
    expect(added!.events).toBeLessThanOrEqual(allowedEvents(promise!.items, 0.1, 0.05));
    expect(policy.expected!.multiplyAddsSkipped).toBeGreaterThan(0.1);
    expect(wordPromise(promise!)).toBe(
      'a label is missing in at most 3.00 % of the items, and a label is added in at most 10.00 % of the items, with 95 % confidence',
    );
  });

  test('the report has a figure for each limit, with its own losses', () => {
    const { events, items, also } = policy.promise!;
    expect(figures.slice(0, 2)).toEqual([
      {
        value: '3.00 %',
        meaning: `is the most that the risk of missed@0.5 can be, with 95 % confidence; ${events} of ${items} items that certified it had any loss`,
      },
      {
        value: '10.00 %',
        meaning: `is the most that the risk of added@0.5 can be, with 95 % confidence; ${also![0]!.events} of ${items} items that certified it had any loss`,
      },
    ]);
  });

  test('a session keeps both on items that were not seen', async () => {
    const fresh = taskItems('labels', 2000, 9);
    await using session = await InferenceSession.create(path, { policy, threads: 1 });
    const lost = { missed: 0, added: 0 };
    for (const feeds of fresh) {
      const [skipped, full] = [await session.run(feeds), await session.run(feeds, { policy: 'full' })];
      const labelsOf = ({ labels }: typeof full) => [...(labels!.data as Float32Array)].map((p) => p > 0.5);
      const [now, before] = [labelsOf(skipped), labelsOf(full)];
      lost.missed += Number(before.some((label, i) => label && !now[i]));
      lost.added += Number(now.some((label, i) => label && !before[i]));
    }
    // Four standard errors of 2,000 fresh items.
    const most = (limit: number) => limit + 4 * Math.sqrt((limit * (1 - limit)) / 2000);
    expect(lost.missed / 2000).toBeLessThan(most(0.03));
    expect(lost.added / 2000).toBeLessThan(most(0.1));
    expect(lost.missed).toBeGreaterThan(0);
    expect(lost.added).toBeGreaterThan(0);
    const { skip } = await evaluate(path, fresh, { ...QUICK, policy });
    expect(skip.loss).toEqual({
      ...{ metric: 'missed@0.5', limit: 0.03, mean: expect.closeTo(lost.missed / 2000, 9) },
      also: [{ metric: 'added@0.5', limit: 0.1, mean: expect.closeTo(lost.added / 2000, 9) }],
    });
  });

  test('a monitor tests both, and ends the skipping where only the second is broken', async () => {
    const fresh = taskItems('labels', 400, 9);
    const stats = async (promised: SkipPolicy) => {
      const monitor = watch({ shadow: 1 });
      const session = await InferenceSession.create(path, {
        policy: promised,
        threads: 1,
        observers: [monitor],
      });
      for (const feeds of fresh) {
        await session.run(feeds);
        await monitor.settled();
      }
      await session.release();
      return monitor.stats().watch;
    };
    const kept = await stats(policy);
    expect(kept).toMatchObject({ metric: 'missed@0.5', limit: 0.03, checks: 400, tripped: false });
    expect(kept.also).toMatchObject([{ metric: 'added@0.5', limit: 0.1 }]);
    const { skip } = await evaluate(path, fresh, { ...QUICK, policy });
    expect(kept.disagreements / 400).toBeCloseTo(skip.loss!.mean, 9);
    expect(kept.also![0]!.disagreements / 400).toBeCloseTo(skip.loss!.also![0]!.mean, 9);
    // Each end of the interval is at half of the error.
    const promise = { ...policy.promise!, also: [{ ...policy.promise!.also![0]!, limit: 0.0005 }] };
    expect(await stats(sealed({ ...policy, promise }))).toMatchObject({ tripped: true });
  });

  test('each label keeps both limits as well', async () => {
    const asked = { ...QUICK, limits: { missed: 0.1, added: 0.2 }, perClass: true };
    const { policy: own } = await calibrate(path, taskItems('labels', 1200, 3), asked);
    const { groups, also } = own.promise!;
    expect(groups).toHaveLength(6);
    expect(also![0]!.groups!.map(({ name }) => name)).toEqual(groups!.map(({ name }) => name));
    for (const { promised, limit, pValue } of [...groups!, ...also![0]!.groups!]) {
      if (promised) expect(pValue).toBeLessThanOrEqual(0.05);
      expect([0.1, 0.2]).toContain(limit);
    }
  });

  test('the commands take and print both', async () => {
    const folder = folderOf({});
    const data = join(folder, 'data.npz');
    writeFileSync(data, zip(stacked('labels', 800), false));
    const output = join(folder, 'policy.json');
    const flags = ['--data', data, '--limits', 'missed=0.05,added=0.1', '-o', output];
    const made = await cli('calibrate', path, ...flags);
    expect(made.code).toBe(0);
    expect(made.out).toMatch(/added@0\.5/);
    expect(made.out).toMatch(
      /a label is missing in at most 5\.00 %.*, and a label is added in at most 10\.00 %/,
    );
    expect(JSON.parse(readFileSync(output, 'utf8')).promise.also).toMatchObject([{ metric: 'added@0.5' }]);
    const evaluated = await cli('eval', path, '--data', data, '--policy', output);
    expect(evaluated.out).toMatch(/promised loss \(missed@0\.5\)[^\n]*5\.00 %/);
    expect(evaluated.out).toMatch(/promised loss \(added@0\.5\)[^\n]*10\.00 %/);
    const wrong = await cli('calibrate', path, ...flags.with(3, 'missed=5,added=0.1'));
    expect([wrong.code, wrong.err]).toEqual([2, expect.stringMatching(/between 0 and 1, received 5/)]);
  });
});

test('numbers, and maps with exits of their own, keep several limits', async () => {
  const numbers = await calibrate(pathOf('numbers'), taskItems('numbers', 600, 3), {
    ...QUICK,
    limits: { relative: 0.05, 'absolute@0.2': 0.1 },
  });
  expect(numbers.policy.promise).toMatchObject({ metric: 'relative', also: [{ metric: 'absolute@0.2' }] });
  expect(numbers.policy.expected!.multiplyAddsSkipped).toBeGreaterThan(0.05);
  const maps = await calibrate(pathOf('map'), taskItems('map', 600, 3), {
    ...QUICK,
    limits: { pixels: 0.05, miou: 0.2 },
  });
  const { promise, expected } = maps.policy;
  expect(promise).toMatchObject({ metric: 'pixels', also: [{ metric: 'miou', limit: 0.2 }] });
  expect(promise!.also![0]!.risk).toBeGreaterThan(0);
  expect(expected!.multiplyAddsSkipped).toBeGreaterThan(0.05);
});

test.each<[FormName, CalibrateOptions, RegExp]>([
  [
    'labels',
    { limits: { missed: 0.1, 'added@0.7': 0.1 } },
    /'missed@0\.5' and 'added@0\.7' can't be promised together/,
  ],
  [
    'labels',
    { limits: { missed: 0.1, 'missed@0.5': 0.2 } },
    /'missed@0\.5' and 'missed@0\.5' can't be promised together/,
  ],
  ['labels', { limits: { missed: 0.1 }, metric: 'added' }, /^limits: they name the metrics themselves/],
  ['labels', { limits: { missed: 0.1 }, maxDisagreement: 0.1 }, /^limits: it replaces maxDisagreement/],
  ['vector', { limits: { cosine: 0.1, 'recall@5': 0.1 } }, /can't be promised together/],
  [
    'grades',
    { task: 'ordinal', limits: { ordinal: 0.1, disagreement: 0.2 } },
    /disagreement.*isn't about the task ordinal|can't be promised together/,
  ],
  ['labels', { limits: {} }, /options\.limits: expected at least one limit/],
  [
    'labels',
    { limits: { missed: 2 } },
    /options\.limits\.missed: expected a number between 0 and 1, received 2/,
  ],
  ['labels', { limits: { mised: 0.1 } as object }, /expected one of disagreement/],
])('refuses %s with %j', async (form, options, message) => {
  await expect(
    calibrate(pathOf(form), taskItems(form, 20, 3) as Feeds[], { ...QUICK, ...options }),
  ).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
    message: expect.stringMatching(message),
  });
});

test('as many items are needed as the lowest limit asks for', async () => {
  await expect(
    calibrate(pathOf('labels'), taskItems('labels', 300, 3), {
      ...QUICK,
      limits: { added: 0.1, missed: 0.01 },
    }),
  ).rejects.toMatchObject({ message: expect.stringMatching(/a limit of 0\.01 .* needs 299/) });
});

describe('family-wise error', () => {
  const NONE = { tested: [], tooSmall: [] };
  const options = parseOptions({ limits: { 'missed@0.5': 0.02, 'added@0.5': 0.05 } });
  const [rule] = rulesOf(options);
  const [second] = furtherRules(options);
  const ITEMS = 300;
  /** Settings from careful to bold, the share of items that each misses and adds something for. */
  type Rates = readonly (readonly [missed: number, added: number])[];

  /** How often a setting is certified that breaks either limit, and how often any is. */
  function simulate(rates: Rates, repetitions: number) {
    const random = uniform(11);
    const drawn = (rate: number) => Array.from({ length: ITEMS }, () => Number(random() < rate));
    let [broken, certified] = [0, 0];
    for (let repetition = 0; repetition < repetitions; repetition++) {
      const further: Further = {
        rule: second!,
        grouping: NONE,
        losses: rates.map(([, added]) => drawn(added)),
      };
      const missed = rates.map(([rate]) => drawn(rate));
      const [{ chosen }] = certifyEach(missed, [{ rule, grouping: NONE }], [further]);
      if (chosen >= 0) certified++;
      const [misses, adds] = rates[chosen] ?? [0, 0];
      if (misses > rule.limit || adds > second!.limit) broken++;
    }
    return { broken: broken / repetitions, certified: certified / repetitions };
  }

  test('each limit is tested at the full level', () => {
    expect([rule, second]).toMatchObject([
      { metric: 'missed@0.5', limit: 0.02, delta: expect.closeTo(0.05, 12) },
      { metric: 'added@0.5', limit: 0.05, delta: expect.closeTo(0.05, 12) },
    ]);
  });

  // The worst cases: the other limit is far from being broken.
  test.each<[string, Rates]>([
    [
      'misses',
      [
        [0, 0],
        [0.0201, 0],
      ],
    ],
    [
      'false alarms',
      [
        [0, 0],
        [0, 0.0501],
      ],
    ],
    [
      'both, one after the other',
      [
        [0, 0],
        [0.001, 0.0501],
        [0.0201, 0.01],
      ],
    ],
  ])('any promise is broken in at most 5 %% of 2,000 repetitions: %s', (_, rates) => {
    const { broken, certified } = simulate(rates, 2000);
    expect(broken).toBeLessThanOrEqual(0.05 + 3 * Math.sqrt((0.05 * 0.95) / 2000));
    expect(certified).toBeGreaterThan(0.9);
    // Not by being idle: P(Bin(300, 0.0201) <= 1) is 0.016, P(Bin(300, 0.0501) <= 8) is 0.037.
    expect(broken).toBeGreaterThan(0.005);
  });
});
