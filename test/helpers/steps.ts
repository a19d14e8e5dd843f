/** Random steps of every kind with matching inputs. */
import fc from 'fast-check';
import { DATA_TYPES } from 'lib/backends/encode.js';
import type { KernelStep, KernelTensor } from 'lib/kernels/index.js';
import {
  ACTIVATION_KINDS,
  type Activation,
  BINARY_KINDS,
  COMPARE_KINDS,
  GLOBAL_POOL_KINDS,
  NO_ACTIVATION,
  PAD_MODES,
  type PadMode,
  REDUCE_KINDS,
  SCATTER_KINDS,
} from 'lib/model/program/program.js';
import type { ValueType } from 'lib/tensor/tensor.js';
import { QUANTIZED_CASES } from './quantized-steps.js';
import { type Fill, tensorOf } from './random.js';

export interface StepCase {
  readonly step: KernelStep;
  readonly inputs: readonly (KernelTensor | undefined)[];
  readonly outputs: readonly { readonly dtype: ValueType; readonly shape: readonly number[] }[];
}

const numeric = fc.constantFrom(...DATA_TYPES.filter((type) => type !== 'bool'));
const integral = fc.constantFrom(...DATA_TYPES.filter((type) => type !== 'bool' && type !== 'float32'));
const dtype = fc.constantFrom(...DATA_TYPES);
const fill = fc.constantFrom<Fill>('plain', 'special');
const dim = fc.integer({ min: 1, max: 6 });
const shapeOf = (min: number, max: number) => fc.array(dim, { minLength: min, maxLength: max });
const channels = fc.integer({ min: 1, max: 20 });

const functions: fc.Arbitrary<Activation> = fc.constantFrom(...ACTIVATION_KINDS).map((kind) => {
  switch (kind) {
    case 'leakyRelu':
      return { kind, alpha: 0.125, beta: 0 };
    case 'clip':
      return { kind, alpha: -0.25, beta: 0.75 };
    case 'hardSigmoid':
      return { kind, alpha: 0.25, beta: 0.5 };
    case 'elu':
    case 'celu':
      return { kind, alpha: 0.75, beta: 0 };
    case 'selu':
      return { kind, alpha: 1.75, beta: 1.0625 };
    default:
      return { kind, alpha: 0, beta: 0 };
  }
});

/** Activations without steep slopes or jumps, so that they don't amplify the rounding errors of their inputs. */
export const activations = functions.filter(
  ({ kind }) => !['exp', 'log', 'sqrt', 'reciprocal', 'sign', 'floor', 'ceil', 'round'].includes(kind),
);

const optional = (tensor: fc.Arbitrary<KernelTensor>) => fc.option(tensor, { nil: undefined });

function all<T>(arbitraries: readonly fc.Arbitrary<T>[]): fc.Arbitrary<T[]> {
  return fc.tuple(...arbitraries) as unknown as fc.Arbitrary<T[]>;
}

/** One spatial axis: all its parameters. */
const axis = fc
  .record({
    kernel: fc.integer({ min: 1, max: 4 }),
    stride: fc.integer({ min: 1, max: 3 }),
    dilation: fc.integer({ min: 1, max: 2 }),
    begin: fc.integer({ min: 0, max: 2 }),
    end: fc.integer({ min: 0, max: 2 }),
    extra: fc.integer({ min: 0, max: 9 }),
  })
  .map(({ kernel, stride, dilation, begin, end, extra }) => {
    const reach = (kernel - 1) * dilation + 1;
    const input = Math.max(1, reach - begin - end) + extra;
    return {
      kernel,
      stride,
      dilation,
      begin,
      end,
      input,
      output: Math.floor((input + begin + end - reach) / stride) + 1,
    };
  });
