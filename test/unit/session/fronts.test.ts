/** Sessions of networks behind fronts. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { auditLog } from 'lib/audit/log.js';
import { readAudit } from 'lib/audit/read.js';
import { replayAudit } from 'lib/audit/replay.js';
import { InferenceSession, Tensor } from 'lib/index.js';
import { encodeFrontExits } from 'lib/skip/head-codec.js';
import type { SkipPolicy } from 'lib/skip/policy.js';
import { folderOf, removeFolders } from '../../helpers/files.js';
import { foreign } from '../../helpers/foreign-network.js';
import {
  best,
  between,
  colours,
  hashOf,
  itemsFrom,
  ladder,
  ladderPolicy,
  type Rung,
  rowsOf,
  run,
  sureness,
} from '../../helpers/ladders.js';
import { randomFloats } from '../../helpers/random.js';
import { availableIsas, withSession } from '../../helpers/sessions.js';

afterAll(removeFolders);

const ITEMS = 12;
const MODEL = foreign({ channels: 16 });
const SMALL = foreign({ seed: 50, blocks: 2 });
const MIDDLE = foreign({ seed: 90, blocks: 3 });
const picture = colours(ITEMS);
const [NEVER, ALWAYS] = [2, 0];

test('an item has the bits of the network that answers it, in any batch and on any instruction set', async () => {
  const [full, front] = [await run(MODEL, picture), await run(SMALL, picture)];
  const threshold = between(sureness(front.rows));
  const expected = full.rows.map((row, i) => (sureness(front.rows)[i]! >= threshold ? front.rows[i]! : row));
  expect(expected.filter((row) => front.rows.includes(row))).toHaveLength(ITEMS / 2);
  const folder = ladder(MODEL, [{ name: 'small', bytes: SMALL, threshold }]);
  const isas = await availableIsas(join(folder, 'model.onnx'));
  expect(isas).toContain('scalar');
  const settings = isas.flatMap((isa) => [1, 2].map((threads) => ({ isa, threads })));
  for (const options of settings) {
    await withSession(folder, options, async (session) => {
      for (const step of [1, 5, ITEMS]) {
        const [rows, atOnce]: number[][][] = [[], []];
        for (let from = 0; from < ITEMS; from += step) {
          const some = { picture: itemsFrom(picture, from, Math.min(ITEMS, from + step)) };
          rows!.push(...rowsOf((await session.run(some)).votes!));
          atOnce!.push(...rowsOf(session.runSync(some).votes!));
        }
        expect({ ...options, step, rows }).toEqual({ ...options, step, rows: expected });
        expect(atOnce).toEqual(expected);
      }
    });
  }
  const { rows, trace } = await run(folder, picture, { backend: 'reference' });
  expect(trace.items.map(({ exits }) => exits[0]!.taken)).toEqual(
    expected.map((row) => front.rows.includes(row)),
  );
  for (const [i, row] of rows.entries())
    for (const [c, value] of row.entries()) expect(value).toBeCloseTo(expected[i]![c]!, 3);
});

test('the trace says which rung answered, with which score, and what that saved', async () => {
  const [full, small, middle] = [
    await run(MODEL, picture),
    await run(SMALL, picture),
    await run(MIDDLE, picture),
  ];
  const first = between(sureness(small.rows), 0.7);
  const second = between(sureness(middle.rows), 0.5);
  const rungs: Rung[] = [
    { name: 'small', bytes: SMALL, threshold: first },
    { name: 'middle', bytes: MIDDLE, threshold: second },
  ];
  const { rows, trace } = await run(ladder(MODEL, rungs), picture);
  expect(trace.multiplyAdds).toBe(full.multiplyAdds);
  const answered = { small: 0, middle: 0, model: 0 };
  for (const [i, { exits, blocks, multiplyAddsSkipped }] of trace.items.entries()) {
    const scores = [sureness(small.rows)[i]!, sureness(middle.rows)[i]!];
    const by = scores[0]! >= first ? 'small' : scores[1]! >= second ? 'middle' : 'model';
    answered[by]++;
    const asked = by === 'small' ? [rungs[0]!] : rungs;
    expect(exits.map(({ after, taken }) => [after, taken])).toEqual(
      asked.map(({ name }) => [name, name === by]),
    );
    for (const [e, { score, threshold }] of exits.entries()) {
      expect(score).toBeCloseTo(scores[e]!, 5);
      expect(threshold).toBe(Math.fround(rungs[e]!.threshold));
    }
    const spent =
      small.multiplyAdds +
      (by === 'small' ? 0 : middle.multiplyAdds) +
      (by === 'model' ? full.multiplyAdds : 0);
    expect(multiplyAddsSkipped).toBe(full.multiplyAdds - spent);
    expect(new Set(blocks.map(({ reason }) => reason))).toEqual(new Set([by === 'model' ? 'fixed' : 'exit']));
    expect(rows[i]).toEqual({ small, middle, model: full }[by].rows[i]);
  }
  expect(Math.min(...Object.values(answered))).toBeGreaterThan(0);
});

test('at thresholds of 2 no front answers, at 0 the first answers all', async () => {
  const [full, front] = [await run(MODEL, picture), await run(SMALL, picture)];
  const folder = (threshold: number) => ladder(MODEL, [{ name: 'small', bytes: SMALL, threshold }]);
  expect((await run(folder(NEVER), picture)).rows).toEqual(full.rows);
  expect((await run(folder(ALWAYS), picture)).rows).toEqual(front.rows);
});

test('a run may take no front, or other thresholds of the same fronts, but no other fronts', async () => {
  const [full, front, small] = [
    await run(MODEL, picture),
    await run(MIDDLE, picture),
    await run(SMALL, picture),
  ];
  const rung = { name: 'front', bytes: MIDDLE, threshold: ALWAYS };
  const folder = ladder(MODEL, [rung]);
  await using session = await InferenceSession.create(folder);
  const rows = async (policy?: object | string) =>
    rowsOf((await session.run({ picture }, { policy: policy as never })).votes!);
  expect(await rows()).toEqual(front.rows);
  expect(await rows('full')).toEqual(full.rows);
  expect(await rows('model')).toEqual(full.rows);
  expect(await rows(ladderPolicy(MODEL, [{ ...rung, threshold: NEVER }]))).toEqual(full.rows);
  expect(rowsOf(session.runSync({ picture }, { policy: 'full' }).votes!)).toEqual(full.rows);
  const other = ladderPolicy(MODEL, [{ ...rung, bytes: SMALL }]);
  await expect(rows(other)).rejects.toMatchObject({
    code: 'INVALID_POLICY',
    message: expect.stringMatching(/^policy: .*fronts.*give the policy to create$/),
  });
  expect(await rows()).toEqual(front.rows);
  expect(small.rows).not.toEqual(front.rows);
});

test("bolder settings of a session's policy may have other fronts, which are asked in one order", async () => {
  const [small, middle] = [
    { name: 'small', bytes: SMALL, threshold: ALWAYS },
    { name: 'middle', bytes: MIDDLE, threshold: ALWAYS },
  ];
  const bolder = ladderPolicy(MODEL, [small, { ...middle, threshold: NEVER }]);
  const careful = { ...middle, threshold: NEVER };
  const folder = folderOf({
    'model.onnx': MODEL,
    'small.onnx': SMALL,
    'middle.onnx': MIDDLE,
    'policy.json': JSON.stringify({ ...ladderPolicy(MODEL, [careful]), settings: [bolder] }),
  });
  await using session = await InferenceSession.create(folder);
  const rows = async (policy?: SkipPolicy) => rowsOf((await session.run({ picture }, { policy })).votes!);
  expect(await rows()).toEqual((await run(MODEL, picture)).rows);
  for (let repeated = 0; repeated < 2; repeated++) {
    expect(await rows(bolder)).toEqual((await run(SMALL, picture)).rows);
    expect(await rows(ladderPolicy(MODEL, [middle]))).toEqual((await run(MIDDLE, picture)).rows);
    // It would ask the small one first.
    await expect(rows(ladderPolicy(MODEL, [middle, small]))).rejects.toMatchObject({
      code: 'INVALID_POLICY',
      message: expect.stringContaining('another order'),
    });
  }
});

test('a session without fronts refuses them for a run; a policy without fronts uses those of the session', async () => {
  const policy = ladderPolicy(MODEL, [{ name: 'small', bytes: SMALL, threshold: ALWAYS }]);
  await using plain = await InferenceSession.create(MODEL);
  await expect(plain.run({ picture }, { policy })).rejects.toMatchObject({ code: 'INVALID_POLICY' });
  const folder = ladder(MODEL, [{ name: 'small', bytes: SMALL, threshold: NEVER }]);
  await using session = await InferenceSession.create(folder);
  const { votes } = await session.run({ picture }, { policy: { heads: policy.heads! } });
  expect(rowsOf(votes!)).toEqual((await run(SMALL, picture)).rows);
});

describe('exits inside a front', () => {
  const block = 'block0';
  const layer = { weight: randomFloats(5 * 8, 7).map((w) => 3 * w), bias: new Float32Array(5) };
  const exits = encodeFrontExits([{ after: block, head: { features: 'mean', layers: [layer] } }]);

  test('answer before the front ends; who leaves there pays for no more', async () => {
    await withSession(SMALL, {}, async ({ blocks }) => {
      expect(blocks.map(({ name }) => name)).toContain(block);
    });
    const front = await run(SMALL, picture);
    // The same exit in the front as a network of its own.
    const own = { blocks: {}, heads: { exits: exits.map((exit) => ({ ...exit, threshold: ALWAYS })) } };
    const early = await run(SMALL, picture, { policy: own });
    const threshold = between(sureness(early.rows));
    const rung = { name: 'small', bytes: SMALL, threshold: ALWAYS, inside: { [block]: threshold }, exits };
    const { rows, trace } = await run(ladder(MODEL, [rung]), picture);
    const cost = await withSession(SMALL, { policy: own }, async (session) =>
      session.runTraced({ picture: itemsFrom(picture, 0, 1) }),
    );
    const savedEarly = cost.trace.items[0]!.multiplyAddsSkipped;
    let left = 0;
    for (const [i, item] of trace.items.entries()) {
      const leaves = sureness(early.rows)[i]! >= threshold;
      left += Number(leaves);
      expect(item.exits.map(({ after, taken }) => [after, taken])).toEqual(
        leaves
          ? [[`small/${block}`, true]]
          : [
              [`small/${block}`, false],
              ['small', true],
            ],
      );
      expect(rows[i]).toEqual((leaves ? early : front).rows[i]);
      const spent = leaves ? front.multiplyAdds - savedEarly : front.multiplyAdds + 5 * 8;
      expect(item.multiplyAddsSkipped).toBe(trace.multiplyAdds - spent);
    }
    expect(left).toBe(ITEMS / 2);
  });

  test('may be used without the exit at its end: the front then runs no further than they need', async () => {
    const rung = { name: 'small', bytes: SMALL, threshold: NEVER, inside: { [block]: NEVER }, exits };
    const policy = ladderPolicy(MODEL, [rung]);
    const heads = { exits: policy.heads!.exits.slice(0, 1) };
    const { rows, trace } = await run(ladder(MODEL, [rung], { heads }), picture);
    expect(rows).toEqual((await run(MODEL, picture)).rows);
    const front = await run(SMALL, picture);
    for (const { exits: asked, multiplyAddsSkipped } of trace.items) {
      expect(asked.map(({ after }) => after)).toEqual([`small/${block}`]);
      expect(-multiplyAddsSkipped).toBeLessThan(front.multiplyAdds);
      expect(multiplyAddsSkipped).toBeLessThan(0);
    }
  });

  test('are refused behind a block that the front does not have', async () => {
    const wrong = exits.map((exit) => ({ ...exit, after: 'nowhere' }));
    const rung = { name: 'small', bytes: SMALL, threshold: ALWAYS, exits: wrong };
    await expect(InferenceSession.create(ladder(MODEL, [rung]))).rejects.toMatchObject({
      code: 'INVALID_POLICY',
      message: expect.stringContaining("'nowhere'"),
    });
  });
});

test('guarded answers of a front are those of the network in full', async () => {
  const [full, front] = [await run(MODEL, picture), await run(SMALL, picture)];
  const label = best(front.rows[0]!);
  const rung = { name: 'small', bytes: SMALL, threshold: ALWAYS };
  const { rows, trace } = await run(ladder(MODEL, [rung], { guards: [{ labels: [label] }] }), picture);
  const guarded = front.rows.map((row) => best(row) === label);
  expect(new Set(guarded)).toEqual(new Set([true, false]));
  for (const [i, item] of trace.items.entries()) {
    expect(rows[i]).toEqual((guarded[i] ? full : front).rows[i]);
    expect(item.blocks.every(({ reason }) => reason === (guarded[i] ? 'guard' : 'exit'))).toBe(true);
    const own = guarded[i] ? -front.multiplyAdds : full.multiplyAdds - front.multiplyAdds;
    expect(item.multiplyAddsSkipped).toBe(own);
  }
});

test('guards verify with an original, where the network behind the fronts is another', async () => {
  const [original, front] = [await run(MIDDLE, picture), await run(SMALL, picture)];
  const label = best(front.rows[0]!);
  const rung = { name: 'small', bytes: SMALL, threshold: ALWAYS };
  const more = { reference: { sha256: hashOf(MIDDLE) }, guards: [{ labels: [label] }] };
  const { rows } = await run(ladder(MODEL, [rung], more), picture, { original: MIDDLE });
  for (const [i, row] of rows.entries())
    expect(row).toEqual((best(front.rows[i]!) === label ? original : front).rows[i]);
});

test('a log of a ladder is replayed bit for bit on every instruction set', async () => {
  const front = await run(SMALL, picture);
  const folder = ladder(MODEL, [{ name: 'small', bytes: SMALL, threshold: between(sureness(front.rows)) }]);
  const path = join(folderOf({}), 'trace.ndjson');
  await run(folder, picture, { isa: 'scalar', observers: [auditLog({ path })] });
  const entries = [...(await readAudit(path)).entries];
  expect(entries).toHaveLength(ITEMS);
  const items = entries.map((_, i) => ({ name: `${i}`, feeds: { picture: itemsFrom(picture, i, i + 1) } }));
  for (const isa of await availableIsas(join(folder, 'model.onnx'))) {
    await withSession(folder, { isa }, async (session) => {
      const replayed = await replayAudit(entries, items, session);
      expect(replayed).toMatchObject({ identical: ITEMS, differences: [], circumstances: [] });
    });
  }
});

test('a replay finds the score of a rung that was changed, and another rung in its place', async () => {
  const folder = ladder(MODEL, [{ name: 'small', bytes: SMALL, threshold: ALWAYS }]);
  const path = join(folderOf({}), 'trace.ndjson');
  await run(folder, picture, { observers: [auditLog({ path })] });
  const [first] = (await readAudit(path)).entries;
  const changed = (exits: (readonly [string, number])[]) =>
    ({ ...first!, record: { ...first!.record, exits } }) as typeof first & object;
  const feeds = { picture: itemsFrom(picture, 0, 1) };
  const score = String(first!.record.exits[0]![1]);
  await withSession(folder, {}, async (session) => {
    for (const [exits, block, recorded, replayed] of [
      [[['small', 0.125]], 'small', '0.125', score],
      [[['other', 0.125]], 'other', '0.125', 'not asked'],
      [[], 'small', 'not asked', score],
    ] as const) {
      const entry = changed(exits.map(([after, own]) => [after, own] as const));
      const { identical, differences } = await replayAudit([entry], [{ name: '0', feeds }], session);
      expect([identical, differences]).toMatchObject([0, [{ what: 'score', block, recorded, replayed }]]);
    }
  });
});

test('a log of answers that are not numbers is read and replayed', async () => {
  const folder = ladder(MODEL, [{ name: 'small', bytes: SMALL, threshold: ALWAYS }]);
  const path = join(folderOf({}), 'trace.ndjson');
  const broken = new Tensor('float32', new Float32Array(picture.data.length).fill(Number.NaN), picture.dims);
  await run(folder, broken, { observers: [auditLog({ path })] });
  const { entries, problems } = await readAudit(path);
  expect(problems).toEqual([]);
  expect(entries[0]!.record.top[0]![1]).toBeNull();
  const items = [{ name: '0', feeds: { picture: itemsFrom(broken, 0, 1) } }];
  await withSession(folder, {}, async (session) => {
    expect(await replayAudit(entries.slice(0, 1), items, session)).toMatchObject({
      identical: 1,
      differences: [],
    });
  });
});

describe('what 8 bits make of numbers that are not finite', () => {
  const [float, int8] = ['model', 'model.int8'].map((name) =>
    readFileSync(join('models/cifar10-resnet14', `${name}.onnx`)),
  );
  const images = colours(4, 32);
  for (const [item, value] of [
    [1, Number.NaN],
    [2, Number.POSITIVE_INFINITY],
  ] as const)
    images.data[item * 3072 + 77] = value;

  test.each(['native', 'reference'] as const)('is no answer of a rung (%s)', async (backend) => {
    const folder = ladder(float!, [{ name: 'small', bytes: int8!, threshold: ALWAYS }]);
    await withSession(folder, { backend }, async (session) => {
      const { outputs, trace } = await session.runTraced({ input: images });
      // An exit whose score is NaN decides nothing.
      expect(trace.items.map(({ exits }) => exits.length)).toEqual([1, 0, 0, 1]);
      const rows = rowsOf(outputs.logits!).map((row) => row.some(Number.isNaN));
      expect(rows).toEqual([false, true, true, false]);
      const { trace: alone } = await session.runTraced({ input: itemsFrom(images, 1, 3) });
      expect(alone.items.map(({ exits }) => exits.length)).toEqual([0, 0]);
    });
  });

  test.each(['native', 'reference'] as const)(
    'is NaN where a NaN was, and the end of the range for infinity (%s)',
    async (backend) => {
      const { rows } = await run(int8!, images, { backend });
      expect(rows.map((row) => row.every(Number.isNaN))).toEqual([false, true, false, false]);
    },
  );
});
