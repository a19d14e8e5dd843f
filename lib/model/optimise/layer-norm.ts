/** Recognises layer normalisation and GELU where they are written out. */
import { range, sameShape } from '../../numeric/shapes.js';
import { NONE, type ValueId } from '../program/program.js';
import type { Region, WorkStep, WorkStepNamed } from './region.js';

/** The element of a constant of one element. */
export function scalarOf(region: Region, id: ValueId): number | undefined {
  const { data } = region.value(id);
  return data instanceof Float32Array && data.length === 1 ? data[0] : undefined;
}

/** Both orders of a binary step's operands. */
export function bothOrders(step: WorkStep): [ValueId, ValueId][] {
  const [a, b] = step.inputs as [ValueId, ValueId];
  return [
    [a, b],
    [b, a],
  ];
}

/** The binary step of this kind that produces `id`, without an activation. */
export function plainBinary(
  region: Region,
  id: ValueId,
  kind: WorkStepNamed<'binary'>['attrs']['kind'],
): WorkStepNamed<'binary'> | undefined {
  const step = region.producerOf(id, 'binary');
  return step?.attrs.kind === kind && step.attrs.act.kind === 'none' ? step : undefined;
}

/** x of act(x), where the function is a step of its own or the epilogue of a sum, whose operands are given then. */
function underSquareRoot(region: Region, id: ValueId): readonly [ValueId, ValueId] | undefined {
  const unary = region.producerOf(id, 'unary');
  if (unary && unary.attrs.act.kind !== 'sqrt') return undefined;
  const sum = region.producerOf(unary ? unary.inputs[0]! : id, 'binary');
  const act = unary ? 'none' : 'sqrt';
  if (sum?.attrs.kind !== 'add' || sum.attrs.act.kind !== act) return undefined;
  return sum.inputs as [ValueId, ValueId];
}

interface Centred {
  readonly x: ValueId;
  readonly axes: readonly number[];
}

/** x of mean(x), with its axes kept. */
function meanOf(region: Region, id: ValueId): Centred | undefined {
  const op = region.producer(id);
  const x = op?.inputs[0];
  if (x === undefined || region.shape(id).length !== region.shape(x).length) return undefined;
  if (op?.op === 'reduceMean') return { x, axes: op.attrs.axes };
  // A mean over all axes from the third on.
  if (op?.op === 'globalPool' && op.attrs.kind === 'avg')
    return { x, axes: range(region.shape(x).length).slice(2) };
  return undefined;
}

/** x of x - mean(x). */
function centredOf(region: Region, id: ValueId): Centred | undefined {
  const sub = plainBinary(region, id, 'sub');
  const mean = sub && meanOf(region, sub.inputs[1]!);
  return mean?.x === sub?.inputs[0] ? mean : undefined;
}

const sameCentre = (a: Centred | undefined, b: Centred): boolean => a?.x === b.x && sameShape(a.axes, b.axes);

/** Whether `id` is the square of what `centred` describes; exporters write the difference once or twice. */
function isSquare(region: Region, id: ValueId, centred: Centred): boolean {
  const product = plainBinary(region, id, 'mul');
  return product?.inputs.every((factor) => sameCentre(centredOf(region, factor), centred)) ?? false;
}

/** The epsilon of sqrt(mean(centred^2) + epsilon). */
function deviationOf(region: Region, id: ValueId, centred: Centred): number | undefined {
  const summands = underSquareRoot(region, id);
  if (!summands) return undefined;
  for (const [variance, added] of [summands, [summands[1], summands[0]] as const]) {
    const mean = meanOf(region, variance);
    const epsilon = scalarOf(region, added);
    if (!mean || epsilon === undefined || !sameShape(mean.axes, centred.axes)) continue;
    if (isSquare(region, mean.x, centred)) return epsilon;
  }
  return undefined;
}

/** What divides: d of 1/d, written as a reciprocal or as a quotient. */
function reciprocalOf(region: Region, id: ValueId): ValueId | undefined {
  const unary = region.producerOf(id, 'unary');
  if (unary?.attrs.act.kind === 'reciprocal') return unary.inputs[0];
  const quotient = plainBinary(region, id, 'div');
  return quotient && scalarOf(region, quotient.inputs[0]!) === 1 ? quotient.inputs[1] : undefined;
}

