import { createHash } from 'node:crypto';
import { isGuarded, resolveGuards } from 'lib/skip/guards.js';
import { hashPolicy, parsePolicy } from 'lib/skip/policy.js';

const LABELS = ['cat', 'dog', 'bird'];
const guard = (margin: number | undefined, ...labels: (string | number)[]) =>
  resolveGuards([{ labels, margin }], LABELS);
/** Logits whose softmax these probabilities are. */
const logits = (...probabilities: number[]) => Float32Array.from(probabilities, Math.log);

test('without a margin only the best answer is guarded', () => {
  expect(isGuarded(logits(0.5, 0.3, 0.2), 'logits', guard(undefined, 'cat'))).toBe(true);
  expect(isGuarded(logits(0.5, 0.3, 0.2), 'logits', guard(undefined, 'dog'))).toBe(false);
  expect(isGuarded(logits(0.5, 0.3, 0.2), 'logits', guard(undefined, 'dog', 0))).toBe(true);
  expect(isGuarded(logits(0.5, 0.3, 0.2), 'logits', [])).toBe(false);
});

test('a margin is the distance in probability from the best answer', () => {
  for (const [margin, guarded] of [
    [0.19, false],
    [0.21, true],
  ] as const) {
    expect(isGuarded(logits(0.5, 0.3, 0.2), 'logits', guard(margin, 'dog'))).toBe(guarded);
  }
});

test('the answers of a network that ends in a softmax are probabilities already', () => {
  const answer = Float32Array.of(0.5, 0.3, 0.2);
  expect(isGuarded(answer, 'probabilities', guard(0.19, 'dog'))).toBe(false);
  expect(isGuarded(answer, 'probabilities', guard(0.21, 'dog'))).toBe(true);
});

test('scores that tell no classes apart are guarded, whatever they may hide', () => {
  for (const scores of [
    [Number.POSITIVE_INFINITY, 1, 2],
    [1, Number.NaN, 2],
  ]) {
    expect(isGuarded(Float32Array.from(scores), 'logits', guard(undefined, 'cat'))).toBe(true);
    expect(isGuarded(Float32Array.from(scores), 'logits', [])).toBe(false);
  }
  // A class that can't be is no such thing.
  const impossible = Float32Array.of(2, Number.NEGATIVE_INFINITY, 1);
  expect(isGuarded(impossible, 'logits', guard(undefined, 'dog'))).toBe(false);
});

test('a label that the policy does not have is refused', () => {
  expect(() => guard(0, 'unicorn')).toThrow(
    /'unicorn', which is not one of its labels; expected one of cat, dog, bird/,
  );
  expect(() => resolveGuards([{ labels: ['cat'] }], undefined)).toThrow(/use class indices/);
});

test('a label that several classes have is refused: one of them would go unguarded', () => {
  const labels = ['crane', 'hen', 'crane'];
  expect(() => resolveGuards([{ labels: ['crane'] }], labels)).toThrow(/'crane', which several classes have/);
  expect(resolveGuards([{ labels: [2, 'hen'] }], labels)).toEqual([{ classes: [2, 1], margin: 0 }]);
});

test("older policies' action keeps its hash and does nothing; another one is refused", () => {
  const parsed = parsePolicy({ guards: [{ labels: [1], action: 'verify' }] });
  const canonical = '{"blocks":{},"guards":[{"action":"verify","labels":[1]}]}';
  expect(hashPolicy(parsed)).toBe(createHash('sha256').update(canonical).digest('hex'));
  expect(resolveGuards(parsed.guards!, undefined)).toEqual(resolveGuards([{ labels: [1] }], undefined));
  expect(() => parsePolicy({ guards: [{ labels: [1], action: 'refuse' }] })).toThrow(
    "policy.guards.0.action: expected 'verify', received 'refuse'",
  );
});
