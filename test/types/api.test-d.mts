// Compiled by `npm run typecheck`, never run.
import { expectTypeOf } from 'expect-type';
import {
  type AuditLogStats,
  type BlockInfo,
  type ErrorCode,
  type Feeds,
  InferenceSession,
  type OnnxValue,
  type ResidualSkipError,
  type RunOptions,
  type SessionOptions,
  type SkipPolicy,
  type SkipTrace,
  Tensor,
  type TensorMap,
  type TracedRun,
  type TypedTensor,
  type WatchStats,
} from 'lib/index.js';
import * as ort from 'onnxruntime-common';

const session = await InferenceSession.create('model.onnx', { policy: 'model', threads: 2, isa: 'avx2' });
const x = new Tensor('float32', new Float32Array(4), [1, 4]);

expectTypeOf(x).toEqualTypeOf<Tensor<'float32'>>();
expectTypeOf(x.data).toEqualTypeOf<Float32Array>();
expectTypeOf(new Tensor(new BigInt64Array(1))).toEqualTypeOf<Tensor<'int64'>>();
expectTypeOf(new Tensor([true])).toEqualTypeOf<Tensor<'bool'>>();
expectTypeOf(new Tensor('int64', [1n]).data).toEqualTypeOf<BigInt64Array>();
expectTypeOf(x.reshape([4])).toEqualTypeOf<Tensor<'float32'>>();
// @ts-expect-error no such type
new Tensor('string', ['a']);
// @ts-expect-error the array does not fit the type
new Tensor('float32', new Int32Array(1));
// @ts-expect-error numbers are no booleans
new Tensor('bool', [1]);
// A type that is known at run time alone.
declare const type: Tensor.Type;
expectTypeOf(new Tensor(type, [])).toEqualTypeOf<Tensor>();
expectTypeOf<Tensor.Type>().toEqualTypeOf<Exclude<ort.Tensor.Type, 'string' | 'int4' | 'uint4'>>();
expectTypeOf<Tensor.DataTypeMap['int64']>().toEqualTypeOf<BigInt64Array>();
expectTypeOf<Tensor.DataType>().toEqualTypeOf<
  | Float32Array
  | Float64Array
  | Uint8Array
  | Int8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array
>();
expectTypeOf<Tensor.ElementTypeMap>().toEqualTypeOf<Pick<ort.Tensor.ElementTypeMap, Tensor.Type>>();
expectTypeOf<Tensor.DataTypeMap>().toExtend<Pick<ort.Tensor.DataTypeMap, Tensor.Type>>();
expectTypeOf<TypedTensor<'float32'>>().toEqualTypeOf<Tensor<'float32'>>();
expectTypeOf<OnnxValue>().toEqualTypeOf<Tensor>();

const pixels = { width: 2, height: 2, data: new Uint8ClampedArray(16) };
expectTypeOf(await Tensor.fromImage(pixels)).toEqualTypeOf<Tensor<'float32'>>();
expectTypeOf(await Tensor.fromImage(pixels, { tensorFormat: 'BGR', norm: { mean: 1 } })).toEqualTypeOf<
  Tensor<'float32'>
>();
expectTypeOf(await Tensor.fromImage(pixels, { dataType: 'uint8' })).toEqualTypeOf<Tensor<'uint8'>>();
// Options that code for onnxruntime has made.
declare const imageOptions: Omit<ort.TensorFromImageDataOptions, 'resizedHeight' | 'resizedWidth'>;
expectTypeOf(await Tensor.fromImage(pixels, imageOptions)).toEqualTypeOf<
  Tensor<'float32'> | Tensor<'uint8'>
>();
// @ts-expect-error nothing is resized
await Tensor.fromImage(pixels, { resizedWidth: 1 });
// @ts-expect-error a file is no pixels
await Tensor.fromImage('cat.jpg');

