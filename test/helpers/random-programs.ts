/** Random residual networks as programs, with every kind of block, gates, branches and unusual shapes. */
import {
  type Activation,
  type Gate,
  NO_ACTIVATION,
  NONE,
  type Program,
  type ValueId,
} from 'lib/model/program/program.js';
import { ProgramBuilder } from './programs.js';
import { randomFloats, uniform } from './random.js';

const RELU: Activation = { kind: 'relu', alpha: 0, beta: 0 };
const ACTIVATIONS: readonly Activation[] = [
  NO_ACTIVATION,
  RELU,
  { kind: 'leakyRelu', alpha: 0.125, beta: 0 },
  { kind: 'clip', alpha: 0, beta: 6 },
  { kind: 'hardSwish', alpha: 0, beta: 0 },
  { kind: 'silu', alpha: 0, beta: 0 },
];
/**
 * Powers of two and their neighbours: here caches alias, whole vectors and tiles end, and the engine switches between
 * algorithms.
 */
const EDGES = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096].flatMap((n) => [n - 1, n, n + 1]);
/** Maximum size of the residual stream in a network with these sizes. */
const MAX_ELEMENTS = 1 << 17;

const COMPARES: readonly Gate['compare'][] = ['gt', 'ge', 'lt', 'le'];

/** Grows a network around one residual stream of shape [1, C, H, W]. */
class Grower {
  readonly b = new ProgramBuilder();
  private readonly next: () => number;
  private stream: ValueId;
  private seed: number;
  /** Unused scores that a policy network computed at the start. */
  private readonly earlyScores: ValueId[] = [];

  /** `edges`: sizes next to powers of two, often large ones. */
  constructor(seed: number, edges: boolean) {
    this.seed = seed;
    this.next = uniform(seed);
    if (edges) {
      this.stream = this.b.input(this.edgeShape());
      return;
    }
    // Some are large enough for algorithms that need large images.
    const size = () => (this.next() < 0.15 ? this.int(10, 24) : this.int(3, 9));
    this.stream = this.b.input([1, this.int(1, 20), size(), size()]);
  }

  grow(): Program {
    if (this.next() < 0.4) this.policyNetwork();
    const layers = [
      () => this.basicBlock(),
      () => this.singleBlock(),
      () => this.preActivationBlock(),
      () => this.invertedBlock(),
      () => this.addBlock(),
      () => this.projectionBlock(),
      () => this.paddedBlock(),
      () => this.squeeze(),
      () => this.pool(),
      () => this.branch(),
      () => this.shuffle(),
    ];
    for (let count = this.int(1, 6); count > 0; count--) this.pick(layers)();
    const { b } = this;
    const [, c] = this.shape();
    const pooled = b.step('globalPool', { kind: 'avg' }, [this.stream], [1, c, 1, 1]);
    const flat = b.step('reshape', {}, [pooled], [1, c]);
    const logits = this.dense(flat, c, this.int(1, 18), NO_ACTIVATION);
    return b.build(this.next() < 0.3 ? [logits, this.stream] : [logits]);
  }

  private edgeShape(): number[] {
    const shape = [1];
    let room = MAX_ELEMENTS;
    // In random order, so that each axis is the longest in some networks. The neighbours of 1 include 0.
    for (const axis of this.pick([
      [3, 2, 1],
      [3, 1, 2],
      [2, 3, 1],
    ])) {
      const most = axis === 1 ? Math.min(room, 65) : room;
      shape[axis] = this.pick(EDGES.filter((n) => n > 0 && n <= most));
      room = Math.floor(room / shape[axis]!);
    }
    return shape;
  }

  private int(low: number, high: number): number {
    return low + Math.floor(this.next() * (high - low + 1));
  }

  private pick<T>(list: readonly T[]): T {
    return list[this.int(0, list.length - 1)]!;
  }

  private shape(id = this.stream): [number, number, number, number] {
    return this.b.values[id]!.shape as unknown as [number, number, number, number];
  }

  /** A random constant with values of magnitude `scale`. */
  private weights(shape: readonly number[], scale: number): ValueId {
    const size = shape.reduce((a, b) => a * b, 1);
    return this.b.constant(
      shape,
      [...randomFloats(size, this.seed++ + 7919 * this.b.values.length)].map((v) => v * scale),
    );
  }