type Axis = typeof axis extends fc.Arbitrary<infer T> ? T : never;
const axes = fc.oneof(
  { weight: 4, arbitrary: fc.array(axis, { minLength: 2, maxLength: 2 }) },
  { weight: 1, arbitrary: fc.array(axis, { minLength: 1, maxLength: 1 }) },
  { weight: 1, arbitrary: fc.array(axis, { minLength: 3, maxLength: 3 }) },
);

function windowOf(list: readonly Axis[]) {
  return {
    strides: list.map((a) => a.stride),
    pads: [...list.map((a) => a.begin), ...list.map((a) => a.end)],
    dilations: list.map((a) => a.dilation),
  };
}

const batch = fc.integer({ min: 1, max: 2 });

const conv = fc
  .record({
    batch,
    axes,
    act: activations,
    group: fc.constantFrom(1, 1, 2, 3),
    in: channels,
    out: channels,
    depthwise: fc.boolean(),
  })
  .chain((c) => {
    const group = c.depthwise ? c.in : c.group;
    const groupIn = c.depthwise ? 1 : Math.ceil(c.in / group);
    const out = c.depthwise ? c.in : Math.ceil(c.out / group) * group;
    const x = [c.batch, groupIn * group, ...c.axes.map((a) => a.input)];
    const w = [out, groupIn, ...c.axes.map((a) => a.kernel)];
    const y = [c.batch, out, ...c.axes.map((a) => a.output)];
    return fc
      .tuple(
        tensorOf('float32', x),
        tensorOf('float32', w),
        optional(tensorOf('float32', [out])),
        optional(tensorOf('float32', y)),
      )
      .map(
        (inputs): StepCase => ({
          step: { op: 'conv', attrs: { ...windowOf(c.axes), group, act: c.act } },
          inputs,
          outputs: [{ dtype: 'float32', shape: y }],
        }),
      );
  });

const gemm = fc
  .record({ m: dim, k: channels, n: channels, transB: fc.boolean(), act: activations })
  .chain(({ m, k, n, transB, act }) =>
    fc
      .tuple(
        tensorOf('float32', [m, k]),
        tensorOf('float32', transB ? [n, k] : [k, n]),
        optional(tensorOf('float32', [n])),
        optional(tensorOf('float32', [m, n])),
      )
      .map(
        (inputs): StepCase => ({
          step: { op: 'gemm', attrs: { transB, act } },
          inputs,
          outputs: [{ dtype: 'float32', shape: [m, n] }],
        }),
      ),
  );

/** Shapes that broadcast to `shape`: some axes have length 1, and some leading axes are missing. */
function broadcastable(shape: readonly number[]): fc.Arbitrary<number[]> {
  return fc
    .record({
      ones: fc.array(fc.boolean(), { minLength: shape.length, maxLength: shape.length }),
      drop: fc.integer({ min: 0, max: shape.length }),
    })
    .map(({ ones, drop }) => shape.map((d, i) => (ones[i] ? 1 : d)).slice(drop));
}

function broadcastShape(...shapes: readonly (readonly number[])[]): number[] {
  const rank = Math.max(...shapes.map((s) => s.length));
  return Array.from({ length: rank }, (_, i) => Math.max(...shapes.map((s) => s[s.length - rank + i] ?? 1)));
}

const matmul = fc
  .record({ batch: shapeOf(0, 2), m: dim, k: channels, n: channels })
  .chain(({ batch: lead, m, k, n }) =>
    fc.tuple(broadcastable(lead), broadcastable(lead)).chain(([a, b]) =>
      fc.tuple(tensorOf('float32', [...a, m, k]), tensorOf('float32', [...b, k, n])).map(
        (inputs): StepCase => ({
          step: { op: 'matmul', attrs: {} },
          inputs,
          outputs: [{ dtype: 'float32', shape: [...broadcastShape(a, b), m, n] }],
        }),
      ),
    ),
  );

