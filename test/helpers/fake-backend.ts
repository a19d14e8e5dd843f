import type { Backend, CompiledProgram, RunRequest } from 'lib/backends/backend.js';
import { ResidualSkipError } from 'lib/errors.js';
import { type Block, NO_ACTIVATION, type Program } from 'lib/model/program/program.js';
import type { Binding, Model, ModelInput } from 'lib/model/read/model.js';

function input(name: string, rest: Partial<ModelInput> = {}): ModelInput {
  return { name, dtype: 'float32', shape: ['batch', 2], batched: true, boundByValue: false, ...rest };
}

const NO_METADATA: Model['metadata'] = {
  ...{ producer: '', producerVersion: '', domain: '', version: 0, description: '' },
  ...{ graphName: 'g', graphDescription: '', custom: {} },
};

/** A model with the input `x` and the outputs `y` (2*x, per item) and `total` (shared by the items). */
export function fakeModel(rest: Partial<Model> = {}): Model {
  return {
    sha256: 'a'.repeat(64),
    identify: async () => 'a'.repeat(64),
    external: [],
    externalFiles: new Map(),
    externalOverlap: false,
    opset: 17,
    metadata: NO_METADATA,
    inputs: [input('x')],
    outputs: [
      { name: 'y', dtype: 'float32', shape: ['batch', 2], batched: true },
      { name: 'total', dtype: 'int64', shape: [], batched: false },
    ],
    batching: 'item',
    parameters: 12,
    graph: { name: 'g', inputs: [], outputs: [], constants: new Map(), nodes: [], unsupported: [] },
    ...rest,
  };
}

export { input as fakeInput };

function block(name: string, rest: Partial<Block>): Block {
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
    cost: { multiplyAdds: 40, bytes: 1, layers: 2 },
    ...rest,
  };
}

export const fakeCompile = jest.fn((model: Model, binding: Binding): Program => {
  const { shape } = binding.get('x')!;
  return {
    values: [
      ...model.inputs.map(({ name, dtype }) => ({ name, dtype, shape: binding.get(name)!.shape })),
      { name: 'y', dtype: 'float32', shape },
      { name: 'total', dtype: 'int64', shape: [] },
    ],
    inputs: model.inputs.map(({ name, batched }, value) => ({ name, value, batched })),
    outputs: [
      { name: 'y', value: model.inputs.length, batched: model.batching === 'item' },
      { name: 'total', value: model.inputs.length + 1, batched: false },
    ],
    steps: [],
    blocks: [
      block('stem', { shortcut: 'projection', skippable: false }),
      block('gated', { gate: { form: 'multiply', score: 0, compare: 'gt', threshold: 0 } }),
    ],
    exits: [],
    batching: model.batching,
    cost: { multiplyAdds: 100, bytes: 10, layers: 5 },
  };
});

/** A backend whose asynchronous runs wait until the test lets them continue. */
export class FakeBackend implements Backend {
  readonly name = 'reference';
  readonly isa = 'js';
  readonly threads = 1;
  readonly log: string[] = [];
  readonly waiting: { resume(): void; fail(error: Error): void; readonly request: RunRequest }[] = [];
  hold = false;

  async compile(program: Program): Promise<CompiledProgram> {
    return this.compileSync(program);
  }

  compileSync(program: Program): CompiledProgram {
    const shape = program.values[0]!.shape.join('x');
    this.log.push(`compile ${shape}`);
    return {
      run: async (request) => {
        if (this.hold) await this.#wait(request);
        compute(request);
      },
      runSync: compute,
      release: () => void this.log.push(`release ${shape}`),
    };
  }

  dropConstants(): void {
    this.log.push('drop constants');
  }

  release(): void {
    this.log.push('release backend');
  }

  #wait(request: RunRequest): Promise<void> {
    return new Promise((resume, fail) => {
      this.waiting.push({ resume, fail, request });
      request.signal?.addEventListener('abort', () =>
        fail(new ResidualSkipError('ABORTED', 'the run was aborted')),
      );
    });
  }
}

function compute({ items, inputs, outputs, policy, outcomes, scores }: RunRequest): void {
  const [x] = inputs as [Float32Array];
  const [y, total] = outputs as [Float32Array, BigInt64Array];
  y.set(x.map((value) => 2 * value));
  total[0] = BigInt(items);
  for (let item = 0; item < items; item++) {
    outcomes[2 * item] = 1;
    scores[2 * item + 1] = policy.modes[1] === 2 ? x[(item * x.length) / items]! : Number.NaN;
    outcomes[2 * item + 1] =
      policy.modes[1] === 2 ? Number(scores[2 * item + 1]! > policy.thresholds[1]!) : 1;
    if (policy.modes[1] === 1) outcomes[2 * item + 1] = 0;
  }
}