  private conv(
    x: ValueId,
    out: number,
    { kernel = 3, stride = 1, group = 1, act = NO_ACTIVATION as Activation, residual = NONE } = {},
  ): ValueId {
    const [, c, h, w] = this.shape(x);
    const pad = kernel >> 1;
    const size = (length: number) => Math.floor((length + 2 * pad - kernel) / stride) + 1;
    const weight = this.weights(
      [out, c / group, kernel, kernel],
      1.7 / Math.sqrt((c / group) * kernel * kernel),
    );
    const bias = this.next() < 0.7 ? this.weights([out], 0.5) : NONE;
    const attrs = { strides: [stride, stride], pads: [pad, pad, pad, pad], dilations: [1, 1], group, act };
    return this.b.step('conv', attrs, [x, weight, bias, residual], [1, out, size(h), size(w)]);
  }

  private dense(x: ValueId, k: number, n: number, act: Activation): ValueId {
    const b = this.weights([n, k], 1.7 / Math.sqrt(k));
    return this.b.step('gemm', { transB: true, act }, [x, b, this.weights([n], 0.5), NONE], [1, n]);
  }

  /** Steps that compute one number from the stream. */
  private score(): ValueId {
    const { b } = this;
    const [, c] = this.shape();
    const pooled = b.step(
      'globalPool',
      { kind: this.pick(['avg', 'max'] as const) },
      [this.stream],
      [1, c, 1, 1],
    );
    const flat = b.step('reshape', {}, [pooled], [1, c]);
    const hidden = this.dense(flat, c, 5, RELU);
    return this.dense(hidden, 5, 1, NO_ACTIVATION);
  }

  /** A policy network: decides for several blocks at the start. */
  private policyNetwork(): void {
    const { b } = this;
    const [, c, h, w] = this.shape();
    const flat = b.step('reshape', {}, [this.stream], [1, c * h * w]);
    const scores = this.dense(flat, c * h * w, 4, NO_ACTIVATION);
    for (let i = 0; i < 4; i++) {
      this.earlyScores.push(b.step('slice', { starts: [0, i], steps: [1, 1] }, [scores], [1, 1]));
    }
  }

  /** Makes a block of the steps that `body` adds, perhaps with a gate, whose steps precede them. */
  private block(body: () => ValueId, skipActivation: Activation, skippable = true): void {
    const input = this.stream;
    const gateFirst = this.b.steps.length;
    const gated = skippable && this.next() < 0.7;
    const gate: Gate | undefined = gated
      ? {
          form: 'multiply',
          score: this.earlyScores.pop() ?? this.score(),
          compare: this.pick(COMPARES),
          threshold: this.next() - 0.5,
        }
      : undefined;
    const first = this.b.steps.length;
    this.stream = body();
    this.b.block({
      gateFirst,
      first,
      end: this.b.steps.length,
      input,
      output: this.stream,
      skippable,
      shortcut: skippable ? 'identity' : 'projection',
      skipActivation,
      gate,
    });
  }

  private basicBlock(): void {
    const act = this.pick(ACTIVATIONS);
    this.block(() => {
      const [, c] = this.shape();
      const hidden = this.conv(this.stream, this.int(1, 20), { act: RELU });
      return this.conv(hidden, c, { act, residual: this.stream });
    }, act);
  }

  /** One convolution that reads the stream twice: as its input and as its residual. */
  private singleBlock(): void {
    const act = this.pick(ACTIVATIONS);
    this.block(() => this.conv(this.stream, this.shape()[1], { act, residual: this.stream }), act);
  }

  private preActivationBlock(): void {
    this.block(() => {
      const [, c] = this.shape();
      const affine = (x: ValueId) => {
        const [, channels] = this.shape(x);
        const operands = [x, this.weights([channels], 1), this.weights([channels], 1)];
        return this.b.step('affine', { act: RELU }, operands, this.shape(x));
      };
      return this.conv(affine(this.conv(affine(this.stream), 8)), c, { residual: this.stream });
    }, NO_ACTIVATION);
  }

  private invertedBlock(): void {
    this.block(() => {
      const [, c] = this.shape();
      const wide = this.int(1, 40);
      const expanded = this.conv(this.stream, wide, { kernel: 1, act: this.pick(ACTIVATIONS) });
      const filtered = this.conv(expanded, wide, { kernel: this.pick([3, 5]), group: wide, act: RELU });
      return this.conv(filtered, c, { kernel: 1, residual: this.stream });
    }, NO_ACTIVATION);
  }

  /** A block with a separate addition step, perhaps followed by an activation. */
  private addBlock(): void {
    const act = this.pick(ACTIVATIONS);
    const apart = this.next() < 0.5;
    this.block(() => {
      const { b } = this;
      const [, c] = this.shape();
      const body = this.conv(this.stream, c);
      const operands = this.next() < 0.5 ? [this.stream, body] : [body, this.stream];
      const attrs = { kind: 'add', act: apart ? NO_ACTIVATION : act } as const;
      const sum = b.step('binary', attrs, operands, this.shape());
      return apart ? b.step('unary', { act }, [sum], this.shape()) : sum;
    }, act);
  }

