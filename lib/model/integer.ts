/**
 * Integer steps: where an operator stands between `dequantize` and `quantize`, as quantisers write it, it becomes one step on bytes.
 * What can't be expressed in bytes stays as it is, on floats.
 */
import { runStep } from '../kernels/index.js';
import { sizeOf } from '../numeric/shapes.js';
import type { TensorData } from '../tensor.js';
import { Cone } from './cone.js';
import {
  type Activation,
  NO_ACTIVATION,
  NO_REQUANTISATION,
  NONE,
  type Requantisation,
  type ValueId,
} from './program.js';
import {
  anyByte,
  type ByteType,
  bytesOf,
  dequantised,
  derive,
  foldDequantised,
  isByteType,
  numbersOf,
  type Quantised,
  sameTerm,
  targetOf,
  uniformly,
} from './quantised-value.js';
import type { Region, WorkOp, WorkStep, WorkStepNamed } from './region.js';

type Target = NonNullable<ReturnType<typeof targetOf>>;
type Rule = (
  region: Region,
  quantize: WorkStepNamed<'quantize'>,
  before: WorkStep,
  target: Target,
) => boolean;

const RULES: readonly Rule[] = [requantise, layer, sumOrProduct, globalPool, move, table];

/** Replaces what is quantised by integer steps. */
export function integerise(region: Region): void {
  if (!holdsQuantised(region)) return;
  remember(region);
  for (let changed = true; changed; ) {
    changed = false;
    for (const op of [...region.ops]) {
      if (!region.has(op)) continue;
      if (op.op === 'quantize') changed = quantised(region, op) || changed;
      else if (op.op === 'dequantize') changed = sinkDequantize(region, op) || changed;
    }
    region.removeDead();
  }
  for (const op of [...region.ops])
    if (region.has(op) && op.op !== 'if' && op.op !== 'select') toFloat(region, op);
  region.removeDead();
  foldDequantised(region);
}

function holdsQuantised(region: Region): boolean {
  return region.ops.some(
    (op) =>
      op.op === 'quantize' ||
      op.op === 'dequantize' ||
      (op.op === 'if' && (holdsQuantised(op.whenTrue) || holdsQuantised(op.whenFalse))),
  );
}

/** Notes in the values what their bytes stand for. */
function remember(region: Region): void {
  for (const op of region.ops) {
    const target = op.op === 'quantize' ? targetOf(region, op) : undefined;
    const id = op.outputs[0]!;
    if (target) region.values[id] = { ...region.value(id), term: target.term };
  }
}

/** The producer of `id`, if nothing but one reader needs it. */
function soleProducer(region: Region, id: ValueId): WorkOp | undefined {
  return region.usedOnce(id) ? region.producer(id) : undefined;
}

function quantised(region: Region, quantize: WorkStepNamed<'quantize'>): boolean {
  const target = targetOf(region, quantize);
  const x = quantize.inputs[0]!;
  if (!target) return false;
  const same = uniformly(region, x);
  if (same) return requantise(region, quantize, region.producer(x) as WorkStep, target);
  const before = soleProducer(region, x);
  if (!before || before.op === 'if') return false;
  if (before.op === 'select') return sinkQuantize(region, quantize, before, target);
  return RULES.some((rule) => rule(region, quantize, before, target));
}

/** Bytes that become bytes again. */
function requantise(
  region: Region,
  quantize: WorkStepNamed<'quantize'>,
  before: WorkStep,
  target: Target,
): boolean {
  const from = before.op === 'dequantize' ? uniformly(region, quantize.inputs[0]!) : undefined;
  if (!from) return false;
  if (from.dtype === target.dtype && sameTerm(from.term, target.term)) {
    region.remove(quantize);
    region.substitute(quantize.outputs[0]!, from.bytes);
    return true;
  }
  const table = bytesOf(numbersOf(from.dtype, from.term), target.dtype, target.term);
  replaceByLookup(region, [quantize], from.bytes, table, target.dtype);
  return true;
}

