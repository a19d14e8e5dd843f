import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { ResidualSkipError } from 'lib/errors.js';
import { type Block, NO_ACTIVATION, type Program } from 'lib/model/program/program.js';
import { BlockMode, CompiledPolicy, partsOf } from 'lib/skip/compiled-policy.js';
import { loadPolicy, type PolicySource } from 'lib/skip/load-policy.js';
import { hashPolicy, parsePolicy, type SkipPolicy } from 'lib/skip/policy.js';
import { buildTrace } from 'lib/skip/trace.js';

const SHA = 'a'.repeat(64);
const GATE = { form: 'multiply', score: 0, compare: 'gt', threshold: 0.25 } as const;

function block(name: string, rest: Partial<Block> = {}): Block {
  return {
    name,
    shortcut: 'identity',
    skippable: true,
    gateFirst: 0,
    first: 0,
    end: 0,
    input: 0,
    output: 0,
    skipActivation: NO_ACTIVATION,
    cost: { multiplyAdds: 100, bytes: 10, layers: 2 },
    ...rest,
  };
}

/** Blocks: plain, gated, projection, and one whose body leaks. */
const PROGRAM: Program = {
  values: [],
  inputs: [],
  outputs: [],
  steps: [],
  blocks: [
    block('layer1.0'),
    block('layer1.1', { gate: GATE }),
    block('layer2.0', { shortcut: 'projection', skippable: false }),
    block('layer2.1', { skippable: false }),
  ],
  exits: [],
  batching: 'item',
  cost: { multiplyAdds: 500, bytes: 50, layers: 9 },
};

function modes(policy: PolicySource): string[] {
  const names = Object.entries(BlockMode);
  const resolved = new CompiledPolicy(loadPolicy(policy), PROGRAM, () => SHA);
  return [...resolved.modes].map((mode) => names.find(([, value]) => value === mode)![0]);
}

test('a policy may name its schema, and need not name blocks', () => {
  const written = { $schema: 'https://example.org/policy.schema.json', default: 'run' } as const;
  expect(modes(written)).toEqual(['run', 'run', 'run', 'run']);
  expect(hashPolicy(loadPolicy(written))).toBe(hashPolicy(loadPolicy({ default: 'run', blocks: {} })));
  expect(loadPolicy({})).toEqual({ blocks: {} });
});

function failure(action: () => unknown): ResidualSkipError {
  try {
    action();
  } catch (error) {
    if (error instanceof ResidualSkipError) return error;
    throw error;
  }
  throw new Error('no error was thrown');
}

describe('resolvePolicy', () => {
  it.each<[PolicySource, string[]]>([
    ['model', ['run', 'gate', 'run', 'run']],
    ['full', ['run', 'run', 'run', 'run']],
    [{ blocks: {} }, ['run', 'gate', 'run', 'run']],
    [{ default: 'skip', blocks: {} }, ['skip', 'skip', 'run', 'run']],
    [{ default: { threshold: 1 }, blocks: {} }, ['run', 'gate', 'run', 'run']],
    [{ blocks: { 'layer1.0': 'skip' } }, ['skip', 'gate', 'run', 'run']],
    [{ blocks: { 0: 'skip', 1: 'run' } }, ['skip', 'run', 'run', 'run']],
    [{ default: 'skip', blocks: { 'layer1.0': 'run', 'layer1.1': 'gate' } }, ['run', 'gate', 'run', 'run']],
    [{ blocks: { 2: 'run' } }, ['run', 'gate', 'run', 'run']],
  ])('%j', (policy, expected) => {
    expect(modes(policy)).toEqual(expected);
  });

  it("takes the gate's threshold or the policy's", () => {
    const thresholds = (policy: SkipPolicy) => new CompiledPolicy(policy, PROGRAM, () => SHA).thresholds[1];
    expect(thresholds({ blocks: {} })).toBe(0.25);
    expect(thresholds({ blocks: { 1: { threshold: -0.5 } } })).toBe(-0.5);
    expect(thresholds({ default: { threshold: 2 }, blocks: {} })).toBe(2);
  });

  it.each<[SkipPolicy, string]>([
    [{ blocks: { 'layer1.3': 'run' } }, "the model has no block 'layer1.3' among its 4"],
    [{ blocks: { 'layer2.2': 'run' } }, "did you mean 'layer2.0' or 'layer2.1' or 'layer1.0'?"],
    [{ blocks: { 4: 'run' } }, "block '4'"],
    [{ blocks: { '-1': 'run' } }, "block '-1'"],
    [{ blocks: { 'layer1.0': 'run', 0: 'skip' } }, "names block 'layer1.0' (index 0) twice"],
    [{ blocks: { 'layer1.0': 'gate' } }, "block 'layer1.0' (index 0) has no gate"],
    [{ blocks: { 0: { threshold: 1 } } }, 'has no gate'],
    [{ blocks: { 'layer2.0': 'skip' } }, "can't be skipped: its shortcut is a projection"],
    [{ blocks: { 3: 'skip' } }, 'values of its body are used elsewhere'],
  ])('refuses %j', (policy, message) => {
    const error = failure(() => new CompiledPolicy(policy, PROGRAM, () => SHA));
    expect(error.code).toBe('INVALID_POLICY');
    expect(error.message).toContain(message);
  });

  it('refuses a policy for another model', () => {
    const other = { model: { sha256: 'b'.repeat(64) }, blocks: {} };
    const error = failure(() => new CompiledPolicy(other, PROGRAM, () => SHA));
    expect(error.code).toBe('POLICY_MISMATCH');
    expect(error.message).toContain('b'.repeat(64));
    expect(modes({ model: { sha256: SHA }, blocks: {} })).toEqual(modes('model'));
  });

  it('prefers a name to an index', () => {
    const program = { ...PROGRAM, blocks: [block('1'), block('x')] };
    const { modes } = new CompiledPolicy({ blocks: { 1: 'skip' } }, program, () => SHA);
    expect([...modes]).toEqual([BlockMode.skip, BlockMode.run]);
  });
});

