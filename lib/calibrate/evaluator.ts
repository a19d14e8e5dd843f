import type { Backend, CompiledProgram } from '../backends/backend.js';
import type { Program } from '../model/program.js';
import { sizeOf } from '../numeric/shapes.js';
import { BlockMode, type ResolvedPolicy } from '../skip/resolve.js';
import { allocate } from '../tensor.js';

/** The result of one item under one policy. */
export interface Outcome {
  /** In the order of the program's outputs. */
  readonly outputs: readonly Float32Array[];
  /** One for each block: 1 if it ran, 0 if it was skipped. */
  readonly ran: Uint8Array;
  /** Of each block's gate; NaN if no gate was evaluated. */
  readonly scores: Float32Array;
}

/** Items in one call of the backend. */
export const CHUNK = 64;

/** A program of one float32 input, ready to run many single items under any policy. */
export class Evaluator {
  readonly #compiled: CompiledProgram;

  constructor(
    backend: Backend,
    readonly program: Program,
  ) {
    this.#compiled = backend.compileSync(program);
  }

  /** A policy that gives every block the mode returned for it; gates keep their own thresholds. */
  policy(mode: (block: number) => number): ResolvedPolicy {
    const { blocks } = this.program;
    return {
      modes: Uint8Array.from(blocks, (_, i) => mode(i)),
      thresholds: Float32Array.from(blocks, ({ gate }) => gate?.threshold ?? 0),
    };
  }

  /** @param onItems called with the number of items done since the last call */
  async run(
    items: readonly Float32Array[],
    policy: ResolvedPolicy,
    onItems?: (count: number) => void,
  ): Promise<Outcome[]> {
    const outcomes: Outcome[] = [];
    for (let from = 0; from < items.length; from += CHUNK) {
      const chunk = items.slice(from, from + CHUNK);
      outcomes.push(...(await this.#runChunk(chunk, policy)));
      onItems?.(chunk.length);
    }
    return outcomes;
  }

  release(): void {
    this.#compiled.release();
  }

  async #runChunk(items: readonly Float32Array[], policy: ResolvedPolicy): Promise<Outcome[]> {
    const { program } = this;
    const count = items.length;
    const size = items[0]!.length;
    const input = new Float32Array(count * size);
    items.forEach((item, i) => {
      input.set(item, i * size);
    });
    const sizes = program.outputs.map(({ value }) => sizeOf(program.values[value]!.shape));
    const outputs = program.outputs.map(({ value }, i) =>
      allocate(program.values[value]!.dtype, sizes[i]! * count),
    );
    const blocks = program.blocks.length;
    const ran = new Uint8Array(count * blocks);
    const scores = new Float32Array(count * blocks).fill(Number.NaN);
    await this.#compiled.run({ items: count, inputs: [input], outputs, policy, ran, scores });
    return items.map((_, i) => ({
      outputs: outputs.map((data, k) => (data as Float32Array).slice(i * sizes[k]!, (i + 1) * sizes[k]!)),
      ran: ran.slice(i * blocks, (i + 1) * blocks),
      scores: scores.slice(i * blocks, (i + 1) * blocks),
    }));
  }
}

/** Every block runs. */
export const runAll = () => BlockMode.run;