/** (x - mean) / sqrt(variance + epsilon) along one axis, or along all from one on (Ba, Kiros and Hinton, 2016). */
export function matchLayerNorm(region: Region, step: WorkStep): boolean {
  if (step.op !== 'binary' || step.attrs.act.kind !== 'none') return false;
  const { kind } = step.attrs;
  if (kind !== 'div' && kind !== 'mul') return false;
  const isCentred = (i: number) => plainBinary(region, step.inputs[i]!, 'sub') !== undefined;
  if (!isCentred(0) && !isCentred(1)) return false;
  for (const [numerator, other] of kind === 'div' ? bothOrders(step).slice(0, 1) : bothOrders(step)) {
    const centred = centredOf(region, numerator);
    const deviation = kind === 'div' ? other : reciprocalOf(region, other);
    const epsilon = centred && deviation !== undefined ? deviationOf(region, deviation, centred) : undefined;
    if (!centred || epsilon === undefined) continue;
    return replaceByNorm(region, step, centred, epsilon);
  }
  return false;
}

function replaceByNorm(region: Region, step: WorkStep, centred: Centred, epsilon: number): boolean {
  const { x } = centred;
  const { name, shape } = region.value(x);
  const long = centred.axes.filter((axis) => shape[axis] !== 1);
  const axes = long.length > 0 ? long : centred.axes;
  const [first] = axes;
  if (first === undefined) return false;
  const { node, outputs } = step;
  const norm = (from: ValueId, axis: number, to: ValueId): WorkStep => {
    return { op: 'layerNorm', node, inputs: [from, NONE, NONE], outputs: [to], attrs: { axis, epsilon } };
  };
  if (axes.length === 1) {
    region.replace([step], [norm(x, first, outputs[0]!)]);
    return true;
  }
  if (!sameShape(axes, range(shape.length).slice(first))) return false;
  const sizes = (list: readonly number[]) => list.reduce((product, length) => product * length, 1);
  const flat = [sizes(shape.slice(0, first)), sizes(shape.slice(first))];
  const [from, to] = [
    region.addValue(`${name}.rows`, 'float32', flat),
    region.addValue(`${name}.norm`, 'float32', flat),
  ];
  region.replace(
    [step],
    [
      { op: 'reshape', node, inputs: [x], outputs: [from], attrs: {} },
      norm(from, 1, to),
      { op: 'reshape', node, inputs: [to], outputs, attrs: {} },
    ],
  );
  return true;
}

/** A constant for each element of the norm's axis, times its result or added to it, becomes its scale or shift. */
export function scaleLayerNorm(region: Region, step: WorkStep): boolean {
  if (step.op !== 'binary' || step.attrs.act.kind !== 'none') return false;
  const { kind } = step.attrs;
  if (kind !== 'mul' && kind !== 'add') return false;
  const isNorm = (i: number) => region.producer(step.inputs[i]!)?.op === 'layerNorm';
  if (!isNorm(0) && !isNorm(1)) return false;
  for (const [y, vector] of bothOrders(step)) {
    const norm = region.usedOnce(y) ? region.producerOf(y, 'layerNorm') : undefined;
    if (!norm) continue;
    const [x, scale, shift] = norm.inputs as [ValueId, ValueId, ValueId];
    if (shift !== NONE || (kind === 'mul' && scale !== NONE)) continue;
    const row = alongAxis(region, vector, region.shape(y), norm.attrs.axis);
    if (row === undefined) continue;
    const inputs = kind === 'mul' ? [x, row, NONE] : [x, scale, row];
    region.replace([norm, step], [{ ...norm, inputs, outputs: step.outputs }]);
    return true;
  }
  return false;
}

/** A constant that differs along one axis of `shape` only, as a vector. */
export function alongAxis(
  region: Region,
  id: ValueId,
  shape: readonly number[],
  axis: number,
): ValueId | undefined {
  const { name, data, dtype, shape: own } = region.value(id);
  if (!data || dtype !== 'float32' || own.length > shape.length || data.length !== shape[axis])
    return undefined;
  if (own.length === 1 && axis === shape.length - 1) return id;
  if (own[axis - (shape.length - own.length)] !== data.length) return undefined;
  return region.addValue(name, 'float32', [data.length], data);
}