describe('parsePolicy', () => {
  it.each<[unknown, string]>([
    [{ blocks: [] }, 'policy.blocks'],
    [{ default: Object.create(null) }, "policy.default: expected 'run', 'skip', 'gate' or { threshold }"],
    [{ default: { threshold: Object.create(null) } }, 'policy.default'],
    [null, 'policy: '],
    [[], 'policy: '],
    [{ blocks: {}, defalt: 'run' }, "policy: unknown key 'defalt'; did you mean 'default'?"],
    [
      { blocks: { a: 'never' } },
      "policy.blocks.a: expected 'run', 'skip', 'gate' or { threshold }, received 'never'",
    ],
    [{ blocks: { a: { threshold: Number.NaN } } }, 'policy.blocks.a: threshold: expected a finite number'],
    [{ blocks: { a: { threshold: Number.POSITIVE_INFINITY } } }, 'received Infinity'],
    [{ blocks: { a: { threshold: 1e39 } } }, 'a float32 can hold'],
    [{ blocks: { a: { threshold: '1' } } }, 'policy.blocks.a'],
    [{ blocks: { a: { threshold: 1, treshold: 2 } } }, "unknown key 'treshold'"],
    [{ blocks: { a: {} } }, 'policy.blocks.a'],
    [{ blocks: {}, default: { threshold: Number.NaN } }, 'policy.default'],
    [{ blocks: {}, version: 2 }, 'policy.version'],
    [{ blocks: {}, model: { sha256: 'zz' } }, 'policy.model.sha256: expected 64 hexadecimal digits'],
    [{ blocks: {}, model: { sha: SHA } }, "policy.model: unknown key 'sha'"],
  ])('refuses %j', (policy, message) => {
    const error = failure(() => parsePolicy(policy));
    expect(error.code).toBe('INVALID_POLICY');
    expect(error.message).toContain(message);
  });

  it('only ever throws INVALID_POLICY', () => {
    fc.assert(
      fc.property(fc.anything({ withNullPrototype: true, withBigInt: true, withDate: true }), (value) => {
        try {
          parsePolicy(value);
        } catch (error) {
          expect(error).toMatchObject({ code: 'INVALID_POLICY' });
        }
      }),
    );
  });
});

describe('loadPolicy', () => {
  const folder = mkdtempSync(join(tmpdir(), 'policy-'));
  afterAll(() => rmSync(folder, { recursive: true }));

  it('reads a file', () => {
    const path = join(folder, 'a.json');
    writeFileSync(path, JSON.stringify({ version: 1, blocks: { 'layer1.0': 'skip' } }));
    expect(modes(path)).toEqual(['skip', 'gate', 'run', 'run']);
  });

  it.each([
    ['missing.json', undefined, "can't be read"],
    ['text.json', 'not json', 'is not JSON'],
    ['key.json', '{"blocks":{},"extra":1}', "unknown key 'extra'"],
  ])('refuses %s', (name, text, message) => {
    const path = join(folder, name);
    if (text !== undefined) writeFileSync(path, text);
    const error = failure(() => loadPolicy(path));
    expect(error.code).toBe('INVALID_POLICY');
    expect(error.message).toContain(message);
    expect(error.message).toContain(path);
  });
});