/** Ends with the quantize (or whichever step is last in `old`), whose output it writes. */
function replaceByLookup(
  region: Region,
  old: readonly WorkOp[],
  bytes: ValueId,
  data: TensorData,
  dtype: ByteType,
): void {
  const { node, outputs } = old[old.length - 1]!;
  const entries = region.addValue(`${node}.table`, dtype, [256], data);
  region.replace(old, [{ op: 'lookup', node, inputs: [bytes, entries], outputs, attrs: {} }]);
}

/** The bytes that an activation leaves possible, if it only bounds its input; undefined for other functions. */
function boundsOf({ kind, alpha, beta }: Activation, { dtype, term }: Target): Requantisation | undefined {
  const all = anyByte(dtype, term.zero);
  const byte = (bound: number) => Number(bytesOf(Float32Array.of(bound), dtype, term)[0]);
  switch (kind) {
    case 'none':
      return all;
    case 'relu':
      return { ...all, low: byte(0) };
    case 'clip':
      return alpha <= beta ? { ...all, low: byte(alpha), high: byte(beta) } : undefined;
    default:
      return undefined;
  }
}

interface Operands {
  readonly op: 'qconv' | 'qmatmul';
  readonly x: NonNullable<ReturnType<typeof uniformly>>;
  readonly w: Quantised;
  readonly bias: ValueId;
  readonly channels: number;
  readonly transB: boolean;
}

/** The quantised operands of a convolution or matrix product. */
function operandsOf(region: Region, step: WorkStep): Operands | undefined {
  if (step.op !== 'conv' && step.op !== 'gemm' && step.op !== 'matmul') return undefined;
  const [left = NONE, right = NONE, bias = NONE, residual = NONE] = step.inputs;
  const [x, w] = [uniformly(region, left), dequantised(region, right)];
  if (!x || !w || !isByteType(w.dtype) || residual !== NONE) return undefined;
  const shape = region.shape(right);
  const transB = step.op === 'gemm' && step.attrs.transB;
  const axis =
    step.op === 'conv' || transB ? shape.length - (step.op === 'conv' ? shape.length : 2) : shape.length - 1;
  if (w.scales.length > 1 && (w.axis !== axis || (step.op !== 'conv' && shape.length !== 2)))
    return undefined;
  return { op: step.op === 'conv' ? 'qconv' : 'qmatmul', x, w, bias, channels: shape[axis]!, transB };
}

/** sx*sw for each channel, or one for all. */
function productScales({ x, w }: Operands): Float32Array {
  return w.scales.map((scale) => x.term.factor * scale);
}

/** A larger bias could make sums wrap around. */
const LARGEST_BIAS = 2 ** 30;

/** The bias as int32 in units of the products' scales; undefined when it doesn't fit. */
function integerBias(region: Region, operands: Operands): ValueId | undefined {
  const { bias, channels } = operands;
  if (bias === NONE) return NONE;
  const found = dequantised(region, bias);
  const scales = productScales(operands);
  const scaleAt = (c: number) => scales[scales.length === 1 ? 0 : c]!;
  const given = found ? region.value(found.bytes).data : region.value(bias).data;
  if (!given || given instanceof BigInt64Array || given.length !== channels) return undefined;
  const key = `bias ${scales.join()} ${found ? `${found.scales.join()} ${Array.from(found.zeros).join()}` : ''}`;
  const data = derive(given, key, () =>
    Int32Array.from({ length: channels }, (_, c) => {
      const at = found && found.scales.length > 1 ? c : 0;
      const own = found?.scales[at];
      // Quantisers give a bias the scale of the products.
      const exact = own !== undefined && Math.abs(own - scaleAt(c)) <= 1e-6 * own;
      const whole = given[c]! - (found?.zeros[at] ?? 0);
      const v = exact ? whole : Math.round((whole * (own ?? 1)) / scaleAt(c));
      return Math.max(-LARGEST_BIAS, Math.min(LARGEST_BIAS, v));
    }),
  );
  if (data.some((v: number | bigint) => Math.abs(Number(v)) === LARGEST_BIAS)) return undefined;
  return region.addValue(`${region.value(bias).name}.integer`, 'int32', [channels], data);
}

