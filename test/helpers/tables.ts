/** Tables of the exits' answers, made without a network. */
import type { Table } from 'lib/calibrate/order/table.js';
import { type Block, NONE } from 'lib/model/program/program.js';

export interface MadeExit {
  /** Index of the block that the exit follows. */
  readonly after: number;
  /** Cost of its head as a share of the network's multiply-adds. */
  readonly cost?: number;
  /** For each item: the confidence, and whether the answer differs from the full network's. */
  readonly rows: readonly (readonly [confidence: number, wrong: boolean])[];
  /** 1 for each item whose answer is guarded. */
  readonly guarded?: readonly number[];
}

/** A layer of so many multiply-adds. */
const layerOf = (work: number) => ({ weight: new Float32Array(Math.round(work)), bias: new Float32Array(1) });

/**
 * The full network answers 0 for every item; block i is called `b` followed by i.
 * @param shares each block's share of the network's multiply-adds
 */
export function tableFrom(shares: readonly number[], exits: readonly MadeExit[]): Table {
  const work = 1e6;
  const items = exits[0]!.rows.length;
  const blocks = shares.map((share, i): Block => {
    return {
      ...{ name: `b${i}`, shortcut: 'identity', skippable: true, gateFirst: i, first: i, end: i + 1 },
      ...{ input: 0, output: 0, skipActivation: { kind: 'none', alpha: 0, beta: 0 } },
      cost: { multiplyAdds: share * work, bytes: 0, layers: 1 },
    };
  });
  const program: Table['program'] = {
    // One step in each block, of its work.
    values: [1, ...shares.map((share) => Math.round(share * work))].map((width) => ({
      ...{ name: '', dtype: 'float32', shape: [1, width] },
    })),
    steps: shares.map((_, i) => {
      const act = { kind: 'none', alpha: 0, beta: 0 } as const;
      return { op: 'gemm', inputs: [i + 1, i + 1, NONE, NONE], outputs: [0], attrs: { transB: true, act } };
    }),
    ...{ inputs: [], outputs: [], blocks, exits: [], batching: 'item' },
    cost: { multiplyAdds: work, bytes: 0, layers: shares.length },
  };
  return {
    of: 'classes',
    items: Array.from({ length: items }, (_, i) => ({ input: new Float32Array(0), sha256: String(i) })),
    program,
    answers: new Int32Array(items),
    vectors: [],
    exits: exits.map(({ after, rows, cost = 0, guarded = [] }) => ({
      exit: { after: `b${after}`, head: { features: 'mean', layers: [layerOf(cost * work)] } },
      confidences: Float32Array.from(rows, ([confidence]) => confidence),
      answers: Int32Array.from(rows, ([, wrong]) => Number(wrong)),
      losses: Float64Array.from(rows, ([, wrong], i) => (guarded[i] ? 0 : Number(wrong))),
      guarded: Uint8Array.from(rows, (_, i) => guarded[i] ?? 0),
      byMetric: [],
      vectors: [],
    })),
    end: {
      ...{ answers: new Int32Array(items), losses: new Float64Array(items) },
      guarded: new Uint8Array(items),
      byMetric: [],
      vectors: [],
    },
    ran: new Uint8Array(items * shares.length).fill(1),
    scores: new Float32Array(items * shares.length).fill(Number.NaN),
  };
}