describe('a policy that is given again', () => {
  const heads = {
    exits: [
      {
        after: 'layer1.0',
        threshold: 0.5,
        features: 'mean',
        layers: [{ weight: 'AAAAAA==', bias: 'AAAAAA==' }],
      },
    ],
    gates: [],
  } as const;

  it('is parsed once, as an object, as what loadPolicy made of it, and as a file', () => {
    const folder = mkdtempSync(join(tmpdir(), 'policy-'));
    try {
      const policy = { blocks: { 0: 'skip' } } as const;
      const path = join(folder, 'policy.json');
      writeFileSync(path, JSON.stringify(policy));
      const loaded = loadPolicy(policy);
      expect(loadPolicy(loaded)).toBe(loaded);
      expect(loadPolicy({ blocks: { 0: 'skip' } })).toBe(loaded);
      expect(loadPolicy(path)).toBe(loaded);
      writeFileSync(path, JSON.stringify({ blocks: { 0: 'run' } }));
      expect(modes(path)).toEqual(['run', 'gate', 'run', 'run']);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('is parsed again where its owner changed it', () => {
    const policy: { blocks: Record<string, 'skip' | 'run'> } = { blocks: { 0: 'skip' } };
    expect(modes(policy)).toEqual(['skip', 'gate', 'run', 'run']);
    policy.blocks[0] = 'run';
    expect(modes(policy)).toEqual(['run', 'gate', 'run', 'run']);
    expect(Object.isFrozen(policy.blocks)).toBe(false);
  });

  it('has the key of its exits alone, without their thresholds', () => {
    const keyOf = (policy: SkipPolicy) => partsOf(policy).exitsKey;
    const key = (rest: object) => keyOf(loadPolicy({ blocks: {}, heads, ...rest } as object as SkipPolicy));
    const changed = (exit: object) => ({ heads: { ...heads, exits: [{ ...heads.exits[0], ...exit }] } });
    expect(key({ default: 'run' })).toBe(key({}));
    expect(key(changed({ threshold: 0.6 }))).toBe(key({}));
    expect(key(changed({ after: 'layer1.1' }))).not.toBe(key({}));
    expect(keyOf(loadPolicy('full'))).toBe('');
    expect(keyOf(loadPolicy('model'))).toBe('model');
  });
});

describe('buildTrace', () => {
  it('says for every item and block what was done and why', () => {
    const policy = new CompiledPolicy({ blocks: { 0: 'skip', 1: { threshold: 0.5 } } }, PROGRAM, () => SHA);
    const outcomes = new Uint8Array([0, 1, 1, 1, 0, 0, 1, 1]);
    const scores = new Float32Array([NaN, 0.75, NaN, NaN, NaN, 0.25, NaN, NaN]);
    const trace = buildTrace({ items: 2, policy, outcomes, scores });
    expect(trace.multiplyAdds).toBe(500);
    const [first, second] = trace.items;
    expect(first!.blocks).toEqual([
      { block: 'layer1.0', index: 0, ran: false, score: null, threshold: null, reason: 'policy' },
      { block: 'layer1.1', index: 1, ran: true, score: 0.75, threshold: 0.5, reason: 'gate' },
      { block: 'layer2.0', index: 2, ran: true, score: null, threshold: null, reason: 'fixed' },
      { block: 'layer2.1', index: 3, ran: true, score: null, threshold: null, reason: 'fixed' },
    ]);
    expect(first).toMatchObject({ multiplyAddsSkipped: 100, layersSkipped: 2 });
    expect(second!.blocks[1]).toMatchObject({ ran: false, score: 0.25, reason: 'gate' });
    expect(second).toMatchObject({ multiplyAddsSkipped: 200, layersSkipped: 4 });
  });

  it("calls it the policy's doing when a gated block always runs", () => {
    const policy = new CompiledPolicy(loadPolicy('full'), PROGRAM, () => SHA);
    const trace = buildTrace({
      items: 1,
      policy,
      outcomes: new Uint8Array(4).fill(1),
      scores: new Float32Array(4).fill(NaN),
    });
    expect(trace.items[0]!.blocks.map(({ reason }) => reason)).toEqual(['fixed', 'policy', 'fixed', 'fixed']);
  });
});
