/** Random integer steps with matching inputs, and what they compute, element by element. */
import fc from 'fast-check';
import type { KernelStep, KernelTensor } from 'lib/kernels/index.js';
import type { Operations } from 'lib/kernels/operations.js';
import { NO_ACTIVATION, type Requantisation, type Term } from 'lib/model/program/program.js';
import type { ValueType } from 'lib/tensor/tensor.js';
import { tensorOf } from './random.js';
import type { StepCase } from './steps.js';

export type ByteType = 'uint8' | 'int8';
const byteType = fc.constantFrom<ByteType>('uint8', 'int8');
const bytes = (type: ValueType, shape: readonly number[]) => tensorOf(type, shape, 'special');
const optional = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined });

const SCALES = [0.5, 0.037, 2 ** -7, 0.0021, 1.25];
const scaleOf = (length: number): fc.Arbitrary<KernelTensor> =>
  fc
    .array(fc.constantFrom(...SCALES), { minLength: length, maxLength: length })
    .map((data) => ({ dtype: 'float32', shape: [length], data: Float32Array.from(data) }));
/** One for all channels, or one for each. */
const lengthFor = (channels: number) => fc.constantFrom(1, channels);

export function boundsOf(type: string): { low: number; high: number } {
  return type === 'int8' ? { low: -128, high: 127 } : { low: 0, high: 255 };
}

const requantOf = (type: ValueType): fc.Arbitrary<Requantisation> => {
  const { low, high } = boundsOf(type);
  return fc
    .tuple(...[0, 1, 2].map(() => fc.integer({ min: low, max: high })))
    .map(([zero, a, b]) => ({ zero: zero!, low: Math.min(a!, b!), high: Math.max(a!, b!) }));
};
const termOf = (type: ByteType): fc.Arbitrary<Term> => {
  const { low, high } = boundsOf(type);
  return fc.record({ zero: fc.integer({ min: low, max: high }), factor: fc.constantFrom(...SCALES) });
};

const scaled = (
  from: (type: ValueType) => ValueType,
  to: (type: ValueType) => ValueType,
  op: 'quantize' | 'dequantize',
) =>
  fc
    .record({
      type: op === 'quantize' ? byteType : fc.constantFrom<ValueType>('uint8', 'int8', 'int32'),
      shape: fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 4 }),
      at: fc.nat(3),
      each: fc.boolean(),
      kept: fc.boolean(),
    })
    .chain(({ type, shape, at, each, kept }) => {
      const axis = at % shape.length;
      const length = each ? shape[axis]! : 1;
      return fc
        .tuple(
          tensorOf(from(type), shape, from(type) === 'float32' ? 'plain' : 'special'),
          scaleOf(length),
          kept ? tensorOf(type, [length]) : fc.constant(undefined),
        )
        .map(
          (inputs): StepCase => ({
            step: { op, attrs: { axis } },
            inputs,
            outputs: [{ dtype: to(type), shape }],
          }),
        );
    });

const dynamicQuantize = fc
  .array(fc.integer({ min: 1, max: 6 }), { maxLength: 3 })
  .chain((shape) => tensorOf('float32', shape))
  .map(
    (x): StepCase => ({
      step: { op: 'dynamicQuantize', attrs: {} },
      inputs: [x],
      outputs: [
        { dtype: 'uint8', shape: x.shape },
        { dtype: 'float32', shape: [] },
        { dtype: 'uint8', shape: [] },
      ],
    }),
  );

/** Bias, scale, both zero points, requantisation and type of the output of a product with `channels`. */
const product = (x: ByteType, w: ByteType, channels: number) =>
  fc.constantFrom<ValueType>('int32', 'float32', 'uint8', 'int8').chain((y) => {
    const sums = y === 'int32';
    const biasType =
      y === 'float32' ? fc.constantFrom<ValueType>('int32', 'float32') : fc.constant('int32' as const);
    const bias = biasType.chain((type) => optional(tensorOf(type, [channels])));
    const zero = (type: ByteType, length: fc.Arbitrary<number>) =>
      optional(length.chain((n) => bytes(type, [n])));
    return fc.record({
      y: fc.constant(y),
      operands: fc.tuple(
        sums ? fc.constant(undefined) : bias,
        sums ? fc.constant(undefined) : lengthFor(channels).chain(scaleOf),
        zero(x, fc.constant(1)),
        zero(w, lengthFor(channels)),
      ),
      requant: y === 'uint8' || y === 'int8' ? requantOf(y) : fc.constant({ zero: 0, low: 0, high: 0 }),
    });
  });

