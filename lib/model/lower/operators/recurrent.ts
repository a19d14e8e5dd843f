import { range } from '../../../numeric/shapes.js';
import type { Sliced } from '../../../util/slices.js';
import { type ActivationKind, NO_ACTIVATION, NONE, type ValueId } from '../../program/program.js';
import type { NodeLowering } from '../lowering.js';
import { unary } from './activations.js';
import { arithmetic } from './elementwise.js';
import { part, transposed } from './layout.js';
import type { OperatorTable } from './operator.js';
import { dequantizedBy } from './quantization.js';

/**
 * Recurrent layers, one group of steps for each position of the sequence. The products with the input are one matrix
 * product for all positions.
 */
type Cell = (layer: Layer, input: ValueId, state: State) => State;

interface State {
  readonly h: ValueId;
  /** Of an LSTM. */
  readonly c: ValueId;
}

type Apply = (x: ValueId) => ValueId;

/** One direction of a layer; matrices have a row for each unit of each gate. */
interface Layer {
  readonly node: NodeLowering;
  readonly batch: number;
  readonly hidden: number;
  readonly recurrence: ValueId;
  /** Biases of the gates: those of the input, and those of the recurrence; NONE without. */
  readonly biases: readonly [ValueId, ValueId];
  /** Weights of the LSTM's cell state in the gates; NONE without. */
  readonly peepholes: ValueId;
  readonly activations: readonly Apply[];
}

/** With the defaults of alpha and beta, as many of them as the function has. */
const FUNCTIONS: Readonly<Record<string, readonly [ActivationKind | 'affine', ...number[]]>> = {
  relu: ['relu'],
  tanh: ['tanh'],
  sigmoid: ['sigmoid'],
  hardsigmoid: ['hardSigmoid', 0.2, 0.5],
  leakyrelu: ['leakyRelu', 0.01],
  elu: ['elu', 1],
  softsign: ['softsign'],
  softplus: ['softplus'],
  affine: ['affine', 1, 0],
};

function affine(node: NodeLowering, x: ValueId, alpha: number, beta: number): ValueId {
  return arithmetic(node, 'add', arithmetic(node, 'mul', x, node.scalar(alpha)), node.scalar(beta));
}

/**
 * Activations of all directions, clipped where `clip` says so. Each function takes as many numbers of `activation_alpha` and
 * `activation_beta` as it has, in the order of the functions.
 */
function activationsOf(node: NodeLowering, defaults: readonly string[], directions: number): Apply[] {
  const given = node.node.attributes.get('activations') as readonly string[] | undefined;
  const names = given && given.length > 0 ? given : range(directions).flatMap(() => defaults);
  if (names.length !== directions * defaults.length) {
    node.invalid(`its activations [${names}] are not ${directions * defaults.length}`);
  }
  const parameters = (name: string) => [...((node.node.attributes.get(name) ?? []) as readonly number[])];
  const [alphas, betas] = [parameters('activation_alpha'), parameters('activation_beta')];
  const clip = node.number('clip', 0);
  return names.map((name) => {
    const [kind, ...own] =
      FUNCTIONS[name.toLowerCase()] ?? node.unsupported(`its activation ${name} is not supported`);
    const alpha = own.length > 0 ? (alphas.shift() ?? own[0]!) : 0;
    const beta = own.length > 1 ? (betas.shift() ?? own[1]!) : 0;
    return (x) => {
      const limited = clip > 0 ? unary(node, x, 'clip', -clip, clip) : x;
      return kind === 'affine' ? affine(node, limited, alpha, beta) : unary(node, limited, kind, alpha, beta);
    };
  });
}

function add(node: NodeLowering, a: ValueId, b: ValueId): ValueId {
  return b === NONE ? a : arithmetic(node, 'add', a, b);
}

/** x times the transpose of `weights`, plus a row. */
function product(node: NodeLowering, x: ValueId, weights: ValueId, bias: ValueId = NONE): ValueId {
  const output = { dtype: 'float32', shape: [node.shape(x)[0]!, node.shape(weights)[0]!] } as const;
  return node.step('gemm', [x, weights, bias, NONE], output, { transB: true, act: NO_ACTIVATION });
}