  private projectionBlock(): void {
    this.block(
      () => {
        const out = this.int(1, 24);
        const stride = this.pick([1, 2]);
        const residual = this.conv(this.stream, out, { kernel: 1, stride });
        return this.conv(this.conv(this.stream, 6, { act: RELU, stride }), out, { act: RELU, residual });
      },
      NO_ACTIVATION,
      false,
    );
  }

  /** Option A shortcut: every second pixel, and zeros for the new channels. */
  private paddedBlock(): void {
    this.block(
      () => {
        const { b } = this;
        const [, c, h, w] = this.shape();
        const half = [1, c, Math.ceil(h / 2), Math.ceil(w / 2)];
        const sliced = b.step('slice', { starts: [0, 0, 0, 0], steps: [1, 1, 2, 2] }, [this.stream], half);
        const more = this.int(0, 5);
        const pads = [0, more, 0, 0, 0, 1, 0, 0];
        const shape = [1, c + more + 1, half[2]!, half[3]!];
        const padded = b.step('pad', { pads, mode: 'constant' }, [sliced, NONE], shape);
        const body = this.conv(this.stream, shape[1]!, { stride: 2 });
        return b.step('binary', { kind: 'add', act: RELU }, [body, padded], shape);
      },
      NO_ACTIVATION,
      false,
    );
  }

  /** Squeeze and excitation: a soft factor, not a gate. */
  private squeeze(): void {
    const { b } = this;
    const [, c] = this.shape();
    const mean = b.step('reduceMean', { axes: [2, 3] }, [this.stream], [1, c, 1, 1]);
    const factor = this.conv(mean, c, { kernel: 1, act: { kind: 'sigmoid', alpha: 0, beta: 0 } });
    const attrs = { kind: 'mul', act: NO_ACTIVATION } as const;
    this.stream = b.step('binary', attrs, [this.stream, factor], this.shape());
  }

  private pool(): void {
    const [, c, h, w] = this.shape();
    const size = (length: number) => Math.floor((length - 1) / 2) + 1;
    const attrs = {
      kind: this.pick(['max', 'avg'] as const),
      kernel: [3, 3],
      strides: [2, 2],
      pads: [1, 1, 1, 1],
      dilations: [1, 1],
      countIncludePad: this.next() < 0.5,
      columnMajorIndices: false,
    };
    this.stream = this.b.step('pool', attrs, [this.stream], [1, c, size(h), size(w)]);
  }

  /** A conditional with a block in one branch, and a convolution or a copy in the other. */
  private branch(): void {
    const { b } = this;
    const [, c, h, w] = this.shape();
    const attrs = { kind: 'gt' } as const;
    const condition = b.step('compare', attrs, [this.score(), b.constant([], [0])], [1, 1], 'bool');
    const before = this.stream;
    const result = b.value([1, c, h, w]);
    const copy = (from: ValueId) => b.push({ op: 'reshape', inputs: [from], outputs: [result], attrs: {} });
    const branchAt = b.steps.length;
    b.push({ op: 'branch', inputs: [condition], outputs: [], attrs: { target: NONE } });
    this.basicBlock();
    copy(this.stream);
    const jumpAt = b.steps.length;
    b.push({ op: 'jump', inputs: [], outputs: [], attrs: { target: NONE } });
    b.steps[branchAt] = { op: 'branch', inputs: [condition], outputs: [], attrs: { target: b.steps.length } };
    copy(this.next() < 0.5 ? before : this.conv(before, c));
    b.steps[jumpAt] = { op: 'jump', inputs: [], outputs: [], attrs: { target: b.steps.length } };
    this.stream = result;
  }

  /** Converts to channels last and back with steps that only move elements. */
  private shuffle(): void {
    const { b } = this;
    const [, c, h, w] = this.shape();
    const last = b.step('transpose', { perm: [0, 2, 3, 1] }, [this.stream], [1, h, w, c]);
    const probabilities = b.step('softmax', { axis: 3, log: false }, [last], [1, h, w, c]);
    const back = b.step('transpose', { perm: [0, 3, 1, 2] }, [probabilities], [1, c, h, w]);
    this.stream = b.step('concat', { axis: 1 }, [this.stream, back], [1, 2 * c, h, w]);
  }
}

export function randomProgram(seed: number, { edges = false } = {}): Program {
  return new Grower(seed, edges).grow();
}
