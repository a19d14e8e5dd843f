import { type Backend, type CompiledProgram, requestFor } from '../../backends/backend.js';
import type { Program } from '../../model/program/program.js';
import { sizeOf } from '../../numeric/shapes.js';
import { BlockMode, type Decisions, decisionsFor, decisionsIn } from '../../skip/compiled-policy.js';
import { allocate, type TensorData } from '../../tensor/tensor.js';
import { append } from '../../util/maps.js';

/** Compilation for items of several shapes. The number of elements determines an item's shape. */
export interface Shapes {
  /** Compiles the network for an item. */
  programFor(input: TensorData): Program;
  /** The arrays of the program's inputs, in their order. */
  inputsOf(input: TensorData): readonly TensorData[];
}

/** A network at the shapes of its items: texts of several lengths have a program each. */
export class Programs {
  readonly #made = new Map<number, Program>();
  readonly #inputs = new WeakMap<TensorData, readonly TensorData[]>();

  /**
   * @param main the network at a shape that stands for all
   * @param shapes undefined where all items have that shape, and are the only input
   */
  constructor(
    readonly main: Program,
    readonly shapes?: Shapes,
  ) {}

  static of(network: Program | Programs): Programs {
    return network instanceof Programs ? network : new Programs(network);
  }

  /** The program for an item. */
  at(input: TensorData): Program {
    if (!this.shapes) return this.main;
    let program = this.#made.get(input.length);
    if (!program) {
      program = this.shapes.programFor(input);
      this.#made.set(input.length, program);
    }
    return program;
  }

  inputsOf(input: TensorData): readonly TensorData[] {
    if (!this.shapes) return [input];
    let inputs = this.#inputs.get(input);
    if (!inputs) {
      inputs = this.shapes.inputsOf(input);
      this.#inputs.set(input, inputs);
    }
    return inputs;
  }

  /** The same items, with every program changed. */
  map(change: (program: Program) => Program): Programs {
    const shapes = this.shapes && {
      programFor: (input: TensorData) => change(this.at(input)),
      inputsOf: (input: TensorData) => this.inputsOf(input),
    };
    return new Programs(change(this.main), shapes);
  }
}

/** The result of one item under one policy. */
export interface Outcome {
  /** In the order of the program's outputs. */
  readonly outputs: readonly Float32Array[];
  /** One for each block: 1 if it ran, 0 if it was skipped. */
  readonly ran: Uint8Array;
  /** Of each block's gate; NaN if no gate was evaluated. */
  readonly scores: Float32Array;
}

/** Items in one call of the backend, and bytes of what they answer. */
export const CHUNK = 64;
const MAX_BYTES = 2 ** 27;

/** Items of a program that run together: maps are large. */
export function atOnce({ outputs, values, batching }: Program): number {
  if (batching !== 'item') return 1;
  const bytes = outputs.reduce((sum, { value }) => sum + 4 * sizeOf(values[value]!.shape), 0);
  return Math.max(1, Math.min(CHUNK, Math.floor(MAX_BYTES / bytes)));
}

/** A network ready to run many single items under any policy. */
export class Evaluator {
  readonly #programs: Programs;
  readonly #compiled = new Map<Program, CompiledProgram>();

  constructor(
    private readonly backend: Backend,
    network: Program | Programs,
  ) {
    this.#programs = Programs.of(network);
  }

  /** A policy that gives every block the mode returned for it; gates and exits keep their own thresholds. */
  policy(mode: (block: number) => number): Decisions {
    return decisionsFor(this.#programs.main, (_, i) => mode(i));
  }

  /**
   * Runs items of one shape together.
   * @param onItems called with the number of items done since the last call
   */
  async run(
    items: readonly TensorData[],
    policy: Decisions,
    onItems?: (count: number) => void,
  ): Promise<Outcome[]> {
    const outcomes: Outcome[] = [];
    const byShape = new Map<Program, number[]>();
    for (const [i, item] of items.entries()) {
      append(byShape, this.#programs.at(item), i);
    }
    for (const [program, those] of byShape) {
      const size = atOnce(program);
      for (let from = 0; from < those.length; from += size) {
        const chunk = those.slice(from, from + size);
        const inputs = chunk.map((i) => this.#programs.inputsOf(items[i]!));
        for (const [k, outcome] of (await this.#runChunk(program, inputs, policy)).entries()) {
          outcomes[chunk[k]!] = outcome;
        }
        onItems?.(chunk.length);
      }
    }
    return outcomes;
  }

  release(): void {
    for (const compiled of this.#compiled.values()) compiled.release();
  }

  #compile(program: Program): CompiledProgram {
    const compiled = this.#compiled.get(program) ?? this.backend.compileSync(program);
    this.#compiled.set(program, compiled);
    return compiled;
  }

  /** @param items the arrays of each item's inputs */
  async #runChunk(
    program: Program,
    items: readonly (readonly TensorData[])[],
    policy: Decisions,
  ): Promise<Outcome[]> {
    const count = items.length;
    const inputs = program.inputs.map(({ value }, k) => {
      const size = items[0]![k]!.length;
      const joined = allocate(program.values[value]!.dtype, count * size);
      // Arrays of one program's input are all of one type.
      for (const [i, item] of items.entries()) joined.set(item[k] as never, i * size);
      return joined;
    });
    const request = requestFor(program, count, policy);
    await this.#compile(program).run({ ...request, inputs });
    const [blocks, decisions] = [program.blocks.length, decisionsIn(program)];
    const sizes = request.outputs.map(({ length }) => length / count);
    return items.map((_, i) => ({
      outputs: request.outputs.map((data, k) =>
        (data as Float32Array).slice(i * sizes[k]!, (i + 1) * sizes[k]!),
      ),
      ran: request.outcomes.slice(i * decisions, i * decisions + blocks),
      scores: request.scores.slice(i * decisions, i * decisions + blocks),
    }));
  }
}

/** Every block runs. */
export const runAll = () => BlockMode.run;

/** Blocks with a gate are decided by it; those in `omitted` never run. */
export function gatesOf({ blocks }: Program, omitted?: ReadonlySet<number>): (block: number) => number {
  return (i) => {
    if (omitted?.has(i)) return BlockMode.skip;
    return blocks[i]!.gate ? BlockMode.gate : BlockMode.run;
  };
}