/** Constant weights of uint8 become int8, with another zero point. */
function signedWeight(region: Region, { w }: Operands): { weight: ValueId; zero: ValueId } {
  const { data, shape, name } = region.value(w.bytes);
  const shift = data && w.dtype === 'uint8' ? 128 : 0;
  const zeros = Array.from(w.zeros, (zero) => zero - shift);
  const dtype = shift ? 'int8' : (w.dtype as ByteType);
  const weight = shift
    ? region.addValue(
        name,
        'int8',
        shape,
        derive(data!, 'signed', () => Int8Array.from(data as Uint8Array, (byte) => byte - 128)),
      )
    : w.bytes;
  if (zeros.every((zero) => zero === 0)) return { weight, zero: NONE };
  const elements = dtype === 'int8' ? Int8Array.from(zeros) : Uint8Array.from(zeros);
  const kept = derive(data ?? w.scales, `zeros ${zeros.join()}`, () => elements);
  return { weight, zero: region.addValue(`${name}.zero`, dtype, [zeros.length], kept) };
}

/** The step on bytes. `scales` are those of its sums; the output's type is that of `y`. */
function integerLayer(
  region: Region,
  step: WorkStepNamed<'conv' | 'gemm' | 'matmul'>,
  operands: Operands,
  bias: ValueId,
  scales: Float32Array,
  y: ValueId,
  requant: Requantisation,
  act: Activation,
): WorkStep {
  const { node } = step;
  const { op, x, w, transB } = operands;
  const { weight, zero } = signedWeight(region, operands);
  const source = region.value(w.bytes).data ?? w.scales;
  const kept = derive(source, `scales ${scales.join()}`, () => scales);
  const scale = region.addValue(`${node}.scale`, 'float32', [scales.length], kept);
  const { zero: xZero } = x.term;
  const zeroOf = (byte: number) => (x.dtype === 'int8' ? Int8Array.of(byte) : Uint8Array.of(byte));
  const input =
    xZero === 0
      ? NONE
      : region.addValue(
          `${node}.zero`,
          x.dtype,
          [1],
          derive(source, `x ${x.dtype} ${xZero}`, () => zeroOf(xZero)),
        );
  const inputs = [x.bytes, weight, bias, scale, input, zero];
  const outputs = [y];
  if (op === 'qmatmul' || step.op !== 'conv')
    return { op: 'qmatmul', node, inputs, outputs, attrs: { transB, act, requant } };
  const { strides, pads, dilations, group } = step.attrs;
  return { op: 'qconv', node, inputs, outputs, attrs: { strides, pads, dilations, group, act, requant } };
}

function actOf(step: WorkStep): Activation {
  return step.op === 'conv' || step.op === 'gemm' || step.op === 'binary' ? step.attrs.act : NO_ACTIVATION;
}

/** A convolution or matrix product. */
function layer(
  region: Region,
  quantize: WorkStepNamed<'quantize'>,
  before: WorkStep,
  target: Target,
): boolean {
  const operands = operandsOf(region, before);
  const requant = operands && boundsOf(actOf(before), target);
  const bias = requant && integerBias(region, operands);
  if (bias === undefined || !operands || !requant) return false;
  const scales = productScales(operands).map((scale) => scale / target.term.factor);
  if (!scales.every((scale) => scale > 0 && Number.isFinite(scale))) return false;
  const step = before as WorkStepNamed<'conv' | 'gemm' | 'matmul'>;
  const fused = integerLayer(
    region,
    step,
    operands,
    bias,
    scales,
    quantize.outputs[0]!,
    requant,
    NO_ACTIVATION,
  );
  region.replace([before, quantize], [fused]);
  return true;
}