const affine = fc
  .record({ shape: shapeOf(0, 3), n: batch, c: channels, act: activations, fill })
  .chain(({ shape, n, c, act, fill: kind }) => {
    const x = [n, c, ...shape];
    return fc.tuple(tensorOf('float32', x, kind), tensorOf('float32', [c]), tensorOf('float32', [c])).map(
      (inputs): StepCase => ({
        step: { op: 'affine', attrs: { act } },
        inputs,
        outputs: [{ dtype: 'float32', shape: x }],
      }),
    );
  });

/** A step with one tensor, made from its shape. */
function ofOne(
  min: number,
  max: number,
  make: (shape: number[]) => fc.Arbitrary<{ step: KernelStep; shape: number[] }>,
  {
    type = fc.constant<ValueType>('float32'),
    result,
  }: { type?: fc.Arbitrary<ValueType>; result?: ValueType } = {},
): fc.Arbitrary<StepCase> {
  return fc.tuple(shapeOf(min, max), type, fill).chain(([shape, t, kind]) =>
    fc.tuple(tensorOf(t, shape, kind), make(shape)).map(([x, { step, shape: y }]) => ({
      step,
      inputs: [x],
      outputs: [{ dtype: result ?? t, shape: y }],
    })),
  );
}

const axisOf = (shape: readonly number[]) => fc.integer({ min: 0, max: shape.length - 1 });

const unary = ofOne(0, 4, (shape) =>
  functions.map((act) => ({ step: { op: 'unary', attrs: { act } }, shape })),
);

/** Steps with two or three broadcast operands, by the types of operands and result. */
function broadcasting(
  step: fc.Arbitrary<KernelStep>,
  types: fc.Arbitrary<{ inputs: ValueType[]; output: ValueType }>,
): fc.Arbitrary<StepCase> {
  return fc.tuple(step, types, shapeOf(0, 4), fill).chain(([s, { inputs, output }, shape, kind]) =>
    all(inputs.map((type) => broadcastable(shape).chain((part) => tensorOf(type, part, kind)))).map(
      (tensors) => ({
        step: s,
        inputs: tensors,
        outputs: [{ dtype: output, shape: broadcastShape(...tensors.map((t) => t.shape)) }],
      }),
    ),
  );
}

const binary = fc.oneof(
  broadcasting(
    fc
      .tuple(fc.constantFrom(...BINARY_KINDS), activations)
      .map(([kind, act]): KernelStep => ({ op: 'binary', attrs: { kind, act } })),
    fc.constant({ inputs: ['float32', 'float32'], output: 'float32' }),
  ),
  broadcasting(
    fc
      .constantFrom(...BINARY_KINDS)
      .map((kind): KernelStep => ({ op: 'binary', attrs: { kind, act: NO_ACTIVATION } })),
    integral.map((t) => ({ inputs: [t, t], output: t })),
  ),
);

const compare = broadcasting(
  fc.constantFrom(...COMPARE_KINDS).map((kind): KernelStep => ({ op: 'compare', attrs: { kind } })),
  dtype.map((t) => ({ inputs: [t, t], output: 'bool' })),
);

const logical = fc.oneof(
  broadcasting(
    fc
      .constantFrom('and' as const, 'or' as const)
      .map((kind): KernelStep => ({ op: 'logical', attrs: { kind } })),
    fc.constant({ inputs: ['bool', 'bool'], output: 'bool' }),
  ),
  broadcasting(
    fc.constant<KernelStep>({ op: 'logical', attrs: { kind: 'not' } }),
    fc.constant({ inputs: ['bool'], output: 'bool' }),
  ),
);

const where = broadcasting(
  fc.constant<KernelStep>({ op: 'where', attrs: {} }),
  dtype.map((t) => ({ inputs: ['bool', t, t], output: t })),
);

const cast = fc.tuple(dtype, shapeOf(0, 3), fill).chain(([from, shape, kind]) =>
  fc.tuple(tensorOf(from, shape, kind), dtype).map(
    ([x, to]): StepCase => ({
      step: { op: 'cast', attrs: {} },
      inputs: [x],
      outputs: [{ dtype: to, shape }],
    }),
  ),
);

