import { setImmediate } from 'node:timers/promises';
import { ResidualSkipError } from '../errors.js';
import { activate, type KernelTensor, runStep } from '../kernels/index.js';
import { type Block, type Gate, isReduced, NONE, type Program, type Step } from '../model/program/program.js';
import { sizeOf } from '../numeric/shapes.js';
import { recalled } from '../tensor/recall.js';
import { ARRAY_OF, type TensorData } from '../tensor/tensor.js';
import { append } from '../util/maps.js';
import { type Backend, BlockMode, type CompiledProgram, decisionsIn, type RunRequest } from './backend.js';
import { type Placement, place } from './placement.js';
import { type Rounded, roundedIn } from './rounded.js';

/**
 * Plain TypeScript: the oracle of the native backend's tests, and its baseline in benchmarks. The items of a batch
 * run one after another on the caller's thread; `run` yields to the event loop between steps.
 */
export class ReferenceBackend implements Backend {
  readonly name = 'reference';
  readonly isa = 'js';
  readonly threads = 1;

  async compile(program: Program): Promise<CompiledProgram> {
    return this.compileSync(program);
  }

  compileSync(program: Program): CompiledProgram {
    if (isReduced(program.precision)) {
      throw new ResidualSkipError(
        'INVALID_ARGUMENT',
        "precision: the reference backend computes in float32 alone; choose the backend 'native', or the precision 'float32'",
      );
    }
    // Another backend may have given their memory back.
    for (const { data } of program.values) if (data) recalled(data);
    return new ReferenceProgram(program);
  }

  /** Runs read the constants. */
  dropConstants(): void {}

  /** Programs share nothing. */
  release(): void {}
}

/** As an asynchronous function it is loaded when it is used. */
export async function createReference(): Promise<Backend> {
  return new ReferenceBackend();
}

/** Milliseconds for which `run` may block the event loop, if single steps are shorter. */
const SLICE_MS = 4;

class ReferenceProgram implements CompiledProgram {
  private readonly placement: Placement;
  readonly profiled: Int32Array;
  private readonly program: Program;
  /** Arenas that no run uses. */
  private readonly idle: Arena[] = [];
  private released = false;

  constructor(program: Program) {
    this.program = program;
    this.profiled = Int32Array.from(program.steps, ({ outputs }) => outputs[0] ?? NONE);
    this.placement = place(program);
    this.idle.push(new Arena(program, this.placement));
  }

  runSync(request: RunRequest): void {
    const arena = this.acquire();
    try {
      for (const _ of runItems(arena, request)) throwIfAborted(request.signal);
    } finally {
      this.giveBack(arena);
    }
  }

  async run(request: RunRequest): Promise<void> {
    const arena = this.acquire();
    try {
      let resumed = performance.now();
      throwIfAborted(request.signal);
      for (const _ of runItems(arena, request)) {
        if (performance.now() - resumed > SLICE_MS) {
          await setImmediate();
          resumed = performance.now();
        }
        throwIfAborted(request.signal);
      }
    } finally {
      this.giveBack(arena);
    }
  }

  release(): void {
    this.released = true;
    this.idle.length = 0;
  }

  private acquire(): Arena {
    if (this.released) throw new ResidualSkipError('SESSION_RELEASED', 'program: it was released');
    return this.idle.pop() ?? new Arena(this.program, this.placement);
  }

  private giveBack(arena: Arena): void {
    if (!this.released) this.idle.push(arena);
  }
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) {
    throw new ResidualSkipError('ABORTED', 'run: it was aborted by its signal', { cause: signal.reason });
  }
}

/** The memory of one run: a tensor for every value, and the tensors of every step. */
class Arena {
  readonly tensors: readonly (KernelTensor | undefined)[];
  readonly operands: readonly { inputs: (KernelTensor | undefined)[]; outputs: KernelTensor[] }[];
  /** The block that begins (with its gate, if it has steps of its own) at a step; undefined elsewhere. */
  readonly blockAt: readonly (number | undefined)[];
  /** The exits that decide before a step, or at the end. */
  readonly exitsAt: ReadonlyMap<number, readonly number[]>;
  readonly rounded: Rounded;