/** A layer of quantised operands whose result stays a float. */
function toFloat(region: Region, step: WorkStep): void {
  const y = step.outputs[0]!;
  if (step.op === 'globalPool' && step.attrs.kind === 'avg') {
    const x = uniformly(region, step.inputs[0]!);
    if (!x) return;
    const size = sizeOf(region.shape(x.bytes).slice(2));
    const terms = [{ zero: x.term.zero, factor: x.term.factor / size }] as const;
    const attrs = { terms, requant: NO_REQUANTISATION };
    region.replace([step], [{ op: 'qglobalPool', node: step.node, inputs: [x.bytes], outputs: [y], attrs }]);
    return;
  }
  const operands = operandsOf(region, step);
  const bias = operands && integerBias(region, operands);
  if (!operands || bias === undefined) return;
  const scales = productScales(operands);
  if (!scales.every((scale) => scale > 0)) return;
  const layer = step as WorkStepNamed<'conv' | 'gemm' | 'matmul'>;
  region.replace(
    [step],
    [integerLayer(region, layer, operands, bias, scales, y, NO_REQUANTISATION, actOf(step))],
  );
}

function sumOrProduct(
  region: Region,
  quantize: WorkStepNamed<'quantize'>,
  before: WorkStep,
  target: Target,
): boolean {
  if (before.op !== 'binary' || (before.attrs.kind !== 'add' && before.attrs.kind !== 'mul')) return false;
  const [a, b] = before.inputs.map((id) => uniformly(region, id));
  const requant = boundsOf(before.attrs.act, target);
  if (!a || !b || !requant) return false;
  const { node, attrs } = before;
  const ratio = (factor: number) => Math.fround(factor / target.term.factor);
  const terms =
    attrs.kind === 'add'
      ? ([
          { zero: a.term.zero, factor: ratio(a.term.factor) },
          { zero: b.term.zero, factor: ratio(b.term.factor) },
        ] as const)
      : ([
          { zero: a.term.zero, factor: ratio(Math.fround(a.term.factor * b.term.factor)) },
          { zero: b.term.zero, factor: 1 },
        ] as const);
  const inputs = [a.bytes, b.bytes];
  const { outputs } = quantize;
  region.replace(
    [before, quantize],
    [{ op: 'qbinary', node, inputs, outputs, attrs: { kind: attrs.kind as 'add', terms, requant } }],
  );
  return true;
}

function globalPool(
  region: Region,
  quantize: WorkStepNamed<'quantize'>,
  before: WorkStep,
  target: Target,
): boolean {
  const x =
    before.op === 'globalPool' && before.attrs.kind === 'avg'
      ? uniformly(region, before.inputs[0]!)
      : undefined;
  if (!x) return false;
  const size = sizeOf(region.shape(x.bytes).slice(2));
  const factor = Math.fround(x.term.factor / Math.fround(target.term.factor * size));
  const attrs = {
    terms: [{ zero: x.term.zero, factor }] as const,
    requant: anyByte(target.dtype, target.term.zero),
  };
  const { node } = before;
  region.replace(
    [before, quantize],
    [{ op: 'qglobalPool', node, inputs: [x.bytes], outputs: quantize.outputs, attrs }],
  );
  return true;
}

/** Steps that take bytes as well as floats, and keep their order. */
const MOVES: ReadonlySet<WorkOp['op']> = new Set([
  'reshape',
  'transpose',
  'slice',
  'expand',
  'concat',
  'gather',
  'pad',
  'pool',
]);

/** A step that only moves elements moves bytes; those with another scale are brought to the target's first. */
function move(
  region: Region,
  quantize: WorkStepNamed<'quantize'>,
  before: WorkStep,
  target: Target,
): boolean {
  if (!MOVES.has(before.op) || before.outputs.length !== 1) return false;
  if (before.op === 'pool' && before.attrs.kind !== 'max') return false;
  const moved = before.op === 'concat' ? before.inputs : before.inputs.slice(0, 1);
  const sources = moved.map((id) => uniformly(region, id));
  if (sources.some((source) => !source)) return false;
  let { attrs } = before;
  if (before.op === 'pad') {
    const value = Number(bytesOf(Float32Array.of(before.attrs.value), target.dtype, target.term)[0]);
    attrs = { ...before.attrs, value };
  }
  const steps: WorkStep[] = [];
  const bytes = sources.map((source) => {
    const { bytes: from, dtype, term } = source!;
    if (dtype === target.dtype && sameTerm(term, target.term)) return from;
    const data = bytesOf(numbersOf(dtype, term), target.dtype, target.term);
    const entries = region.addValue(`${before.node}.table`, target.dtype, [256], data);
    const y = region.addValue(`${before.node}.requantised`, target.dtype, region.shape(from));
    steps.push({ op: 'lookup', node: before.node, inputs: [from, entries], outputs: [y], attrs: {} });
    return y;
  });
  const inputs = [...bytes, ...before.inputs.slice(moved.length)];
  const fused = { ...before, inputs, outputs: quantize.outputs, attrs } as WorkStep;
  region.replace([before, quantize], [...steps, fused]);
  return true;
}