const pool = fc
  .record({
    batch,
    c: channels,
    axes,
    kind: fc.constantFrom('max' as const, 'avg' as const),
    fill,
    countIncludePad: fc.boolean(),
    withIndices: fc.boolean(),
    columnMajorIndices: fc.boolean(),
    ceil: fc.boolean(),
  })
  .chain((p) => {
    const x = [p.batch, p.c, ...p.axes.map((a) => a.input)];
    const y = [p.batch, p.c, ...p.axes.map((a) => (p.ceil ? ceilOutput(a) : a.output))];
    const withIndices = p.withIndices && p.kind === 'max';
    const { kind, countIncludePad, columnMajorIndices } = p;
    const kernel = p.axes.map((a) => a.kernel);
    return tensorOf('float32', x, p.fill).map(
      (tensor): StepCase => ({
        step: {
          op: 'pool',
          attrs: { ...windowOf(p.axes), kind, kernel, countIncludePad, columnMajorIndices },
        },
        inputs: [tensor],
        outputs: [
          { dtype: 'float32', shape: y },
          ...(withIndices ? [{ dtype: 'int64' as const, shape: y }] : []),
        ],
      }),
    );
  });

/** Like ONNX's ceil_mode: the last window counts if it begins inside the input or its begin padding. */
function ceilOutput({ input, begin, end, kernel, stride, dilation }: Axis): number {
  const reach = (kernel - 1) * dilation + 1;
  const count = Math.ceil((input + begin + end - reach) / stride) + 1;
  return (count - 1) * stride >= input + begin ? count - 1 : count;
}

const globalPool = ofOne(3, 5, ([n, c, ...rest]) =>
  fc.tuple(fc.constantFrom(...GLOBAL_POOL_KINDS), fc.boolean()).map(([kind, keep]) => ({
    step: { op: 'globalPool', attrs: { kind } },
    shape: [n!, c!, ...(keep ? rest.map(() => 1) : [])],
  })),
);

const reduceMean = ofOne(1, 4, (shape) =>
  fc
    .tuple(
      fc.subarray(
        shape.map((_, i) => i),
        { minLength: 1 },
      ),
      fc.boolean(),
    )
    .map(([reduced, keep]) => ({
      step: { op: 'reduceMean', attrs: { axes: reduced } },
      shape: keep
        ? shape.map((d, i) => (reduced.includes(i) ? 1 : d))
        : shape.filter((_, i) => !reduced.includes(i)),
    })),
);

const softmax = ofOne(1, 4, (shape) =>
  fc
    .tuple(axisOf(shape), fc.boolean())
    .map(([at, log]) => ({ step: { op: 'softmax', attrs: { axis: at, log } }, shape })),
);

const argMax = ofOne(
  1,
  4,
  (shape) =>
    fc.tuple(axisOf(shape), fc.boolean(), fc.boolean()).map(([at, selectLast, keep]) => ({
      step: { op: 'argMax', attrs: { axis: at, selectLast } },
      shape: keep ? shape.map((d, i) => (i === at ? 1 : d)) : shape.filter((_, i) => i !== at),
    })),
  { result: 'int64' },
);

const topK = fc
  .record({ shape: shapeOf(1, 4), largest: fc.boolean(), dtype: fc.constantFrom('float32', 'int64'), fill })
  .chain(({ shape, largest, dtype, fill: kind }) =>
    axisOf(shape).chain((at) =>
      fc.tuple(fc.nat(shape[at]!), tensorOf(dtype, shape, kind)).map(([count, x]): StepCase => {
        const found = shape.with(at, count);
        return {
          step: { op: 'topK', attrs: { axis: at, largest } },
          inputs: [x],
          outputs: [
            { dtype, shape: found },
            { dtype: 'int64', shape: found },
          ],
        };
      }),
    ),
  );