expectTypeOf(await session.run({ x })).toEqualTypeOf<TensorMap>();
// The type tells what the data are.
const { y } = await session.run({ x });
if (y?.type === 'int64') expectTypeOf(y.data).toEqualTypeOf<BigInt64Array>();
expectTypeOf(await session.run({ x }, { policy: 'full' })).toEqualTypeOf<TensorMap>();
expectTypeOf(await session.run({ x }, ['y'])).toEqualTypeOf<TensorMap>();
expectTypeOf(await session.run({ x }, { y: null, z: x })).toEqualTypeOf<TensorMap>();
expectTypeOf(await session.runTraced({ x })).toEqualTypeOf<TracedRun>();
expectTypeOf(await session.runTraced({ x }, ['y'], { policy: 'full' })).toEqualTypeOf<TracedRun>();
expectTypeOf(session.runSync({ x })).toEqualTypeOf<TensorMap>();
expectTypeOf(session.runTracedSync({ x }).trace).toEqualTypeOf<SkipTrace>();
// @ts-expect-error runTraced returns traces
await session.run({ x }, { trace: true });
// Tensors of onnxruntime are taken as they are.
await session.run({ x: new ort.Tensor('float32', new Float32Array(4), [1, 4]) });
// @ts-expect-error runSync has no signal
session.runSync({ x }, { signal: new AbortController().signal });
// Options of onnxruntime that a CPU can honour, and its names of types.
const options: InferenceSession.SessionOptions = {
  executionProviders: ['cpu'],
  intraOpNumThreads: 1,
  graphOptimizationLevel: 'all',
  logSeverityLevel: 3,
} satisfies ort.InferenceSession.SessionOptions;
await InferenceSession.create(new URL('file:///model.onnx'), options);
await InferenceSession.create(new ArrayBuffer(8), 4, 4, options);
expectTypeOf<InferenceSession.FeedsType>().toEqualTypeOf<Feeds>();
expectTypeOf<InferenceSession.ReturnType>().toEqualTypeOf<TensorMap>();
expectTypeOf<InferenceSession.SessionOptions>().toEqualTypeOf<SessionOptions>();
expectTypeOf<InferenceSession.RunOptions>().toEqualTypeOf<RunOptions>();
expectTypeOf<Parameters<typeof session.run>[1]>().toExtend<InferenceSession.FetchesType | undefined>();
// What onnxruntime returns is what this package takes, and the other way round where types are the same.
declare const results: ort.InferenceSession.ReturnType;
await session.run(results);
const runOptions: RunOptions = {
  tag: 'a',
  extra: {},
  terminate: false,
} satisfies ort.InferenceSession.RunOptions;
await session.run({ x }, runOptions);
// @ts-expect-error misspelt
await InferenceSession.create('model.onnx', { polcy: 'full' });
// @ts-expect-error an array is no tensor
await session.run({ x: [1, 2] });

expectTypeOf<SkipTrace['items'][number]['blocks'][number]['reason']>().toEqualTypeOf<
  'gate' | 'policy' | 'fixed' | 'tripped' | 'exit' | 'guard'
>();
expectTypeOf(session.blocks).toEqualTypeOf<readonly BlockInfo[]>();
expectTypeOf(session.inputMetadata[0]!.shape).toEqualTypeOf<readonly (number | string)[]>();
expectTypeOf(session.stats().watch).toEqualTypeOf<WatchStats | undefined>();
expectTypeOf(session.stats().watch2).toEqualTypeOf<WatchStats | undefined>();
expectTypeOf(session.stats().auditLog).toEqualTypeOf<AuditLogStats | undefined>();
expectTypeOf(session.stats().ofAnotherObserver).toEqualTypeOf<unknown>();
expectTypeOf(session).toExtend<AsyncDisposable>();
expectTypeOf<ResidualSkipError['code']>().toEqualTypeOf<ErrorCode>();

const policy = {
  default: 'skip',
  blocks: { 'layer1.0': { threshold: 0.5 }, 3: 'run' },
} as const satisfies SkipPolicy;
await InferenceSession.create(new Uint8Array(), { policy });
// @ts-expect-error no such action
await InferenceSession.create(new ArrayBuffer(1), { policy: { blocks: { a: 'maybe' } } });