const near = (a: number | undefined, b: number): boolean =>
  a !== undefined && Math.abs(a - b) <= 1e-5 * Math.abs(b);

/** x of the product x * factor or the quotient x / (1 / factor), whatever function follows it. */
function scaledStep(region: Region, step: WorkStepNamed<'binary'>, factor: number): ValueId | undefined {
  const { kind } = step.attrs;
  if (kind === 'mul') return bothOrders(step).find(([, by]) => near(scalarOf(region, by), factor))?.[0];
  return kind === 'div' && near(scalarOf(region, step.inputs[1]!), 1 / factor) ? step.inputs[0] : undefined;
}

/** The same for a value, without a function. */
function scaledBy(region: Region, id: ValueId, factor: number): ValueId | undefined {
  const step = region.producerOf(id, 'binary');
  return step?.attrs.act.kind === 'none' ? scaledStep(region, step, factor) : undefined;
}

/** The step that computes the argument of f in 1 + f(argument); f is a step of its own or that step's epilogue. */
function argumentOf(region: Region, id: ValueId, kind: 'erf' | 'tanh'): WorkStepNamed<'binary'> | undefined {
  const sum = plainBinary(region, id, 'add');
  if (!sum) return undefined;
  for (const [inner, one] of bothOrders(sum)) {
    if (scalarOf(region, one) !== 1) continue;
    const unary = region.producerOf(inner, 'unary');
    const step = region.producerOf(unary?.attrs.act.kind === kind ? unary.inputs[0]! : inner, 'binary');
    const own = unary ? 'none' : kind;
    if (step?.attrs.act.kind === own) return step;
  }
  return undefined;
}

/** sqrt(2/pi) * (x + 0.044715 x^3), whose cube is x * x * x in any order. */
function isTanhArgument(region: Region, step: WorkStepNamed<'binary'>, x: ValueId): boolean {
  const sum = scaledStep(region, step, Math.sqrt(2 / Math.PI));
  const add = sum === undefined ? undefined : plainBinary(region, sum, 'add');
  if (!add) return false;
  return bothOrders(add).some(([left, cubic]) => {
    const cube = left === x ? scaledBy(region, cubic, 0.044715) : undefined;
    const product = cube === undefined ? undefined : plainBinary(region, cube, 'mul');
    if (!product) return false;
    return bothOrders(product).some(([factor, square]) => {
      const inner = factor === x ? plainBinary(region, square, 'mul') : undefined;
      return inner?.inputs.every((each) => each === x) ?? false;
    });
  });
}

/** x * (1 + erf(x / sqrt(2))) / 2, or with tanh (Hendrycks and Gimpel, 2016), with the half at any of its places. */
export function matchGelu(region: Region, step: WorkStep): boolean {
  if (step.op !== 'binary' || step.attrs.kind !== 'mul' || step.attrs.act.kind !== 'none') return false;
  const halved = (id: ValueId) => scaledBy(region, id, 0.5);
  const product = halved(step.outputs[0]!);
  const candidates: [ValueId, ValueId][] = [];
  if (product !== undefined) {
    const inner = plainBinary(region, product, 'mul');
    if (inner && region.usedOnce(product)) candidates.push(...bothOrders(inner));
  }
  for (const [a, b] of bothOrders(step)) {
    const [half, other] = [halved(a), halved(b)];
    if (half !== undefined) candidates.push([half, b]);
    if (other !== undefined) candidates.push([a, other]);
  }
  for (const [x, factor] of candidates) {
    if (!sameShape(region.shape(x), region.shape(step.outputs[0]!))) continue;
    const inner = argumentOf(region, factor, 'erf');
    const exact = inner !== undefined && scaledStep(region, inner, Math.SQRT1_2) === x;
    const argument = exact ? undefined : argumentOf(region, factor, 'tanh');
    if (!exact && (argument === undefined || !isTanhArgument(region, argument, x))) continue;
    const act = { kind: exact ? 'gelu' : 'geluTanh', alpha: 0, beta: 0 } as const;
    region.replace(
      [step],
      [{ op: 'unary', node: step.node, inputs: [x], outputs: step.outputs, attrs: { act } }],
    );
    return true;
  }
  return false;
}