  constructor(
    readonly program: Program,
    { offsets, bytes }: Placement,
  ) {
    const memory = allocate(bytes);
    // Values in the same place share one array, so kernels see that they work in place.
    const arrays = new Map<string, TensorData>();
    this.tensors = program.values.map(({ dtype, shape, data }, id) => {
      if (data) return { dtype, shape, data, constant: true };
      const offset = offsets[id]!;
      if (offset === NONE) return undefined;
      const key = `${dtype} ${offset} ${sizeOf(shape)}`;
      const array = arrays.get(key) ?? new ARRAY_OF[dtype](memory, offset, sizeOf(shape));
      arrays.set(key, array);
      return { dtype, shape, data: array };
    });
    this.operands = program.steps.map(({ inputs, outputs }) => ({
      inputs: inputs.map((id) => (id === NONE ? undefined : this.tensor(id))),
      outputs: outputs.map((id) => this.tensor(id)),
    }));
    const blockAt = new Array<number | undefined>(program.steps.length).fill(undefined);
    for (const [index, { gateFirst }] of program.blocks.entries()) blockAt[gateFirst] = index;
    this.blockAt = blockAt;
    const exitsAt = new Map<number, number[]>();
    for (const [index, { end }] of program.exits.entries()) append(exitsAt, end, index);
    this.exitsAt = exitsAt;
    this.rounded = roundedIn(program);
  }

  tensor(id: number): KernelTensor {
    const tensor = this.tensors[id];
    if (!tensor) throw new ResidualSkipError('INTERNAL', `program: value ${id} is used but never computed`);
    return tensor;
  }
}

function allocate(bytes: number): ArrayBuffer {
  try {
    return new ArrayBuffer(bytes);
  } catch (cause) {
    throw new ResidualSkipError(
      'OUT_OF_MEMORY',
      `run: it needs ${bytes} bytes, which could not be allocated`,
      {
        cause,
      },
    );
  }
}

/** Runs item after item, yielding after every step. */
function* runItems(arena: Arena, request: RunRequest): Generator<void, void> {
  const { program } = arena;
  request.outcomes.fill(0);
  request.scores.fill(Number.NaN);
  for (let item = 0; item < request.items; item++) {
    for (const [i, { value, batched }] of program.inputs.entries()) {
      const { data } = arena.tensor(value);
      copySlice(request.inputs[i]!, batched ? item * data.length : 0, data, 0, data.length);
    }
    const left = yield* runProgram(arena, request, item);
    for (const [i, { batched, value }] of program.outputs.entries()) {
      const { data } = arena.tensor(left === undefined ? value : program.exits[left]!.answers[i]!);
      if (data instanceof Float32Array && left === undefined && arena.rounded.values.has(value)) {
        if (reads(arena, request, item, Number.isNaN)) data.fill(Number.NaN);
      }
      const start = batched ? item * data.length : 0;
      copySlice(data, 0, request.outputs[i]!, start, data.length);
      if (data instanceof Float32Array) unifyNans(request.outputs[i] as Float32Array, start, data.length);
    }
  }
}

/** Whether a number of the item that 8 bits round is such a one. */
function reads(arena: Arena, request: RunRequest, item: number, isOne: (x: number) => boolean): boolean {
  return arena.program.inputs.some(({ value, batched }, i) => {
    if (!arena.rounded.inputs.includes(value)) return false;
    const { length } = arena.tensor(value).data;
    const start = batched ? item * length : 0;
    return (request.inputs[i] as Float32Array).subarray(start, start + length).some(isOne);
  });
}

/** Makes every NaN the same one: processors differ in the sign and payload that operations give it. */
function unifyNans(to: Float32Array, start: number, count: number): void {
  for (let i = start; i < start + count; i++) if (Number.isNaN(to[i])) to[i] = Number.NaN;
}

/** Both arrays have the same type, whichever it is. */
function copySlice(
  from: TensorData,
  fromStart: number,
  to: TensorData,
  toStart: number,
  count: number,
): void {
  (to as Uint8Array).set((from as Uint8Array).subarray(fromStart, fromStart + count), toStart);
}

/** Begin and end of each step for one item; undefined where the run is not profiled. */
type Times = Float64Array | undefined;

