import { createHash } from 'node:crypto';
import { ReferenceBackend } from 'lib/backends/reference.js';
import { calibrateItems } from 'lib/calibrate/calibrate.js';
import { buildProgram } from 'lib/model/compile.js';
import { NO_ACTIVATION, NONE, type ValueId } from 'lib/model/program/program.js';
import { attachExits } from 'lib/skip/attach.js';
import { decodeExits } from 'lib/skip/head-codec.js';
import '../../helpers/few-timed.js';
import { IrBuilder } from '../../helpers/ir-builder.js';
import { randomFloats } from '../../helpers/random.js';
import { runProgram } from '../../helpers/run-program.js';

const CLASSES = 3;
const SHA256 = '0'.repeat(64);

/**
 * Three blocks that change little, one classifier, and exits behind the first two: they answer with it, or with its opposite if
 * they are among the `misled`.
 */
function program(...misled: number[]) {
  const b = new IrBuilder();
  const maps = [b.act(b.conv(b.input([1, 3, 6, 6]), 8))];
  for (let i = 0; i < 3; i++) {
    const small = b.binary('mul', b.body(maps[i]!), b.constant(0.2));
    maps.push(b.act(b.binary('add', maps[i]!, small)));
  }
  const classifier = [b.random([CLASSES, 8], 8), b.random([CLASSES], 0.1)] as const;
  const answerFrom = (map: ValueId) =>
    b.step('gemm', [b.globalPool(map), ...classifier, NONE], { transB: true, act: NO_ACTIVATION }, [
      1,
      CLASSES,
    ]);
  const exit = (place: number, rest: ValueId) => {
    const map = maps[place]!;
    const answer = misled.includes(place)
      ? b.binary('mul', answerFrom(map), b.constant(-1))
      : answerFrom(map);
    const shares = b.step('softmax', [answer], { axis: 1, log: false }, [1, CLASSES]);
    const score = b.step('globalPool', [b.reshape(shares, [1, 1, CLASSES])], { kind: 'max' }, [1, 1]);
    return b.where(b.compare('ge', score, b.constant(Float32Array.of(0.5), [1, 1])), answer, rest);
  };
  const full = answerFrom(maps[3]!);
  return buildProgram(b.build(exit(1, exit(2, full))));
}

/** Noise on one colour each. */
const ITEMS = Array.from({ length: 700 }, (_, i) => {
  const colour = randomFloats(3, 10_000 + i);
  const input = randomFloats(3 * 6 * 6, 100 + i).map((x, k) => x + 3 * colour[Math.floor(k / 36)]!);
  return { input, sha256: createHash('sha256').update(input).digest('hex') };
});

test('exits that are in a model get thresholds that are certified, and nothing is fitted', async () => {
  const own = program();
  const backend = new ReferenceBackend();
  const result = await calibrateItems(backend, own, SHA256, ITEMS, {
    maxDisagreement: 0.05,
    seed: 2,
    penalties: 12,
  });
  const { heads, promise, expected } = result.policy;
  const points = own.ownExits!.list.map(({ after }) => after);
  expect(heads!.exits.length).toBeGreaterThan(0);
  for (const [e, exit] of heads!.exits.entries()) {
    expect(exit).toEqual({ after: points[e], threshold: expect.any(Number) });
  }
  expect(expected!.multiplyAddsSkipped).toBeGreaterThan(0.1);
  expect(promise!.data.fit).toBe(0);
  expect(promise!.items / ITEMS.length).toBeGreaterThan(0.7);

  const grown = attachExits(own, decodeExits(heads!));
  const answerOf = (scores: Float32Array) => scores.indexOf(Math.max(...scores));
  const changed = ITEMS.filter(({ sha256 }) => result.certifiedOn.includes(sha256)).filter(({ input }) => {
    const [before, after] = [own, grown].map((each) => answerOf(runProgram(each, [input]).output));
    return before !== after;
  });
  expect(changed).toHaveLength(promise!.events);
});

test('a policy that certifies nothing leaves the exits of the model out, and runs its gated blocks', async () => {
  const options = { maxDisagreement: 0.05, seed: 2, penalties: 4 };
  const { policy } = await calibrateItems(new ReferenceBackend(), program(1, 2), SHA256, ITEMS, options);
  expect(policy).toMatchObject({ default: 'run', heads: { exits: [] }, promise: { events: 0 } });
});

test('an exit at which nothing may leave is not in the policy, and costs nothing', async () => {
  const own = program(1);
  const options = { maxDisagreement: 0.05, seed: 2, penalties: 12 };
  const { policy } = await calibrateItems(new ReferenceBackend(), own, SHA256, ITEMS, options);
  const [first, second] = own.ownExits!.list;
  expect(policy.heads!.exits).toEqual([{ after: second!.after, threshold: expect.any(Number) }]);
  expect(Object.keys(policy.expected!.exits!)).toEqual([second!.after]);
  expect(policy.expected!.multiplyAddsSkipped).toBeGreaterThan(0.1);
  const grown = attachExits(own, decodeExits(policy.heads!));
  expect(grown.exits.map((exit) => [exit.after, exit.multiplyAdds])).toEqual([
    [second!.after, second!.cost.multiplyAdds],
  ]);
  expect(first!.cost.multiplyAdds).toBeGreaterThan(0);
});