/** The columns, or rows, of gate number `gate`. */
function gateOf({ node, hidden }: Layer, x: ValueId, gate: number, axis: number): ValueId {
  return x === NONE ? NONE : part(node, x, axis, gate * hidden, (gate + 1) * hidden);
}

/** Gates: input, output, forget, cell (Hochreiter and Schmidhuber, 1997). */
const lstmCell: Cell = (layer, input, { h, c }) => {
  const { node, recurrence, peepholes, activations } = layer;
  const [f, g, out] = activations as [Apply, Apply, Apply];
  const sums = add(node, input, product(node, h, recurrence));
  const gate = (index: number) => gateOf(layer, sums, index, 1);
  const peeped = (index: number, at: number, cell: ValueId) => {
    if (peepholes === NONE) return gate(index);
    return add(node, gate(index), arithmetic(node, 'mul', gateOf(layer, peepholes, at, 0), cell));
  };
  const entering = f(peeped(0, 0, c));
  const one = node.scalar(1);
  const kept =
    node.number('input_forget', 0) !== 0 ? arithmetic(node, 'sub', one, entering) : f(peeped(2, 2, c));
  const fresh = arithmetic(node, 'mul', entering, g(gate(3)));
  const cell = arithmetic(node, 'add', arithmetic(node, 'mul', kept, c), fresh);
  return { h: arithmetic(node, 'mul', f(peeped(1, 1, cell)), out(cell)), c: cell };
};

/** Gates: update, reset, hidden (Cho et al., 2014). */
const gruCell: Cell = (layer, input, { h, c }) => {
  const { node, recurrence, biases, activations } = layer;
  const [f, g] = activations as [Apply, Apply];
  const gates = (index: number) => gateOf(layer, recurrence, index, 0);
  const own = (index: number) => gateOf(layer, input, index, 1);
  const both = product(node, h, part(node, recurrence, 0, 0, 2 * layer.hidden));
  const gate = (index: number) => f(add(node, own(index), gateOf(layer, both, index, 1)));
  const [update, reset] = [gate(0), gate(1)];
  const bias = gateOf(layer, biases[1], 2, 0);
  const candidate =
    node.number('linear_before_reset', 0) !== 0
      ? arithmetic(node, 'mul', reset, product(node, h, gates(2), bias))
      : product(node, arithmetic(node, 'mul', reset, h), gates(2), bias);
  const fresh = g(add(node, own(2), candidate));
  // (1 - z) * fresh + z * h
  const difference = arithmetic(node, 'mul', update, arithmetic(node, 'sub', h, fresh));
  return { h: arithmetic(node, 'add', fresh, difference), c };
};

const simpleCell: Cell = ({ node, recurrence, activations }, input, { h, c }) => ({
  h: activations[0]!(add(node, input, product(node, h, recurrence))),
  c,
});

/** What distinguishes the kinds of layers. */
interface Kind {
  readonly cell: Cell;
  readonly gates: number;
  /** The gates, from the first on, to which the biases of the recurrence are added with those of the input. */
  readonly fused: number;
  readonly activations: readonly string[];
  /** The weights of input `index`, (directions, rows, width), where they aren't floats in this form. */
  readonly weights?: (node: NodeLowering, index: number) => ValueId;
}

/** Weights in bytes, transposed, with a scale and a zero point for each direction, or for each of its rows. */
function quantizedWeights(node: NodeLowering, index: number): ValueId {
  const w = node.input(index);
  const [directions = 0, , rows = 0] = node.shape(w);
  const first = 6 + 2 * index;
  const spread = (id: ValueId) =>
    node.reshape(id, node.rank(id) === 2 ? [directions, 1, rows] : [directions, 1, 1]);
  const scale = spread(node.float(first));
  const zero = node.optional(first + 1) === NONE ? NONE : spread(node.input(first + 1));
  return transposed(node, dequantizedBy(node, w, scale, zero), [0, 2, 1]);
}