const act = NO_ACTIVATION;

export const QUANTIZED_CASES = (
  conv: fc.Arbitrary<StepCase>,
  matmul: fc.Arbitrary<StepCase>,
  pool: fc.Arbitrary<StepCase>,
) => ({
  quantize: scaled(
    () => 'float32',
    (type) => type,
    'quantize',
  ),
  dequantize: scaled(
    (type) => type,
    () => 'float32',
    'dequantize',
  ),
  dynamicQuantize,
  qconv: fc.tuple(conv, byteType, byteType).chain(([{ step, inputs, outputs }, xType, wType]) => {
    const [x, w] = inputs.map((tensor) => tensor?.shape) as [number[], number[]];
    return fc.tuple(bytes(xType, x), bytes(wType, w), product(xType, wType, w[0]!)).map(
      ([a, b, { y, operands, requant }]): StepCase => ({
        step: { op: 'qconv', attrs: { ...(step.attrs as object), act, requant } } as KernelStep,
        inputs: [a, b, ...operands],
        outputs: [{ dtype: y, shape: outputs[0]!.shape }],
      }),
    );
  }),
  qmatmul: fc
    .tuple(matmul, byteType, byteType, fc.boolean())
    .chain(([{ inputs, outputs }, aType, bType, transB]) => {
      const [a, b] = inputs.map((tensor) => tensor?.shape) as [number[], number[]];
      const right = transB ? [...b.slice(0, -2), b.at(-1)!, b.at(-2)!] : b;
      const { shape } = outputs[0]!;
      return fc.tuple(bytes(aType, a), bytes(bType, right), product(aType, bType, shape.at(-1)!)).map(
        ([left, weight, { y, operands, requant }]): StepCase => ({
          step: { op: 'qmatmul', attrs: { transB, act, requant } },
          inputs: [left, weight, ...operands],
          outputs: [{ dtype: y, shape }],
        }),
      );
    }),
  qbinary: fc
    .tuple(
      byteType,
      byteType,
      byteType,
      fc.array(fc.integer({ min: 1, max: 5 }), { maxLength: 4 }),
      fc.nat(2),
    )
    .chain(([a, b, y, shape, kept]) =>
      fc
        .tuple(
          bytes(a, shape),
          bytes(b, kept === 2 ? shape : shape.slice(kept).map(() => 1)),
          termOf(a),
          termOf(b),
          requantOf(y),
          fc.constantFrom('add' as const, 'mul' as const),
        )
        .map(
          ([left, right, first, second, requant, kind]): StepCase => ({
            step: { op: 'qbinary', attrs: { kind, terms: [first, second], requant } },
            inputs: [left, right],
            outputs: [{ dtype: y, shape }],
          }),
        ),
    ),
  qglobalPool: fc
    .tuple(
      byteType,
      fc.constantFrom<ValueType>('float32', 'uint8', 'int8'),
      fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 3, maxLength: 5 }),
    )
    .chain(([type, y, shape]) =>
      fc
        .tuple(
          bytes(type, shape),
          termOf(type),
          y === 'float32' ? fc.constant({ zero: 0, low: 0, high: 0 }) : requantOf(y),
        )
        .map(
          ([x, term, requant]): StepCase => ({
            step: { op: 'qglobalPool', attrs: { terms: [term], requant } },
            inputs: [x],
            outputs: [{ dtype: y, shape: shape.map((d, axis) => (axis < 2 ? d : 1)) }],
          }),
        ),
    ),
  qpool: fc.tuple(pool, byteType, fc.boolean()).chain(([{ step, inputs, outputs }, type, squares]) =>
    fc.tuple(bytes(type, [...inputs[0]!.shape]), termOf(type)).map(([x, term]): StepCase => {
      const { kernel, strides, pads, dilations } = step.attrs as Operations['pool'];
      return {
        step: { op: 'qpool', attrs: { kernel, strides, pads, dilations, squares, terms: [term] } },
        inputs: [x],
        outputs: [outputs[0]!],
      };
    }),
  ),
  lookup: fc
    .tuple(
      byteType,
      fc.constantFrom<ValueType>('float32', 'uint8', 'int8'),
      fc.array(fc.integer({ min: 1, max: 5 }), { maxLength: 4 }),
    )
    .chain(([type, y, shape]) =>
      fc.tuple(bytes(type, shape), tensorOf(y, [256], y === 'float32' ? 'plain' : 'special')).map(
        (inputs): StepCase => ({
          step: { op: 'lookup', attrs: {} },
          inputs,
          outputs: [{ dtype: y, shape }],
        }),
      ),
    ),
});