/** Any function of one number, however many steps it takes: a table of its 256 results. */
function table(
  region: Region,
  quantize: WorkStepNamed<'quantize'>,
  _before: WorkStep,
  target: Target,
): boolean {
  const cone = new Cone(region, quantize.inputs[0]!);
  const numbers = cone.evaluate();
  if (!numbers || !cone.source) return false;
  const { source } = cone;
  replaceByLookup(
    region,
    [...cone.ops, quantize],
    source.bytes,
    bytesOf(numbers, target.dtype, target.term),
    target.dtype,
  );
  return true;
}

/**
 * quantize(select(body, shortcut)) = select(quantize(body), quantize(shortcut)): the stream behind a gated block holds bytes, and a
 * shortcut whose bytes don't stay the same goes through a table.
 */
function sinkQuantize(
  region: Region,
  quantize: WorkStepNamed<'quantize'>,
  select: Extract<WorkOp, { op: 'select' }>,
  target: Target,
): boolean {
  const [score, body, shortcut] = select.inputs as [ValueId, ValueId, ValueId];
  const from = uniformly(region, shortcut);
  if (from?.dtype !== target.dtype) return false;
  const numbers = numbersOf(from.dtype, from.term);
  const tensor = (data: Float32Array) => ({ dtype: 'float32', shape: [256], data }) as const;
  const { skipActivation, ...rest } = select.attrs;
  const owed = new Float32Array(256);
  runStep({ op: 'unary', attrs: { act: skipActivation } }, [tensor(numbers)], [tensor(owed)]);
  const entries = bytesOf(owed, target.dtype, target.term);
  const { name, shape } = region.value(body);
  const bytes = region.addValue(`${name}.bytes`, target.dtype, shape);
  const inner: WorkStep = { ...quantize, inputs: [body, ...quantize.inputs.slice(1)], outputs: [bytes] };
  const attrs = { ...rest, skipActivation: NO_ACTIVATION };
  const skipTable = region.addValue(`${name}.table`, target.dtype, [256], entries);
  const fused: WorkOp = {
    ...select,
    inputs: [score, bytes, from.bytes],
    outputs: quantize.outputs,
    attrs: { ...attrs, skipTable },
  };
  region.replace([select, quantize], [inner, fused]);
  return true;
}

/** Rows of a quantised table are picked as bytes. */
function sinkDequantize(region: Region, dequantize: WorkStepNamed<'dequantize'>): boolean {
  const [bytes, ...scaling] = dequantize.inputs as [ValueId, ...ValueId[]];
  const found = dequantised(region, dequantize.outputs[0]!);
  const user = region.usedOnce(dequantize.outputs[0]!) ? region.users(dequantize.outputs[0]!)[0] : undefined;
  const { data, dtype } = region.value(bytes);
  if (!data || found?.scales.length !== 1 || user?.op !== 'gather') return false;
  if (user.inputs[0] !== dequantize.outputs[0] || user.inputs[1] === dequantize.outputs[0]) return false;
  const y = user.outputs[0]!;
  const { name, shape } = region.value(y);
  const moved = region.addValue(`${name}.bytes`, dtype, shape);
  const inputs = [bytes, ...user.inputs.slice(1)];
  const steps: WorkStep[] = [
    { ...user, inputs, outputs: [moved] } as WorkStep,
    { ...dequantize, inputs: [moved, ...scaling], outputs: [y] },
  ];
  region.replace([dequantize, user], steps);
  return true;
}
