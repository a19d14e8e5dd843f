import {
  boundOf,
  certificateFor,
  certificateOf,
  certifyEach,
  rulesOf as rulesOfParsed,
} from 'lib/calibrate/certify/certify.js';
import { checkGroups, type Grouping, groupsOf, type Rule } from 'lib/calibrate/certify/groups.js';
import { fixedSequenceTest, upperMean, upperRate } from 'lib/calibrate/certify/p-values.js';
import { type CalibrationOptions, parseOptions } from 'lib/calibrate/options.js';
import { promiseOf } from 'lib/calibrate/policy.js';
import { wordPromise } from 'lib/calibrate/report/wording.js';
import type { CalibrationItem } from 'lib/calibrate/run/items.js';
import { totalVariation } from 'lib/skip/scores.js';

const RULE: Rule = { metric: 'disagreement', limit: 0.01, groupLimit: 0.05, delta: 0.05 };
const NONE: Grouping = { tested: [], tooSmall: [] };
const DATA = { sha256: 'f'.repeat(64), seed: 1, fit: 1, order: 1, certify: 1 };

const rulesOf = (options: CalibrationOptions) => rulesOfParsed(parseOptions(options));

/** `events` losses of 1 among `items`, the first ones. */
const losses = (events: number, items: number) =>
  Array.from({ length: items }, (_, i) => (i < events ? 1 : 0));
const members = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);

/** Index of the last of `certificates` that passes, as a calibration tests them. */
const lastCertified = (certificates: readonly { worstPValue: number }[], delta: number) =>
  fixedSequenceTest(
    certificates.map(({ worstPValue }) => worstPValue),
    delta,
  );

test('a setting passes with as many events as the exact binomial allows, and not with one more', () => {
  const certificate = (events: number) => certificateOf(losses(events, 1000), RULE, NONE);
  expect(certificate(4)).toMatchObject({ items: 1000, events: 4, risk: 0.004, limit: 0.01, groups: [] });
  expect(lastCertified([certificate(4), certificate(5), certificate(0)], 0.05)).toBe(0);
  expect(lastCertified([certificate(5)], 0.05)).toBe(-1);
});

test('a setting fails when one group does, though all items together pass', () => {
  const grouping = checkGroups(
    [
      { kind: 'class', name: 'cat', members: members(0, 200) },
      { kind: 'class', name: 'dog', members: members(200, 2000) },
      { kind: 'group', name: 'night', members: members(1960, 2000) },
    ],
    RULE,
  );
  expect(grouping.tooSmall.map(({ name }) => name)).toEqual(['night']);
  const [good, bad] = [
    certificateOf(losses(3, 2000), RULE, grouping),
    certificateOf(losses(9, 2000), RULE, grouping),
  ];
  expect(bad.pValue).toBeLessThan(0.05);
  expect(bad.worstPValue).toBeGreaterThan(0.05);
  expect(lastCertified([good, bad], RULE.delta)).toBe(0);
  expect(good.groups).toMatchObject([
    { kind: 'class', name: 'cat', promised: true, items: 200, events: 3, limit: 0.05 },
    { kind: 'class', name: 'dog', promised: true, items: 1800, events: 0 },
    { kind: 'group', name: 'night', promised: false, items: 40, events: 0 },
  ]);
  const promise = promiseOf(good, RULE, DATA);
  expect(promise).toMatchObject({
    metric: 'disagreement',
    confidence: 0.95,
    limit: 0.01,
    events: 3,
    data: DATA,
  });
  expect(promise.groups).toHaveLength(3);
});

test('of two ladders, each is tested at half of the error, and whichever is taken is promised with the confidence asked for', () => {
  const choice = { fronts: [], exits: [], settings: [], ladders: 2 };
  const [rule] = rulesOf({ maxDisagreement: 0.01, choice });
  const chosen = (events: number) =>
    certifyEach([losses(events, 1000)], [{ rule, grouping: NONE }])[0].chosen;
  // P(Bin(1000, 0.01) <= 4) = 0.0287, and 0.0101 for 3.
  expect([chosen(3), chosen(4)]).toEqual([0, -1]);
  const promise = promiseOf(certificateOf(losses(3, 1000), rule, NONE), rule, DATA);
  expect(promise).toMatchObject({ confidence: 0.95, ladders: 2, events: 3 });
  expect(promise.pValue).toBeLessThanOrEqual(0.025);
  expect(wordPromise(promise)).toContain('with 95 % confidence');
  expect(promiseOf(certificateOf(losses(3, 1000), RULE, NONE), RULE, DATA)).not.toHaveProperty('ladders');
});

test('groups are classes, and whatever names the items carry', () => {
  const item = (...groups: string[]): CalibrationItem => ({ input: new Float32Array(1), sha256: '', groups });
  const items = [item('b'), item('a', 'b', 'b'), item()];
  expect(groupsOf(items, [1, 0, 1], { perClass: true, labels: ['cat', 'dog'] })).toEqual([
    { kind: 'class', name: 'cat', members: [1] },
    { kind: 'class', name: 'dog', members: [0, 2] },
    { kind: 'group', name: 'a', members: [1] },
    { kind: 'group', name: 'b', members: [0, 1] },
  ]);
  expect(groupsOf(items, [1, 0, 1], {}).map(({ name }) => name)).toEqual(['a', 'b']);
  expect(groupsOf([item()], [7], { perClass: true })).toMatchObject([{ name: 'class 7' }]);
});