const oneHot = fc
  .record({
    shape: shapeOf(0, 3),
    depth: dim,
    indexType: fc.constantFrom<ValueType>('int64', 'int32', 'float32'),
    valueType: dtype,
    fill,
  })
  .chain(({ shape, depth, indexType, valueType, fill: kind }) =>
    fc
      .tuple(
        tensorOf(indexType, shape, kind),
        tensorOf(valueType, [2]),
        fc.integer({ min: 0, max: shape.length }),
      )
      .map(
        ([x, values, at]): StepCase => ({
          step: { op: 'oneHot', attrs: { axis: at, depth } },
          inputs: [x, values],
          outputs: [{ dtype: valueType, shape: [...shape.slice(0, at), depth, ...shape.slice(at)] }],
        }),
      ),
  );

const gather = fc.tuple(dtype, shapeOf(1, 3)).chain(([type, shape]) =>
  fc.record({ at: axisOf(shape), ids: shapeOf(0, 2), wide: fc.boolean() }).chain(({ at, ids, wide }) => {
    const length = shape[at]!;
    const count = ids.reduce((a, b) => a * b, 1);
    const index = fc.integer({ min: -length, max: length - 1 });
    return fc.tuple(tensorOf(type, shape), fc.array(index, { minLength: count, maxLength: count })).map(
      ([data, list]): StepCase => ({
        step: { op: 'gather', attrs: { axis: at } },
        inputs: [
          data,
          wide
            ? { dtype: 'int64', shape: ids, data: BigInt64Array.from(list, BigInt) }
            : { dtype: 'int32', shape: ids, data: Int32Array.from(list) },
        ],
        outputs: [{ dtype: type, shape: [...shape.slice(0, at), ...ids, ...shape.slice(at + 1)] }],
      }),
    );
  }),
);

const transpose = ofOne(
  1,
  5,
  (shape) =>
    fc
      .shuffledSubarray(
        shape.map((_, i) => i),
        { minLength: shape.length },
      )
      .map((perm) => ({ step: { op: 'transpose', attrs: { perm } }, shape: perm.map((a) => shape[a]!) })),
  { type: dtype },
);

/** Begin and end of one axis of length d. ONNX requires that a reflecting pad is shorter than the axis. */
const padsOf = (d: number, mode: PadMode) => {
  const one = fc.integer({ min: -Math.floor((d - 1) / 2), max: 7 });
  return fc.tuple(one, one).map(([begin, end]) => {
    const size = d + Math.min(begin, 0) + Math.min(end, 0);
    const most = mode === 'reflect' ? size - 1 : 7;
    return [Math.min(begin, most), Math.min(end, most)] as const;
  });
};

const pad = fc
  .tuple(
    ofOne(
      1,
      4,
      (shape) =>
        fc.constantFrom(...PAD_MODES).chain((mode) =>
          all(shape.map((d) => padsOf(d, mode))).map((pairs) => {
            const pads = [...pairs.map(([begin]) => begin), ...pairs.map(([, end]) => end)];
            return {
              step: { op: 'pad', attrs: { pads, mode } },
              shape: shape.map((d, i) => d + pads[i]! + pads[i + shape.length]!),
            };
          }),
        ),
      { type: dtype },
    ),
    fill,
  )
  .chain(([one, kind]) =>
    optional(tensorOf(one.outputs[0]!.dtype, [], kind)).map((value) => ({
      ...one,
      inputs: [...one.inputs, value],
    })),
  );

const slice = ofOne(
  1,
  4,
  (shape) =>
    all(
      shape.map((d) =>
        fc.tuple(fc.integer({ min: 0, max: d - 1 }), fc.constantFrom(1, 2, -1, -2)).chain(([start, step]) => {
          const room = step > 0 ? d - 1 - start : start;
          const most = Math.floor(room / Math.abs(step)) + 1;
          return fc.integer({ min: 0, max: most }).map((length) => ({ start, step, length }));
        }),
      ),
    ).map((parts) => ({
      step: {
        op: 'slice',
        attrs: { starts: parts.map((p) => p.start), steps: parts.map((p) => p.step) },
      },
      shape: parts.map((p) => p.length),
    })),
  { type: dtype },
);