test('an exit before the first block is certified, also where no block can be skipped', async () => {
  const b = new IrBuilder();
  const map = b.act(b.conv(b.input([1, 3, 6, 6]), 8));
  const answer = b.gemm(b.globalPool(map), CLASSES);
  const late = b.conv(b.act(b.conv(map, 8)), 8);
  const full = b.binary('add', answer, b.binary('mul', b.gemm(b.globalPool(late), CLASSES), b.constant(0.1)));
  const shares = b.step('softmax', [b.binary('mul', answer, b.constant(8))], { axis: 1, log: false }, [
    1,
    CLASSES,
  ]);
  const score = b.step('globalPool', [b.reshape(shares, [1, 1, CLASSES])], { kind: 'max' }, [1, 1]);
  const sure = b.compare('ge', score, b.constant(Float32Array.of(0.5), [1, 1]));
  const own = buildProgram(b.build(b.where(sure, answer, full)));
  expect(own.blocks.filter(({ skippable }) => skippable)).toEqual([]);
  const options = { maxDisagreement: 0.05, seed: 2, penalties: 12 };
  const { policy } = await calibrateItems(new ReferenceBackend(), own, SHA256, ITEMS, options);
  expect(policy.heads!.exits).toEqual([{ after: '/input', threshold: expect.any(Number) }]);
  expect(policy.promise!.upperBound).toBeLessThanOrEqual(0.05);
  expect(policy.expected!.multiplyAddsSkipped).toBeGreaterThan(0.1);
});

describe('gates that are in a model', () => {
  /** One block, behind which no exit saves anything; its gate skips it where the input is dark. */
  function gated(strength: number) {
    const build = (withGate: boolean) => {
      const b = new IrBuilder();
      const map = b.act(b.conv(b.input([1, 3, 6, 6]), 8));
      const body = b.binary('mul', b.body(map), b.constant(strength));
      const end = b.binary('add', map, withGate ? b.binary('mul', b.gate(map), body) : body);
      return buildProgram(b.build(b.gemm(b.globalPool(end), CLASSES)));
    };
    return { own: build(true), full: build(false) };
  }
  const options = { maxDisagreement: 0.05, seed: 2, penalties: 12 };

  test('are certified at their own thresholds, end to end against the full network', async () => {
    const { own, full } = gated(0.05);
    const { policy, certifiedOn } = await calibrateItems(new ReferenceBackend(), own, SHA256, ITEMS, options);
    expect(policy.default).toBeUndefined();
    expect(policy.expected!.multiplyAddsSkipped).toBeGreaterThan(0.1);
    const answerOf = (scores: Float32Array) => scores.indexOf(Math.max(...scores));
    const certified = ITEMS.filter(({ sha256 }) => certifiedOn.includes(sha256));
    const changed = certified.filter(({ input }) => {
      const [before, after] = [full, own].map((each) => answerOf(runProgram(each, [input]).output));
      return before !== after;
    });
    expect(policy.promise).toMatchObject({ items: certified.length, events: changed.length });
    expect(policy.promise!.upperBound).toBeLessThanOrEqual(0.05);
  });

  test('do not decide where they change too many answers', async () => {
    const { own } = gated(8);
    const { policy } = await calibrateItems(new ReferenceBackend(), own, SHA256, ITEMS, options);
    expect(policy).toMatchObject({ default: 'run', expected: { multiplyAddsSkipped: 0 } });
  });
});

describe('further images', () => {
  const backend = new ReferenceBackend();
  const fit = { count: 300, load: async (i: number) => ITEMS[i]!.input };
  const options = { maxDisagreement: 0.05, seed: 2, penalties: 12, fit };

  test('order the settings, so that all items certify', async () => {
    const fresh = ITEMS.slice(300);
    const { policy, certifiedOn } = await calibrateItems(backend, program(), SHA256, fresh, options);
    expect(certifiedOn).toEqual(fresh.map(({ sha256 }) => sha256).sort());
    expect(policy.promise).toMatchObject({ items: 400, data: { fit: 0, order: 0, certify: 400 } });
    expect(policy.expected!.multiplyAddsSkipped).toBeGreaterThan(0.1);
  });

  test('are refused when they are among the items', async () => {
    await expect(calibrateItems(backend, program(), SHA256, ITEMS, options)).rejects.toMatchObject({
      code: 'INVALID_DATA',
      message: expect.stringMatching(/fit: 0 of its 300 images can be used.*50 are needed/),
    });
  });

  test('are refused where they have no labels but need them, and with a budget', async () => {
    const labelled = ITEMS.map((item) => ({ ...item, label: 0 }));
    const refused = (more: object) =>
      expect(calibrateItems(backend, program(), SHA256, labelled, { ...options, ...more })).rejects;
    await refused({ metric: 'accuracy' }).toThrow(/fit: .*no labels.*omit it/);
    await refused({ maxDisagreement: undefined, budget: 0.5 }).toThrow(/fit: .*budget.*omit it/);
  });
});