function timesOf({ program }: Arena, { times }: RunRequest, item: number): Times {
  const size = 2 * program.steps.length;
  return times?.subarray(item * size, (item + 1) * size);
}

/** Returns the exit that was taken; undefined at the end of the program. */
function* runProgram(arena: Arena, request: RunRequest, item: number): Generator<void, number | undefined> {
  const { program, blockAt, exitsAt } = arena;
  const times = timesOf(arena, request, item);
  let at = 0;
  for (;;) {
    const taken = exitsAt.get(at)?.find((exit) => leaves(arena, request, item, exit));
    if (taken !== undefined || at === program.steps.length) return taken;
    const index = blockAt[at];
    if (index === undefined) {
      at = runOne(arena, at, times);
      yield;
    } else {
      yield* runBlock(arena, request, item, index);
      at = program.blocks[index]!.end;
    }
  }
}

/** An exit is decided here: whether the item takes it. A NaN score doesn't. */
function leaves(arena: Arena, request: RunRequest, item: number, exit: number): boolean {
  const decision = arena.program.blocks.length + exit;
  const entry = item * decisionsIn(arena.program) + decision;
  const { score: value } = arena.program.exits[exit]!;
  const isBad = (x: number) => !Number.isFinite(x);
  const unsure = arena.rounded.values.has(value) && reads(arena, request, item, isBad);
  const score = unsure ? Number.NaN : Number(arena.tensor(value).data[0]);
  request.scores[entry] = score;
  const taken = score >= request.policy.thresholds[decision]!;
  request.outcomes[entry] = Number(taken);
  return taken;
}

/** Runs or skips one block. */
function* runBlock(arena: Arena, request: RunRequest, item: number, index: number): Generator<void, void> {
  const block = arena.program.blocks[index]!;
  const times = timesOf(arena, request, item);
  const entry = item * decisionsIn(arena.program) + index;
  let runs = request.policy.modes[index] === BlockMode.run;
  if (request.policy.modes[index] === BlockMode.gate && block.gate) {
    yield* runRange(arena, block.gateFirst, block.first, times);
    const score = Number(arena.tensor(block.gate.score).data[0]);
    request.scores[entry] = score;
    runs = gateOpens(block.gate, score, request.policy.thresholds[index]!);
  }
  request.outcomes[entry] = runs ? 1 : 0;
  if (runs) yield* runRange(arena, block.first, block.end, times);
  else skip(arena, block);
}

/** A NaN score runs the block: when in doubt, nothing is skipped. */
function gateOpens({ compare }: Gate, score: number, threshold: number): boolean {
  if (Number.isNaN(score)) return true;
  switch (compare) {
    case 'gt':
      return score > threshold;
    case 'ge':
      return score >= threshold;
    case 'lt':
      return score < threshold;
    case 'le':
      return score <= threshold;
  }
}

/** A block is skipped here: the stream passes around it, which is no work if the block's output shares memory with its input. */
function skip(arena: Arena, { input, output, skipActivation, skipTable }: Block): void {
  if (skipTable !== undefined) {
    runStep(
      { op: 'lookup', attrs: {} },
      [arena.tensor(input), arena.tensor(skipTable)],
      [arena.tensor(output)],
    );
    return;
  }
  const x = arena.tensor(input).data;
  const y = arena.tensor(output).data;
  if (skipActivation.kind !== 'none')
    activate(x as Float32Array, y as Float32Array, y.length, skipActivation);
  else if (x !== y) copySlice(x, 0, y, 0, y.length);
}

function* runRange(arena: Arena, first: number, end: number, times: Times): Generator<void, void> {
  for (let at = first; at < end; ) {
    at = runOne(arena, at, times);
    yield;
  }
}

/** Runs the step at `at` and returns the next position. */
function runOne(arena: Arena, at: number, times: Times): number {
  const step: Step = arena.program.steps[at]!;
  if (step.op === 'jump') return step.attrs.target;
  const { inputs, outputs } = arena.operands[at]!;
  if (step.op === 'branch') return inputs[0]!.data[0] === 0 ? step.attrs.target : at + 1;
  const begin = times && performance.now();
  runStep(step, inputs, outputs);
  if (times) times.set([1000 * begin!, 1000 * performance.now()], 2 * at);
  return at + 1;
}