const concat = fc
  .tuple(dtype, shapeOf(1, 4), fc.array(dim, { minLength: 1, maxLength: 4 }))
  .chain(([type, shape, lengths]) =>
    axisOf(shape).chain((at) =>
      all(
        lengths.map((length) =>
          tensorOf(
            type,
            shape.map((d, i) => (i === at ? length : d)),
          ),
        ),
      ).map(
        (inputs): StepCase => ({
          step: { op: 'concat', attrs: { axis: at } },
          inputs,
          outputs: [
            {
              dtype: type,
              shape: shape.map((d, i) => (i === at ? lengths.reduce((a, b) => a + b, 0) : d)),
            },
          ],
        }),
      ),
    ),
  );

const reshape = ofOne(
  0,
  4,
  (shape) =>
    fc.constantFrom([...shape].reverse(), [shape.reduce((a, b) => a * b, 1)], [1, ...shape]).map((y) => ({
      step: { op: 'reshape', attrs: {} },
      shape: y,
    })),
  { type: dtype },
);

const expand = fc.tuple(dtype, shapeOf(0, 4)).chain(([type, shape]) =>
  broadcastable(shape).chain((part) =>
    tensorOf(type, part).map(
      (x): StepCase => ({
        step: { op: 'expand', attrs: {} },
        inputs: [x],
        outputs: [{ dtype: type, shape }],
      }),
    ),
  ),
);

const reduce = ofOne(
  1,
  4,
  (shape) =>
    fc
      .tuple(
        fc.constantFrom(...REDUCE_KINDS),
        fc.subarray(
          shape.map((_, i) => i),
          { minLength: 1 },
        ),
        fc.boolean(),
      )
      .map(([kind, reduced, keep]) => ({
        step: { op: 'reduce', attrs: { kind, axes: reduced } },
        shape: keep
          ? shape.map((d, i) => (reduced.includes(i) ? 1 : d))
          : shape.filter((_, i) => !reduced.includes(i)),
      })),
  { type: numeric },
);

const cumSum = ofOne(
  1,
  4,
  (shape) =>
    fc.tuple(axisOf(shape), fc.boolean(), fc.boolean()).map(([at, exclusive, reverse]) => ({
      step: { op: 'cumSum', attrs: { axis: at, exclusive, reverse } },
      shape,
    })),
  { type: numeric },
);

/** Indices into an axis of `length`, counted from the end too. */
function indicesOf(lengths: readonly number[], shape: readonly number[]): fc.Arbitrary<KernelTensor> {
  const count = shape.reduce((a, b) => a * b, 1);
  return fc
    .tuple(
      fc.boolean(),
      all(
        Array.from({ length: count }, (_, i) => {
          const length = lengths[i % lengths.length]!;
          return fc.integer({ min: -length, max: length - 1 });
        }),
      ),
    )
    .map(([wide, list]) =>
      wide
        ? { dtype: 'int64', shape, data: BigInt64Array.from(list, BigInt) }
        : { dtype: 'int32', shape, data: Int32Array.from(list) },
    );
}

const resample = fc.tuple(shapeOf(1, 4), dim, dim).chain(([shape, count, taps]) =>
  axisOf(shape).chain((at) => {
    const places = fc.array(fc.nat(shape[at]! - 1), { minLength: count * taps, maxLength: count * taps });
    const operands = fc.tuple(tensorOf('float32', shape), places, tensorOf('float32', [count, taps]));
    return operands.map(
      ([x, list, weights]): StepCase => ({
        step: { op: 'resample', attrs: { axis: at } },
        inputs: [x, { dtype: 'int32', shape: [count, taps], data: Int32Array.from(list) }, weights],
        outputs: [{ dtype: 'float32', shape: shape.with(at, count) }],
      }),
    );
  }),
);

