/** Folders of ladders, of the networks in foreign-network.ts, and items for them. */
import { createHash } from 'node:crypto';
import { type SessionOptions, Tensor } from 'lib/index.js';
import type { FrontSpec } from 'lib/skip/fronts.js';
import type { SkipPolicy } from 'lib/skip/policy.js';
import { folderOf } from './files.js';
import { SIDE } from './foreign-network.js';
import { randomFloats } from './random.js';
import { withSession } from './sessions.js';

export interface Rung extends Partial<FrontSpec> {
  readonly name: string;
  /** Its file; the network's own if left out. */
  readonly bytes?: Uint8Array;
  /** Of its exit. */
  readonly threshold: number;
  /** Of the exits inside it, by the block that they are behind. */
  readonly inside?: Readonly<Record<string, number>>;
}

export const hashOf = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

export function ladderPolicy(model: Uint8Array, rungs: readonly Rung[], more: SkipPolicy = {}): SkipPolicy {
  const fronts = rungs.map(({ threshold: _, inside: __, bytes, name, ...spec }) => ({
    ...{ name, file: bytes ? `${name}.onnx` : 'model.onnx', sha256: hashOf(bytes ?? model) },
    ...spec,
  }));
  const exits = rungs.flatMap(({ name, threshold, inside = {} }) => [
    ...Object.entries(inside).map(([block, own]) => ({ after: `${name}/${block}`, threshold: own })),
    { after: name, threshold },
  ]);
  return { model: { sha256: hashOf(model) }, fronts, heads: { exits }, ...more };
}

/** The folder of a network behind fronts, the first of which is asked first. */
export function ladder(model: Uint8Array, rungs: readonly Rung[], more: SkipPolicy = {}): string {
  const files = rungs.flatMap(({ name, bytes }) => (bytes ? [[`${name}.onnx`, bytes] as const] : []));
  return folderOf({
    'model.onnx': model,
    ...Object.fromEntries(files),
    'policy.json': JSON.stringify(ladderPolicy(model, rungs, more)),
  });
}

/** One colour with noise each, [count, channels, side, side]. */
export function colours(count: number, side = SIDE, channels = 3): Tensor<'float32'> {
  const plane = side ** 2;
  const data = randomFloats(count * channels * plane, 21);
  const tint = randomFloats(count * channels, 22);
  return new Tensor(
    'float32',
    data.map((noise, i) => 0.3 * noise + 2 * tint[Math.floor(i / plane)]!),
    [count, channels, side, side],
  );
}

/** Items [from, to) of a batch. */
export function itemsFrom(batch: Tensor<'float32'>, from: number, to: number): Tensor<'float32'> {
  const size = batch.size / batch.dims[0]!;
  return new Tensor('float32', batch.data.slice(from * size, to * size), [to - from, ...batch.dims.slice(1)]);
}

/** Each item's row of scores. */
export function rowsOf({ data, dims }: Tensor): number[][] {
  const width = data.length / dims[0]!;
  return Array.from({ length: dims[0]! }, (_, i) => [
    ...(data as Float32Array).slice(i * width, (i + 1) * width),
  ]);
}

export function softmaxOf(row: readonly number[]): number[] {
  const most = Math.max(...row);
  const powers = row.map((value) => Math.exp(value - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

export const best = (row: readonly number[]) => row.indexOf(Math.max(...row));

/** Below a share of the numbers, and far from each of them: rounding decides nothing. */
export function between(numbers: readonly number[], share = 0.5): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  const at = Math.max(1, Math.floor(share * sorted.length));
  return (sorted[at - 1]! + sorted[at]!) / 2;
}

/** Of a network, or of a ladder's folder: each item's scores, the multiply-adds, and what was decided. */
export function run(source: string | Uint8Array, input: Tensor<'float32'>, options: SessionOptions = {}) {
  return withSession(source, options, async (session) => {
    const { outputs, trace } = await session.runTraced({ [session.inputNames[0]!]: input });
    return { rows: rowsOf(outputs[session.outputNames[0]!]!), multiplyAdds: trace.multiplyAdds, trace };
  });
}

/** Each row's largest probability. */
export const sureness = (rows: readonly number[][]) => rows.map((row) => Math.max(...softmaxOf(row)));
