/** Policies and an audit log for the gated network, to mutate. */
import { createHash } from 'node:crypto';
import { hashItem } from 'lib/audit/hash.js';
import type { AuditRecord } from 'lib/audit/record.js';
import { type SkipPolicy, Tensor } from 'lib/index.js';
import { encodeExits } from 'lib/skip/head-codec.js';
import { randomFloats } from '../helpers/random.js';
import { GATED, GATED_BLOCKS } from './models.js';

/** One item for the gated network. */
export const INPUT = new Tensor('float32', randomFloats(3 * 6 * 6, 1), [1, 3, 6, 6]);

const [first, second] = GATED_BLOCKS;
const sha256 = createHash('sha256').update(GATED).digest('hex');
const head = (outputs: number, width: number) => ({
  features: width === 4 ? ('mean' as const) : ('grid' as const),
  layers: [{ weight: randomFloats(outputs * width, 2), bias: new Float32Array(outputs) }],
});
const tested = { limit: 0.01, items: 600, events: 1, risk: 0.0016, pValue: 0.02, upperBound: 0.008 };
const distribution = { edges: [-0.5, 0, 0.5], shares: [0.25, 0.25, 0.25, 0.25], skipRate: 0.5 };
const times = { p50: 1.5, mean: 1.6 };

export const POLICIES: readonly SkipPolicy[] = [
  { blocks: {} },
  { version: 1, model: { sha256 }, default: 'gate', blocks: { [first]: { threshold: 0.1 }, 1: 'skip' } },
  {
    blocks: {},
    heads: encodeExits([
      { after: first, head: head(3, 4), threshold: 0.4 },
      { after: second, head: head(3, 20), threshold: 0.9 },
    ]),
  },
  {
    blocks: { [second]: 'run' },
    labels: ['cat', 'dog', 'owl'],
    guards: [{ labels: ['cat', 2], action: 'verify', margin: 0.1 }],
  },
  {
    blocks: {},
    promise: {
      metric: 'disagreement',
      confidence: 0.95,
      ...tested,
      groups: [{ kind: 'class', name: 'cat', promised: true, ...tested }],
      data: { sha256, seed: 1, fit: 100, order: 100, certify: 600 },
    },
    expected: {
      multiplyAddsSkipped: 0.3,
      blocksSkipped: 0.4,
      latencyReduction: 0.2,
      latency: { fullMs: times, policyMs: times, items: 100, isa: 'avx2', threads: 1 },
      scores: { [first]: distribution },
      exits: { [first]: distribution },
    },
  },
];

const time = 1_700_000_000_000;
const block = { shortcut: 'identity', skippable: true, multiplyAdds: 10_368, layers: 2, threshold: 0.05 };

export const TRACE: readonly AuditRecord[] = [
  {
    type: 'header',
    schema: 1,
    time: new Date(time).toISOString(),
    engine: '0.1.0',
    model: { sha256, source: 'gated.onnx' },
    policy: { sha256, guards: ['cat'] },
    continues: '0'.repeat(16),
    backend: 'native',
    isa: 'avx2',
    threads: 1,
    inputs: 'hash',
    sample: 1,
    labels: ['cat', 'dog', 'owl'],
    multiplyAdds: 25_000,
    layers: 6,
    blocks: [first, second].map((name) => ({ name, ...block })),
  },
  ...['11', '01', '10', '00'].flatMap((ran, run): AuditRecord[] => [
    {
      type: 'item',
      time: time + run,
      run,
      item: 0,
      input: run === 3 ? null : hashItem({ x: INPUT }, 0, 1),
      ran,
      reasons: ['gg', 'gx', 'pv', 'ft'][run]!,
      scores: [0.5, null],
      exits: run === 1 ? [[first, 0.75]] : [],
      output: sha256,
      top: [
        [run % 3, 0.5],
        [2, 0.25],
      ],
      milliseconds: 0.125,
      ...(run === 2 && { multiplyAddsSkipped: 9000 }),
    },
    { type: 'full', time: time + run, run, milliseconds: 0.25 },
  ]),
  { type: 'energy', time: time + 9, items: 4, cpuSeconds: { full: 0.001, skip: 0.0005 }, joules: null },
];