function* recurrent(node: NodeLowering, kind: Kind): Sliced<readonly ValueId[]> {
  node.context.recurrent.add(node.node.name);
  const batchFirst = node.number('layout', 0) !== 0;
  const given = node.float(0);
  if (node.rank(given) !== 3) node.invalid(`its input [${node.shape(given)}] has not three axes`);
  const x = batchFirst ? transposed(node, given, [1, 0, 2]) : given;
  const [length, batch, features] = node.shape(x) as [number, number, number];
  const direction = node.string('direction', 'forward');
  const reversed = { forward: [false], reverse: [true], bidirectional: [false, true] }[direction];
  if (!reversed) node.invalid(`its direction '${direction}' is unknown`);
  const directions = reversed.length;
  const floats = (index: number) =>
    kind.weights && (index === 1 || index === 2) ? kind.weights(node, index) : node.float(index);
  const hidden = node.shape(floats(2)).at(-1)!;
  const rows = kind.gates * hidden;
  /** The part of operand `index` for a direction; NONE when it is absent. */
  const operand = (index: number, shape: readonly number[], d: number): ValueId => {
    if (node.optional(index) === NONE) return NONE;
    const value = floats(index);
    const expected = [directions, ...shape];
    if (node.shape(value).join() !== expected.join()) {
      node.invalid(`its input ${index} is [${node.shape(value)}]; expected [${expected}]`);
    }
    return node.reshape(part(node, value, 0, d, d + 1), shape);
  };
  const state = (index: number, d: number) => {
    if (node.optional(index) === NONE) return node.expand(node.scalar(0), [batch, hidden]);
    const value = batchFirst ? transposed(node, node.float(index), [1, 0, 2]) : node.float(index);
    if (node.shape(value).join() !== [directions, batch, hidden].join()) {
      node.invalid(`its initial state is [${node.shape(value)}]; expected [${[directions, batch, hidden]}]`);
    }
    return node.reshape(part(node, value, 0, d, d + 1), [batch, hidden]);
  };
  const activations = activationsOf(node, kind.activations, directions);
  const flat = node.reshape(x, [length * batch, features]);
  const lengths = node.optional(4);
  const runs: Run[] = [];
  for (const [d, backwards] of reversed.entries()) {
    const bias = operand(3, [2 * rows], d);
    const biases = [0, 1].map((i) => (bias === NONE ? NONE : part(node, bias, 0, i * rows, (i + 1) * rows)));
    const layer: Layer = {
      node,
      batch,
      hidden,
      recurrence: operand(2, [rows, hidden], d),
      biases: biases as [ValueId, ValueId],
      peepholes: operand(7, [3 * hidden], d),
      activations: activations.slice(d * kind.activations.length),
    };
    const inputs = product(node, flat, operand(1, [rows, features], d), inputBias(layer, kind));
    const initial = { h: state(5, d), c: kind.gates === 4 ? state(6, d) : NONE };
    runs.push(yield* unrolled(layer, kind.cell, inputs, { length, lengths, backwards, initial }));
  }
  const cells = kind.gates === 4;
  return outputsOf({ node, batch, hidden }, runs, { length, batchFirst, cells });
}

/** Every state of the directions, (time, direction, batch, hidden), then their last ones, and those of the cells. */
function outputsOf(
  { node, batch, hidden }: Pick<Layer, 'node' | 'batch' | 'hidden'>,
  runs: readonly Run[],
  { length, batchFirst, cells }: { length: number; batchFirst: boolean; cells: boolean },
): ValueId[] {
  const stacked = (values: readonly ValueId[], axis: number, shape: readonly number[]) =>
    joined(
      node,
      values.map((value) => node.reshape(value, shape)),
      axis,
    );
  const wide = [1, 1, batch, hidden];
  const step = [1, runs.length, batch, hidden];
  const steps = range(length).map((t) =>
    stacked(
      runs.map(({ outputs }) => outputs[t]!),
      1,
      wide,
    ),
  );
  const all = length > 0 ? stacked(steps, 0, step) : node.expand(node.scalar(0), step.with(0, 0));
  const last = (which: 'h' | 'c') => {
    const value = stacked(
      runs.map(({ state: end }) => end[which]),
      0,
      [1, batch, hidden],
    );
    return batchFirst ? transposed(node, value, [1, 0, 2]) : value;
  };
  const y = batchFirst ? transposed(node, all, [2, 0, 1, 3]) : all;
  return cells ? [y, last('h'), last('c')] : [y, last('h')];
}

