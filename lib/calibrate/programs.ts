/** A network at the shapes of its items: texts of several lengths have a program each. */
import type { Program } from '../model/program/program.js';
import type { TensorData } from '../tensor/tensor.js';

/** Compilation for items of several shapes. The number of elements determines an item's shape. */
export interface Shapes {
  /** Compiles the network for an item. */
  programFor(input: TensorData): Program;
  /** The arrays of the program's inputs, in their order. */
  inputsOf(input: TensorData): readonly TensorData[];
}

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