/** Data, and the shape of indices of the same rank that are no longer but on one axis. */
const elementwiseIndices = fc.tuple(dtype, shapeOf(1, 3), dim).chain(([type, shape, count]) =>
  fc.tuple(axisOf(shape), all(shape.map((d) => fc.integer({ min: 1, max: d })))).chain(([at, lengths]) => {
    const own = lengths.with(at, count);
    return fc.tuple(tensorOf(type, shape), indicesOf([shape[at]!], own), fc.constant(at));
  }),
);

/** The same, with an index for each slice of 36 elements; the last element may have that of the first slice. */
const expandedIndices = fc
  .tuple(dtype, dim, dim, dim, fc.boolean())
  .chain(([type, outer, length, count, isOdd]) =>
    fc
      .tuple(tensorOf(type, [outer, length, 4, 9]), indicesOf([length], [outer * count]))
      .map(([data, { dtype: indexType, data: list }]): [KernelTensor, KernelTensor, number] => {
        const wide = list.slice().constructor as BigInt64ArrayConstructor;
        const expanded = wide.from(
          { length: 36 * list.length },
          (_, i) => list[Math.floor(i / 36)] as bigint,
        );
        if (isOdd) expanded[expanded.length - 1] = list[0] as bigint;
        return [data, { dtype: indexType, shape: [outer, count, 4, 9], data: expanded }, 1];
      }),
  );

const gatherElements = elementwiseIndices.map(
  ([data, indices, at]): StepCase => ({
    step: { op: 'gatherElements', attrs: { axis: at } },
    inputs: [data, indices],
    outputs: [{ dtype: data.dtype, shape: indices.shape }],
  }),
);

/** bool has no products of its own: those and min are and, sums and max are or. */
const scatterElements = fc
  .tuple(fc.oneof(elementwiseIndices, expandedIndices), fc.constantFrom(...SCATTER_KINDS))
  .chain(([[data, indices, at], reduction]) =>
    tensorOf(data.dtype, indices.shape).map(
      (updates): StepCase => ({
        step: { op: 'scatterElements', attrs: { axis: at, reduction } },
        inputs: [data, indices, updates],
        outputs: [{ dtype: data.dtype, shape: data.shape }],
      }),
    ),
  );

/** Data, indices whose rows name slices behind the first axes, and the shape of what they name. */
const slices = (most: number) =>
  fc.tuple(dtype, shapeOf(1, 4), shapeOf(0, 2)).chain(([type, shape, rows]) =>
    fc.integer({ min: 0, max: Math.min(most, shape.length - 1) }).chain((batchDims) =>
      fc.integer({ min: 1, max: shape.length - batchDims }).chain((depth) => {
        const lead = [...shape.slice(0, batchDims), ...rows];
        const indices = indicesOf(shape.slice(batchDims, batchDims + depth), [...lead, depth]);
        const found = [...lead, ...shape.slice(batchDims + depth)];
        return fc.record({
          data: tensorOf(type, shape),
          indices,
          found: fc.constant(found),
          batchDims: fc.constant(batchDims),
        });
      }),
    ),
  );

const gatherNd = slices(2).map(
  ({ data, indices, found, batchDims }): StepCase => ({
    step: { op: 'gatherNd', attrs: { batchDims } },
    inputs: [data, indices],
    outputs: [{ dtype: data.dtype, shape: found }],
  }),
);

const scatterNd = fc
  .tuple(slices(0), fc.constantFrom(...SCATTER_KINDS))
  .chain(([{ data, indices, found }, reduction]) =>
    tensorOf(data.dtype, found).map(
      (updates): StepCase => ({
        step: { op: 'scatterNd', attrs: { reduction } },
        inputs: [data, indices, updates],
        outputs: [{ dtype: data.dtype, shape: data.shape }],
      }),
    ),
  );