/** The biases that are added whatever the state is. */
function inputBias(layer: Layer, { gates, fused }: Kind): ValueId {
  const { node, hidden, biases } = layer;
  if (biases[0] === NONE) return NONE;
  if (fused === gates) return arithmetic(node, 'add', ...biases);
  const first = arithmetic(
    node,
    'add',
    part(node, biases[0], 0, 0, fused * hidden),
    part(node, biases[1], 0, 0, fused * hidden),
  );
  return joined(node, [first, part(node, biases[0], 0, fused * hidden, gates * hidden)], 0);
}

function joined(node: NodeLowering, values: readonly ValueId[], axis: number): ValueId {
  if (values.length === 1) return values[0]!;
  const shape = node.shape(values[0]!);
  const length = values.reduce((sum, value) => sum + node.shape(value)[axis]!, 0);
  return node.step('concat', values, { dtype: 'float32', shape: shape.with(axis, length) }, { axis });
}

/** One direction's outputs by position, and the state at its end. */
interface Run {
  readonly outputs: readonly ValueId[];
  readonly state: State;
}

/** Runs the cell over the sequence; items whose own length has passed keep their state, and their outputs are 0. */
function* unrolled(
  layer: Layer,
  cell: Cell,
  inputs: ValueId,
  run: { length: number; lengths: ValueId; backwards: boolean; initial: State },
): Sliced<Run> {
  const { node, batch, hidden } = layer;
  const outputs: ValueId[] = [];
  let state = run.initial;
  for (let k = 0; k < run.length; k++) {
    yield;
    const t = run.backwards ? run.length - 1 - k : k;
    const next = cell(layer, part(node, inputs, 0, t * batch, (t + 1) * batch), state);
    if (run.lengths === NONE) {
      state = next;
      outputs[t] = next.h;
      continue;
    }
    const lengths = node.reshape(run.lengths, [batch, 1]);
    const at = node.cast(node.scalar(t), node.value(lengths).dtype);
    const runs = node.step('compare', [at, lengths], { dtype: 'bool', shape: [batch, 1] }, { kind: 'lt' });
    const chosen = (value: ValueId, otherwise: ValueId) =>
      node.step('where', [runs, value, otherwise], { dtype: 'float32', shape: [batch, hidden] }, {});
    outputs[t] = chosen(next.h, node.scalar(0));
    state = { h: chosen(next.h, state.h), c: next.c === NONE ? NONE : chosen(next.c, state.c) };
  }
  return { outputs, state };
}

const LSTM: Kind = { cell: lstmCell, gates: 4, fused: 4, activations: ['Sigmoid', 'Tanh', 'Tanh'] };
/** The reset gate multiplies the recurrence's bias of the hidden gate in one of its two forms. */
const GRU: Kind = { cell: gruCell, gates: 3, fused: 2, activations: ['Sigmoid', 'Tanh'] };
const RNN: Kind = { cell: simpleCell, gates: 1, fused: 1, activations: ['Tanh'] };

export const RECURRENT: OperatorTable = {
  LSTM: { lower: (node) => recurrent(node, LSTM) },
  GRU: { lower: (node) => recurrent(node, GRU) },
  RNN: { lower: (node) => recurrent(node, RNN) },
  'com.microsoft.DynamicQuantizeLSTM': {
    lower: (node) => recurrent(node, { ...LSTM, weights: quantizedWeights }),
  },
};
