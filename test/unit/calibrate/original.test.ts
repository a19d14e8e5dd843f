import { createHash } from 'node:crypto';
import { ReferenceBackend } from 'lib/backends/reference.js';
import { calibrateItems } from 'lib/calibrate/calibrate.js';
import { buildProgram } from 'lib/model/compile.js';
import { NO_ACTIVATION, NONE } from 'lib/model/program/program.js';
import { attachExits } from 'lib/skip/attach.js';
import { decodeExits } from 'lib/skip/head-codec.js';
import '../../helpers/few-timed.js';
import { IrBuilder } from '../../helpers/ir-builder.js';
import { expectSealed } from '../../helpers/policies.js';
import { randomFloats } from '../../helpers/random.js';
import { runProgram } from '../../helpers/run-program.js';

const CLASSES = 3;
const SHA256 = '0'.repeat(64);
const ORIGINAL_SHA256 = '1'.repeat(64);
const backend = new ReferenceBackend();

interface Form {
  /** Noise on the answers' weights. */
  readonly noise?: number;
  readonly exits?: boolean;
  readonly blocks?: number;
  readonly classes?: number;
}

function program({ noise = 0, exits = false, blocks = 3, classes = CLASSES }: Form) {
  const b = new IrBuilder();
  const maps = [b.act(b.conv(b.input([1, 3, 6, 6]), 8))];
  for (let i = 0; i < blocks; i++) {
    const small = b.binary('mul', b.body(maps[i]!), b.constant(0.2));
    maps.push(b.act(b.binary('add', maps[i]!, small)));
  }
  const seeded = randomFloats(classes * 8, 5);
  const off = randomFloats(classes * 8, 6);
  const weight = b.constant(
    seeded.map((w, i) => 8 * (w + noise * off[i]!)),
    [classes, 8],
  );
  const answerFrom = (map: number) =>
    b.step('gemm', [b.globalPool(map), weight, NONE, NONE], { transB: true, act: NO_ACTIVATION }, [
      1,
      classes,
    ]);
  const full = answerFrom(maps.at(-1)!);
  if (!exits) return buildProgram(b.build(full));
  const early = answerFrom(maps[1]!);
  const shares = b.step('softmax', [early], { axis: 1, log: false }, [1, classes]);
  const score = b.step('globalPool', [b.reshape(shares, [1, 1, classes])], { kind: 'max' }, [1, 1]);
  const sure = b.compare('ge', score, b.constant(Float32Array.of(0.5), [1, 1]));
  return buildProgram(b.build(b.where(sure, early, full)));
}

const ITEMS = Array.from({ length: 500 }, (_, i) => {
  const colour = randomFloats(3, 10_000 + i);
  const input = randomFloats(3 * 6 * 6, 100 + i).map((x, k) => x + 3 * colour[Math.floor(k / 36)]!);
  return { input, sha256: createHash('sha256').update(input).digest('hex') };
});
const answerOf = (scores: Float32Array) => scores.indexOf(Math.max(...scores));
const options = { maxDisagreement: 0.1, seed: 2, penalties: 12 };
const original = { program: program({}), sha256: ORIGINAL_SHA256 };

test('the promise counts the answers that differ from those of the original, whatever exits are taken', async () => {
  const own = program({ noise: 0.05, exits: true });
  const { policy, certifiedOn, settings } = await calibrateItems(backend, own, SHA256, ITEMS, {
    ...options,
    original,
  });
  expectSealed(policy);
  expect(policy).toMatchObject({ model: { sha256: SHA256 }, reference: { sha256: ORIGINAL_SHA256 } });
  expect(settings[0]).toMatchObject({ multiplyAddsSkipped: 0, blocksSkipped: 0 });
  expect(settings[0]!.events).toBeGreaterThan(0);
  const grown = attachExits(own, decodeExits(policy.heads!));
  const changed = ITEMS.filter(({ sha256 }) => certifiedOn.includes(sha256)).filter(({ input }) => {
    const [given, promised] = [grown, original.program].map((each) =>
      answerOf(runProgram(each, [input]).output),
    );
    return given !== promised;
  });
  expect(changed).toHaveLength(policy.promise!.events);
  expect(policy.promise!.upperBound).toBeGreaterThan(0);
});

test('a network with nothing to skip is certified as it is', async () => {
  const own = program({ noise: 0.05, blocks: 0 });
  const plain = { program: program({ blocks: 0 }), sha256: ORIGINAL_SHA256 };
  const { policy, settings, chosen } = await calibrateItems(backend, own, SHA256, ITEMS, {
    ...options,
    original: plain,
  });
  expect([settings.length, chosen]).toEqual([1, 0]);
  expect(policy.promise!.items).toBe(settings[0]!.items);
  expect(policy.expected!.multiplyAddsSkipped).toBe(0);
  await expect(calibrateItems(backend, own, SHA256, ITEMS, options)).rejects.toMatchObject({
    code: 'UNSUPPORTED_MODEL',
  });
});

test('nothing is promised when the answers differ too often without any exit', async () => {
  const own = program({ noise: 1, exits: true });
  await expect(calibrateItems(backend, own, SHA256, ITEMS, { ...options, original })).rejects.toMatchObject({
    code: 'INVALID_DATA',
    message: expect.stringMatching(/^original: without any exit, \d+ of \d+ answers already differ/),
  });
});

test('an original with other classes is refused', async () => {
  const other = { program: program({ classes: 4 }), sha256: ORIGINAL_SHA256 };
  await expect(
    calibrateItems(backend, program({}), SHA256, ITEMS, { ...options, original: other }),
  ).rejects.toMatchObject({ code: 'INVALID_ARGUMENT', message: expect.stringMatching(/^original: /) });
});