test('groups too small for any promise are refused with what would be enough', () => {
  const group = (name: string, items: number) => ({
    kind: 'class' as const,
    name,
    members: members(0, items),
  });
  expect(() => checkGroups([group('cat', 100), group('dog', 298)], { ...RULE, groupLimit: 0.01 })).toThrow(
    /each of 2: .*cat 100, dog 298.* needs 299 in each/,
  );
  expect(checkGroups([group('cat', 299)], { ...RULE, groupLimit: 0.01 }).tested).toHaveLength(1);
  expect(checkGroups([], { ...RULE, groupLimit: 0.01 })).toEqual(NONE);
});

test.each([1, 10, 100])('299 items in each of %d groups can certify 1 %%, however many they are', (count) => {
  const groups = Array.from({ length: count }, (_, i) => ({
    kind: 'class' as const,
    name: `class ${i}`,
    members: members(299 * i, 299 * (i + 1)),
  }));
  const grouping = checkGroups(groups, { ...RULE, groupLimit: 0.01 });
  expect(grouping.tested).toHaveLength(count);
  const certificate = certificateOf(losses(0, 299 * count), { ...RULE, groupLimit: 0.01 }, grouping);
  expect(lastCertified([certificate], 0.05)).toBe(0);
  expect(certificate.groups.every(({ pValue }) => Math.abs(pValue - 0.99 ** 299) < 1e-12)).toBe(true);
});

test('what a budget chose promises the upper bound of its risk', () => {
  const bound = boundOf(losses(30, 1000), RULE);
  expect(bound).toMatchObject({ events: 30, items: 1000, limit: upperRate(30, 1000, 0.05) });
  expect(bound.pValue).toBeCloseTo(0.05, 9);
});

test('probabilities that are NaN lose all, so that a bound stays a number', () => {
  const [known, unknown] = [Float32Array.of(1, 2, 3), Float32Array.of(1, Number.NaN, 3)];
  expect(totalVariation(unknown, known, 'logits')).toBe(1);
  expect(totalVariation(known, known, 'logits')).toBe(0);
  const rule: Rule = { ...RULE, metric: 'probability' };
  const some = [...losses(0, 99), totalVariation(unknown, known, 'logits')];
  expect(boundOf(some, rule)).toMatchObject({ events: 1, risk: 0.01, limit: upperMean(some, 0.05) });
});

test('skipping nothing is certain', () => {
  const grouping = { tested: [{ kind: 'group' as const, name: 'a', members: [0] }], tooSmall: [] };
  expect(certificateFor({ rule: RULE, grouping, chosen: -1 }, [], 10)).toMatchObject({
    items: 10,
    events: 0,
    upperBound: 0,
    groups: [{ name: 'a', promised: true, events: 0 }],
  });
});

describe('several limits at once', () => {
  test('the policy has one setting for each limit that certifies more than a lower one', () => {
    const drawn = [losses(0, 2000), losses(12, 2000), losses(13, 2000), losses(300, 2000)];
    const limits = rulesOf({ limits: [0.05, 0.02, 0.01, 0.0005] }).map((rule) => ({ rule, grouping: NONE }));
    const certified = certifyEach(drawn, limits);
    expect(certified.map(({ rule, chosen }) => [rule.limit, chosen])).toEqual([
      [0.01, 0],
      [0.02, 2],
    ]);
    const promise = promiseOf(certificateOf(drawn[2]!, certified[1]!.rule, NONE), certified[1]!.rule, DATA);
    expect(promise).toMatchObject({
      confidence: 0.9875,
      joint: { promises: 4, confidence: 0.95 },
      limit: 0.02,
    });
    expect(wordPromise(promise)).toContain('with 98.75 % confidence');
    expect(certifyEach([], limits)).toMatchObject([{ rule: { limit: 0.0005 }, chosen: -1 }]);
  });

  test('groups are tested at the level of their limit', () => {
    const [careful, bold] = rulesOf({ limits: [0.02, 0.05], maxGroupDisagreement: 0.1 });
    expect(careful).toMatchObject({ limit: 0.02, groupLimit: 0.1, delta: expect.closeTo(0.025, 9) });
    expect(bold).toMatchObject({ limit: 0.05, groupLimit: 0.1 });
    expect(rulesOf({ limits: [0.05] })).toEqual(rulesOf({ maxDisagreement: 0.05 }));
  });

  test.each([
    [{ limits: [] }, /at least one/],
    [{ limits: [0.01, 0] }, /between 0 and 1/],
    [{ limits: [0.01], maxDisagreement: 0.01 }, /limits: it replaces maxDisagreement/],
    [{ limits: [0.01], budget: 0.5 }, /budget/],
  ])('%j is refused', (options, message) => {
    expect(() => rulesOf(options)).toThrow(message);
  });
});

test('a promise reads as a sentence', () => {
  const group = (name: string, promised = true) => ({
    ...{ kind: 'group' as const, name, promised, limit: 0.05 },
    ...{ items: 100, events: 0, risk: 0, pValue: 0, upperBound: 0.03 },
  });
  const promise = promiseOf(certificateOf(losses(0, 1000), RULE, NONE), RULE, DATA);
  const sentence = 'at most 1.00 % of the answers change';
  expect(wordPromise(promise)).toBe(`${sentence}, with 95 % confidence`);
  expect(wordPromise({ ...promise, groups: [group('a'), group('b', false)] })).toBe(
    `${sentence}, and at most 5.00 % in the group a, with 95 % confidence`,
  );
  expect(wordPromise({ ...promise, groups: [group('a'), group('b')] })).toContain('in each of 2 groups');
  expect(wordPromise({ ...promise, metric: 'accuracy' })).toContain('lose their right answer');
  expect(wordPromise({ ...promise, metric: 'probability' })).toContain('move by at most 1.00 % on average');
});