const layerNorm = shapeOf(1, 4).chain((shape) =>
  axisOf(shape).chain((at) =>
    fc
      .tuple(
        tensorOf('float32', shape),
        optional(tensorOf('float32', [shape[at]!])),
        optional(tensorOf('float32', [shape[at]!])),
        fc.constantFrom(1e-5, 0.1),
      )
      .map(
        ([x, scale, shift, epsilon]): StepCase => ({
          step: { op: 'layerNorm', attrs: { axis: at, epsilon } },
          inputs: [x, scale, shift],
          outputs: [{ dtype: 'float32', shape }],
        }),
      ),
  ),
);

/** Heads behind rows, as projections leave them, or before; keys with the heads of all or one for all. */
const attention = fc
  .record({
    batch: fc.integer({ min: 1, max: 2 }),
    heads: fc.integer({ min: 1, max: 3 }),
    queries: fc.integer({ min: 1, max: 40 }),
    keys: fc.integer({ min: 1, max: 40 }),
    depth: fc.integer({ min: 1, max: 9 }),
    valueDepth: fc.integer({ min: 1, max: 20 }),
    rowsFirst: fc.boolean(),
    shared: fc.boolean(),
    masked: fc.boolean(),
    joint: fc.boolean(),
    replaces: fc.boolean(),
  })
  .chain(({ rowsFirst, shared, masked, joint, replaces, ...extents }) => {
    const { batch, heads, queries, keys, depth, valueDepth } = extents;
    const view = (own: number, rows: number, columns: number) =>
      rowsFirst
        ? { offset: 0, batch: own * rows * columns, head: columns, row: own * columns, column: 1 }
        : { offset: 0, batch: own * rows * columns, head: rows * columns, row: columns, column: 1 };
    const own = shared ? 1 : heads;
    const key = { ...view(own, keys, depth), ...(shared && { head: 0 }) };
    // Where one tensor holds keys and values, values are behind all keys.
    const value = {
      ...view(own, keys, valueDepth),
      ...(shared && { head: 0 }),
      offset: joint ? batch * own * keys * depth : 0,
    };
    const both = [batch * own * keys * (depth + valueDepth)];
    const mask = { offset: 0, batch: keys, head: 0, row: 0, column: 1 };
    const attrs = {
      ...extents,
      scale: 1 / Math.sqrt(depth),
      replaces,
      q: view(heads, queries, depth),
      k: key,
      v: value,
      mask,
      y: view(heads, queries, valueDepth),
    };
    return fc
      .tuple(
        tensorOf('float32', [batch, heads * queries * depth]),
        tensorOf('float32', joint ? both : [batch, own * keys * depth]),
        tensorOf('float32', joint ? both : [batch, own * keys * valueDepth]),
        masked ? tensorOf('float32', [batch, keys]) : fc.constant(undefined),
      )
      .map(
        ([q, k, v, added]): StepCase => ({
          step: { op: 'attention', attrs },
          inputs: [q, k, joint ? k : v, added],
          outputs: [{ dtype: 'float32', shape: [batch, heads * queries * valueDepth] }],
        }),
      );
  });

export const STEP_CASES: { readonly [Op in KernelStep['op']]: fc.Arbitrary<StepCase> } = {
  conv,
  gemm,
  matmul,
  affine,
  unary,
  binary,
  compare,
  logical,
  where,
  cast,
  pool,
  globalPool,
  reduceMean,
  softmax,
  layerNorm,
  attention,
  argMax,
  topK,
  oneHot,
  gather,
  transpose,
  pad,
  slice,
  concat,
  reshape,
  expand,
  ...QUANTIZED_CASES(conv, matmul, pool),
  reduce,
  cumSum,
  resample,
  gatherElements,
  gatherNd,
  scatterElements,
  scatterNd,
};
