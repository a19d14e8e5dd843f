/** What heads are fitted on: features of the residual stream around every block, beside the network's answers. */
import type { Backend } from '../backends/backend.js';
import { Growth } from '../model/grow.js';
import type { Program, ValueId } from '../model/program.js';
import { sizeOf } from '../model/shapes.js';
import { type Features, featureSteps } from '../skip/head.js';
import { CHUNK, Evaluator, runAll } from './evaluator.js';
import type { Samples } from './mlp.js';

/** A map with more channels than this is seen by its averages alone, or heads would take long to fit. */
const MOST_CHANNELS = 256;

/** How a head sees the value; undefined when it is no map of float32 [N, C, height, width]. */
export function featuresOf({ values }: Program, id: ValueId): Features | undefined {
  const { shape, dtype } = values[id]!;
  if (shape.length !== 4 || dtype !== 'float32') return undefined;
  const [, channels, height, width] = shape as [number, number, number, number];
  return height > 1 && width > 1 && channels <= MOST_CHANNELS ? 'grid' : 'mean';
}

export interface Probe {
  readonly program: Program;
  /** What follows the program's own outputs, in this order. */
  readonly points: readonly string[];
}

/** Names the features of a value. */
export function pointOf(id: ValueId, features: Features): string {
  return `${features} of ${id}`;
}

/** `program` with the means of every block's input, for its gate, and what an exit sees of its output as further outputs. */
export function withFeatures(program: Program): Probe {
  const growth = new Growth(program);
  const points: string[] = [];
  for (const { input, output, gateFirst, end } of program.blocks) {
    for (const [id, features, at] of [
      [input, featuresOf(program, input) && 'mean', gateFirst],
      [output, featuresOf(program, output), end],
    ] as const) {
      if (!features) continue;
      const point = pointOf(id, features);
      const { steps, result } = featureSteps(growth, point, features, id);
      growth.insert(at, steps);
      growth.output(point, result);
      points.push(point);
    }
  }
  return { program: growth.build(), points };
}

/** What the full network made of some items. */
export interface FullPass {
  /** Rows x classes. */
  readonly logits: Samples;
  /** By point. */
  readonly features: ReadonlyMap<string, Samples>;
}

/**
 * Runs the full network over items and keeps answers and features.
 * @param inputs read once, chunk after chunk
 * @param onItems called with the number of items done since the last call
 */
export async function fullPass(
  backend: Backend,
  program: Program,
  inputs: Iterable<Float32Array>,
  rows: number,
  onItems?: (count: number) => void,
): Promise<FullPass> {
  const probe = withFeatures(program);
  const evaluator = new Evaluator(backend, probe.program);
  const collected = probe.program.outputs.map(({ value }): Samples => {
    const width = sizeOf(probe.program.values[value]!.shape);
    return { rows, width, data: new Float32Array(rows * width) };
  });
  try {
    let done = 0;
    for (const chunk of chunks(inputs, CHUNK)) {
      for (const { outputs } of await evaluator.run(chunk, evaluator.policy(runAll), onItems)) {
        for (const [k, { width, data }] of collected.entries()) data.set(outputs[k]!, done * width);
        done++;
      }
    }
  } finally {
    evaluator.release();
  }
  const own = program.outputs.length;
  return {
    logits: collected[0]!,
    features: new Map(probe.points.map((point, i) => [point, collected[own + i]!])),
  };
}

function* chunks<T>(items: Iterable<T>, size: number): Generator<T[]> {
  let chunk: T[] = [];
  for (const item of items) {
    chunk.push(item);
    if (chunk.length < size) continue;
    yield chunk;
    chunk = [];
  }
  if (chunk.length > 0) yield chunk;
}

export function rowOf({ width, data }: Samples, row: number): Float32Array {
  return data.subarray(row * width, (row + 1) * width);
}
